"""A method that only the catalog knows goes through command line, API words and recipe: nothing else needs its name."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

STUB = '''
"""A method of a test: two stages, the second in pixels alone; what the first makes is mirrored."""
from fam_ext.methods.base import Method, Pass, Stage

class Mirrored(Pass):
    def finish(self, latent):
        return latent.flip(-1)

class Mirror(Method):
    def stages(self, size, native):
        return [Stage((size[0] // 16 * 8, size[1] // 16 * 8), start=0.3), Stage(size, pixels=True)]

    def begin(self, stage, pictures):
        return Mirrored(pictures)
'''
RUN = """
import sys
from fam_ext.methods import catalog
from fam_ext.methods.capabilities import PIXELS, STAGES
catalog.METHODS["mirror"] = catalog.Entry(
    "mirror", "a mirror image", "stub_method:Mirror", frozenset((STAGES, PIXELS)), ("start",)
)
"""
CLI = "from fam_ext.cli import main\nsys.argv[0] = 'fam-hires'\nmain()\n"
API = """
import json
from pathlib import Path
from fam_ext.options import resolve
from fam_ext.options.presets import PresetStore
from fam_ext.options.table import json_schema
from fam_ext.options.resolve import options_at
store = PresetStore(Path("presets"))
job = resolve.job({"input": "in", "output": "out", "method": "mirror"}, preset_of=store.get)
dials, enabled, method = resolve.script({"method": "mirror"}, preset_of=store.get)
print(json.dumps([job.picture.fixed["method"], method, json_schema(options_at("api"))["properties"]["method"]["enum"]]))
"""


def run(folder, program, *arguments):
    (folder / "stub_method.py").write_text(STUB)
    command = [sys.executable, "-c", RUN + program, *arguments]
    path = [str(folder), str(Path(__file__).parents[2])]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(path), "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_words_of_the_api_and_the_script_may_name_it(tmp_path):
    chosen, scripted, choices = json.loads(run(tmp_path, API))
    assert chosen == scripted == "mirror" and choices[-1] == "mirror"


@pytest.mark.slow
def test_the_command_line_runs_it_and_the_file_says_so(tmp_path):
    (tmp_path / "in").mkdir()
    half = Image.new("RGB", (64, 64), (250, 250, 250))
    half.paste((10, 10, 10), (32, 0, 64, 64))
    half.save(tmp_path / "in" / "half.png")
    words = ["upscale", "in", "-o", "out", "--method", "mirror", "--scale", "2", "--steps", "3", "--prompt", "snow"]
    run(tmp_path, CLI, *words)
    (made,) = (tmp_path / "out").glob("*.png")
    with Image.open(made) as picture:
        assert picture.size == (128, 128)
        assert "FAM method: mirror" in picture.info["parameters"]
        left, right = (picture.convert("L").resize((2, 1)).getpixel((x, 0)) for x in (0, 1))
        assert right > left + 60  # the input's left is the lighter one
