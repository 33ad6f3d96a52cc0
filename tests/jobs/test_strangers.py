"""A folder as strangers leave them: through the real command on the embedded model, and under signals at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from fam_ext.escapes import shown
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.walk import NO_FILES, walk
from fam_ext.options.renderer import STANDALONE, RendererChoice
from tests.jobs.fakes import options, outputs, strays
from tests.jobs.strangers import bad_pictures, good_pictures, other_entries, said

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names, links and FIFOs that Windows cannot hold")


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, set[str], set[str]]:
    """Return the folder and its good and bad names."""
    source = tmp_path / "in"
    source.mkdir()
    good, bad = good_pictures(), bad_pictures()
    for name, data in {**good, **bad}.items():
        (source / name).write_bytes(data)
    more, worse = other_entries(source, tmp_path / "far")
    # what root may read nobody else may
    (more if os.access(source / "locked.png", os.R_OK) else worse).add("locked.png")
    return source, good.keys() | more, bad.keys() | worse


FAKE = """
import sys
from fam_ext import cli
from fam_ext.jobs.renderers import RendererSpec
from tests.jobs.fakes import Fast
RendererSpec.build = lambda self: Fast(seconds=0.02)
cli.program()
"""


def start(*words: object, fake: bool = False) -> subprocess.Popen[str]:
    program = ["-c", FAKE] if fake else ["-m", "fam_ext.cli"]
    return subprocess.Popen(
        [sys.executable, *program, "upscale", *map(str, words), "--recursive", "--steps", "1"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(*words: object, fake: bool = False) -> tuple[int, list[dict], str]:
    process = start(*words, fake=fake)
    out, err = process.communicate(timeout=600)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


@pytest.mark.slow
def test_every_good_picture_is_made_and_each_bad_one_is_a_line(folder: tuple[Path, set[str], set[str]]) -> None:
    source, good, bad = folder
    output = source.parent / "out"
    assert len(good) >= 60 and len(bad) >= 20 and not good & bad
    code, rows, err = lines(source, "-o", output, "--dry-run", "--plan-format", "json")
    planned = {row["source"]: row for row in rows}
    assert code == 0 and err == "" and not output.exists()
    assert planned.keys() == {shown(name) for name in good | bad}
    code, events, err = lines(source, "-o", output, "--progress", "json")
    assert code == 1 and "Traceback" not in err
    failed = [event for event in events if event["kind"] == "failed"]
    made = {event["key"]: event for event in events if event["kind"] == "finished"}
    assert made.keys() == good, made.keys() ^ good
    assert sorted(event["key"] for event in failed) == sorted(bad)
    for event in failed:
        assert event["message"].isprintable() and 10 < len(event["message"]) < 300
    # the dry run promised no other names and sizes, and knew the files whose headers are bad
    for name, event in made.items():
        row = planned[shown(name)]
        assert (row["state"], row["output"]) == ("pending", shown(event["output"]))
        with Image.open(output / event["output"]) as image:
            image.load()
            assert f"{image.width}x{image.height}" == row["target"]
    refused = {name: row["error"] for name, row in planned.items() if row["state"] == "failed"}
    assert len(refused) > len(bad) / 2
    messages = {shown(event["key"]): event["message"] for event in failed}
    assert all(messages[name] == error for name, error in refused.items())
    assert len(outputs(output)) == len(good) and strays(output) == []
    assert events[-1]["left_out"].count(f"2 {NO_FILES}") == 1 and "2 hidden" in events[-1]["left_out"]


@pytest.mark.slow
def test_signals_at_any_moment_lose_nothing(folder: tuple[Path, set[str], set[str]]) -> None:
    source, good, bad = folder
    chance = random.Random(11)
    words = (source, "-o", source.parent / "whole", "--progress", "json", "--retries", "0")
    start(*words, fake=True).communicate(timeout=60)
    whole = outputs(source.parent / "whole")
    assert len(whole) == len(good)
    sent = rounds = 0
    while sent < 30:
        output = source.parent / f"out{rounds}"
        words = (source, "-o", output, "--progress", "json", "--retries", "0")
        rounds += 1
        for _ in range(4):
            process = start(*words, fake=True)
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            time.sleep(chance.uniform(0, 1.2))
            number = chance.choice((signal.SIGKILL, signal.SIGINT, signal.SIGTERM))
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
            assert "Traceback" not in err and process.returncode in (-signal.SIGKILL, 130, 1)
            sent += process.returncode != 1  # 1: it had ended before
            for name, data in outputs(output).items():
                assert data == whole[name]
        code, events, err = lines(*words, fake=True)
        assert code == 1 and "Traceback" not in err
        failed = {event["key"] for event in events if event["kind"] == "failed"}
        if failed != bad:  # two of the kills fell into one picture
            poisoned = {event["key"] for event in events if "ended twice" in event.get("message", "")}
            assert failed == bad | poisoned
            for name in poisoned:
                os.utime(source / name)  # another file now, as far as the journal knows
            assert lines(*words, fake=True)[0] == 1
        assert outputs(output) == whole and strays(output) == []


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"Steps": "0"}, "Steps 0 is out of range, 30 is used"),
        ({"Steps": "5000"}, "Steps 5000 is out of range, 150 is used"),
        ({"CFG scale": "0"}, "CFG scale 0 is out of range, 1 is used"),
        ({"Clip skip": "99"}, "Clip skip 99 is out of range, the default is used"),
        ({"Sampler": '"\x1b]0;x"'}, "is not understood, DDIM is used"),
    ],
)
def test_a_setting_that_cannot_be_taken_is_noted(tmp_path: Path, changed: dict[str, str], note: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(said(**changed))
    plan = options(tmp_path / "in", tmp_path / "out", renderer=RendererChoice(STANDALONE))
    (found,) = (plan_file(candidate, plan) for candidate in walk(plan.places))
    assert found.problem is None and note in "; ".join(found.notes)
    assert all(one.isprintable() for one in found.notes)
