"""The WebUI's setting "For hires fix, use width/height sliders to set final resolution"."""

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.options.request import HiresRequest


@pytest.mark.parametrize(("old", "sizes"), [(False, ((768, 512), (1536, 1024))), (True, ((640, 448), (768, 512)))])
def test_the_accordion_says_the_sizes_that_the_webui_will_make(webui, monkeypatch, old, sizes):
    part = webui("foretell")
    monkeypatch.setattr(webui.shared.opts, "use_old_hires_fix_width_height", old)
    monkeypatch.setattr(part, "old_hires_fix_first_pass_dimensions", lambda width, height: (448, 640))
    assert part._sizes((768, 512), scale=2, width=0, height=0) == sizes


def test_a_finished_picture_keeps_its_own_size_as_the_native_one(webui, monkeypatch):
    part = webui("renderer")
    monkeypatch.setattr(part, "has_vae", lambda name: True)
    request = HiresRequest((128, 128), config=FamConfig())
    assert part._overrides(request)["use_old_hires_fix_width_height"] is False
