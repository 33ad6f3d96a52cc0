"""Average two models that were trained from a common one: `python tools/demo_model/merge.py A B OUT --share 0.45`.

What two runs from one start have in common stays and their noise averages out, so the mean can be better than either
(Wortsman et al. 2022, "Model soups"). Only UNet and text encoder are averaged; the VAE has to be the same.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from training import tag_of

logger = logging.getLogger(__name__)

AVERAGED = ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")


def merge(first: Path, second: Path, out: Path, *, share: float) -> None:
    """Write (1 - `share`) of `first` and `share` of `second`, diffusers folders, to `out` in the dtypes of `first`.

    Exits with a sentence when `share` is outside [0, 1], the VAEs differ, or a weight is missing or of another shape.
    """
    if not 0 <= share <= 1:
        raise SystemExit(f"--share {share:g} is not between 0 (all of {first}) and 1 (all of {second})")
    if tag_of(first / "vae") != tag_of(second / "vae"):
        raise SystemExit(f"{first} and {second} have different VAEs; merge models trained on the same latents")
    partial = out.with_name(f"{out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(first, partial)
    for name in AVERAGED:
        one, other = load_file(first / name), load_file(second / name)
        shapes, others = ({key: value.shape for key, value in part.items()} for part in (one, other))
        if shapes != others:
            shutil.rmtree(partial)
            odd = min(key for key in shapes | others if shapes.get(key) != others.get(key))
            raise SystemExit(f"{first} and {second} differ in {odd} of {name}; merge models of one architecture")
        mean = {key: value.float().lerp(other[key].float(), share).to(value.dtype) for key, value in one.items()}
        save_file(mean, partial / name, metadata={"format": "pt"})
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    logger.info("%s: %g of %s, %g of %s", out, 1 - share, first, share, second)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="diffusers folder")
    parser.add_argument("second", type=Path, help="diffusers folder of the same architecture and VAE")
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second, 0 to 1")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    merge(options.first, options.second, options.out, share=options.share)


if __name__ == "__main__":
    main()
