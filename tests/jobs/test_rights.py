"""What we write can be read by whom the umask lets, as any other new file."""

import os
import stat

import pytest
from PIL import Image

from fam_ext.cli.written import write_new
from fam_ext.demo.export import export_checkpoint
from fam_ext.jobs.run import run_job
from fam_ext.options.presets import BUILTIN, write
from tests.jobs.fakes import SPEC, make_folder, options


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_every_file_has_the_rights_of_a_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        export_checkpoint(tmp_path / "models")
        write(BUILTIN["paper"], tmp_path / "paper.json")
        write_new(tmp_path, "made", Image.new("RGB", (8, 8)), None)
        run_job(options(make_folder(tmp_path / "in", 1), tmp_path / "out"), SPEC)
    finally:
        os.umask(before)
    rights = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*")
        if path.is_file() and not any(part.startswith(".fam") for part in path.parts)
    }
    wanted = 0o666 & ~umask
    assert len(rights) >= 9
    assert {name: oct(mode) for name, mode in rights.items() if mode != wanted} == {}
