"""hosts/detect.py on folders that look like each WebUI."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDERS = {
    "A1111": ["modules/sd_samplers.py"],
    "Forge": ["modules/sd_samplers.py", "backend/patcher/__init__.py"],
    "reForge": ["modules/sd_samplers.py", "ldm_patched/__init__.py"],
    "SD.Next": ["modules/sd_samplers.py", "modules/sd_samplers_diffusers.py"],
    "None": ["other/sd_samplers.py"],
}


@pytest.mark.parametrize("name", FOLDERS)
def test_each_webui_is_told_by_its_files(tmp_path, name):
    for file in FOLDERS[name]:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise RuntimeError('imported')" if path.name.startswith("sd_") else "")
    code = "from fam_ext.hosts.detect import detect; print(detect())"
    environment = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "PYTHONDONTWRITEBYTECODE": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == name
