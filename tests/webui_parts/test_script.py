"""The script's callbacks, as the WebUI calls them around one generation."""

import os
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import GuideReport
from tests.webui_parts.conftest import Img2Img, Txt2Img


@pytest.mark.parametrize("model", ["tiny.safetensors", SimpleNamespace(name="tiny.safetensors")])
def test_the_checkpoint_that_is_asked_for_is_looked_up_by_its_name(webui, monkeypatch, model):
    """With PNG info, img2img's Batch overrides the checkpoint by the WebUI's own entry of it."""
    part, looked_up = webui("script"), []
    monkeypatch.setattr(part, "checkpoint", lambda name, in_part: looked_up.append((name, in_part)))
    monkeypatch.setattr(part, "begin", lambda *asked, **named: None)
    script = part.FamHiresScript()
    script.is_img2img = True
    p = Img2Img(override_settings={"sd_model_checkpoint": model})
    script.before_process(p)
    script.process(p, {"preset": "balanced"})
    assert looked_up == [("tiny.safetensors", False)] and not p.comments


@pytest.fixture
def last(webui, tmp_path, monkeypatch):
    """Return the WebUI's file of its last generation, which it has written before it sampled."""
    monkeypatch.setattr(webui("last"), "data_path", str(tmp_path))
    (tmp_path / "params.txt").write_text("before")
    return tmp_path / "params.txt"


def ended(webui, reports):
    """End a generation of which `reports` say what ran, by iteration."""
    p = Txt2Img()
    session = webui("session").open_session(p, FamConfig(), MagicMock())
    session.reports = reports
    processed = SimpleNamespace(images=["made"], infotext=lambda p, index: f"picture {index}\nFAM é")
    webui("script").FamHiresScript().postprocess(p, processed)
    assert not p.comments


def test_the_last_generation_is_written_anew_with_what_ran(webui, last):
    ended(webui, {0: GuideReport(3), 1: GuideReport(3)})
    assert last.read_text(encoding="utf-8") == "picture 0\nFAM é" and list(last.parent.iterdir()) == [last]


def test_the_last_generation_is_left_alone_where_fam_did_not_run_on_it(webui, last, monkeypatch):
    for reports in ({}, {0: GuideReport()}, {1: GuideReport(3)}):
        ended(webui, reports)
    monkeypatch.setattr(webui.shared.cmd_opts, "no_prompt_history", True)
    ended(webui, {0: GuideReport(3)})
    assert last.read_text() == "before"


def test_a_last_generation_that_cannot_be_written_ends_nothing(webui, last, monkeypatch):
    def full(*asked):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    ended(webui, {0: GuideReport(3)})
    assert last.read_text() == "before" and list(last.parent.iterdir()) == [last]
    assert not webui.shared.state.interrupted
