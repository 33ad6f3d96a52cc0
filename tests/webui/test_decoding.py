"""What the VAE gives is looked at before it is saved: the WebUI itself looks at one value."""

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.webui.server import encoded

FAM = {"enabled": True}


@pytest.fixture(scope="module")
def server(start, checkpoints):
    server = start()
    weights, prefix = load_file(checkpoints / "fluent-tiny.safetensors"), "first_stage_model."
    place = server.data / "models" / "VAE"
    place.mkdir(parents=True, exist_ok=True)
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    bias = own["decoder.conv_out.bias"]
    save_file(own, place / "good.safetensors")
    flat = {"decoder.conv_out.weight": own["decoder.conv_out.weight"] * 0, "decoder.conv_out.bias": bias * 0 - 1}
    save_file(own | flat, place / "black.safetensors")
    holes = bias.clone()
    holes[2] = float("nan")  # one channel: the first value, which the WebUI looks at, is a number
    save_file(own | {"decoder.conv_out.bias": holes}, place / "holes.safetensors")
    server.ask("/sdapi/v1/refresh-vae", {})
    return server


def saved(server):
    return sorted(path for path in server.data.rglob("*.png") if "outputs" in path.parts)


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
@pytest.mark.parametrize(("vae", "fault"), [("black", "one flat colour"), ("holes", "not finite"), ("good", None)])
def test_a_picture_that_is_none_is_an_error_and_not_saved(server, tab, vae, fault):
    before = saved(server)
    more = {"override_settings": {"sd_vae": f"{vae}.safetensors"}, "save_images": True, "prompt": "a red apple"}
    if tab == "img2img":
        picture = Image.effect_noise((64, 64), 80).convert("RGB")
        more |= {"init_images": [encoded(picture)], "width": 128, "height": 128}
    answer = server.generate(FAM, tab=tab, **more)
    if fault is None:
        assert answer.status == 200 and len(saved(server)) == len(before) + 1, answer.error
        assert answer.fam["FAM version"]
    else:
        assert answer.status != 200 and f"the decoded picture is {fault}" in answer.error
        assert "--no-half-vae" in answer.error
        assert saved(server) == before
    # nothing stays behind
    plain = server.generate(override_settings={"sd_vae": "good.safetensors"})
    assert plain.status == 200 and not plain.fam


def test_soft_inpainting_sees_the_latent_that_fam_made(server):
    """The WebUI's own script makes its masks from it, and fails on a picture that is decoded already."""
    picture, mask = Image.effect_noise((64, 64), 80).convert("RGB"), Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    fields = {"init_images": [encoded(picture)], "mask": encoded(mask), "width": 128, "height": 128}
    fields |= {"override_settings": {"sd_vae": "good.safetensors"}}
    others = {"soft inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}
    before = len(server.log())
    made = server.generate(FAM, tab="img2img", inpaint_full_res=False, others=others, **fields)
    assert made.fam and "Soft inpainting enabled: True" in made.infotexts[0], made.error
    assert "Error" not in server.log()[before:], server.log()[before:]
