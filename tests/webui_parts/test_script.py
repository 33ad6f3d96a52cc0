"""The script's callbacks, as the WebUI calls them around one generation."""

from types import SimpleNamespace

import pytest

from tests.webui_parts.conftest import Img2Img


@pytest.mark.parametrize("model", ["tiny.safetensors", SimpleNamespace(name="tiny.safetensors")])
def test_the_checkpoint_that_is_asked_for_is_looked_up_by_its_name(webui, monkeypatch, model):
    """With PNG info, img2img's Batch overrides the checkpoint by the WebUI's own entry of it."""
    part, looked_up = webui("script"), []
    monkeypatch.setattr(part, "checkpoint", looked_up.append)
    monkeypatch.setattr(part, "begin", lambda *asked, **named: None)
    script = part.FamHiresScript()
    script.is_img2img = True
    p = Img2Img(override_settings={"sd_model_checkpoint": model})
    script.before_process(p)
    script.process(p, {"preset": "balanced"})
    assert looked_up == ["tiny.safetensors"] and not p.comments
