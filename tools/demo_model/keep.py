"""Keep a model in the making in half of fp16's room, to go on from elsewhere, and make it whole again.

    python tools/demo_model/keep.py .work/materials/model tools/demo_model/next/model
    python tools/demo_model/keep.py --back tools/demo_model/next/model .work/materials/model --vae .work/materials/vae

The VAE is left out: it is next/vae's. `unet.py --start` and `train_materials.py` go on from what `--back` writes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from training import read_small, write_small

WEIGHTS = ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")


def copied(model: Path, target: Path) -> None:
    """Copy `model` without its weights and VAE to the new folder `target`."""
    if target.exists():
        raise SystemExit(f"{target} exists; give a folder that does not")
    names = [Path(name).name for name in WEIGHTS]
    shutil.copytree(model, target, ignore=shutil.ignore_patterns("vae", *names))


def keep(model: Path, target: Path) -> None:
    copied(model, target)
    for name in WEIGHTS:
        write_small(load_file(model / name), target / name)


def back(kept: Path, target: Path, vae: Path) -> None:
    copied(kept, target)
    for name in WEIGHTS:
        weights = {key: value.to(torch.float16) for key, value in read_small(kept / name).items()}
        save_file(weights, target / name, {"format": "pt"})  # without it transformers reads nothing
    shutil.copytree(vae, target / "vae")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--back", action="store_true", help="make a diffusers folder of what was kept")
    parser.add_argument("--vae", type=Path, help="with --back, the VAE that goes into it")
    options = parser.parse_args(arguments)
    if options.back != (options.vae is not None):
        parser.error("--back and --vae go together: give both or neither")
    if options.back:
        back(options.model, options.target, options.vae)
    else:
        keep(options.model, options.target)


if __name__ == "__main__":
    main()
