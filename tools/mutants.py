"""Ask the unit tests whether they notice small faults: `make mutants`.

A mutant is one file of this commit with one small change (an operator, a number, a condition, a call left out). It is
run against the unit tests of its own folder, those that name the changed module first; killed is a mutant at which one
of them fails. Those that change nothing which anyone could see are named in tests/MUTANTS.md, with the reason, and
count neither way. The sample is drawn with `--seed`, so a run can be repeated. What is not committed is not seen, and
jobs/bench.py is left out: it measures the product and is no part of it.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import queue
import random
import re
import signal
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
ROOMS = ("core", "methods", "samplers", "hosts", "jobs", "escapes.py", "recipe.py", "hires.py")
LEFT_OUT = ("fam_ext/jobs/bench.py",)
SLOW = "fam_ext/hosts/diffusers/"
"""Its tests take longer to import diffusers than a unit test may run: of these files those that name them are run, the
slow ones too, and no others."""
SECONDS = 180
"""A test that takes so long has failed: the mutant waits, or goes round, for ever."""
NO_TESTS = 5
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
    nth: int = 1
    """Which of those with the same words in its file."""

    @property
    def name(self) -> str:
        """The change and the line it is in, without that line's number, which moves."""
        before, after = (re.sub(r"\s+", " ", text) for text in (self.before, self.after))
        nth = f" #{self.nth}" if self.nth > 1 else ""
        return f"`{self.file}`: `{before}` -> `{after}` in `{self.text}`{nth}"


def mutants(source: str, file: str) -> Iterator[Mutant]:
    """Give every mutant of `source`, the text of `file`."""
    lines, seen = [0], Counter[str]()
    for line in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    for node in _acting(ast.parse(source)):
        for changed in _changed(node):
            assert node.end_lineno is not None and node.end_col_offset is not None
            start = lines[node.lineno - 1] + node.col_offset
            end = lines[node.end_lineno - 1] + node.end_col_offset
            before = source.encode()[start:end].decode()
            mutant = Mutant(
                file, node.lineno, start, end, before, changed, source.splitlines()[node.lineno - 1].strip()
            )
            seen[mutant.name] += 1
            yield dataclasses.replace(mutant, nth=seen[mutant.name])


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


def tests_of(file: str, tree: Path) -> list[str]:
    """Return the unit tests of `file` in `tree`, each once: those called after it first, so that a mutant dies
    early, then those that name it or its package, then the rest of its folder."""
    module = ".".join(Path(file).with_suffix("").parts)
    package = module.rpartition(".")[0]
    everywhere = [
        path for path in sorted((tree / "tests").rglob("test_*.py")) if path.parts[-2] not in ("webui", "gpu")
    ]
    words = {path: path.read_text(encoding="utf-8") for path in everywhere}

    def naming(module: str) -> list[Path]:
        above, _, name = module.rpartition(".")
        said = re.compile(rf"\b{re.escape(module)}\b|from {re.escape(above)} import [^\n]*\b{name}\b")
        called = re.compile(rf"test_{name}(_\w+)?\.py")
        after = [path for path in everywhere if called.fullmatch(path.name)]
        return [*after, *(path for path in everywhere if said.search(words[path]))]

    if file.startswith(SLOW):
        own = [path for path in naming(module) if path.parts[-2] in ("hosts", "standalone")]
        return [str(path.relative_to(tree)) for path in dict.fromkeys(own)]
    own, near = naming(module), naming(package) if package.count(".") > 1 else []
    folder = tree / "tests" / module.split(".")[1]
    inside = [path for path in everywhere if folder in path.parents]
    first = [path for path in (*own, *near) if path in inside] or own
    found = dict.fromkeys((*first, *inside))  # a folder's name beside its files' would undo their order
    return [str(path.relative_to(tree)) for path in found]


