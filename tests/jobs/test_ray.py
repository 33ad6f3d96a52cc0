"""Ray: a local cluster of two actors, one of which dies in the middle of an item."""

import os
from pathlib import Path

import pytest

from fam_ext.errors import LoadError
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.run import run_job
from fam_ext.options.parts import RunRule
from tests.jobs.fakes import FakeSpec, Fast, make_picture, options, outputs, strays

ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_two_actors_share_the_work_and_a_lost_item_is_made_elsewhere(tmp_path: Path, monkeypatch) -> None:
    marker = tmp_path / "marker"
    monkeypatch.setenv("FAM_TEST_MARKER", str(marker))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    source = tmp_path / "in"
    for number in range(6):
        make_picture(source / f"{number}.png", "die once" if number == 2 else "slow", number)
    run_job(options(source, tmp_path / "one"), Fast)
    summary = run_job(
        options(source, tmp_path / "two"),
        FakeSpec("Odd"),
        run=RunRule(ray="local", workers=2, ray_gpus=0, retries=2),
    )
    assert marker.exists()
    assert (summary.done, summary.failed) == (6, 0)
    assert outputs(tmp_path / "two") == outputs(tmp_path / "one")
    assert strays(tmp_path / "two") == []
    with Journal(tmp_path / "two") as journal:
        attempts = {item.key: item.attempts for item in journal.items()}
    assert attempts["2.png"] == 2
    assert not ray.is_initialized()
    assert os.environ["FAM_TEST_MARKER"] == str(marker)


def test_an_actor_that_dies_while_loading_ends_the_job_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    for number in range(3):
        make_picture(tmp_path / "in" / f"{number}.png", "x", number)
    events = []
    with pytest.raises(LoadError, match="while it loaded the model"):
        run_job(
            options(tmp_path / "in", tmp_path / "out"),
            FakeSpec("DiesLoading"),
            run=RunRule(ray="local", workers=1, ray_gpus=0, retries=2),
            on_event=events.append,
        )
    assert not [event for event in events if event.kind in ("failed", "retry")]
    with Journal(tmp_path / "out") as journal:
        assert [(item.state, item.attempts, item.deaths) for item in journal.items()] == [("pending", 0, 0)] * 3
    assert not ray.is_initialized()
