"""Model files through spandrel itself: what it recognises, and its networks in tiles."""

import importlib
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fam_ext.errors import ConfigError, UnsupportedModelError
from fam_ext.upscalers import load
from tests.upscalers.tiny import FILTERS, state_dict

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def spandrel():
    """spandrel, in a torch that its torchvision does not fit too: two networks that do not enlarge take from it."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError):
            functional = ModuleType("torchvision.transforms.functional")
            for name in ("InterpolationMode", "rotate", "normalize"):
                setattr(functional, name, None)
            for name in ("torchvision", "torchvision.transforms"):
                patch.setitem(sys.modules, name, ModuleType(name))
            patch.setitem(sys.modules, functional.__name__, functional)
        return pytest.importorskip("spandrel", reason="needs spandrel: make upscalers, or make setup")


@pytest.fixture
def file(tmp_path):
    save_file(state_dict(), tmp_path / "my model.safetensors")
    return tmp_path / "my model.safetensors"


def picture(width, height):
    rows, columns = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(rows / period + columns / (period + 3)) for period in (3, 7, 19)]
    return Image.fromarray(np.stack(waves, -1).astype(np.uint8))


def test_an_esrgan_is_recognised_and_named_by_its_file_and_its_own_architecture(file):
    upscaler = load(file)
    assert (upscaler.name, upscaler.scale, upscaler.dtype) == ("my model (ESRGAN 4x)", 4, torch.float32)
    assert load(file) is upscaler  # kept
    save_file(state_dict(2), file)
    assert load(file) is not upscaler


def test_it_computes_what_the_network_computes(file, spandrel):
    image = picture(40, 30)
    model = spandrel.ModelLoader().load_from_file(file)
    given = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255
    wanted = (model(given)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert len(np.unique(wanted)) > 50
    assert np.array_equal(np.asarray(load(file).enlarge(image, (120, 160))), wanted)


@pytest.mark.parametrize("width, height", [(150, 90), (131, 64)])
def test_tiles_give_what_the_whole_picture_gives(file, width, height):
    size = height * 4, width * 4
    whole = np.asarray(load(file).enlarge(picture(width, height), size, tile=0)).astype(int)
    tiled = np.asarray(load(file).enlarge(picture(width, height), size, tile=96)).astype(int)
    assert np.abs(tiled - whole).max() <= 1 and whole.std() > 10


def test_weights_in_a_pickle_and_in_half_precision_are_read(file, tmp_path):
    state = state_dict()
    torch.save({"params_ema": {name: tensor.half() for name, tensor in state.items()}}, tmp_path / "half.pth")
    image = picture(24, 24)
    half, full = (np.asarray(load(path).enlarge(image, (96, 96))).astype(int) for path in (tmp_path / "half.pth", file))
    assert np.abs(half - full).max() <= 2


def test_bfloat16_is_taken_when_asked(file):
    assert load(file, dtype=torch.bfloat16).dtype == torch.bfloat16
    image = picture(24, 24)
    short = np.asarray(load(file, dtype=torch.bfloat16).enlarge(image, (96, 96))).astype(int)
    assert np.abs(short - np.asarray(load(file).enlarge(image, (96, 96)))).mean() < 3


def test_a_number_format_that_a_network_cannot_do_is_refused(file, spandrel, monkeypatch):
    known = spandrel.ImageModelDescriptor.__init__

    def without_half(model, *given, **more):
        known(model, *given, **{**more, "supports_half": False})

    monkeypatch.setattr(spandrel.ImageModelDescriptor, "__init__", without_half)
    with pytest.raises(ConfigError, match=r"my model.* \(ESRGAN\) cannot run in torch\.float16; choose float32"):
        load(file, dtype=torch.float16)


def without_a_weight():
    state = state_dict()
    del state["body.0.rdb2.conv3.weight"]
    return state


def grey():
    return {
        **state_dict(),
        "conv_first.weight": torch.zeros(FILTERS, 1, 3, 3),
        "conv_last.weight": torch.zeros(1, FILTERS, 3, 3),
        "conv_last.bias": torch.zeros(1),
    }


def denoiser():
    """DnCNN's layout, whose output is as large as its input."""
    state = {"model.0.weight": torch.zeros(8, 3, 3, 3), "model.0.bias": torch.zeros(8)}
    for layer in range(2, 18, 2):
        state |= {f"model.{layer}.weight": torch.zeros(8, 8, 3, 3), f"model.{layer}.bias": torch.zeros(8)}
    return {**state, "model.18.weight": torch.zeros(3, 8, 3, 3), "model.18.bias": torch.zeros(3)}


@pytest.mark.parametrize(
    "state, sentence",
    [
        (lambda: {"something": torch.zeros(3)}, r"weights of no architecture that spandrel .* knows; give a super-"),
        (without_a_weight, r"the weights in model\.safetensors do not fit their architecture"),
        (grey, r"model\.safetensors makes 1 channels of 1; give one for RGB pictures"),
        (denoiser, r"model\.safetensors is DnCNN for Restoration at 1x; give a super-resolution model"),
    ],
    ids=["unknown", "broken", "grey", "denoiser"],
)
def test_weights_of_something_else_are_refused_in_one_sentence(tmp_path, state, sentence):
    save_file(state(), tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=sentence) as caught:
        load(tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)
