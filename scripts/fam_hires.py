"""What the WebUI loads. Everything lies in `fam_ext.webui`."""

from fam_ext.webui import callbacks
from fam_ext.webui.script import FamHiresScript  # noqa: F401  # the WebUI finds the class in this module

callbacks.register()
