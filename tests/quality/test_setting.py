"""What makes a row another: the code that draws, the networks that measure."""

import re
import shutil
from pathlib import Path

import pytest

import fam_ext
from fam_ext.demo import demo_net
from fam_ext.quality import protocol, setting
from fam_ext.quality.ruler import Ruler

pytestmark = pytest.mark.slow


def test_another_demo_net_measures_again(tmp_path, monkeypatch):
    for file in demo_net.FOLDER.glob("demo_net.*"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(demo_net, "FOLDER", tmp_path)
    (case,) = protocol.cases([((64, 64), (128, 128))], ["a cat"], count=1, seed=0)
    marks = [Ruler(crop=16, crops=1).fingerprint(case)]
    for file in sorted(tmp_path.iterdir()):
        file.write_bytes(file.read_bytes() + b" ")
        marks.append(Ruler(crop=16, crops=1).fingerprint(case))
    assert len({*marks}) == 4


def test_weights_that_measure_are_known_by_what_they_hold(tmp_path):
    (tmp_path / "clip").mkdir()
    file, inside = tmp_path / "inception.pth", tmp_path / "clip" / "model.safetensors"
    file.write_bytes(b"one")
    inside.write_bytes(b"two")
    before = setting.measuring_weights(str(file), str(tmp_path / "clip"))
    inside.write_bytes(b"another")
    after = setting.measuring_weights(str(file), str(tmp_path / "clip"))
    assert len(before) == 3 and [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    for name in ("preprocessor_config.json", "merges.txt"):
        (tmp_path / "clip" / name).write_text("{}")
        again = setting.measuring_weights(str(file), str(tmp_path / "clip"))
        assert again[:2] == after[:2] and again[2] != after[2]
        after = again
    assert setting.measuring_weights(None, None) == []


def test_code_that_draws_imports_none_that_is_not_in_the_hash():
    """Beside what prints names, and reads settings and weights, whose values are in the rows' fingerprints."""
    home = Path(fam_ext.__file__).parent
    files = [path for part in setting.CODE for path in (sorted((home / part).rglob("*.py")) or [home / part])]
    lines = re.findall(
        r"^ *(?:from fam_ext\.(\w+)|from fam_ext import (.+)$)", "\n".join(map(Path.read_text, files)), re.M
    )
    imported = {name.strip() for module, names in lines for name in (module or names).split(",")}
    drawing = {Path(part).stem for part in setting.CODE}
    assert drawing <= imported | {"standalone"}  # the regular expression finds them
    assert imported - drawing == {"errors", "escapes", "jobs", "options", "weights"}


def test_a_mended_method_has_other_rows(tmp_path, monkeypatch):
    home = tmp_path / "fam_ext"
    shutil.copytree(Path(fam_ext.__file__).parent, home, ignore=shutil.ignore_patterns("demo", "__pycache__"))
    monkeypatch.setattr(fam_ext, "__file__", str(home / "__init__.py"))
    before = setting.code_hash()
    (home / "cli" / "report.py").write_text("# draws nothing")
    assert setting.code_hash() == before
    for drawing in ("methods/demofusion.py", "hosts/diffusers/host.py", "recipe.py"):
        (home / drawing).write_text(f"# {drawing}, mended")
        after = setting.code_hash()
        assert after != before
        before = after
