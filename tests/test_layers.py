"""The import table of docs/architecture.md: nothing calls upward, no circles, and planning a folder never loads torch.

Every file of `fam_ext` has its line there, that of its folder or its own; a file of a new folder has none and fails. A
line that allows what none of its files imports fails too. Names in strings count: `importlib.import_module("...")` and
"module:function", as in RENDERERS.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fam_ext"
EVERYWHERE = {"fam_ext.errors", "fam_ext.__version__"}
STDLIB = set(sys.stdlib_module_names) | {"__future__"}

ARCHITECTURE = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")


def read_table(text):
    """Return what each room or file may import anywhere in its code, and what within a function alone: ours by prefix,
    others by top-level name. The longest name that fits a file counts."""
    allowed, lazy = {}, {}
    for line in text.partition("## Rooms")[2].partition("## ")[0].splitlines():
        if line.startswith("| `"):
            rooms, _, anywhere, within = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:-1])
            for room in rooms:
                own = {room[:-1]} if room.endswith("/") else set()
                allowed[room.rstrip("/")] = set(map(whole, own.union(anywhere)))
                lazy[room.rstrip("/")] = set(map(whole, within))
    return allowed, lazy


def whole(name):
    """Return a name of the table as Python has it: `core.config` is ours, `torch` is not."""
    first = PACKAGE / name.partition(".")[0]
    return f"fam_ext.{name}" if first.exists() or first.with_suffix(".py").exists() else name


ALLOWED, LAZY = read_table(ARCHITECTURE)
IMPORTS_BY_NAME = {"jobs/renderers.py", "metadata/formats.py", "methods/catalog.py"}
"""The files that import what a variable names: each has a known list of its own."""
WITHOUT_TORCH = (
    "options",
    "metadata",
    "jobs",
    "cli",
    "core/config.py",
    "methods/catalog.py",
    "methods/capabilities.py",
    "samplers/names.py",
)
"""What a machine without torch must be able to import, whole."""
OTHERS = STDLIB | set().union(*ALLOWED.values(), *LAZY.values())

_IMPORTERS = {"import_module", "__import__"}


class Imports(ast.NodeVisitor):
    """Collects (name, whether it is imported when the file is loaded) of one file."""

    def __init__(self) -> None:
        self.found: list[tuple[str, bool]] = []
        self.by_variable = False
        self._loading = True

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(alias.name, self._loading) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0 and node.module, "imports relatively"
        # "from fam_ext.metadata import infotext" names a module, "from fam_ext import hires" too
        self.found += [(f"{node.module}.{alias.name}", self._loading) for alias in node.names]

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in _IMPORTERS and node.args:
            if isinstance(node.args[0], ast.Constant):
                self.found.append((str(node.args[0].value), self._loading))
            else:
                self.by_variable = True
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        named = isinstance(node.value, str) and re.fullmatch(r"((\w+)(\.\w+)*):\w+", node.value)
        if named and (named[2] == "fam_ext" or ("." in named[1] and named[2] in OTHERS)):
            self.found.append((named[1], False))

    def _visit_later(self, node: ast.AST) -> None:
        before, self._loading = self._loading, False
        self.generic_visit(node)
        self._loading = before

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_later  # noqa: N815


def imports(path):
    found = Imports()
    found.visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def line_of(table, path):
    """Return the name in `table` that counts for a file; None where there is none."""
    return next((name for name in (path, *map(str, Path(path).parents)) if name in table), None)


def is_allowed(name, allowed):
    return name.partition(".")[0] in STDLIB or name == "fam_ext" or permission(name, allowed | EVERYWHERE) is not None


def permission(name, allowed):
    """Return the widest of the `allowed` that lets a name through; None where none does."""
    parts = name.split(".")
    widest = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next((name for name in widest if name in allowed), None)


def unused(package):
    """Return the permissions that no file needs for which their line counts, "line: name" each."""
    used = set()
    for path in files(package):
        line = line_of(ALLOWED, path)
        for name, loading in imports(package / path).found:
            found = permission(name, ALLOWED[line]), None if loading else permission(name, LAZY[line])
            used |= {(line, found[0] or found[1])}
    given = {(line, name) for table in (ALLOWED, LAZY) for line in table for name in table[line]}
    return sorted(f"{line}: {name}" for line, name in given - used if name != f"fam_ext.{line}")


def problems(package, path):
    """Return what a file (relative to the package) may not do, one sentence each."""
    line = line_of(ALLOWED, path)
    if line is None:
        return [f"{path} has no line in the table of allowed imports"]
    found = imports(package / path)
    said = [
        f"{path} imports {name}" + (" when it is loaded" if loading else "")
        for name, loading in found.found
        if not is_allowed(name, ALLOWED[line] if loading else ALLOWED[line] | LAZY[line])
    ]
    said += [f"{path} imports {name}, which is private" for name, _ in found.found if re.search(r"\._[^_]", name)]
    if found.by_variable and path not in IMPORTS_BY_NAME:
        said.append(f"{path} imports what a variable names")
    return said


def files(package):
    return sorted(str(path.relative_to(package)) for path in package.rglob("*.py"))


def module_of(path):
    return ".".join(("fam_ext", *Path(path).with_suffix("").parts)).removesuffix(".__init__")


def graph(package, *, loading):
    """Return for every module those of ours that it imports: all, or only while it is loaded."""
    known = {module_of(path) for path in files(package)}
    edges = {}
    for path in files(package):
        targets = set()
        for name, when_loaded in imports(package / path).found:
            while name not in known and "." in name:
                name = name.rpartition(".")[0]
            if name in known and (when_loaded or not loading):
                targets.add(name)
        edges[module_of(path)] = targets - {module_of(path)}
    return edges


def circles(edges):
    """Return the circles of a graph: modules that reach each other, by their shortest way."""
    found = set()
    for start in edges:
        came_from, queue = {}, [start]
        for module in queue:
            for target in edges[module]:
                if target == start:
                    way = [module]
                    while way[-1] != start:
                        way.append(came_from[way[-1]])
                    found.add(frozenset(way))
                    break
                if target not in came_from:
                    came_from[target] = module
                    queue.append(target)
    return sorted(sorted(circle) for circle in found)


@pytest.mark.parametrize("path", files(PACKAGE))
def test_nothing_imports_upward(path):
    assert problems(PACKAGE, path) == []


def test_the_table_allows_nothing_that_nobody_imports():
    assert unused(PACKAGE) == []
    assert [line for line in ALLOWED if not (PACKAGE / line).exists()] == []


def test_there_are_no_circles():
    assert circles(graph(PACKAGE, loading=True)) == []
    assert circles(graph(PACKAGE, loading=False)) == []


def without(blocked, program):
    names = ", ".join(map(repr, blocked))
    block = f"import sys\nfor name in ({names}):\n    sys.modules[name] = None\n"
    done = subprocess.run([sys.executable, "-c", block + program], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


BLOCKED = ("torch", "gradio", "numpy", "diffusers", "transformers", "ray", "modules")


def test_these_load_without_torch_and_gradio():
    wanted = [module_of(path) for path in files(PACKAGE) if line_of(WITHOUT_TORCH, path)]
    assert {"fam_ext.jobs.run", "fam_ext.jobs.executors.ray", "fam_ext.cli.upscale"} <= set(wanted)
    program = f"import importlib\nfor module in {wanted!r}:\n    if not module.endswith('__main__'):\n"
    assert without(BLOCKED, program + "        importlib.import_module(module)\n") == ""


PLAN = """
from PIL import Image
from fam_ext.jobs.preview import previews
from fam_ext.options import resolve
from fam_ext.options.presets import PresetStore
from pathlib import Path
Path("in").mkdir(exist_ok=True)
Image.new("RGB", (64, 48)).save("in/one.png")
job = resolve.job({"input": "in", "output": "out"}, preset_of=PresetStore(Path("presets")).get)
assert [row.outcome for row in list(previews(job))[-1].rows] == ["to do"]
"""


def test_planning_a_folder_loads_no_torch(tmp_path):
    there = f"import os\nos.chdir({str(tmp_path)!r})\n"
    assert without(BLOCKED, there + PLAN) == ""
    assert "torch" in without(BLOCKED, there + "import fam_ext.core.guide\n" + PLAN)  # the check can fail


# --- the guard itself, on made-up files


def package(tmp_path, **sources):
    """Write a package of made-up modules: `jobs__run="..."` is jobs/run.py."""
    made = tmp_path / "fam_ext"
    for name, source in sources.items():
        path = made / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return made


@pytest.mark.parametrize(
    ("name", "source", "problem"),
    [
        ("core__bad", "import gradio\n", "core/bad.py imports gradio when it is loaded"),
        ("core__bad", "def f():\n    from fam_ext.jobs import run\n", "core/bad.py imports fam_ext.jobs.run"),
        ("core__deep__bad", "import PIL.Image\n", "core/deep/bad.py imports PIL.Image when it is loaded"),
        ("hosts__bad", "import diffusers\n", "hosts/bad.py imports diffusers when it is loaded"),
        ("jobs__bad", "def f():\n    import modules.shared\n", "jobs/bad.py imports modules.shared"),
        ("jobs__bad", "def f():\n    import ray\n", "jobs/bad.py imports ray"),
        ("jobs__bad", "R = {'x': 'fam_ext.standalone:load'}\n", "jobs/bad.py imports fam_ext.standalone"),
        ("jobs__bad", "R = 'torch.nn:Linear'\n", "jobs/bad.py imports torch.nn"),
        (
            "options__bad",
            "import importlib\nx = importlib.import_module('fam_ext.core.guide')\n",
            "options/bad.py imports fam_ext.core.guide when it is loaded",
        ),
        (
            "options__bad",
            "from importlib import import_module\ndef f(name):\n    import_module(name)\n",
            "options/bad.py imports what a variable names",
        ),
        (
            "ui__bad",
            "from fam_ext.jobs.run import run_job\n",
            "ui/bad.py imports fam_ext.jobs.run.run_job when it is loaded",
        ),
        ("standalone", "from fam_ext.cli import main\n", "standalone.py imports fam_ext.cli.main when it is loaded"),
        ("new_room__bad", "", "new_room/bad.py has no line in the table of allowed imports"),
        ("new", "", "new.py has no line in the table of allowed imports"),
    ],
)
def test_the_guard_sees_what_it_should(tmp_path, name, source, problem):
    made = package(tmp_path, **{name: source})
    assert [problem] == [found for path in files(made) for found in problems(made, path)]


def test_the_guard_lets_through_what_it_should(tmp_path):
    made = package(
        tmp_path,
        hosts__good="def f():\n    import accelerate\n",
        jobs__good="from fam_ext import __version__\nfrom fam_ext.errors import FamError\nKEY = 'dc:title'\n",
        jobs__executors__ray="def f():\n    import ray\n",
        jobs__renderers="R = {'x': 'fam_ext.standalone:load'}\n",
    )
    assert [found for path in files(made) for found in problems(made, path)] == []


def test_the_guard_sees_what_nobody_imports(tmp_path):
    made = package(
        tmp_path,
        hosts__one="import torch\nimport accelerate\n",  # this one may not be, and shows no need
        hosts__two="from fam_ext.core import guide\ndef f():\n    from fam_ext.methods.base import Pass\n",
    )
    found = {line for line in unused(made) if line.startswith("hosts: ")}
    assert found == {"hosts: accelerate", "hosts: fam_ext.methods.capabilities", "hosts: fam_ext.samplers"}


def test_the_guard_sees_circles(tmp_path):
    made = package(
        tmp_path,
        jobs__one="from fam_ext.jobs import two\n",
        jobs__two="import fam_ext.jobs.three\n",
        jobs__three="from fam_ext.jobs.one import f\n",
        jobs__four="def f():\n    from fam_ext.jobs.five import g\n",
        jobs__five="from fam_ext.jobs.four import f\n",
    )
    first = ["fam_ext.jobs.one", "fam_ext.jobs.three", "fam_ext.jobs.two"]
    assert circles(graph(made, loading=True)) == [first]
    assert circles(graph(made, loading=False)) == [["fam_ext.jobs.five", "fam_ext.jobs.four"], first]


def test_no_module_is_long() -> None:
    long = {path.name: count for path in PACKAGE.rglob("*.py") if (count := len(path.read_text().splitlines())) > 450}
    assert not long, "split it by question"
