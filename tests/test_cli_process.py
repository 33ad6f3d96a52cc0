"""The command as a process of its own: interrupts, a stdout that is closed or full, what it loads."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.fakes import make_folder, outputs, strays

ROOT = Path(__file__).parents[1]
FAKED = (
    "import sys; from fam_ext.jobs.renderers import RendererSpec;"
    "from tests.jobs.fakes import Fast; RendererSpec.build = lambda self: Fast(0.4, 8);"
    "from fam_ext.cli import main; main(sys.argv[1:])"
)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAM_HIRES_HOME", str(tmp_path / "home"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_finishes_nothing_half_way(tmp_path: Path) -> None:
    make_folder(tmp_path / "in", 6)
    words = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--progress", "json"]
    process = subprocess.Popen(
        [sys.executable, "-c", FAKED, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["kind"] == "step" and event["key"] == "picture 1.png":
            process.send_signal(signal.SIGINT)
            break
    rest, err = process.communicate(timeout=30)
    summary = json.loads(rest.splitlines()[-1])
    assert process.returncode == 130
    assert summary["cancelled"]
    assert (summary["done"], summary["pending"]) == (1, 5)
    assert "stopping" in err
    assert "Traceback" not in err
    assert list(outputs(tmp_path / "out")) == ["picture 0.png"]
    assert strays(tmp_path / "out") == []


@pytest.mark.slow
def test_help_and_version_load_no_torch() -> None:
    code = (
        "import sys\nfrom fam_ext.cli import main\n"
        "try:\n    main(['upscale', '--help'])\n"
        "finally:\n    sys.exit(3 if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--prompt-rule" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_closed_stdout_is_no_traceback_and_ends_no_batch(tmp_path: Path) -> None:
    make_folder(tmp_path / "in", 3)
    code = (
        "from fam_ext import cli; from fam_ext.jobs.renderers import RendererSpec\n"
        "from tests.jobs.fakes import FakeSpec\n"
        "RendererSpec.build = lambda self: FakeSpec('Fast').build()\n"
        f"cli.main(['upscale', {str(tmp_path / 'in')!r}, '-o', {str(tmp_path / 'out')!r}])"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("shell", [">&-", ">/dev/full", ">&- 2>&-"])
def test_a_batch_does_not_end_for_a_stdout_that_is_closed_or_full(tmp_path: Path, shell: str) -> None:
    source, output = make_folder(tmp_path / "in", 3), tmp_path / "out"
    program = (
        "import sys; from fam_ext.jobs.renderers import RendererSpec; from tests.jobs.fakes import Fast;"
        "RendererSpec.build = lambda self: Fast(); from fam_ext.cli import main; main(sys.argv[1:])"
    )
    base = ("upscale", str(source), "-o", str(output))
    for words, code in ((base, 0), ((*base, "--dry-run"), 1 if "full" in shell else 0)):
        command = ["sh", "-c", f'"$@" {shell}', "sh", sys.executable, "-c", program, *words]
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        assert done.stderr.startswith("error: the output cannot be used (No space") or not code
    assert len(outputs(output)) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe")
def test_a_log_outlives_who_read_the_errors(tmp_path: Path) -> None:
    make_folder(tmp_path / "in", 2)
    (tmp_path / "in" / "a.png").write_bytes(b"torn")
    words = ("upscale", tmp_path / "in", "-o", tmp_path / "out")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", FAKED, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, stderr=writer, text=True
    )
    os.close(writer)
    assert done.returncode == 1 and "2 done, 1 failed" in done.stdout
