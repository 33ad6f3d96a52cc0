"""Ctrl-C while the report is written, as a real signal to a real process; and reports that are behind their journal."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

with contextlib.suppress(ImportError):  # Windows has none
    import fcntl
    import termios

from fam_ext.jobs import report
from fam_ext.jobs.events import Control
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.run import run_job
from fam_ext.options.parts import RunRule
from tests.jobs.fakes import Fast, make_folder, make_picture, options, outputs, strays

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def terminal_signals():
    """Each process begins as in a terminal, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL) if hasattr(signal, "SIGHUP") else None
    yield
    if before is not None:
        signal.signal(signal.SIGHUP, before)


PROGRAM = """
import sys, time
from fam_ext import cli
from fam_ext.jobs import report
from fam_ext.jobs.renderers import RendererSpec
from tests.jobs.fakes import Fast

def slow(path, side):
    print("thumbnail", flush=True)
    time.sleep(float(sys.argv[1]))
    return ""

RendererSpec.build = lambda self: Fast()
report._thumbnail = slow
cli.main(sys.argv[2:])
"""


def start(tmp_path: Path, seconds: float, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds), *map(str, words)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_one_ctrl_c_stops_the_report(tmp_path: Path, number: int) -> None:
    source, output = make_folder(tmp_path / "in", 40), tmp_path / "out"
    upscale = ("upscale", source, "-o", output, "--progress", "plain")
    process = start(tmp_path, 0.25, *upscale)
    assert process.stdout is not None
    assert "thumbnail\n" in iter(process.stdout.readline, "")
    process.send_signal(number)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 5  # the whole report takes 20 s
    assert process.returncode == 130
    assert "Traceback" not in err and err.count("interrupted while the report was written") == 1
    assert "40 done" in out.splitlines()[-1]
    assert strays(output) == [] and len(outputs(output)) == 40
    assert not (output / "report.html").exists()
    assert json.loads((output / "report.json").read_text())["counts"]["done"] == 40
    with Journal(output) as journal:
        assert journal.counts()["done"] == 40
    process = start(tmp_path, 0, *upscale)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, "40 done before" in out) == (0, True)
    assert report.is_ours(output / "report.html")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_stops_the_command_that_writes_the_report(tmp_path: Path) -> None:
    run_job(options(make_folder(tmp_path / "in", 40), tmp_path / "out"), Fast)
    before = (tmp_path / "out" / "report.html").read_bytes()
    process = start(tmp_path, 0.25, "report", tmp_path / "out")
    assert process.stdout is not None
    assert "thumbnail\n" in iter(process.stdout.readline, "")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert process.returncode == 130 and "Traceback" not in err and "interrupted" in err
    assert (tmp_path / "out" / "report.html").read_bytes() == before and strays(tmp_path / "out") == []


DRAWING = """
from fam_ext import cli
from tests.jobs.fakes import FakeSpec

cli.upscale.RendererSpec = lambda arguments: FakeSpec(arguments={"seconds": 0.5, "steps": 20})  # workers find it
if __name__ == "__main__":
    cli.program()
"""


def in_a_terminal() -> None:
    """Make stdin the terminal of this process, as a login does."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def as_nohup_does() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.skipif(sys.platform != "linux", reason="terminals")
@pytest.mark.parametrize(
    "words", [("live",), ("plain",), pytest.param(("plain", "--workers", "2"), marks=pytest.mark.slow)]
)
def test_a_closed_terminal_is_answered_as_ctrl_c_is(tmp_path: Path, words: tuple[str, ...]) -> None:
    source, output = make_folder(tmp_path / "in", 6), tmp_path / "out"
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", DRAWING, "upscale", str(source), "-o", str(output), "--progress", *words],
        cwd=Path(__file__).parents[2],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=in_a_terminal,
    )
    os.close(theirs)
    said = b""
    while b"picture 0.png ->" not in said and b"1/6" not in said:
        said += os.read(ours, 1 << 16)
    os.close(ours)
    assert process.wait(timeout=60) == 130
    assert strays(output) == [] and report.is_ours(output / "report.html")
    with Journal(output) as journal:
        items = list(journal.items())
    assert 1 <= sum(item.state == "done" for item in items) < 6
    assert {(item.state, item.deaths) for item in items} == {("done", 0), ("pending", 0)}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_what_nohup_started_outlives_its_terminal(tmp_path: Path) -> None:
    source, output = make_folder(tmp_path / "in", 2), tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", DRAWING, "upscale", str(source), "-o", str(output), "--progress", "plain"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=as_nohup_does,
    )
    assert process.stdout is not None
    assert "picture 0.png ->" in process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "2 done" in out


LATE = """
import atexit, sys, time
from fam_ext import cli

