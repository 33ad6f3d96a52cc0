"""The files of fam_ext.webui without a WebUI: what they import of one is stood in for, and gone afterwards."""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

STOOD_IN_FOR = ("modules", "gradio", "fastapi")
OURS = ("fam_ext.webui", "fam_ext.ui")
"""Packages that import them."""


class _StandIns(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in STOOD_IN_FOR else None

    def create_module(self, spec):
        return MagicMock(name=spec.name, __path__=[], __spec__=spec, __name__=spec.name)

    def exec_module(self, module):
        pass


class Processing:
    """The WebUI's object p, before it samples."""

    is_api = False
    is_hr_pass = False
    iteration = 0
    seeds = None
    script_args = ()
    scripts = None

    def __init__(self, **fields):
        self.extra_generation_params, self.override_settings, self.comments = {}, {}, []
        self.__dict__.update(fields)

    def comment(self, text):
        self.comments.append(text)


class Txt2Img(Processing):
    enable_hr = True
    firstpass_image = None
    hr_checkpoint_info = None
    hr_upscaler = "Latent"


class Img2Img(Processing):
    pass


class Decoded(list):
    already_decoded = True


@pytest.fixture(scope="module")
def webui():
    """Return a function that imports a file of fam_ext.webui by name; `webui.shared` and others are the stand-ins."""
    before, finder = dict(sys.modules), _StandIns()
    sys.meta_path.insert(0, finder)
    try:
        shared, processing, scripts, fastapi = map(
            importlib.import_module, ("modules.shared", "modules.processing", "modules.scripts", "fastapi")
        )
        shared.state = SimpleNamespace(interrupted=False, skipped=False)
        shared.opts = SimpleNamespace(fam_default_preset="balanced", use_old_hires_fix_width_height=False)
        shared.latent_upscale_modes, shared.sd_upscalers = {"Latent": {}}, []
        shared.cmd_opts = SimpleNamespace(no_prompt_history=False)
        importlib.import_module("modules.sd_models").checkpoint_aliases = {}
        processing.StableDiffusionProcessing = Processing
        processing.StableDiffusionProcessingTxt2Img = Txt2Img
        processing.StableDiffusionProcessingImg2Img = Img2Img
        processing.DecodedSamples = Decoded
        processing.decode_latent_batch = lambda model, batch: Decoded()
        scripts.Script = object
        fastapi.HTTPException = Exception
        importlib.import_module("modules.paths_internal").data_path = "nowhere"

        unets = importlib.import_module("modules.sd_unet")
        unets.current_unet, unets.get_unet_option = None, lambda: None

        def part(name):
            return importlib.import_module(f"fam_ext.webui.{name}")

        part.shared, part.processing, part.unets = shared, processing, unets
        yield part
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in STOOD_IN_FOR or name.startswith(OURS):
                del sys.modules[name]


@pytest.fixture(autouse=True)
def at_rest(webui):
    """Each test begins with a WebUI that does nothing."""
    webui.shared.state.interrupted = webui.shared.state.skipped = False
