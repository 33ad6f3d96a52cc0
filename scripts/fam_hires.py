"""What the WebUI loads. Everything lies in `fam_ext.webui`."""

import logging

from fam_ext.hosts.detect import SUPPORTED, detect

if detect() in SUPPORTED:
    from fam_ext.webui import callbacks
    from fam_ext.webui.script import FamHiresScript  # noqa: F401  # the WebUI finds the class in this module

    callbacks.register()
else:
    logging.getLogger(__name__).error(
        "FAM Hires does not run in %s yet; it runs in %s", detect() or "this program", ", ".join(SUPPORTED)
    )
