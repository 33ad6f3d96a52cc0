"""A WebUI that others reach: links resolved, page and API read nothing outside its own folders."""

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fam_ext.errors import UsageError
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.walk import OUTSIDE, walk
from tests.jobs.fakes import make_picture, options


@pytest.fixture
def places(tmp_path: Path, monkeypatch) -> ModuleType:
    """Return fam_ext.webui.places in a WebUI that may use tmp_path/outputs only."""
    modules, shared, paths = ModuleType("modules"), ModuleType("modules.shared"), ModuleType("modules.paths_internal")
    shared.opts = SimpleNamespace(outdir_samples=str(tmp_path / "outputs"))
    shared.cmd_opts = SimpleNamespace(hide_ui_dir_config=False, disable_extension_access=True)
    paths.data_path = str(tmp_path)
    modules.shared = shared
    for module in (modules, shared, paths):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "fam_ext.webui.places", raising=False)
    found = importlib.import_module("fam_ext.webui.places")
    found.fix_roots()
    yield found
    sys.modules.pop("fam_ext.webui.places", None)


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_links_do_not_lead_out_of_the_allowed_folders(tmp_path: Path, places: ModuleType) -> None:
    source = tmp_path / "outputs" / "in"
    make_picture(source / "near.png")
    make_picture(tmp_path / "private" / "far.png")
    (source / "far.png").symlink_to(tmp_path / "private" / "far.png")
    (source / "private").symlink_to(tmp_path / "private", target_is_directory=True)
    job = places.check_places(options(source, tmp_path / "outputs" / "made", recursive=True))
    found = {candidate.key: plan_file(candidate, job).problem for candidate in walk(job.places)}
    assert found == {"far.png": OUTSIDE, "near.png": None}
    with pytest.raises(UsageError, match="outside this WebUI's output folders"):
        places.check_places(options(source / "private", tmp_path / "outputs" / "made"))


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_links_in_a_circle_are_a_folder_that_may_be_named(tmp_path: Path, places: ModuleType) -> None:
    circle = tmp_path / "outputs" / "one"
    circle.parent.mkdir()
    circle.symlink_to(circle)
    assert places.check_places(options(circle, tmp_path / "outputs" / "made")).places.inputs == (str(circle),)
