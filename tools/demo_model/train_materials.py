"""Make the model of materials with one command: `python tools/demo_model/train_materials.py`. Stopped, it goes on.

The stages run one after the other, and each leaves a state that can be looked at:

vae      the decoder of next/vae trained on, on pieces of scenes; its encoder stays, and with it every latent
latents  every trained pair rendered and encoded, in rounds, at half the native size, without a GPU also at it and at
         twice it
text     the attention moved (layout.py), then the text encoder alone
half     UNet and text encoder at half the size: four times the pictures, and a texture has the same period in pixels
whole    the UNet at the native size, with windows of renders at twice the size, so that 2x shows textures as they are;
         with a GPU on pictures that are drawn anew (fresh.py)
judge    demo-net, which measures all the rest, trained on from the shipped one

A stage that is done is left out at the next start; `--again STAGE` and what follows it run anew. The times in TIMES are
for one H100, and for two cores of a CPU with AMX; `--scale 0.1` takes a tenth of each. Without a GPU latents and UNet
are made by as many processes as there are cores: two take nearly twice the pictures of one with two threads.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import align
import data
import judge
import latents
import layout
import text
import torch
import unet
import vae
from norms import has_freed
from training import pick_device

from fam_ext.demo.export import EMBEDDED_MODEL

logger = logging.getLogger(__name__)

TIMES = {"cuda": {"vae": 2.0, "text": 0.8, "half": 2.0, "whole": 3.2, "judge": 0.8},
         "cpu": {"vae": 25.0, "text": 8.0, "half": 55.0, "whole": 120.0, "judge": 40.0}}  # fmt: skip
"""Minutes of training in each stage; latents, starts and writing come on top, about 2 on an H100's machine, 25 on two
cores."""
SETTINGS: dict[str, dict[str, list[str]]] = {
    "cuda": {
        "vae": ["--crop", "192", "--batch", "24", "--rate", "1e-3", "--average", "0.998"],
        "text": ["--batch", "96"],
        "half": ["--batch", "64", "--rate", "1e-3", "--average", "0.998", "--lessons", "32", "--text", "0.05"],
        "whole": ["--batch", "128", "--rate", "1e-3", "--average", "0.998", "--text", "0.2", "--fresh", "16384"],
        "judge": ["--batch", "96"],
    },
    "cpu": {
        "vae": ["--crop", "128", "--batch", "4", "--rate", "2.5e-4", "--average", "0.995"],
        "text": ["--batch", "32"],
        "half": ["--batch", "12", "--rate", "8e-4", "--average", "0.995", "--lessons", "8", "--text", "0.05"],
        "whole": ["--batch", "6", "--rate", "5e-4", "--average", "0.995", "--text", "0", "--encoded"],
        "judge": ["--batch", "32"],
    },
}
CLOSE = "0.17"
"""The share of the whole stage's draws that are windows of renders at twice the size: one of six."""
LATENTS, UNET = (Path(__file__).with_name(name) for name in ("latents.py", "unet.py"))
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
NEXT = Path(__file__).with_name("next")
"""What the last session left to go on from."""
VARIANTS = {"cuda": 4, "cpu": 2}
"""Rounds of every pair that are encoded."""


