"""What is noted of a hires pass."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport
from fam_ext.recipe import Enlarged, Source
from tests.webui_parts.conftest import Txt2Img


@pytest.mark.parametrize(("calls", "ran"), [(0, False), (1, True)])
def test_a_pass_that_ended_before_the_network_was_called_is_not_fam_s(webui, monkeypatch, calls, ran):
    """An interrupt while the upscaler runs: FM is asked before each call, and then there is none."""
    part, latent = webui("steered"), torch.zeros(1, 4, 8, 8)
    made = Enlarged(Source(latent=latent), GuideReport(fm_calls=1), steps=5)
    monkeypatch.setattr(part, "enlarge", lambda *asked, **named: made)
    p = Txt2Img(steps=5, sd_model=None, sampler=SimpleNamespace(model_wrap_cfg=SimpleNamespace(step=calls)))
    session = webui("session").open_session(p, FamConfig(am=False), MagicMock())
    session.source = Source(latent=latent)
    monkeypatch.setattr(part, "check_model", lambda *asked, **named: None)
    passes = []
    setattr(p, webui("session").PASSES_ATTRIBUTE, passes)
    part.steered(session, MagicMock())(p, latent, latent, None, None)
    assert session.ran_in(0) == ran and 0 in session.reports
    assert passes == [(session.reports[0], 5)]


def sdxl(*keys):
    """Return a checkpoint whose y ends with what `keys` name."""

    def ids(values):
        return values.repeat_interleave(256, dim=1)

    embedders = [MagicMock(side_effect=ids, input_key=key) for key in keys]
    return MagicMock(conditioner=SimpleNamespace(embedders=embedders))


def test_the_refiner_s_conditioning_is_left_alone_after_the_base_s(webui, monkeypatch):
    part, opts = webui("steered"), webui.shared.opts
    opts.upcast_attn, opts.sdxl_crop_top, opts.sdxl_crop_left = False, 16, 8
    size, target = ("original_size_as_tuple", "crop_coords_top_left"), "target_size_as_tuple"
    traits, y = part._traits(), torch.ones(2, 2560)
    monkeypatch.setattr(webui.shared, "sd_model", sdxl(*size, target), raising=False)
    ends = traits.native_vector(y, (8, 12))[1, -1536:]
    assert ends[::256].tolist() == [64, 96, 16, 8, 64, 96]
    monkeypatch.setattr(webui.shared, "sd_model", sdxl(*size, "aesthetic_score"))
    assert torch.equal(traits.native_vector(y, (8, 12)), y)
