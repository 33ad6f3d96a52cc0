"""A model file that is none, or a machine that cannot read one: one sentence, and nothing in the file runs."""

import argparse
import os
import pickle
import sys
import warnings

import pytest
import torch

from fam_ext.errors import UnsupportedModelError, UsageError
from fam_ext.upscalers import _weights, load

MARKS = []


class Runs:
    """What does something when it is unpickled."""

    def __reduce__(self):
        return MARKS.append, ("it ran",)


def test_without_spandrel_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match=r"needs the package spandrel, which .* pip install 'fam-hires\[upscalers\]'"):
        load(tmp_path / "model.safetensors")


def test_a_torchvision_of_another_torch_is_named(tmp_path, monkeypatch):
    (tmp_path / "spandrel.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nand more')")
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "model.pth").touch()
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "model.pth")
    assert str(caught.value) == (
        "spandrel does not load (operator torchvision::nms does not exist); install the torchvision that belongs to"
        f" torch {torch.__version__}"
    )


def test_a_file_that_is_not_there_is_said_before_spandrel_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UsageError, match=r"none\.pth cannot be read \(No such file or directory\); give a super-"):
        load(tmp_path / "none.pth")


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UsageError, match=r"pipe\.pth is no file; give a super-resolution model file"):
        load(tmp_path / "pipe.pth")


def objects(file):
    torch.save({"params": {"weight": torch.zeros(2)}, "options": argparse.Namespace(a=1)}, file)


def script(file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is old
        torch.jit.script(torch.nn.Linear(2, 2)).save(file)


def cut(file):
    torch.save({"weight": torch.zeros(200)}, file)
    file.write_bytes(file.read_bytes()[:600])


NOT_WEIGHTS = {
    "empty.pth": (lambda file: file.touch(), r"empty\.pth cannot be read as weights \(EOFError\)"),
    "empty.safetensors": (lambda file: file.touch(), "cannot be read as weights .*header"),
    "text.safetensors": (lambda file: file.write_text("a text, not a model"), "cannot be read as weights .*header"),
    "text.pth": (lambda file: file.write_text("hello there"), "cannot be read as weights"),
    "cut.pth": (cut, "cannot be read as weights"),
    "folder.pth": (lambda file: file.mkdir(), "cannot be read as weights .*Is a directory"),
    "script.pt": (script, "cannot be read as weights .*TorchScript"),
    "runs.pth": (lambda file: torch.save({"weight": Runs()}, file), "broken or holds more than weights, and no code"),
    "pickle.ckpt": (lambda file: file.write_bytes(pickle.dumps(Runs())), "broken or holds more than weights"),
    "old.pth": (lambda file: file.write_bytes(pickle.dumps(Runs(), 2)), "broken or holds more than weights"),
    "objects.pth": (objects, "broken or holds more than weights"),
    "list.pth": (lambda file: torch.save([torch.zeros(2)], file), "holds no weights by name"),
    "model.onnx": (lambda file: file.touch(), r"model\.onnx is not a \.safetensors, \.pth, "),
}


@pytest.mark.parametrize("name", NOT_WEIGHTS)
def test_what_is_no_file_of_weights_is_refused_in_one_sentence(tmp_path, name):
    write, sentence = NOT_WEIGHTS[name]
    write(tmp_path / name)
    with pytest.raises(UnsupportedModelError, match=sentence) as caught:
        _weights(tmp_path / name)
    said = str(caught.value)
    assert "give" in said and "\n" not in said and len(said) < 250
    assert MARKS == []


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_of_weights_alone_is_read(tmp_path, old):
    torch.save({"weight": torch.arange(3.0)}, tmp_path / "model.pth", _use_new_zipfile_serialization=not old)
    assert _weights(tmp_path / "model.pth")["weight"].tolist() == [0, 1, 2]
