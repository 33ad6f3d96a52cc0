"""A model in the making, kept in half of fp16's room and made whole again."""

from __future__ import annotations

from pathlib import Path

import keep
import pytest
import torch
import unet
from safetensors.torch import load_file

from .conftest import build_model

pytestmark = pytest.mark.slow  # it builds a model


def test_what_was_kept_is_the_model_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, kept, again = tmp_path / "model", tmp_path / "kept", tmp_path / "again"
    build_model(model)
    keep.main([str(model), str(kept)])
    assert not (kept / "vae").exists()
    keep.main(["--back", str(kept), str(again), "--vae", str(model / "vae")])
    files = {path.relative_to(model) for path in model.rglob("*") if path.is_file()}
    assert files == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    for name in keep.WEIGHTS:
        assert (kept / name).stat().st_size < (again / name).stat().st_size
        wanted, found = load_file(model / name), load_file(again / name)
        assert wanted.keys() == found.keys()
        for key, value in wanted.items():
            largest = value.float().abs().flatten(1).amax(1) if value.dim() > 1 else value.float().abs()
            error = (found[key].float() - value.float()).abs()
            error = error.flatten(1).amax(1) if value.dim() > 1 else error
            assert (error <= largest * 0.005 + 1e-6).all(), key
    with pytest.raises(SystemExit, match="exists; give a folder that does not"):
        keep.main([str(model), str(kept)])
    with pytest.raises(SystemExit):
        keep.main(["--back", str(kept), str(tmp_path / "other")])
    assert "--back and --vae go together" in capsys.readouterr().err
    assert {value.dtype for value in load_file(again / keep.WEIGHTS[0]).values()} == {torch.float16}
    assert len(unet.Model(again).state_dict()) == len(unet.Model(model).state_dict())
