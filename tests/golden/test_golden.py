"""Today's code draws what the commit in BASE drew, latent for latent."""

import subprocess

import numpy as np
import pytest

from tests.golden import compare

TOLERANCE = 1e-4


def test_a_changed_latent_a_lost_case_and_a_lost_step_are_differences():
    before = {"a#000": np.zeros(3, np.float32), "a#001": np.ones(3, np.float32), "b#000": np.zeros(2, np.float32)}
    assert compare.differences(before, dict(before), tolerance=0) == []
    changed = before | {"a#001": np.float32([1, 1, 1.01])}
    assert [each.case for each in compare.differences(before, changed, tolerance=1e-4)] == ["a"]
    assert compare.differences(before, changed, tolerance=0.1) == []
    assert compare.differences(before, before | {"a#001": np.float32([1, 1, np.nan])}, tolerance=0.1)
    for lost in ("a#001", "b#000"):
        fewer = {key: value for key, value in before.items() if key != lost}
        assert [each.case for each in compare.differences(before, fewer, tolerance=1)] == [lost[0]]
        assert [each.case for each in compare.differences(fewer, before, tolerance=1)] == [lost[0]]


@pytest.fixture
def revision():
    """The commit in BASE, where this checkout has it."""
    revision, _ = compare.base()
    known = subprocess.run(
        ["git", "-C", str(compare.REPOSITORY), "cat-file", "-e", f"{revision}^{{commit}}"], capture_output=True
    )
    if known.returncode:
        pytest.skip(f"needs the history: commit {revision} is not in this checkout")
    return revision


def test_a_revision_draws_with_the_model_and_the_tests_of_this_checkout(revision, tmp_path):
    compare.unpack(revision, tmp_path / "base")
    for shared in (compare.MODEL, "tests"):
        assert (tmp_path / "base" / shared).resolve() == compare.REPOSITORY / shared
    assert (tmp_path / "base" / "fam_ext" / "hires.py").is_file()


@pytest.mark.slow
def test_the_code_draws_what_the_base_drew(revision, tmp_path):
    before = compare.run_side(revision, tmp_path, "base")
    after = compare.run_side(str(compare.REPOSITORY), tmp_path, "head")
    assert len(before) > 500
    found = compare.unexplained(compare.differences(before, after, tolerance=TOLERANCE))
    assert not found, "\n".join(f"{each.case}: {each.what}" for each in found)
