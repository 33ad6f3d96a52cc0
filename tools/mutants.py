"""Ask the unit tests whether they notice small faults: `make mutants`.

A mutant is one file of this commit with one small change (an operator, a number, a condition, a call left out). It is
run against the unit tests of its own folder; killed is a mutant at which one of them fails. Those that change nothing
which anyone could see are named in tests/MUTANTS.md, with the reason, and count neither way. The sample is drawn with
`--seed`, so a run can be repeated.
"""

from __future__ import annotations

import argparse
import ast
import os
import queue
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
EQUIVALENT = ROOT / "tests" / "MUTANTS.md"
ROOMS = ("core", "methods", "samplers", "hosts", "jobs", "recipe.py", "hires.py")
SECONDS = 180
"""After that long a mutant counts as killed: it goes round for ever."""
OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
SAID = ("log", "logger", "warnings")
"""What is called on these tells people something and changes nothing."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file: the bytes from `start` to `end` become `after`."""

    file: str
    line: int
    start: int
    end: int
    before: str
    after: str
    text: str
    """The line at which it begins."""

    @property
    def name(self) -> str:
        """The change and the line it is in, without that line's number, which moves."""
        before, after = (re.sub(r"\s+", " ", text) for text in (self.before, self.after))
        return f"`{self.file}`: `{before}` -> `{after}` in `{self.text}`"


def mutants(source: str, file: str) -> Iterator[Mutant]:
    """Give every mutant of `source`, the text of `file`."""
    lines = [0]
    for line in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    for node in _acting(ast.parse(source)):
        for changed in _changed(node):
            assert node.end_lineno is not None and node.end_col_offset is not None
            start = lines[node.lineno - 1] + node.col_offset
            end = lines[node.end_lineno - 1] + node.end_col_offset
            before = source.encode()[start:end].decode()
            yield Mutant(file, node.lineno, start, end, before, changed, source.splitlines()[node.lineno - 1].strip())


def _acting(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Give the nodes below `node` that do something: no docstrings, annotations, messages or logs."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom) or _is_said(node):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                if isinstance(child, ast.expr | ast.stmt):
                    yield child
                yield from _acting(child)


def _is_said(node: ast.AST) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Constant):
        return True
    function = call.func if isinstance(call, ast.Call) else None
    return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in SAID


def _changed(node: ast.expr | ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield ast.unparse(ast.Compare(node.left, [OPERATORS[type(node.ops[0])]()], node.comparators))  # pyright: ignore
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OPERATORS:
        changed = ast.parse(ast.unparse(node), mode="eval").body
        changed.op = OPERATORS[type(node.op)]()  # pyright: ignore[reportAttributeAccessIssue]
        yield f"({ast.unparse(changed)})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield ast.unparse(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield repr(node.value + 1)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not _is_said(node):
        yield "None"
    elif isinstance(node, ast.IfExp):
        yield f"({ast.unparse(node.orelse)})"


def tests_of(file: str) -> list[str]:
    """Return the unit tests of `file`: its own first, so that a mutant dies early, then its folder's."""
    parts = Path(file).relative_to("fam_ext").parts
    if len(parts) == 1:
        return [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_recipe*.py"))] + [
            str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_hires*.py"))
        ]
    folder = ROOT / "tests" / parts[0]
    own = sorted(folder.rglob(f"test_{Path(file).stem}*.py"))
    return [str(path.relative_to(ROOT)) for path in (*own, folder)]


def kill(mutant: Mutant | None, tree: Path, file: str) -> str:
    """Return how the tests of `file` ended in `tree` with `mutant` in it (None: as it is): "killed" or "survived"."""
    path = tree / file
    source = path.read_bytes()
    if mutant:
        path.write_bytes(source[: mutant.start] + mutant.after.encode() + source[mutant.end :])
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not webui"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *tests_of(file)], cwd=tree, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "killed"
    finally:
        path.write_bytes(source)
    return "survived" if done.returncode == 0 else "killed"


def drawn(count: int, seed: int, files: list[str]) -> list[Mutant]:
    """Return `count` mutants of `files`, the same for the same seed: a file in turn, so that no long one has all."""
    random_ = random.Random(seed)
    by_file = {file: list(mutants((ROOT / file).read_text(encoding="utf-8"), file)) for file in files}
    for found in by_file.values():
        random_.shuffle(found)
    order = [file for file in files if by_file[file]]
    random_.shuffle(order)
    chosen: list[Mutant] = []
    while len(chosen) < count and any(by_file.values()):
        chosen += [by_file[file].pop() for file in order if by_file[file]]
    return chosen[:count]


def main() -> int:
    """Draw, run, print; the exit code is 1 when fewer than `--share` are killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.85)
    parser.add_argument("files", nargs="*", help="files of fam_ext to draw from; default: all of the rooms")
    options = parser.parse_args()
    known = EQUIVALENT.read_text(encoding="utf-8") if EQUIVALENT.exists() else ""
    tracked = subprocess.run(["git", "ls-files", "fam_ext"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [path for path in tracked.stdout.splitlines() if path.endswith(".py")]
    files = options.files or [path for path in paths if path.split("/")[1] in ROOMS]
    chosen = drawn(options.count, options.seed, files)
    ended: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        trees: queue.Queue[Path] = queue.Queue()
        places = [Path(folder) / str(number) for number in range(options.jobs)]
        for place in places:
            subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(place)], cwd=ROOT, check=True)
            trees.put(place)

        def run(mutant: Mutant) -> tuple[Mutant, str]:
            if mutant.name in known:
                return mutant, "equivalent"
            tree = trees.get()
            try:
                return mutant, kill(mutant, tree, mutant.file)
            finally:
                trees.put(tree)

        try:
            if "killed" in {
                kill(None, places[0], file) for file in {tests_of(m.file)[-1]: m.file for m in chosen}.values()
            }:
                print("the unit tests fail as they are; make them pass first")
                return 2
            with ThreadPoolExecutor(options.jobs) as pool:
                for mutant, end in pool.map(run, chosen):
                    ended[end] += 1
                    print(f"{end:10} {mutant.name} (line {mutant.line})", flush=True)
        finally:
            for place in places:
                subprocess.run(["git", "worktree", "remove", "--force", str(place)], cwd=ROOT, check=True)
    judged = ended["killed"] + ended["survived"]
    share = ended["killed"] / judged if judged else 1.0
    print(f"{ended['killed']} of {judged} killed ({share:.0%}); {ended['equivalent']} equivalent")
    return 0 if share >= options.share else 1


if __name__ == "__main__":
    sys.exit(main())
