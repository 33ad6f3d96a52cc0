"""Quality of the methods on the embedded model: structure kept and detail added, per method, over fixed prompts.

    python bench/quality.py --prompts 24 --steps 16 --out bench/quality.json --sheet docs/methods-2x.webp

Each prompt makes one native picture (seed = its index); every method starts from that picture and its recorded run.
Prints mean and standard error; resumable: rows already in --out are kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from PIL import Image

from fam_ext import hires
from fam_ext.compare import Cell, contact_sheet, high_band_energy, structure_psnr
from fam_ext.core.config import FamConfig
from fam_ext.options.presets import BUILTIN
from fam_ext.quality.protocol import DEFAULT_PROMPTS as PROMPTS
from fam_ext.standalone import load_pipeline, weights_tag

PAPER = FamConfig(upsample="latent_bicubic")
BALANCED = BUILTIN["balanced"].config
METHODS = {
    "DI": ("direct", PAPER),
    "DI*": ("direct-from-native", PAPER),
    "SR": ("skip-residual", PAPER),
    "FM": ("fam", PAPER.replace(am=False)),
    "FM + AM": ("fam", PAPER),
    "balanced": ("fam", BALANCED),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--cfg-scale", type=float, default=3.0)
    parser.add_argument("--model", default=None)
    parser.add_argument("--out", type=Path, default=Path("bench/quality.json"))
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder that keeps every picture")
    arguments = parser.parse_args()

    settings = {"steps": arguments.steps, "cfg_scale": arguments.cfg_scale, "scale": arguments.scale, "sampler": "DDIM"}
    settings["model"] = weights_tag(arguments.model)
    done = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"settings": settings, "rows": []}
    if done["settings"] != settings:
        parser.error(f"{arguments.out} was made with {done['settings']}, not {settings}; give another --out")
    host = load_pipeline(arguments.model)
    pictures = arguments.pictures or Path("out/quality")
    pictures.mkdir(parents=True, exist_ok=True)
    for index, prompt in enumerate(PROMPTS[: arguments.prompts]):
        if not any(row["prompt"] == prompt for row in done["rows"]):
            done["rows"].append(one_prompt(host, prompt, index, arguments, pictures))
            arguments.out.write_text(json.dumps(done, indent=1) + "\n")
    report(done, host.name)
    if arguments.sheet:
        names = ["native", *METHODS]
        rows = [
            [
                Cell(Image.open(pictures / f"{index:02d}-{slug(name)}.png"), prompt if name == "native" else "")
                for name in names
            ]
            for index, prompt in enumerate(PROMPTS[: min(arguments.prompts, 8)])
        ]
        contact_sheet(rows, header=names, side=192).save(arguments.sheet)


def one_prompt(host, prompt, index, arguments, pictures):
    """Return the measures of every method for one prompt; the pictures are kept."""
    sampling = hires.Sampling(prompt=prompt, seed=index, steps=arguments.steps, cfg_scale=arguments.cfg_scale)
    began = time.perf_counter()
    native = hires.generate_native(host, size=(host.native_side, host.native_side), sampling=sampling)
    row = {"prompt": prompt, "seed": index, "native_seconds": time.perf_counter() - began, "methods": {}}
    native.image.save(pictures / f"{index:02d}-native.png")
    side = round(host.native_side * arguments.scale)
    resized = native.image.resize((side, side), Image.Resampling.BICUBIC)
    row["methods"]["resize"] = measures(resized, native.image, 0.0)
    for name, (method, config) in METHODS.items():
        result = hires.upscale(host, native, size=(side, side), sampling=sampling, config=config, method=method)
        result.image.save(pictures / f"{index:02d}-{slug(name)}.png")
        row["methods"][name] = measures(result.image, native.image, result.seconds)
    return row


def measures(image, native, seconds):
    return {
        "psnr": structure_psnr(image, native),
        "high_band_percent": high_band_energy(image, native),
        "seconds": seconds,
    }


def slug(name):
    return "".join(letter if letter.isalnum() else "_" for letter in name.replace("*", " star"))


def report(done, model):
    """Print the table with n, settings and machine."""
    rows = done["rows"]
    print(f"{model}, n = {len(rows)}, {done['settings']}, torch {torch.__version__}, {platform.machine()}")
    print(f"{'method':32s} {'PSNR dB':>14s} {'high band %':>12s} {'time / DI':>10s}")
    for name in rows[0]["methods"]:
        psnr = [row["methods"][name]["psnr"] for row in rows]
        error = statistics.stdev(psnr) / len(psnr) ** 0.5 if len(psnr) > 1 else 0.0
        high = statistics.mean(row["methods"][name]["high_band_percent"] for row in rows)
        ratio = statistics.median(row["methods"][name]["seconds"] / row["methods"]["DI"]["seconds"] for row in rows)
        print(f"{name:32s} {statistics.mean(psnr):6.2f} +- {error:4.2f} {high:12.3f} {ratio:10.2f}")


if __name__ == "__main__":
    main()
