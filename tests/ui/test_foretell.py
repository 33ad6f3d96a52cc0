"""What the accordion says before Generate."""

import pytest

from fam_ext.options.presets import PresetStore
from fam_ext.ui.foretell import Hires, foretold, hires_target
from fam_ext.ui.outlook import picture_outlook
from fam_ext.ui.pace import Pace


def said(start=0.7, problem="", own_upsampling=False, **hires):
    values = {"on": True, "upscaler": "Lanczos", "native": (768, 512), "target": (1536, 1024), **hires}
    return foretold(Hires(**values), start=start, own_upsampling=own_upsampling, problem=problem)


def test_it_says_what_it_takes_over():
    usual = said()
    assert "512 x 768 to 1024 x 1536 px" in usual and "denoising strength is not used: it starts at 0.7" in usual
    assert "starts from noise" in said(start=1.0)
    assert "Lanczos enlarges" in said(upscaler="None")
    assert "pixel upscaler" in said(upscaler="Latent (bicubic)") and "pixel upscaler" not in usual
    assert "Its upscaler is not used" in said(own_upsampling=True)


@pytest.mark.parametrize(
    ("words", "hires"),
    [
        ("Hires. fix is off", {"on": False}),
        ("choose a larger size there", {"target": (768, 512)}),
        ("cannot steer", {"problem": "FAM cannot steer checkpoint x"}),
    ],
)
def test_what_stops_it_is_an_error(words, hires):
    assert words in said(**hires) and "fam-error" in said(**hires)


@pytest.mark.parametrize(
    ("width", "height", "target"),
    [(0, 0, (1152, 768)), (1024, 0, (1536, 1024)), (0, 1536, (1536, 1024)), (640, 704, (704, 640))],
)
def test_the_target_is_that_of_hires_fix(width, height, target):
    assert hires_target((768, 512), scale=1.5, width=width, height=height) == target


@pytest.mark.parametrize(("start", "idle"), [(0.35, True), (0.4, False)])
def test_a_part_that_will_not_act_is_said_before_start(tmp_path, start, idle):
    words = {"preset": "balanced", "scale": 2.0, "start": start}
    found = picture_outlook((512, 512), "", words, store=PresetStore(tmp_path), pace=Pace(), memory=None)
    assert ("AM does not act" in found.panel) == idle
