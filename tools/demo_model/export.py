"""Ship a trained model: copy a diffusers folder of `unet.py` into the package, or write it as an A1111 checkpoint.

python tools/demo_model/export.py .work/model                      # into fam_ext/demo, with names and true samples
python tools/demo_model/export.py .work/model --checkpoint FOLDER  # fluent-tiny.safetensors and .yaml
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from data import WORK, svg_folder
from things import GROUNDS, MATERIALS, THINGS
from truths import write_samples

from fam_ext.demo.export import EMBEDDED_MODEL, export_checkpoint, ldm_state_dict
from fam_ext.demo.names import FILE as NAMES
from fam_ext.demo.run import truths

LARGEST = 48e6
FILES = {
    "unet": ("config.json", "diffusion_pytorch_model.safetensors"),
    "vae": ("config.json", "diffusion_pytorch_model.safetensors"),
    "text_encoder": ("config.json", "model.safetensors"),
    "tokenizer": ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    "scheduler": ("scheduler_config.json",),
}


def ship(model: Path, target: Path) -> int:
    """Copy what a StableDiffusionPipeline needs of `model` into `target`; return its size in bytes.

    Other files there (the card) stay. Exits with a sentence when the weights are not fp16, too large, or have no place
    in the A1111 export.
    """
    size = sum(path.stat().st_size for part, names in FILES.items() for path in _files(model / part, names))
    if size > LARGEST:
        raise SystemExit(f"{model} is {size / 1e6:.1f} MB; the embedded model may have {LARGEST / 1e6:.0f} MB in fp16")
    wide = sorted({str(value.dtype) for value in ldm_state_dict(model).values() if value.dtype.itemsize > 2})
    if wide:
        raise SystemExit(f"{model} has weights in {', '.join(wide)}; write it in fp16, as unet.py does")
    for part, names in FILES.items():
        (target / part).mkdir(parents=True, exist_ok=True)
        for path in _files(model / part, names):
            shutil.copyfile(path, target / part / path.name)
    shutil.copyfile(model / "model_index.json", target / "model_index.json")
    for path in (target / "model_index.json", *target.glob("*/config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)  # the folder it was trained from, which nobody else has
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return sum(path.stat().st_size for part, names in FILES.items() for path in _files(target / part, names))


def names_of() -> dict[str, Any]:
    """Return what names.json says of the model."""
    lists = {"things": list(THINGS), "materials": list(MATERIALS), "grounds": list(GROUNDS)}
    return {"form": "a MATERIAL THING on a GROUND ground", "subjects": ["things"], "lists": lists}


def write_names(path: Path, said: dict[str, Any]) -> None:
    path.write_text(json.dumps(said, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


def _files(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="diffusers folder")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="write the A1111 checkpoint there instead")
    parser.add_argument("--target", type=Path, default=EMBEDDED_MODEL)
    parser.add_argument("--work", type=Path, default=WORK)
    options = parser.parse_args()
    if options.checkpoint:
        options.checkpoint.mkdir(parents=True, exist_ok=True)
        for path in export_checkpoint(options.checkpoint, model=options.model):
            print(path)
    else:
        svg_folder(options.work)  # or it would be missed half-way
        print(f"{options.target}: {ship(options.model, options.target) / 1e6:.1f} MB")
        write_names(NAMES, names_of())
        print(f"{truths()}: {len(write_samples(truths(), work=options.work))} true pictures of samples.txt")


if __name__ == "__main__":
    main()
