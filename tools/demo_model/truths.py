"""Write the true pictures of a file of prompts where `fam-hires bench quality --truth FOLDER` looks for them.

    python tools/demo_model/truths.py default --out truth --count 64 --sizes 1024 1536

`default` are those of `--prompts default`. Each line of a file names a thing, a material and a ground, as "a knitted
teapot on a blue ground". `export.py` writes those of the demo's samples: `samples.txt`, where each prompt has its seed
before it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data import WORK, truth
from PIL import Image

from fam_ext.errors import UsageError
from fam_ext.prompt_file import read_prompts
from fam_ext.quality.protocol import DEFAULT_PROMPTS, cases, truth_file

SAMPLES = Path(__file__).with_name("samples.txt")
"""SEED PROMPT on each line: what the demo's sample pictures show."""
SAMPLE_SIDE = 1024
"""px: the demo's samples, which are 512 px, at 2x."""


def write(out: Path, prompts: Path, *, sizes: list[int], count: int, seed: int, work: Path = WORK) -> list[Path]:
    """Return the files of the first `count` cases at each of `sizes` px, made where they are missing. `prompts` is a
    file, or "default" as for the benchmark."""
    squares = [((side, side), (side, side)) for side in sizes]
    words = DEFAULT_PROMPTS if str(prompts) == "default" else read_prompts(prompts)
    found: list[Path] = []
    for case in cases(squares, words, count=count, seed=seed):
        path = truth_file(out, case)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            Image.fromarray(truth(case.prompt, case.size[0], case.seed, work=work)).save(partial, "PNG")
            partial.rename(path)
        found.append(path)
    return found


def read_samples(path: Path = SAMPLES) -> list[tuple[str, str, int]]:
    """Return the file name without ending, the prompt and the seed of each sample: as the WebUI names its pictures with
    the pattern [seed]-[prompt_spaces]. Raises `UsageError` for a line without a seed."""
    found: list[tuple[str, str, int]] = []
    for number, line in enumerate(read_prompts(path)):
        seed, _, prompt = line.partition(" ")
        if not (seed.isdecimal() and prompt.strip()):
            raise UsageError(f"{path} has {line!r}; write a seed and a prompt, as '11 a knitted teapot'")
        found.append((f"{number:05}-{seed}-{prompt.strip()}", prompt.strip(), int(seed)))
    return found


def write_samples(out: Path, *, samples: Path = SAMPLES, side: int = SAMPLE_SIDE, work: Path = WORK) -> list[Path]:
    """Return the files of the samples' true pictures in `out`, drawn anew; those of earlier samples are deleted."""
    drawn = {name: truth(prompt, side, seed, work=work) for name, prompt, seed in read_samples(samples)}
    out.mkdir(parents=True, exist_ok=True)
    for path in out.glob("*.webp"):
        path.unlink()
    for name, picture in drawn.items():
        Image.fromarray(picture).save(out / f"{name}.webp", quality=95, method=6)
    return [out / f"{name}.webp" for name in drawn]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, help="a file with a prompt on each line, or default")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8, help="as bench quality's")
    parser.add_argument("--seed", type=int, default=0, help="as bench quality's")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024], help="sides in px")
    parser.add_argument("--work", type=Path, default=WORK)
    options = parser.parse_args()
    try:
        found = write(options.out, options.prompts, sizes=options.sizes, count=options.count, seed=options.seed,
                      work=options.work)  # fmt: skip
    except (UsageError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{len(found)} true pictures in {options.out}")


if __name__ == "__main__":
    main()
