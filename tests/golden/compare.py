"""Golden comparison of two checkouts: python -m tests.golden.compare BASE [HEAD] [--tolerance 1e-4]

BASE and HEAD are git revisions or folders (HEAD: the files as they are). Both sides run here and now, by the same
`side.py`, so nothing that a machine computes is kept. A revision draws with the embedded model of this checkout: the
code is compared, and other weights would change every latent. Exit 1 where a latent differs by more than the
tolerance, as a share of its largest value: a picture's one level more, encoded again, is 1e-4 of a latent.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parent.parent.parent
BASE = Path(__file__).with_name("BASE")
MODEL = "fam_ext/demo/model"


@dataclass(frozen=True)
class Difference:
    """A case whose latents are not the same: how many model calls in, and by how much."""

    case: str
    what: str


def base() -> tuple[str, dict[str, str]]:
    """Return the revision in BASE and, by pattern, why cases were changed on purpose since."""
    lines = [line for line in BASE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return lines[0], dict(line.split(maxsplit=1) for line in lines[1:])


def run_side(revision: str, folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return the latents of `revision` (a git revision or a folder) by case and place."""
    checkout = Path(revision)
    if not checkout.is_dir():
        checkout = folder / name
        unpack(revision, checkout)
    out = folder / f"{name}.npz"
    subprocess.run(
        [sys.executable, "-m", "tests.golden.side", str(out)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=1800,
    )
    with np.load(out) as arrays:
        return dict(arrays)


def unpack(revision: str, checkout: Path) -> None:
    """Write a git revision's code into the new folder `checkout`, with the tests and the model of this one."""
    checkout.mkdir()
    archive = checkout / "code.tar"
    wanted = ["fam_ext", f":(exclude){MODEL}"]
    subprocess.run(
        ["git", "-C", str(REPOSITORY), "archive", "-o", str(archive), revision, "--", *wanted], check=True, timeout=120
    )
    with tarfile.open(archive) as packed:
        packed.extractall(checkout, filter="data")
    for shared in ("tests", MODEL):
        (checkout / shared).symlink_to(REPOSITORY / shared)


def differences(before: dict[str, np.ndarray], after: dict[str, np.ndarray], *, tolerance: float) -> list[Difference]:
    """Return the cases that differ, each with its first place; a side that lacks a case differs too."""
    found: dict[str, str] = {}
    for key in sorted(before.keys() | after.keys()):
        case, place = key.split("#")
        if case in found:
            continue
        if key not in before or key not in after:
            found[case] = f"place {place} is only {'before' if key in before else 'after'}"
        elif before[key].shape != after[key].shape:
            found[case] = f"place {place} has shape {before[key].shape}, then {after[key].shape}"
        elif not np.array_equal(before[key], after[key]):
            worst = float(np.abs(before[key].astype(np.float64) - after[key]).max())
            if before[key].dtype.kind == "f":
                worst /= max(float(np.abs(before[key]).max()), 1.0)
            # pictures are whole numbers of 0 to 255: a latent's rounding may move one by a level
            if not worst <= (tolerance if before[key].dtype.kind == "f" else float(tolerance > 0)):
                found[case] = f"place {place} differs by {worst:.3g}"
    return [Difference(case, what) for case, what in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default=base()[0])
    parser.add_argument("head", nargs="?", default=str(REPOSITORY))
    parser.add_argument("--tolerance", type=float, default=0.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = run_side(args.base, Path(folder), "base")
        after = run_side(args.head, Path(folder), "head")
    found = differences(before, after, tolerance=args.tolerance)
    for difference in found:
        print(f"{difference.case}: {difference.what}")
    cases = {key.split("#")[0] for key in before}
    print(f"{len(cases)} cases, {len(before)} latents, {len(found)} differ (tolerance {args.tolerance:g})")
    sys.exit(bool(unexplained(found)))


def unexplained(found: list[Difference]) -> list[Difference]:
    """Return the differences that no line of BASE gives a reason for."""
    patterns = base()[1]
    return [each for each in found if not any(fnmatch.fnmatch(each.case, pattern) for pattern in patterns)]


if __name__ == "__main__":
    main()
