"""A job that may read its own folders only: links are followed before they are judged."""

import os
import sys

import pytest

from fam_ext.errors import PictureError
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.make import load
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.walk import walk
from fam_ext.options.job import Job
from tests.jobs.fakes import make_picture, options

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links")


def test_no_link_leads_out_of_the_allowed_folders(tmp_path):
    root, outside = tmp_path / "in", tmp_path / "elsewhere"
    for name in ("whole", "texted"):
        make_picture(root / f"{name}.png")
    make_picture(outside / "secret.png")
    (outside / "secret.txt").write_text("a secret prompt")
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "texted.txt").symlink_to(outside / "secret.txt")
    (root / "folder").symlink_to(outside)
    (root / "inner.png").symlink_to(root / "whole.png")
    (tmp_path / "in-too").mkdir()  # its name begins with a root's
    (root / "near.png").symlink_to(tmp_path / "in-too" / "a.png")
    make_picture(tmp_path / "in-too" / "a.png")
    job = options(root, tmp_path / "out", recursive=True, allowed=(os.path.realpath(root),))
    found = {planned.candidate.key: planned for planned in (plan_file(one, job) for one in walk(job.places))}
    good = {key for key, planned in found.items() if planned.problem is None}
    assert good == {"whole.png", "inner.png", "texted.png"}
    assert found["texted.png"].request.prompt == "a cat" and found["texted.png"].candidate.sidecar is None
    assert all("allowed folders" in found[key].problem for key in ("link.png", "near.png"))
    assert not any("secret" in key for key in found)


def test_a_file_that_becomes_a_link_is_not_read(tmp_path):
    make_picture(tmp_path / "in" / "a.png")
    make_picture(tmp_path / "elsewhere" / "b.png")
    job = options(tmp_path / "in", tmp_path / "out", allowed=(os.path.realpath(tmp_path / "in"),))
    source = tmp_path / "in" / "a.png"
    item = Item(1, "a.png", str(source), None, (0, 0), "PNG", "a.png")
    assert load(item, job).picture
    source.unlink()
    source.symlink_to(tmp_path / "elsewhere" / "b.png")
    with pytest.raises(PictureError, match="allowed folders"):
        load(item, job)


def test_roots_travel_and_change_no_fingerprint(tmp_path):
    job = options(tmp_path, tmp_path / "out", allowed=("/a",))
    assert Job.from_json(job.to_json()) == job
    assert job.fingerprint == options(tmp_path, tmp_path / "out").fingerprint
