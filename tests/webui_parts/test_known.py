"""What is refused before a picture begins."""

from types import SimpleNamespace

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.errors import UnsupportedModelError

MODEL = SimpleNamespace(model=SimpleNamespace(diffusion_model=None))


@pytest.mark.parametrize(("chosen", "active"), [("TensorRT", None), (None, "TensorRT"), (None, None)])
def test_am_is_refused_where_the_settings_choose_an_sd_unet_and_where_one_runs(webui, monkeypatch, chosen, active):
    """The WebUI changes the one that runs as it begins to sample."""
    part, config = webui("known"), FamConfig()
    monkeypatch.setattr(webui.unets, "get_unet_option", lambda: chosen)
    monkeypatch.setattr(webui.unets, "current_unet", active)
    monkeypatch.setattr(part, "up_blocks", lambda network: [])
    monkeypatch.setattr(part, "select_sites", lambda blocks, sites: [])
    for unet, sampling in ((chosen, False), (active, True)):
        if unet is None:
            part.check_model(MODEL, config, sampling=sampling)
        else:
            with pytest.raises(UnsupportedModelError, match="SD Unet"):
                part.check_model(MODEL, config, sampling=sampling)
        part.check_model(MODEL, config.replace(am=False), sampling=sampling)
