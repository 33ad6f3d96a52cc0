"""What we made from any program's picture says what we ran, and not what the program did."""

import json
from pathlib import Path

import piexif
import pytest

from fam_ext.jobs.journal import Journal
from fam_ext.jobs.run import run_job
from fam_ext.jobs.settings import request_for
from fam_ext.metadata.pictures import read_header
from fam_ext.options.parts import PictureRule, Rule
from tests.jobs.fakes import Fast, options
from tests.metadata.files import INFOTEXT, LINE, api, comment, png
from tests.metadata.test_infotext import TEXTS
from tests.metadata.test_programs import DRAW, FORMS

SAVER = "unknown\nNegative prompt: unknown\nSteps: 20, Sampler: euler_simple, CFG Scale: 8.0, Seed: 0, Version: ComfyUI"
PICTURES = {
    **{
        name: png(*((key, value if isinstance(value, str) else json.dumps(value)) for key, value in rows))
        for name, rows in FORMS.items()
    },
    **{name: png(("parameters", text)) for name, text in TEXTS.items()},
    "A1111": png(("parameters", INFOTEXT)),
    "settings alone": png(("parameters", LINE)),
    "Draw Things": png(exif=comment(b"UNICODE\0" + json.dumps(DRAW).encode("utf-16-be"))),
    "ComfyUI": png(("prompt", json.dumps(api())), ("workflow", "{}")),
    "ComfyUI's WebP": png(exif=piexif.dump({"0th": {piexif.ImageIFD.Model: b"prompt:" + json.dumps(api()).encode()}})),
    "a saver in ComfyUI": png(("parameters", SAVER), ("prompt", json.dumps(api()))),
    "Stability Matrix": png(("parameters", INFOTEXT), ("parameters-json", json.dumps({"PositivePrompt": "a"}))),
    "none": png(),
}


@pytest.mark.parametrize("target", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("words", ["new words", ""])
def test_our_own_pictures_are_read_as_ours(tmp_path: Path, target: str, words: str) -> None:
    (tmp_path / "in").mkdir()
    for number, data in enumerate(PICTURES.values()):
        (tmp_path / "in" / f"{number}.png").write_bytes(data)
    asked = {"prompt": words, "negative_prompt": "new fog", "seed": 5, "steps": 9}
    rules = {name: Rule("override", value) for name, value in asked.items()}
    run_job(options(tmp_path / "in", tmp_path / "out", format=target, rules=rules), Fast)
    with Journal(tmp_path / "out", memory=True) as journal:
        made = {int(Path(item.key).stem): tmp_path / "out" / item.output for item in journal.items(state="done")}
    for number, name in enumerate(PICTURES):
        found, _ = read_header(made[number]).settings()
        assert found is not None, name
        request, _ = request_for(found, (64, 64), PictureRule())
        assert {key: getattr(request, key) for key in asked} == asked, name
        assert "FAM version" in found.params, name
