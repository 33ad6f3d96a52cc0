"""Make the model of materials with one command: `python tools/demo_model/train_materials.py`. Stopped, it goes on.

The stages run one after the other, and each leaves a state that can be looked at:

vae      the decoder of next/vae trained on, on pieces of scenes; its encoder stays, and with it every latent
latents  every trained pair rendered and encoded, in rounds
text     the attention moved (layout.py), then the text encoder alone
unet     UNet and text encoder, at half the size first; --out holds a model that draws from here on
close    the same with windows of renders at twice the size, so that 2x shows edges and textures as they are
judge    demo-net, which measures all the rest, trained on from the shipped one

A stage that is done is left out at the next start; `--again STAGE` and what follows it run anew. The times in TIMES are
for one H100, and for one core of a CPU with AMX; `--scale 0.1` takes a tenth of each.
"""

from __future__ import annotations

import argparse
import logging
import shutil
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

TIMES = {"cuda": {"vae": 2.0, "text": 0.8, "unet": 4.0, "close": 0.8, "judge": 0.8},
         "cpu": {"vae": 45.0, "text": 20.0, "unet": 240.0, "close": 45.0, "judge": 40.0}}  # fmt: skip
"""Minutes of training in each stage; latents, starts and writing come on top, about 2 on an H100's machine."""
SETTINGS: dict[str, dict[str, list[str]]] = {
    "cuda": {
        "vae": ["--crop", "192", "--batch", "24", "--rate", "1e-3", "--average", "0.998"],
        "text": ["--batch", "96"],
        "unet": ["--batch", "64", "--rate", "1e-3", "--lessons", "32", "--average", "0.998"],
        "close": ["--batch", "64", "--rate", "5e-4", "--close", "0.375", "--average", "0.998"],
        "judge": ["--batch", "96"],
    },
    "cpu": {
        "vae": ["--crop", "128", "--batch", "4", "--rate", "2.5e-4", "--average", "0.995"],
        "text": ["--batch", "24"],
        "unet": ["--batch", "8", "--rate", "5e-4", "--lessons", "8", "--average", "0.995"],
        "close": ["--batch", "8", "--rate", "3e-4", "--close", "0.375", "--average", "0.99"],
        "judge": ["--batch", "32"],
    },
}
NEXT = Path(__file__).with_name("next")
"""What the last session left to go on from."""
VARIANTS = {"cuda": 4, "cpu": 2}
"""Rounds of every pair that are encoded."""


class Making:
    """One model in the making, in the folder `work`."""

    def __init__(self, options: argparse.Namespace, device: str) -> None:
        self.options, self.device = options, device
        self.folder: Path = options.work / "materials"
        self.common = ["--scenes", "--work", str(options.work)]
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
        how = ["--scenes", "--free", "--colour", "2", *self.trained("vae"), *self.options.vae_settings]
        if has_freed(self.options.vae):
            how = ["--decoder-only", "--latent-noise", "0.05", *how]
        vae.train(vae.parse([*how, *sizes, *places, "--state", self.at("vae.pt")]))
        if not has_freed(self.options.vae):  # the encoder moved: its latents shall mean what the UNet knows
            like = ["--like", str(self.options.start / "vae"), "--work", str(self.options.work), "--size", str(size)]
            align.align(align.parse([self.at("vae"), self.at("vae"), *like, "--count", "8"]))

    def latents(self) -> None:
        size = self.options.size
        for side in (size // 2, size):
            latents.main([*self.common, *self.rounds, "--vae", self.at("vae"), "--size", str(side)])
        few = ["--variants", "1", "--count", str(self.options.close_count)]
        latents.main([*self.common, *few, "--vae", self.at("vae"), "--size", str(2 * size)])

    def text(self) -> None:
        if not (self.folder / "moved").is_dir():
            layout.main([str(self.options.start), self.at("moved"), "--vae", self.at("vae")])
        places = ["--start", self.at("moved"), "--out", self.at("taught"), "--state", self.at("text.pt")]
        text.teach(
            text.parse(
                [*self.trained("text"), "--scenes", "--keep", *self.rounds, *places, "--size", str(self.options.size)]
            )
        )

    def unet(self) -> None:
        self._unet("unet", start=self.at("taught"), out=self.at("model"))

    def close(self) -> None:
        self._unet("close", start=self.at("model"), out=self.at("closer"))
        shutil.rmtree(self.folder / "model")
        (self.folder / "closer").rename(self.folder / "model")

    def _unet(self, stage: str, *, start: str, out: str) -> None:
        arguments = self.trained(stage)
        place = arguments.index("--minutes")
        minutes = arguments[place + 1]
        stages = [f"{self.options.size}:{minutes}"]
        if stage == "unet" and self.options.steps is None:
            # four times the pictures a second, and a texture has the same period in pixels
            stages = [f"{side}:{float(minutes) / 2:g}" for side in (self.options.size // 2, self.options.size)]
        arguments[place : place + 2] = ["--stages", *stages]
        how = ["--scenes", "--text", "0.05", "--noise-spread", "0.15", "--high-noise", "1.2", *self.rounds]
        places = ["--start", start, "--cells", self.at("text.pt"), "--out", out, "--state", self.at(f"{stage}.pt")]
        unet.train(unet.parse([*arguments, *how, *places]))

    def judge(self) -> None:
        sizes = ["--size", str(self.options.size)]
        judge.train(judge.parse([*self.trained("judge"), *sizes, "--out", self.at("judge")]))


STAGES: dict[str, Callable[[Making], None]] = {
    "vae": Making.vae,
    "latents": Making.latents,
    "text": Making.text,
    "unet": Making.unet,
    "close": Making.close,
    "judge": Making.judge,
}


def make(options: argparse.Namespace) -> Path:
    """Run the stages that are not done yet; return the model's folder."""
    if not (options.work / "fluent").is_dir():
        data.fetch(options.work)
    making = Making(options, pick_device().type)
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
    parser.add_argument("--variants", type=int, help=f"rounds of every pair; {VARIANTS['cuda']} with a GPU, else 2")
    parser.add_argument("--size", type=int, default=512, help="native side in px")
    parser.add_argument("--close-count", type=int, default=200, help="renders at twice the size for the close stage")
    parser.add_argument("--vae-settings", nargs=argparse.REMAINDER, default=[], help="last: more arguments for vae.py")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logger.info("the model is in %s", make(parse()))
