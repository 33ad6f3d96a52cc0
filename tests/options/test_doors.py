"""One and the same words give one and the same job at every door: command line, page, API, Python, infotext."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fam_ext.core.config import FamConfig
from fam_ext.errors import FamError
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.settings import request_for
from fam_ext.jobs.walk import walk
from fam_ext.metadata.infotext import Infotext, format_params, from_fields, parse, to_fields
from fam_ext.options import resolve
from fam_ext.options.field import API, CLI, INFOTEXT, PAGE, options_of
from fam_ext.options.job import Job
from fam_ext.options.parts import Rule
from fam_ext.options.presets import BUILTIN, DEFAULT, PresetStore
from fam_ext.options.renderer import STANDALONE, RendererChoice
from fam_ext.options.request import HiresRequest
from fam_ext.options.resolve import options_at

STORE = PresetStore(Path("/nowhere"))
PLACES = {"inputs": ("/in",), "output": "/out"}

SPOKEN = {
    "nothing": ({}, []),
    "scale": ({"scale": 3}, ["--scale", "3"]),
    "steps": ({"steps": 20}, ["--steps", "20"]),
    "sampler and schedule": (
        {"sampler": "Euler a", "schedule": "Karras"},
        ["--sampler", "Euler a", "--schedule", "Karras"],
    ),
    "guidance": ({"cfg_scale": 5}, ["--cfg-scale", "5"]),
    "seed": ({"seed": 7}, ["--seed", "7"]),
    "prompt": ({"prompt": "a cat"}, ["--prompt", "a cat"]),
    "prefix": ({"prompt": "best", "prompt_rule": "prefix"}, ["--prompt", "best", "--prompt-rule", "prefix"]),
    "negative": (
        {"negative_prompt": "blurry", "negative_rule": "override"},
        ["--negative", "blurry", "--negative-rule", "override"],
    ),
    "paper": ({"preset": "paper"}, ["--preset", "paper"]),
    "paper, 20 steps": ({"preset": "paper", "steps": 20}, ["--preset", "paper", "--steps", "20"]),
    "fast": ({"preset": "fast"}, ["--preset", "fast"]),
    "few steps": ({"preset": "few-step"}, ["--preset", "few-step"]),
    "cutoff": ({"cutoff": 0.5}, ["--cutoff", "0.5"]),
    "cycles": (
        {"cutoff": 20, "cutoff_reference": "cycles"},
        ["--cutoff", "20", "--cutoff-reference", "cycles"],
    ),
    "a unit alone": ({"cutoff_reference": "target"}, ["--cutoff-reference", "target"]),
    "no AM": ({"am": False}, ["--no-am"]),
    "a window": ({"am_window": [1, 0.4]}, ["--am-window", "1,0.4"]),
    "largest": ({"max_side": 1024, "max_megapixels": 0}, ["--max-side", "1024", "--max-megapixels", "0"]),
    "format": ({"format": "jpg", "name": "{stem}-{seed}"}, ["--format", "jpg", "--name", "{stem}-{seed}"]),
    "trial": ({"first": 3, "recursive": True}, ["--first", "3", "--recursive"]),
    "method": ({"method": "direct"}, ["--method", "direct"]),
    "off": ({"enabled": False}, ["--method", "direct-from-native"]),
    "rules": ({"steps": 20, "rules": {"steps": "take"}}, ["--steps", "20", "--rule", "steps=take"]),
}


def by_python(words: dict) -> Job:
    return resolve.job({**words, **PLACES}, preset_of=STORE.get, renderer=RendererChoice(STANDALONE))


def by_command(arguments: list[str], monkeypatch) -> Job:
    from fam_ext import cli
    from fam_ext.cli import upscale

    seen: list[Job] = []
    monkeypatch.setattr(upscale, "run_job", lambda options, *a, **k: seen.append(options) or pytest.fail("ran"))
    monkeypatch.setattr(upscale, "print_plan", lambda options, kind: seen.append(options))
    with pytest.raises(SystemExit) as ended:
        cli.main(["upscale", "/in", "-o", "/out", "--dry-run", *arguments])
    assert ended.value.code == 0
    return seen[0]


def by_api(words: dict) -> Job:
    dials = {spec.name for spec in options_of(FamConfig)} | {"preset", "enabled"}
    body = {name: value for name, value in words.items() if name not in dials}
    body |= {"input": "/in", "output": "/out", "fam": {name: words[name] for name in words if name in dials}}
    sent = json.loads(json.dumps(body))
    fam = sent.pop("fam")
    return resolve.job({**sent, **fam}, preset_of=STORE.get, renderer=RendererChoice(STANDALONE))


@pytest.mark.parametrize("name", SPOKEN)
def test_the_same_words_give_the_same_job(name, monkeypatch) -> None:
    words, arguments = SPOKEN[name]
    job = by_python(words)
    assert by_command(arguments, monkeypatch) == job
    assert by_api(words) == job
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job, "and as a journal keeps it"


@pytest.mark.parametrize("name", SPOKEN)
def test_infotext_brings_the_same_dials(name) -> None:
    config = by_python(SPOKEN[name][0]).picture.config
    line = format_params({"Steps": "20", "Sampler": "Euler", **to_fields(config)})
    assert from_fields(parse(f"a cat\n{line}").params) == config


def page_first_words() -> dict:
    """What the page says when nobody has touched it."""
    shown = {spec.name: spec.off if spec.default is None else spec.default for spec in options_at(PAGE)}
    shown |= BUILTIN[DEFAULT].config.to_dict() | BUILTIN[DEFAULT].settings
    return shown | {"negative_rule": "take", "own_settings": True, "input": "/in", "output": "/out"}


def test_the_untouched_page_draws_what_every_door_draws() -> None:
    page = resolve.job(page_first_words(), preset_of=STORE.get, renderer=RendererChoice(STANDALONE))
    plain = by_python({})
    assert (page.places, page.size, page.output) == (plain.places, plain.size, plain.output)
    for found in (
        Infotext(),
        parse("a cat\nNegative prompt: dog\nSteps: 11, Sampler: LMS, CFG scale: 3, Seed: 9, Clip skip: 2"),
        parse("a cat\nSteps: 11, Sampler: DPM++ 2M Karras, CFG scale: 3, Seed: 9, Model: other, VAE: some.pt"),
    ):
        assert request_for(found, (64, 64), page.picture) == request_for(found, (64, 64), plain.picture)


def test_what_counts_first() -> None:
    found = parse("its own\nSteps: 11, Sampler: LMS, CFG scale: 3, Seed: 9")

    def drawn(**words) -> HiresRequest:
        return request_for(found, (64, 64), by_python(words).picture)[0]

    assert drawn().steps == 11, "the picture's own before the preset's"
    assert drawn(steps=20).steps == 20, "said now before the picture's own"
    assert drawn(preset="paper").steps == 50, "an overriding preset before the picture's own"
    assert drawn(preset="paper", steps=20).steps == 20, "said now before an overriding preset"
    assert drawn(steps=20, rules={"steps": "take"}).steps == 11, "unless the rule says take"
    bare = request_for(Infotext(), (64, 64), by_python({"preset": "fast"}).picture)[0]
    assert (bare.steps, bare.sampler, bare.seed) == (20, "DPM++ 2M", 0), "then the preset, then the default"


def test_a_pasted_path_may_have_spaces_around_it() -> None:
    job = resolve.job({"input": " /in\n", "output": " /out "}, preset_of=STORE.get)
    assert (job.places.inputs, job.places.output) == (("/in",), "/out")


def test_a_path_that_windows_copied_is_between_quotes() -> None:
    job = resolve.job({"input": ' "/my pictures" ', "output": '"/out"'}, preset_of=STORE.get)
    assert (job.places.inputs, job.places.output) == (("/my pictures",), "/out")
    assert resolve.pasted('"') == '"' and resolve.pasted('"a" b') == '"a" b'


@pytest.mark.parametrize(("separators", "folder"), [("/", "/in/"), ("/\\", "C:\\in\\")])
def test_the_default_output_lies_beside_a_folder_that_ends_in_a_separator(monkeypatch, separators, folder) -> None:
    monkeypatch.setattr(resolve, "_SEPARATORS", separators)
    assert resolve.job({"input": folder}, preset_of=STORE.get).places.output == f"{folder[:-1]}-fam"


def test_a_negative_prompt_follows_the_prompts_rule_or_its_own() -> None:
    words = {"negative_prompt": "fog", "prompt": "best", "prompt_rule": "prefix"}
    assert by_python(words).picture.rules["negative_prompt"] == Rule("prefix", "fog")
    assert by_python({**words, "negative_rule": "suffix"}).picture.rules["negative_prompt"] == Rule("suffix", "fog")


def test_a_pages_box_is_width_by_height_and_its_upscaler_the_renderers() -> None:
    job = by_python({"width": 640, "height": 512, "upscaler": "Latent"})
    assert (job.size.size, job.renderer.upscaler) == ((512, 640), "Latent")


def test_what_needs_a_size_or_a_format_is_taken_with_it() -> None:
    boxed = by_python({"exact_size": True, "width": 640, "height": 512}).size
    assert (boxed.exact_size, boxed.size) == (True, (512, 640))
    for words in ({"quality": 80}, {"quality": 80, "format": "jpg"}, {"format": "png"}):
        assert by_python(words).output.quality == words.get("quality")


def test_an_empty_prompt_that_is_said_empties_every_prompt() -> None:
    picture = by_python({"prompt": "", "rules": {"prompt": "override"}}).picture
    assert request_for(parse("its own\nSteps: 11"), (64, 64), picture)[0].prompt == ""


def thrown(**words: object) -> int:
    job = resolve.job({"seed": -1, **words}, preset_of=PresetStore().get)
    return job.picture.rules["seed"].value


def test_seed_minus_one_is_one_seed_for_the_job_and_another_for_another_output() -> None:
    same = [
        {"inputs": ("/in",), "output": "/far/out"},
        {"input": "/other", "output": "out"},
        {"input": "Out", "output": "OUT"},
    ]
    seeds = [thrown(**words) for words in same * 2]
    seeds += [thrown(input="/a/in"), thrown(input="in", output=""), thrown(inputs=("x",), output="/b/in-fam/")]
    assert [seeds.index(seed) for seed in seeds] == [0] * 6 + [6] * 3
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert len({thrown(inputs=("text",)) for _ in range(4)}) == 4  # no folder to resume in


def test_a_vae_that_is_said_is_for_every_file() -> None:
    found = parse("a cat\nSteps: 11, Sampler: LMS, Seed: 9, VAE: own.pt")
    assert request_for(found, (64, 64), by_python({"vae": "mine.pt"}).picture)[0].vae == "mine.pt"
    assert request_for(found, (64, 64), by_python({}).picture)[0].vae is None


BAD = [
    ({"steps": -3}, "steps is -3; choose a whole number from 1 to 150"),
    ({"steps": 100000}, "steps is 100000"),
    ({"cfg_scale": -5}, "cfg_scale is -5"),
    ({"cutoff": 512}, "cutoff is 512; choose 0 to 1"),
    ({"method": "nonsense"}, "method is 'nonsense'; choose fam"),
    ({"scale": float("nan")}, "scale is nan; choose 1 to 16"),
    ({"seed": 2**64}, "seed is 18446744073709551616"),
    ({"sampler": "a\x1b[2J"}, "sampler is"),
    ({"preset": "no such"}, "preset is 'no such'; choose from paper, balanced"),
    ({"format": "gif"}, "format is 'GIF'; choose PNG"),
    ({"name": "{stem.x}"}, "name pattern has {stem.x}"),
    ({"nonsense": 1}, "nonsense is not a field of a job; choose from"),
    ({"allowed": ["/"]}, "allowed is not a field of a job"),
    ({"rules": {"seed": "prefix"}}, "rule prefix does not fit seed"),
    ({"rules": {"size": "take"}}, "rule for 'size' is unknown"),
    ({"rules": ["seed"]}, "rules is ['seed']; choose an object"),
    ({"rules": {"seed": 5}}, "rule is '5'; choose take"),
    ({"vae": 5}, "vae is 5; choose a text"),
    ({"width": 512}, "width and height go together"),
    ({"own_settings": "yes"}, "own_settings is 'yes'; choose true or false"),
    ({"prompt": "\ud800"}, "prompt holds"),
    ({"prompt_rule": "replace", "prompt": "=>best"}, "replace is '=>best'; write old=>new, with the words to look for"),
    ({"prompt_rule": "prefix"}, "give prompt or negative_prompt as well"),
    ({"negative_rule": "override", "prompt": "best"}, "negative_rule is override; give negative_prompt as well"),
    ({"exact_size": True}, "exact_size is true; give a size as well"),
    ({"quality": 80, "format": "tif"}, "quality is 80, and TIFF has none; choose JPEG, WEBP, AVIF, or leave"),
    ({"rules": {"prompt": "prefix"}}, "prompt is left out, and its rule is prefix; give prompt, or choose take"),
    ({"rules": {"prompt": "override"}, "negative_prompt": "fog"}, "prompt is left out, and its rule is override"),
    ({"rules": {"negative_prompt": "suffix"}, "prompt": "best"}, "negative_prompt is left out"),
    ({"am_window": [0, 1]}, "am_window is [0, 1]"),
]


@pytest.mark.parametrize(("words", "sentence"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_value_is_one_sentence_before_anything_runs(words, sentence) -> None:
    with pytest.raises(FamError) as told:
        by_python(words)
    assert sentence in str(told.value) and "\n" not in str(told.value)


def test_every_option_stands_at_its_doors_with_words() -> None:
    for door in (CLI, PAGE, API, INFOTEXT):
        for spec in options_at(door):
            assert spec.label and spec.help.endswith("."), spec.name


def test_a_record_of_the_settings_hash() -> None:
    """What the hash of a picture's settings is made of has not changed since the first journals."""
    text = HiresRequest((64, 64), "a cat", clip_skip=2).to_text()
    assert json.loads(text)["model"] is None and "timestep_spacing" not in text
    assert list(json.loads(text))[:4] == ["size", "prompt", "negative_prompt", "seed"]


