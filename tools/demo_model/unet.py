"""Train the UNet and the text encoder on cached latents; stopped, it goes on where it was.

`python tools/demo_model/unet.py --start FOLDER --stages 256:60 512:60`

A stage is SIZE:MINUTES, the minutes being training time over all starts. The averaged weights are written to
`.work/model` (or --out) as a diffusers folder after each save, so the state of the art can always be looked at.
"""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from batches import Latents, draw_batch, draw_close, draw_lessons, encoded, holding
from data import WORK, Renders, Scenes
from fresh import Fresh
from text import FIRST, cells_of
from torch import Tensor
from training import Average, Ranks, autocast, cosine, pick_device, save_atomically, tag_of

logger = logging.getLogger(__name__)

SCALES, SCALE_WEIGHT = (2, 4, 8, 16, 32, 64), 0.3
"""The sides, in latent values, of the squares over which the error of epsilon counts too, and how much it does."""
CLOSE_BELOW = 0.65
"""The share of the schedule that closer views are trained on: above it the noise leaves the layout open, and a network
that saw parts there would draw parts of things when asked for things."""
CELLS = 0.3
"""How much text.py's loss, the unexplained share of the cells, goes on to count."""


def write_index(folder: Path) -> None:
    """Write the model_index.json that makes `folder` a StableDiffusionPipeline."""
    import json

    parts = {
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    absent = {name: [None, None] for name in ("feature_extractor", "image_encoder", "safety_checker")}
    index = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **absent, **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


class Model(torch.nn.Module):
    """What is trained, the UNet and the text encoder, and what is not, the VAE, the tokenizer and the schedule."""

    def __init__(self, folder: Path) -> None:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
        from transformers import CLIPTextModel, CLIPTokenizer

        super().__init__()
        self.folder = folder
        self.unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet").float()
        self.text: Any = CLIPTextModel.from_pretrained(folder / "text_encoder").float()
        self.fixed: dict[str, Any] = {
            "vae": AutoencoderKL.from_pretrained(folder / "vae").float().eval(),
            "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        }
        scheduler: Any = DDIMScheduler.from_pretrained(folder / "scheduler")
        self.head: torch.nn.Linear | None = None
        self.alphas: Tensor
        self.cell_mean: Tensor
        self.cell_spread: Tensor
        self.register_buffer("alphas", scheduler.alphas_cumprod.clone(), persistent=False)

    def loss(
        self,
        latents: Tensor,
        captions: list[str],
        *,
        high_noise: float,
        generator: torch.Generator,
        noise_spread: float = 0.0,
        close: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Return the min-SNR-5 weighted error of epsilon over all scales, and text.py's loss (0 without cells).

        `high_noise` 1 draws timesteps evenly, one from each of B equal spans; 2 leans to noise. The noise's strength is
        exp(`noise_spread` z), z normal, where the timestep says 1: a sampler's state comes to hold more, since each
        guess is a little too small, and a network that always saw 1 guesses 1 and leaves the rest as grain.

        The last `close` latents are parts of larger renders (draw_close), of which only timesteps under CLOSE_BELOW of
        the schedule are drawn and which the text encoder's loss leaves out: the cells are those of whole pictures.
        """
        device, where = self.alphas.device, generator.device
        count = len(latents)
        share = (torch.arange(count, device=where) + torch.rand(count, generator=generator, device=where)) / count
        share = share[torch.randperm(count, generator=generator, device=where)] ** (1 / high_noise)
        share[count - close :] *= CLOSE_BELOW
        timesteps = (share * len(self.alphas)).long().clamp_max(len(self.alphas) - 1).to(device)
        noise = torch.randn(latents.shape, generator=generator, device=where).to(device)
        if noise_spread:
            strength = torch.randn(count, 1, 1, 1, generator=generator, device=where)
            noise = noise * (noise_spread * strength).exp().to(device)
        alpha = self.alphas[timesteps]
        scale = alpha[:, None, None, None]
        noisy = scale.sqrt() * latents.to(device) + (1 - scale).sqrt() * noise
        context = self.encode(captions)
        guess = self.unet(noisy, timesteps, encoder_hidden_states=context).sample
        snr = alpha / (1 - alpha)
        loss = weighted_error(guess.float() - noise, snr).mean()
        whole = count - close
        return loss, self._unexplained(context[:whole], latents[:whole].to(device), captions[:whole])

    def encode(self, captions: list[str]) -> Tensor:
        """Return (B, 77, width), the text encoder's tokens of `captions`."""
        tokens = self.fixed["tokenizer"](
            captions, truncation=True, max_length=77, padding="max_length", return_tensors="pt"
        ).input_ids
        return self.text(tokens.to(self.alphas.device)).last_hidden_state

    def unexplained(self, captions: list[str], latents: Tensor) -> Tensor:
        """Return text.py's loss alone, which costs far less than a step of the UNet."""
        return self._unexplained(self.encode(captions), latents.to(self.alphas.device), captions)

    def _unexplained(self, context: Tensor, latents: Tensor, captions: list[str]) -> Tensor:
        """Return text.py's loss: the share of the cells that the tokens of named pictures do not hold."""
        named = [place for place, text in enumerate(captions) if text]
        if self.head is None or not named:
            return context.new_zeros(())
        wanted = cells_of(latents[named]) - self.cell_mean
        guess = self.head(context[named, FIRST:])
        return (guess.float() - wanted).square().mean() / self.cell_spread

    def hold_cells(self, path: Path) -> None:
        """Keep teaching the text encoder what text.py, whose state is `path`, taught it."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        channels, width = state["head"]["weight"].shape
        if channels != (wanted := cells_of(torch.zeros(1, 4, 64, 64)).shape[-1]):
            raise SystemExit(f"--cells {path} holds cells of {channels} values, not {wanted}; run text.py anew")
        self.head = torch.nn.Linear(width, channels)
        self.head.load_state_dict(state["head"])
        self.register_buffer("cell_mean", state["mean"], persistent=False)
        self.register_buffer("cell_spread", state["spread"], persistent=False)

    def write(self, out: Path, *, size: int) -> None:
        """Write a diffusers folder in fp16 whose native size is `size` px."""
        partial = out.with_name(f"{out.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        for part in ("tokenizer", "scheduler", "vae"):
            shutil.copytree(self.folder / part, partial / part)
        self.unet.register_to_config(sample_size=size // 8)
        for part, module in (("unet", self.unet), ("text_encoder", self.text)):
            weights = {key: value.clone() for key, value in module.state_dict().items()}
            module.half().save_pretrained(partial / part)
            module.float().load_state_dict(weights)  # half() rounded them in place
        write_index(partial)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)


def weighted_error(error: Tensor, snr: Tensor) -> Tensor:
    """Return (B,), the min-SNR-5 weighted mean square of (B, 4, H, W) errors of epsilon at every scale.

    `snr`, (B,), is that of single values. The mean over a square of `side` squared values has side squared times the
    SNR, so it is worth learning at noise where single values are not; and without a weight of its own the largest
    scale, which is the colours, is four numbers among H * W * 4. A network trained without it at 64x64 had learned
    nothing of them (its error there was that of a guess of 0).
    """
    total = snr.clamp_max(5.0) / snr * error.square().mean(dim=(1, 2, 3))
    for side in SCALES:
        if side <= min(error.shape[-2:]):
            means = torch.nn.functional.avg_pool2d(error, side).square().mean(dim=(1, 2, 3))
            total = total + SCALE_WEIGHT * (snr * side**2).clamp_max(5.0) / snr * means
    return total


def train(options: argparse.Namespace) -> None:
    ranks = Ranks()
    scenes = Scenes(options.work, variants=options.variants)
    device = pick_device()
    model = Model(options.start)
    if options.cells is not None:
        model.hold_cells(options.cells)
    model.to(device).train()
    model.fixed["vae"].to(device)
    torch.backends.cudnn.benchmark = True
    taught = [*model.text.parameters(), *(model.head.parameters() if model.head is not None else ())]
    groups: list[dict[str, Any]] = [
        {"params": list(model.unet.parameters()), "factor": 1.0},
        {"params": taught, "factor": options.text},
    ]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, weight_decay=0.01, fused=True)
    average = Average(model, options.average)
    average.steps = 10**6  # the start is worth keeping from the first step on
    spent, step, stage = 0.0, 0, 0
    if options.state.is_file():
        state = torch.load(options.state, map_location=device, weights_only=True)
        if len(state["optimizer"]["param_groups"]) != len(groups):
            raise SystemExit(f"{options.state} is of an earlier unet.py; remove it or give another --state")
        model.load_state_dict(state["model"])
        factors = [group["factor"] for group in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizer"])
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["factor"] = factor  # as asked for now, not as in the state
        average.load(state["average"], steps=state["average_steps"])
        spent, step, stage = state["spent"], state["step"], state["stage"]
        logger.info("going on at stage %d, step %d, %.0f s", stage, step, spent)

    def save(size: int) -> None:
        if ranks.rank:
            return
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
        counts = {"average_steps": average.steps, "spent": spent, "step": step, "stage": stage}
        save_atomically({**state, **counts}, options.state)
        current = {key: value.clone() for key, value in model.state_dict().items()}
        average.copy_to(model)
        model.write(options.out, size=size)
        model.load_state_dict(current)

    tag = tag_of(options.start / "vae")
    first_step = step
    while stage < len(options.stages):
        size, minutes = options.stages[stage]
        latents = Latents(Renders(scenes, size), model.fixed["vae"], tag=tag)
        names = encoded(scenes, latents, scenes.names) if options.encoded else scenes.names
        names = names + holding(names, options.more)
        close = round(options.close * options.batch)
        fresh = None
        if options.fresh:
            fresh = Fresh(scenes, model.fixed["vae"], names, options, size=size, ranks=ranks)
        larger = Latents(Renders(scenes, 2 * size), model.fixed["vae"], tag=tag) if close and not fresh else None
        began = shown = saved = time.monotonic()
        losses: list[Tensor] = []
        shares: list[Tensor] = []
        while spent < minutes * 60 and (options.steps < 0 or step - first_step < options.steps):
            rate = options.rate * cosine(spent / (minutes * 60), warm=0.03) * (0.5**stage)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            place = ranks.place(step)
            if fresh is not None:
                rng = random.Random(options.seed * 1_000_003 + place)
                fresh.grow(rng)
                values, captions = fresh.draw(rng, options.batch, close=close)
            else:
                indices, captions = draw_batch(scenes, options, place, pool=names)
                values = latents.get(indices[: len(indices) - close])
            if larger is not None:
                windows, said = draw_close(scenes, options, place, latents=larger, count=close)
                values, captions = torch.cat([values, windows]), captions[: len(captions) - close] + said
            generator = torch.Generator(device).manual_seed(options.seed * 1_000_003 + place)
            with autocast(device):
                loss, unexplained = model.loss(
                    values,
                    captions,
                    high_noise=options.high_noise,
                    generator=generator,
                    noise_spread=options.noise_spread,
                    close=close,
                )
                if options.lessons:
                    places, said = draw_lessons(scenes, options, place, pool=names)
                    unexplained = model.unexplained(said, latents.get(places))
            optimizer.zero_grad(set_to_none=True)
            (loss + CELLS * unexplained).backward()
            elapsed = ranks.agree(model, time.monotonic() - began)
            began = time.monotonic()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update(model)
            losses.append(loss.detach())  # no .item(): a GPU would wait for the CPU at every step
            shares.append(unexplained.detach())
            step += 1
            spent += elapsed
            if time.monotonic() - shown > 60 and not ranks.rank:
                held = f"  unexplained share {torch.stack(shares).mean():.3f}" if model.head is not None else ""
                logger.info(
                    "%d px  step %d  %.0f s  loss %.4f (mean of %d)  rate %.1e%s",
                    size, step, spent, torch.stack(losses).mean(), len(losses), rate, held,
                )  # fmt: skip
                shown, losses, shares = time.monotonic(), [], []
            if time.monotonic() - saved > options.save_every * 60:
                save(size)
                began = saved = time.monotonic()
        stopped = spent < minutes * 60
        if not stopped:
            spent, stage = 0.0, stage + 1
        save(size)
        if stopped:
            break
    logger.info("stage %d of %d, step %d; averaged weights in %s", stage, len(options.stages), step, options.out)


def _stage(text: str) -> tuple[int, float]:
    size, _, minutes = text.partition(":")
    return int(size), float(minutes)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--start", type=Path, required=True, help="diffusers folder to go on from")
    parser.add_argument("--out", type=Path, default=WORK / "model", help="where the averaged model is written")
    parser.add_argument("--state", type=Path, default=WORK / "unet.pt", help="what a later start goes on from")
    parser.add_argument("--stages", type=_stage, nargs="+", default=[(128, 30.0), (256, 30.0), (512, 60.0)])
    parser.add_argument("--steps", type=int, default=-1, help="stop after this many steps, however early")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=6e-4, help="AdamW's, halved at each later stage")
    parser.add_argument("--text", type=float, default=1.0, help="the rate's factor for the text encoder")
    parser.add_argument("--cells", type=Path, help="text.py's state, to go on with its loss too")
    parser.add_argument("--lessons", type=int, default=0, help="captions a step for text.py's loss alone")
    parser.add_argument("--average", type=float, default=0.999, help="decay of the weights' moving average")
    parser.add_argument("--drop", type=float, default=0.1, help="share of empty captions, for guidance")
    parser.add_argument("--high-noise", type=float, default=1.0, help="over 1 leans the timesteps towards noise")
    parser.add_argument(
        "--noise-spread", type=float, default=0.0, help="spread of the noise's strength around its timestep's"
    )
    parser.add_argument(
        "--close", type=float, default=0.0, help="share of draws that are windows of renders at twice the size"
    )
    parser.add_argument(
        "--encoded", action="store_true", help="draw only names that latents.py has encoded, so that no step encodes"
    )
    parser.add_argument("--variants", type=int, default=4, help="rounds of every pair")
    parser.add_argument(
        "--more",
        nargs="+",
        default=[],
        metavar="WORD",
        help="names with it are drawn twice as often; twice: three times",
    )
    parser.add_argument(
        "--fresh", type=int, default=0, metavar="N", help="draw pictures anew and train on the last N of them, no files"
    )
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.lessons and options.cells is None:
        parser.error(f"--lessons {options.lessons} needs the state that text.py wrote: add --cells FILE")
    if options.fresh < 0 or (options.fresh and options.fresh < options.batch):
        parser.error(f"--fresh is {options.fresh}; give at least the batch, {options.batch}, or leave it out")
    if options.close and not 1 <= round(options.close * options.batch) < options.batch:
        parser.error(
            f"--close {options.close:g} of --batch {options.batch} is {options.close * options.batch:g} a step; "
            "it has to leave at least one closer view and one whole picture"
        )
    return options


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(parse())
