"""What the WebUI runs at its start."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "install.py"


@pytest.mark.parametrize("there", [True, False])
def test_the_install_script_asks_for_what_is_missing_in_a_command_for_a_shell(monkeypatch, tmp_path, there):
    printed = []

    def run_pip(command, what):
        printing = f'"{sys.executable}" -c "import sys; print(sys.argv[1:])" {command}'
        done = subprocess.run(printing, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
        printed.append(done.stdout.strip())

    launch = SimpleNamespace(is_installed=lambda name: there, run_pip=run_pip)
    monkeypatch.setitem(sys.modules, "launch", launch)
    runpy.run_path(str(SCRIPT))
    assert printed == ([] if there else ["['install', 'piexif>=1.1.3']"])
    assert not list(tmp_path.iterdir())