ADDED = """
import dataclasses, json
from dataclasses import dataclass
from fam_ext.options import field
import fam_ext.core.config as core

@dataclass(frozen=True)
class FamConfig(core.FamConfig):
    sparkle: float = core._dial(0.25, "float", "Sparkle", "Made up.", "FAM sparkle", low=0.0, high=1.0, step=0.1)

FamConfig.__name__ = "FamConfig"
core.FamConfig = FamConfig

import fam_ext.options.request as request

@dataclass(frozen=True)
class HiresRequest(request.HiresRequest):
    glue: int = request._setting(3, "int", "Glue", "Made up too.", "FAM glue", low=1, high=9, own=True)

request.HiresRequest = HiresRequest
request.REQUEST = {spec.name: spec for spec in field.options_of(HiresRequest)}
request.OWN = tuple(spec.name for spec in request.REQUEST.values() if spec.own)

from typer.testing import CliRunner
from fam_ext.cli import app
from fam_ext.metadata.infotext import from_fields, to_fields
from fam_ext.options.parts import Rule
from fam_ext.options.presets import PresetStore
from fam_ext.options.resolve import job, options_at, script
from fam_ext.options.table import FIELDS, json_schema
from tools import options_page

help = CliRunner().invoke(app, ["upscale", "--help"], env={"COLUMNS": "200"}).output
found = {
    "cli": "--sparkle" in help and "--glue" in help,
    "api": {"sparkle", "glue"} <= set(json_schema(options_at("api"))["properties"]),
    "page": {"sparkle", "glue"} <= {spec.name for spec in options_at("page")},
    "xyz": "sparkle" in {spec.name for spec in FIELDS if "xyz" in spec.doors},
    "docs": "`FAM sparkle`" in options_page.page() and "`FAM glue`" in options_page.page(),
    "infotext": from_fields(to_fields(FamConfig(sparkle=0.5))).sparkle == 0.5,
    "script": script({"sparkle": 0.5}, preset_of=PresetStore().get)[0].sparkle == 0.5,
    "job": job({"input": "/in", "glue": 4}, preset_of=PresetStore().get).picture.rules["glue"].value == 4,
}
print(json.dumps(found))
"""