class Making:
    """One model in the making, in the folder `work`."""

    def __init__(self, options: argparse.Namespace, device: str) -> None:
        self.options, self.device = options, device
        self.folder: Path = options.work / "materials"
        self.rounds = ["--variants", str(options.variants or VARIANTS[device])]

    def at(self, name: str) -> str:
        return str(self.folder / name)

    def trained(self, stage: str) -> list[str]:
        """Return the arguments that every training of this device takes in `stage`."""
        minutes = TIMES[self.device][stage] * self.options.scale
        steps = ["--steps", str(self.options.steps)] if self.options.steps is not None else []
        return ["--work", str(self.options.work), "--minutes", f"{minutes:g}", *SETTINGS[self.device][stage], *steps]

    def vae(self) -> None:
        size = self.options.size
        sizes = ["--sizes", *(str(side) for side in (size, size // 2, size, 2 * size))]
        places = ["--start", str(self.options.vae), "--out", self.at("vae")]
        how = ["--colour", "2", *self.trained("vae"), *self.options.vae_settings]
        if has_freed(self.options.vae):
            how = ["--decoder-only", "--latent-noise", "0.05", *how]
        vae.train(vae.parse([*how, *sizes, *places, "--state", self.at("vae.pt")]))
        if not has_freed(self.options.vae):  # the encoder moved: its latents shall mean what the UNet knows
            like = ["--like", str(self.options.start / "vae"), "--work", str(self.options.work), "--size", str(size)]
            align.align(align.parse([self.at("vae"), self.at("vae"), *like, "--count", "8"]))

    def latents(self) -> None:
        size = self.options.size
        self._encode(*self.rounds, "--size", str(size // 2))
        if self.device == "cuda":  # which draws anew what it needs at the native size and twice that
            return
        self._encode(*self.rounds, "--size", str(size))
        self._encode("--variants", "1", "--count", str(self.options.close_count), "--size", str(2 * size))

    def _encode(self, *arguments: str) -> None:
        words = ["--work", str(self.options.work), "--vae", self.at("vae"), *arguments]
        count = self.options.processes
        if count == 1:
            latents.main(words)
            return
        parts = [[sys.executable, str(LATENTS), *words, "--part", f"{part}/{count}"] for part in range(count)]
        running = [subprocess.Popen(command, env=ONE_THREAD) for command in parts]
        if any([process.wait() for process in running]):  # all of them, before one is answered for
            raise SystemExit("latents.py failed, as it says above; the same command goes on")

    def text(self) -> None:
        if not (self.folder / "moved").is_dir():
            layout.main([str(self.options.start), self.at("moved"), "--vae", self.at("vae")])
        places = ["--start", self.at("moved"), "--out", self.at("taught"), "--state", self.at("text.pt")]
        half = ["--size", str(self.options.size // 2)]  # encoded first, and its cells are those of the native size
        text.teach(text.parse([*self.trained("text"), *self.rounds, *places, *half]))

    def half(self) -> None:
        self._unet("half", self.options.size // 2, *self.rounds, start="taught", out="halfway")

    def whole(self) -> None:
        self._unet("whole", self.options.size, "--close", CLOSE, *self.rounds, start="halfway", out="model")

    def _unet(self, stage: str, size: int, *more: str, start: str, out: str) -> None:
        arguments = self.trained(stage)
        place = arguments.index("--minutes")
        arguments[place : place + 2] = ["--stages", f"{size}:{arguments[place + 1]}"]
        how = ["--noise-spread", "0.15", "--high-noise", "1.2"]
        places = ["--start", self.at(start), "--cells", self.at("text.pt")]
        places += ["--out", self.at(out), "--state", self.at(f"{stage}.pt")]
        arguments = [*arguments, *how, *more, *places]
        if self.options.processes == 1:
            unet.train(unet.parse(arguments))
            return
        processes = ["--standalone", "--nproc_per_node", str(self.options.processes)]
        command = [sys.executable, "-m", "torch.distributed.run", *processes, "--", str(UNET), *arguments]
        if subprocess.run(command, env=ONE_THREAD, check=False).returncode:
            raise SystemExit("unet.py failed, as it says above; the same command goes on")

    def judge(self) -> None:
        sizes = ["--size", str(self.options.size)]
        judge.train(judge.parse([*self.trained("judge"), *sizes, "--out", self.at("judge")]))


STAGES: dict[str, Callable[[Making], None]] = {
    "vae": Making.vae,
    "latents": Making.latents,
    "text": Making.text,
    "half": Making.half,
    "whole": Making.whole,
    "judge": Making.judge,
}


def make(options: argparse.Namespace) -> Path:
    """Run the stages that are not done yet; return the model's folder."""
    if not (options.work / "fluent").is_dir():
        data.fetch(options.work)
    device = pick_device().type
    options.processes = 1 if device == "cuda" else options.processes or os.cpu_count() or 1
    making = Making(options, device)
    making.folder.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = True
    names = list(STAGES)
    if options.again is not None:
        for name in names[names.index(options.again) :]:
            for left in (f"{name}.done", f"{name}.pt"):
                (making.folder / left).unlink(missing_ok=True)
        if options.again in ("vae", "latents", "text"):
            shutil.rmtree(making.folder / "moved", ignore_errors=True)
    for name in names:
        done = making.folder / f"{name}.done"
        if name in options.skip or done.is_file():
            continue
        began = time.monotonic()
        logger.info("== %s", name)
        STAGES[name](making)
        done.write_text(f"{time.monotonic() - began:.0f} s\n")
        logger.info("== %s took %.0f s", name, time.monotonic() - began)
    return making.folder / "model"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=data.WORK, help="everything lies in its folder materials")
    parser.add_argument("--start", type=Path, default=EMBEDDED_MODEL, help="model that the UNet and text start from")
    parser.add_argument("--vae", type=Path, default=NEXT / "vae", help="VAE to go on from, a folder of vae.py")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the minutes of every stage")
    parser.add_argument("--steps", type=int, help="stop each training after so many steps, to try it")
    parser.add_argument("--again", choices=list(STAGES), help="run this stage and what follows it anew")
    parser.add_argument("--skip", nargs="+", choices=list(STAGES), default=[], help="stages to leave out")
    parser.add_argument("--processes", type=int, help="without a GPU, one a core unless told")
    parser.add_argument("--variants", type=int, help=f"rounds of every pair; {VARIANTS['cuda']} with a GPU, else 2")
    parser.add_argument("--size", type=int, default=512, help="native side in px")
    parser.add_argument("--close-count", type=int, default=200, help="renders at twice the size, for their windows")
    parser.add_argument("--vae-settings", nargs=argparse.REMAINDER, default=[], help="last: more arguments for vae.py")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logger.info("the model is in %s", make(parse()))
