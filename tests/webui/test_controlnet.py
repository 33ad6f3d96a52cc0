"""The ControlNet extension beside FAM, where the WebUI has it. Reference-only needs no further weights."""

import pytest

from tests.webui.server import encoded

SD15 = {"override_settings": {"sd_model_checkpoint": "tiny-sd15.safetensors"}}


@pytest.fixture(scope="module")
def server(webui, start):
    extension = webui[0] / "extensions" / "sd-webui-controlnet"
    if not extension.is_dir():
        pytest.skip(f"no ControlNet extension in {extension}")
    server = start(extension=extension)
    yield server
    server.stop()


def test_reference_only_goes_before_am(server, native_picture):
    # it runs the network on the reference first, and its layers attend to that in the picture's own run
    unit = {"enabled": True, "module": "reference_only", "model": "None", "image": encoded(native_picture)}
    controlnet = {"ControlNet": {"args": [unit]}}
    pictures = {}
    for name, fam, others in (
        ("plain", None, None),
        ("reference", None, controlnet),
        ("FAM", {}, None),
        ("both", {}, controlnet),
        ("both without AM", {"am": False}, controlnet),
        ("FAM again", {}, None),
        ("reference again", None, controlnet),
    ):
        answer = server.generate(fam, others=others, **SD15)
        assert answer.status == 200, answer.error
        assert bool(answer.fam) == (fam is not None)
        if fam is not None:
            assert server.last_pass() == ((4, 4, 12, 3) if name.startswith("FAM") else (4, 4, 0, 0))
        pictures[name] = answer.pixels[0]
    assert pictures["FAM again"] == pictures["FAM"] and pictures["reference again"] == pictures["reference"]
    assert pictures["both"] == pictures["both without AM"]
    assert len(set(pictures.values())) == 4