main = cli.main

def and_then():
    atexit.register(lambda: (print("nearly"), print("all is said", file=sys.stderr, flush=True), time.sleep(30)))
    main()

cli.main = and_then
cli.program()
"""

LAST = """
import os, signal, sys
from fam_ext import cli

class Last:
    def __del__(self, kill=os.kill, own=os.getpid(), number=int(sys.argv.pop())):
        kill(own, number)

last = Last()  # goes with the interpreter, when Python's own handlers are gone
cli.program()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["report", "/nowhere/at/all"], 2)])
def test_a_signal_after_the_end_leaves_the_code(number: int, words: list[str], code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LATE, *words],
        cwd=Path(__file__).parents[2],
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "all is said\n" in iter(process.stderr.readline, "")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code and "Traceback" not in err
    assert out.endswith("nearly\n")  # what was printed and not yet written


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["report", "/nowhere/at/all"], 2)])
def test_a_signal_while_the_interpreter_goes_leaves_the_code(number: int, words: list[str], code: int) -> None:
    command = [sys.executable, "-c", LAST, *words, str(int(number))]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert ended.returncode == code and "Traceback" not in ended.stderr


def test_a_report_that_was_interrupted_is_written_by_the_next_run(tmp_path: Path, monkeypatch) -> None:
    source, output = make_folder(tmp_path / "in", 2), tmp_path / "out"
    run_job(options(source, output), Fast)
    make_picture(source / "new.png", "new", 9)
    control = Control()
    with monkeypatch.context() as patch:
        patch.setattr(report, "_thumbnail", lambda path, side: control.cancel() or "")
        summary = run_job(options(source, output), Fast, control=control)
    assert (summary.done, summary.exit_code) == (1, 130) and "fam-hires report" in str(summary.stopped)
    assert "new.png" not in (output / "report.html").read_text()
    assert run_job(options(source, output), Fast).done_before == 3
    assert "new.png" in (output / "report.html").read_text()


def test_a_process_that_ended_before_the_report_leaves_it_to_the_next(tmp_path: Path) -> None:
    source, output = make_folder(tmp_path / "in", 1), tmp_path / "out"
    run_job(options(source, output), Fast)
    make_picture(source / "new.png", "new", 9)
    run_job(options(source, output), Fast, run=RunRule(report=False))  # as if it had been killed
    run_job(options(source, output), Fast)
    assert "new.png" in (output / "report.html").read_text()


def test_what_a_joiner_made_after_the_end_is_reported_by_the_next(tmp_path: Path) -> None:
    source, output, control = make_folder(tmp_path / "in", 4), tmp_path / "out", Control()
    joiners: list[threading.Thread] = []

    def stop(event) -> None:
        if event.kind == "step" and not joiners:
            joins = partial(run_job, options(source, output), lambda: Fast(0.2), run=RunRule(join=True))
            joiners.append(threading.Thread(target=joins))
            joiners[0].start()
            time.sleep(0.3)
            control.cancel()

    assert run_job(options(source, output), Fast, control=control, on_event=stop).exit_code == 130
    joiners[0].join()
    assert run_job(options(source, output), Fast).done_before == 4
    assert json.loads((output / "report.json").read_text())["counts"]["done"] == 4


def test_a_cancelled_job_reports_what_it_made_without_drawing(tmp_path: Path, monkeypatch) -> None:
    source, output, control = make_folder(tmp_path / "in", 4), tmp_path / "out", Control()

    def stop(event) -> None:
        if event.kind == "step" and event.key == "picture 1.png":
            control.cancel()

    def never(path: Path, side: int) -> str:
        raise AssertionError("drawn")

    monkeypatch.setattr(report, "_thumbnail", never)
    assert run_job(options(source, output), Fast, control=control, on_event=stop).exit_code == 130
    assert json.loads((output / "report.json").read_text())["counts"]["done"] == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("seconds", [0, 0.4, 2])
def test_a_terminals_ctrl_c_reaches_workers_that_load(tmp_path: Path, seconds: float) -> None:
    """A terminal sends it to all of a job's processes; the real renderer, which takes seconds to load."""
    source, output = make_folder(tmp_path / "in", 3), tmp_path / "out"
    words = ("upscale", source, "-o", output, "--steps", "1", "--workers", "2", "--progress", "json")
    process = subprocess.Popen(
        [sys.executable, "-m", "fam_ext.cli", *map(str, words)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert any('"started"' in line for line in iter(process.stdout.readline, ""))
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err and err.startswith("stopping:") and process.returncode == 130
    assert time.monotonic() - began < 15
    assert json.loads(out.splitlines()[-1])["pending"] == 3 and strays(output) == []
