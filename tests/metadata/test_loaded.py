"""A picture that is open already says the same as its file does in a folder."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fam_ext.metadata.infotext import parse, request_value
from fam_ext.metadata.loaded import infotext_of_image
from fam_ext.metadata.pictures import read_header

A1111 = "a red barn\nNegative prompt: fog\nSteps: 21, Sampler: Euler a, CFG scale: 5.5, Seed: 777, Size: 64x48"
GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red barn", "clip": ["1", 1]}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["1", 1]}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
    "5": {
        "class_type": "KSampler",
        "inputs": {
            **{"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]},
            **{"seed": 777, "steps": 21, "cfg": 5.5, "sampler_name": "euler_ancestral", "scheduler": "normal"},
            "denoise": 1.0,
        },
    },
    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
    "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
}
INVOKE = {
    **{"positive_prompt": "a red barn", "negative_prompt": "fog", "seed": 777, "steps": 21, "cfg_scale": 5.5},
    **{"scheduler": "euler_a", "generation_mode": "txt2img", "app_version": "4.2.0", "width": 64, "height": 48},
}


def opened(texts: dict[str, str]) -> tuple[Image.Image, bytes]:
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "PNG", pnginfo=info)
    image = Image.open(io.BytesIO(buffer.getvalue()))
    image.load()
    return image, buffer.getvalue()


@pytest.mark.parametrize(
    "texts",
    [{"parameters": A1111}, {"prompt": json.dumps(GRAPH)}, {"invokeai_metadata": json.dumps(INVOKE)}],
    ids=["A1111", "ComfyUI", "InvokeAI"],
)
def test_an_open_picture_says_what_its_file_says(texts: dict[str, str]) -> None:
    image, data = opened(texts)
    found, of_file = parse(infotext_of_image(image)), read_header(data).settings()[0]
    assert of_file is not None
    assert (found.prompt, found.negative_prompt) == (of_file.prompt, of_file.negative_prompt) == ("a red barn", "fog")
    for name in ("seed", "steps", "cfg_scale", "sampler"):
        assert request_value(found.params, name) == request_value(of_file.params, name) is not None


def test_a_picture_that_says_nothing_has_no_infotext(tmp_path: Path) -> None:
    assert infotext_of_image(Image.new("RGB", (8, 8))) == ""
    image, _ = opened({"Software": "a photo editor"})
    assert infotext_of_image(image) == ""
