"""Which executor a run gets."""

import pytest

from fam_ext.jobs.executors.known import EXECUTORS, executor_name
from fam_ext.options.parts import RunRule


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (RunRule(), "local"),
        (RunRule(workers=1), "process"),
        (RunRule(ray="local"), "ray"),
        (RunRule(ray="10.0.0.1:6379", workers=2), "ray"),
    ],
)
def test_a_run_chooses_from_the_known_executors(run: RunRule, name: str) -> None:
    assert executor_name(run) == name
    assert name in EXECUTORS