class Trees:
    """Checkouts of this commit, in which one mutant at a time is tested; gone at the end, however that comes."""

    def __init__(self, count: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.places = [Path(self._folder.name) / str(number) for number in range(count)]
        self._free: queue.Queue[Path] = queue.Queue()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def __enter__(self) -> Trees:
        try:
            for place in self.places:
                subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(place)], cwd=ROOT, check=True)
                self._free.put(place)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for process in tuple(self._running):
            process.kill()
        for place in self.places:  # git locks one while it makes it
            subprocess.run(["git", "worktree", "unlock", str(place)], cwd=ROOT, stderr=subprocess.DEVNULL, check=False)
        self._folder.cleanup()
        subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)

    def kill(self, mutant: Mutant | None, file: str) -> str:
        """Return how the tests of `file` ended with `mutant` in it (None: as it is): "killed", "survived", or "unknown"
        where pytest itself was killed from outside."""
        tree = self._free.get()
        path = tree / file
        source = path.read_bytes()
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["-m", "not webui" if file.startswith(SLOW) else "not slow and not webui"]
        command += ["-o", f"faulthandler_timeout={SECONDS}", "-o", "faulthandler_exit_on_timeout=true"]
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            if mutant:
                path.write_bytes(source[: mutant.start] + mutant.after.encode() + source[mutant.end :])
            process = subprocess.Popen(
                [*command, *tests_of(file, tree)],
                cwd=tree,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
            )
            self._running.add(process)
            if self._over:
                process.kill()
            code = process.wait()
            self._running.discard(process)
        finally:
            if not self._over:
                path.write_bytes(source)
            self._free.put(tree)
        return _ending(code)


def _ending(code: int) -> str:
    """Return what pytest's exit code says of a mutant: a module that cannot be imported or a crash is noticed too."""
    if code in (0, NO_TESTS):
        return "survived"
    return "unknown" if code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT) else "killed"


def drawn(count: int, seed: int, sources: dict[str, str]) -> list[Mutant]:
    """Return `count` mutants of `sources` (text by file), the same for the same seed: a file in turn, so that no long
    one has all."""
    random_ = random.Random(seed)
    by_file = {file: list(mutants(source, file)) for file, source in sources.items()}
    for found in by_file.values():
        random_.shuffle(found)
    order = [file for file in sources if by_file[file]]
    random_.shuffle(order)
    chosen: list[Mutant] = []
    while len(chosen) < count and any(by_file.values()):
        chosen += [by_file[file].pop() for file in order if by_file[file]]
    return chosen[:count]


def equivalent(tree: Path) -> tuple[set[str], list[str]]:
    """Return the names of those that tests/MUTANTS.md names ("- name: reason"), and its lines that name none of `tree`
    any more."""
    lines = [line for line in EQUIVALENT.read_text(encoding="utf-8").splitlines() if line.startswith("- ")]
    paths = {match[1]: tree / match[1] for line in lines if (match := re.match(r"- `([^`]+)`: ", line))}
    sources = {file: path.read_text(encoding="utf-8") for file, path in paths.items() if path.is_file()}
    names = {mutant.name for file, source in sources.items() for mutant in mutants(source, file)}
    named = {line: next((name for name in names if line.startswith(f"- {name}: ")), None) for line in lines}
    return {name for name in named.values() if name}, [line for line, name in named.items() if name is None]


def main() -> int:
    """Draw, run, print; the exit code is 1 when fewer than `--share` are killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.85)
    parser.add_argument("files", nargs="*", help="files of fam_ext to draw from; default: all of the rooms")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the checkouts go
    tracked = subprocess.run(["git", "ls-files", "fam_ext"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [path for path in tracked.stdout.splitlines() if path.endswith(".py") and path not in LEFT_OUT]
    files = options.files or [path for path in paths if path.split("/")[1] in ROOMS]
    ended = Counter[str]()
    with Trees(options.jobs) as trees:
        sources = {file: (trees.places[0] / file).read_text(encoding="utf-8") for file in files if file not in LEFT_OUT}
        chosen = drawn(options.count, options.seed, sources)
        known, gone = equivalent(trees.places[0])
        if gone:
            print(*("no mutant any more, mend tests/MUTANTS.md: " + line for line in gone), sep="\n")
            return 2
        for file in {tuple(sorted(tests_of(mutant.file, trees.places[0]))): mutant.file for mutant in chosen}.values():
            if trees.kill(None, file) != "survived":
                print(f"the unit tests of {file} fail as they are; make them pass first")
                return 2

        def run(mutant: Mutant) -> tuple[Mutant, str]:
            return mutant, "equivalent" if mutant.name in known else trees.kill(mutant, mutant.file)

        pool = ThreadPoolExecutor(options.jobs)
        try:
            for mutant, end in pool.map(run, chosen):
                ended[end] += 1
                print(f"{end:10} {mutant.name} (line {mutant.line})", flush=True)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    judged = ended["killed"] + ended["survived"]
    share = ended["killed"] / judged if judged else 1.0
    print(f"{ended['killed']} of {judged} killed ({share:.0%}); {ended['equivalent']} equivalent")
    if ended["unknown"]:
        print(f"{ended['unknown']} unknown: something else ended their pytest; run them again")
    return 0 if share >= options.share else 1


if __name__ == "__main__":
    sys.exit(main())
