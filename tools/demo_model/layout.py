"""Move a model's attention outwards by one level: `python tools/demo_model/layout.py IN OUT`.

The models up to version 4 attended on their 16x16 and 8x8 grids, so FAM's attention modulation, which acts in the first
up-block that has attention, stood on 8x8. SD1.5's stands on 16x16. Here the innermost down- and up-block lose their
transformers (the mid block keeps its own) and the 32x32 level gets some, which add nothing until they are trained; a
model that has them there stays as it is. `--vae` puts another VAE in.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from unet import write_index

logger = logging.getLogger(__name__)

KINDS = {True: ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), False: ("DownBlock2D", "UpBlock2D")}


def moved_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the UNet's `config` with attention on every level but the outermost and the innermost."""
    levels = len(config["block_out_channels"])
    attends = [0 < level < levels - 1 for level in range(levels)]
    return {
        **config,
        "down_block_types": [KINDS[attending][0] for attending in attends],
        "up_block_types": [KINDS[attending][1] for attending in reversed(attends)],
    }


def moved(old: Any, *, seed: int) -> Any:
    """Return the UNet `old` with its attention moved: shared weights kept, new transformers adding nothing yet."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(seed)
    kind: Any = UNet2DConditionModel
    new = kind.from_config(moved_config(dict(old.config)))
    kept, weights = old.state_dict(), new.state_dict()
    fresh = {name.rpartition(".attentions.")[0] for name in weights if name not in kept}
    if any(".attentions." not in name for name in weights if name not in kept):
        raise SystemExit("the UNet differs in more than where it attends; give one with the embedded model's blocks")
    new.load_state_dict({name: kept.get(name, value) for name, value in weights.items()})
    for name, module in new.named_modules():
        if name.endswith(".proj_out") and f"{name}.weight" not in kept:
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    logger.info("kept %d tensors; new transformers in %s", len(weights.keys() & kept.keys()), ", ".join(sorted(fresh)))
    return new


def main(arguments: list[str] | None = None) -> None:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="diffusers folder")
    parser.add_argument("out", type=Path, help="where the changed one is written")
    parser.add_argument("--vae", type=Path, help="VAE folder to put in")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.out.exists():
        raise SystemExit(f"{options.out} exists; give a folder that does not")
    unet = moved(UNet2DConditionModel.from_pretrained(options.model / "unet").float(), seed=options.seed)
    for part in ("tokenizer", "scheduler", "text_encoder"):
        shutil.copytree(options.model / part, options.out / part)
    shutil.copytree(options.vae or options.model / "vae", options.out / "vae")
    unet.half().save_pretrained(options.out / "unet")
    write_index(options.out)


if __name__ == "__main__":
    main()
