"""The composition root in a WebUI: the only package besides `hosts` that imports `modules`.

`scripts/fam_hires.py` imports it while the WebUI loads its scripts; everything it needs is imported then, for the
extension's folder leaves the import path afterwards.
"""
