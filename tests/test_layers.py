"""The import table of the architecture: nothing calls upward, and planning a folder never loads torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fam_ext"
STDLIB = set(sys.stdlib_module_names) | {"__future__", "fam_ext.errors", "fam_ext"}

# who -> what it may import, in all of its code; ours by prefix, others by top-level name
ALLOWED = {
    # the dials are core's, the names of methods are in a list without torch: both are the standard library's alone
    "options": {"fam_ext.options", "fam_ext.core.config", "fam_ext.methods.catalog"},
    "core": {"torch", "fam_ext.core", "fam_ext.options.field"},
    "methods": {"torch", "fam_ext.core", "fam_ext.options.field", "fam_ext.methods"},
    "hires.py": {"torch", "numpy", "PIL", "fam_ext.core", "fam_ext.hosts.base", "fam_ext.methods"},
    "metadata": {
        "PIL",
        "piexif",
        "fam_ext.core.config",
        "fam_ext.options",
        "fam_ext.metadata",
        "fam_ext.samplers.names",
    },
    "jobs": {
        "PIL",
        "ray",
        "fam_ext.core.config",
        "fam_ext.options",
        "fam_ext.methods.catalog",
        "fam_ext.samplers.names",
        "fam_ext.metadata",
        "fam_ext.jobs",
        "fam_ext.standalone",
    },
    "ui": {"gradio", "PIL", "fam_ext.core.config", "fam_ext.options", "fam_ext.jobs", "fam_ext.metadata", "fam_ext.ui"},
}
# a host's own library, inside functions only
HOSTS = {"torch", "fam_ext.core", "fam_ext.methods", "fam_ext.samplers", "fam_ext.hosts"}
LAZY = {
    "hosts": {
        "accelerate",
        "diffusers",
        "modules",
        "k_diffusion",
        "backend",
        "ldm",
        "sgm",
        "modules_forge",
        "ldm_patched",
    }
}
# modules that a machine without torch must be able to import
WITHOUT_TORCH = [
    "fam_ext.core.config",
    "fam_ext.options.table",
    "fam_ext.methods.catalog",
    "fam_ext.metadata.infotext",
    "fam_ext.options.presets",
    "fam_ext.metadata.pictures",
    "fam_ext.samplers.names",
    "fam_ext.jobs.contract",
    "fam_ext.options.request",
    "fam_ext.jobs.plan",
    "fam_ext.jobs.walk",
    "fam_ext.jobs.journal",
    "fam_ext.jobs.run",
    "fam_ext.jobs.report",
    "fam_ext.cli",
]


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            # "from fam_ext.metadata import infotext" names a module, "from fam_ext import hires" too
            yield from (
                (f"{node.module}.{alias.name}" for alias in node.names)
                if node.module.startswith("fam_ext")
                else [node.module]
            )


def is_allowed(name, allowed):
    parts = name.split(".")
    if parts[0] != "fam_ext":
        return parts[0] in allowed or parts[0] in STDLIB
    prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return bool(prefixes & allowed) or ".".join(parts[:2]) in {"fam_ext.errors", "fam_ext.__version__"}


def files(who):
    place = PACKAGE / who
    return [place] if place.suffix else sorted(place.rglob("*.py"))


@pytest.mark.parametrize("who", ALLOWED)
def test_nothing_imports_upward(who):
    checked = 0
    for path in files(who):
        for name in imports(path):
            checked += 1
            assert is_allowed(name, ALLOWED[who]), f"{path.relative_to(PACKAGE)} imports {name}"
    assert checked


def test_hosts_import_their_host_inside_functions():
    for path in files("hosts"):
        for name in imports(path, top_level_only=True):
            assert is_allowed(name, HOSTS), f"{path.name} imports {name} when it is loaded"
        for name in imports(path):
            assert is_allowed(name, HOSTS | LAZY["hosts"]), f"{path.name} imports {name}"


def test_only_the_webui_and_hosts_import_the_webuis_modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).parts[0]
        if place in ("webui", "webui.py", "hosts"):
            continue
        assert not [name for name in imports(path) if name.split(".")[0] == "modules"], path


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_loads_without_torch_and_gradio(module):
    program = (
        "import sys\n"
        "for name in ('torch', 'gradio', 'diffusers', 'transformers', 'ray', 'modules'):\n"
        "    sys.modules[name] = None\n"
        f"import {module}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_guard_sees_what_it_should(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import gradio\ndef f():\n    from fam_ext.jobs import run\n    import torch.nn\n")
    found = [name for name in imports(bad) if not is_allowed(name, ALLOWED["core"])]
    assert found == ["gradio", "fam_ext.jobs.run"]
    assert list(imports(bad, top_level_only=True)) == ["gradio"]