def test_a_made_up_option_appears_at_every_door() -> None:
    done = subprocess.run([sys.executable, "-c", ADDED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert all(found.values()), found


THEN = {"am_window": (1.0, 0.0), "cutoff": 32.0, "cutoff_reference": "cycles", "fm_edge": 0.0}
"""What preset balanced had then: it is other pixels, so with today's a folder is made again."""


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (THEN, "c262c8f4f88c3bf07e28631f"),
        ({"preset": "paper"}, "b2dc1f4f2303b2aed4fb11e3"),
        ({**THEN, "quality": 80, "format": "JPEG", "tile": 256}, "e3bab55fc1f22c0baf4f7ea2"),
    ],
)
def test_outputs_of_earlier_versions_are_still_known(tmp_path: Path, words: dict, known: str) -> None:
    """The settings hash of the version before the options' table: a folder made then is not made again."""
    info = PngInfo()
    line = "Steps: 20, Sampler: Euler a, CFG scale: 6.5, Seed: 9, Size: 64x48"
    info.add_text("parameters", f"a cat\nNegative prompt: dog\n{line}")
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png", pnginfo=info)
    places = {"inputs": [str(tmp_path)], "output": "/out"}
    job = resolve.job({**words, **places}, preset_of=STORE.get, renderer=RendererChoice(STANDALONE))
    (planned,) = (plan_file(candidate, job) for candidate in walk(job.places))
    assert planned.settings_hash(job) == known


@pytest.mark.parametrize(
    ("kept", "renderer"),
    [
        (json.dumps(["m", [["a.safetensors", 0.5]]]), RendererChoice("standalone", "m", loras=("a.safetensors:0.5",))),
        ("", RendererChoice("standalone")),
    ],
)
def test_a_job_kept_before_the_options_table_names_its_renderer(kept: str, renderer: RendererChoice) -> None:
    job = Job.of(("in",), "out")
    assert Job.from_json({**job.to_json(), "standalone": True, "renderer": kept}).renderer == renderer
