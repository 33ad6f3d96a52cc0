"""The plan: order, settings, rules, sizes, names. No pixel is read."""

import os
import sqlite3
import subprocess
import sys
import time
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, PictureError, UsageError
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.names import safe_name
from fam_ext.jobs.plan import Planned, plan_file
from fam_ext.jobs.size import target_size
from fam_ext.jobs.walk import Candidate, natural_key, walk
from fam_ext.metadata.infotext import Infotext, format_params, to_fields
from fam_ext.options.job import Job
from fam_ext.options.parts import Rule, SizeRule
from fam_ext.options.renderer import STANDALONE, WEBUI, RendererChoice
from fam_ext.options.request import HiresRequest
from tests.jobs.fakes import infotext, make_picture, options, page_job


def planned(path: Path, **more):
    plan = options(path, path.parent.parent / "out", **more)
    return [plan_file(candidate, plan) for candidate in walk(plan.places)]


def names(source: Path, output: Path, **more) -> dict[str, str]:
    plan = options(source, output, **more)
    with Journal(output, memory=True) as journal:
        journal.plan(walk(plan.places), plan, plan_file)
        return {item.key: item.output for item in journal.items()}


def test_natural_order_recursion_and_patterns(tmp_path: Path) -> None:
    for name in ("a10.png", "a2.png", "b/c1.png", "b/d/c2.png", "skip.txt", ".fam-hires/x.png", "b/no.jpg"):
        make_picture(tmp_path / "in" / name) if name.endswith(".png") else None
    (tmp_path / "in" / "skip.txt").write_text("x")
    (tmp_path / "in" / "b" / "no.jpg").write_bytes(b"")
    source = tmp_path / "in"

    def keys(**more) -> list[str]:
        return [candidate.key for candidate in walk(options(source, tmp_path / "out", **more).places)]

    assert keys() == ["a2.png", "a10.png"]
    assert keys(recursive=True) == ["a2.png", "a10.png", "b/c1.png", "b/no.jpg", "b/d/c2.png"]
    assert keys(recursive=True, include=("b/*",)) == ["b/c1.png", "b/no.jpg", "b/d/c2.png"]
    assert keys(recursive=True, exclude=("*.jpg", "a*")) == ["b/c1.png", "b/d/c2.png"]


@given(st.lists(st.text(max_size=12)))
def test_natural_order_never_fails(texts: list[str]) -> None:
    assert sorted(sorted(texts, key=natural_key), key=natural_key) == sorted(texts, key=natural_key)


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_symlink_loops_end(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    plan = options(tmp_path / "in", tmp_path / "out", recursive=True)
    assert [candidate.key for candidate in walk(plan.places)] == ["a.png"]


def test_the_pictures_own_settings_win_over_defaults(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "a cat", 7, Schedule_type="Karras", Clip_skip="2", Model="x", VAE="y")
    (plan,) = planned(tmp_path / "in", settings={"steps": 50, "schedule": "Automatic"})
    request = plan.request
    assert (request.prompt, request.negative_prompt, request.seed, request.steps) == ("a cat", "dark", 7, 20)
    assert (request.sampler, request.schedule, request.cfg_scale, request.clip_skip) == ("Euler a", "Karras", 6.5, 2)
    assert (request.model, request.vae) == (None, None)
    assert plan.origin == "parameters"
    taking = {"model": Rule("take"), "vae": Rule("take")}
    (plan,) = planned(tmp_path / "in", rules=taking)
    assert (plan.request.model, plan.request.vae) == ("x", "y")


def test_defaults_hold_for_a_picture_without_metadata(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a.bmp")
    (plan,) = planned(
        tmp_path / "in", settings={"steps": 50, "sampler": "Heun"}, rules={"prompt": Rule("take", "a fallback")}
    )
    assert (plan.request.steps, plan.request.sampler, plan.request.prompt) == (50, "Heun", "a fallback")
    assert (plan.taken, plan.origin) == ((), None)


def test_a_sidecar_that_brings_the_prompt_leaves_a_picture_its_negative_one(tmp_path: Path) -> None:
    make_picture(tmp_path / "a.png", "", 7)
    for text, negative in (("a dog", "dark"), ("a dog\nNegative prompt: red", "red")):
        (tmp_path / "a.txt").write_text(text)
        (found,) = planned(tmp_path)
        assert (found.request.prompt, found.request.negative_prompt, found.request.seed) == ("a dog", negative, 7)


def test_a_sidecar_speaks_for_a_picture_without_metadata(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "a.txt").write_text("a dog\nNegative prompt: cat\nSteps: 9, Sampler: LCM, Seed: 4")
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "b.jpg")
    (tmp_path / "in" / "b.txt").write_text("only words")
    first, second = planned(tmp_path / "in")
    assert (first.request.prompt, first.request.steps, first.origin) == ("a dog", 9, "sidecar")
    assert (second.request.prompt, second.request.steps) == ("only words", 30)


@pytest.mark.parametrize(
    ("raw", "prompt"),
    [
        ("a cat \u2013 \u201csoft\u201d, 5 \u20ac".encode("cp1252"), "a cat \u2013 \u201csoft\u201d, 5 \u20ac"),
        (b"caf\xe9 \x81", "caf\xe9 \x81"),  # which that page does not have
    ],
)
def test_a_sidecar_in_windows_code_page_keeps_its_signs(tmp_path: Path, raw: bytes, prompt: str) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "a.txt").write_bytes(raw)
    assert planned(tmp_path / "in")[0].request.prompt == prompt


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_sidecar_of_another_program_and_encoding(tmp_path: Path, codec: str) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a.jpg")
    lines = ("Prompt: a café", "Negative Prompt: fog", "Seed: 4", "Stable Diffusion model: x", "Steps: 9")
    (tmp_path / "in" / "a.txt").write_bytes("\n".join((*lines, "Sampler: euler_a", "Guidance Scale: 3")).encode(codec))
    (found,) = planned(tmp_path / "in")
    request = found.request
    assert (request.prompt, request.negative_prompt, request.seed, request.steps) == ("a café", "fog", 4, 9)
    assert (request.sampler, request.cfg_scale, found.program) == ("Euler a", 3.0, "Easy Diffusion")


@pytest.mark.parametrize(
    ("rule", "prompt"),
    [
        (Rule("take", "new"), "a cat"),
        (Rule("override", "new"), "new"),
        (Rule("prefix", "masterpiece"), "masterpiece, a cat"),
        (Rule("prefix", "masterpiece, "), "masterpiece, a cat"),
        (Rule("suffix", "4k"), "a cat, 4k"),
        (Rule("suffix", ", 4k"), "a cat, 4k"),
        (Rule("replace", "cat=>dog"), "a dog"),
    ],
)
def test_prompt_rules(tmp_path: Path, rule: Rule, prompt: str) -> None:
    make_picture(tmp_path / "in" / "a.png", "a cat", 7)
    (plan,) = planned(tmp_path / "in", rules={"prompt": rule})
    assert plan.request.prompt == prompt


def test_the_paper_preset_beats_metadata_but_not_the_user(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "a cat", 7)

    def request(**words: object) -> HiresRequest:
        job = page_job({"input": str(tmp_path / "in"), **words})
        return plan_file(next(walk(job.places)), job).request

    paper = request(preset="paper", steps=12)
    assert (paper.steps, paper.sampler, paper.cfg_scale) == (12, "DDIM", 7.5)
    balanced = request(preset="balanced")
    assert (balanced.steps, balanced.sampler) == (20, "Euler a")


def test_fam_settings_of_the_picture_are_taken_when_asked(tmp_path: Path) -> None:
    config = FamConfig(cutoff=0.3)
    fields = {key.replace(" ", "_"): value for key, value in to_fields(config).items()}
    make_picture(tmp_path / "in" / "a.png", "a cat", 7, **fields)
    assert "FAM cutoff" in format_params(to_fields(config))
    (plan,) = planned(tmp_path / "in")
    assert plan.request.config == FamConfig()
    (plan,) = planned(tmp_path / "in", rules={"config": Rule("take")})
    assert plan.request.config == config


def test_old_sampler_names_are_split(tmp_path: Path) -> None:
    from fam_ext.jobs.settings import request_for

    found = Infotext("x", "", {"Sampler": "DPM++ 2M Karras", "Steps": "20", "Seed": "1"})
    request, _ = request_for(found, (64, 64), options(tmp_path / "a", tmp_path / "b").picture)
    assert (request.sampler, request.schedule) == ("DPM++ 2M", "Karras")


@pytest.mark.parametrize(
    ("native", "more", "target"),
    [
        ((512, 512), {}, (1024, 1024)),
        ((512, 768), {"scale": 1.5}, (768, 1152)),
        ((250, 333), {}, (504, 664)),
        ((512, 768), {"size": (1024, 1024)}, (680, 1024)),
        ((512, 768), {"size": (1000, 1000), "exact_size": True}, (1000, 1000)),
        ((1024, 2048), {"scale": 4, "max_side": 4096}, (2048, 4096)),
        ((1024, 1024), {"scale": 4, "max_megapixels": 4.0}, (2000, 2000)),
        ((512, 512), {"size": (1004, 1003), "exact_size": True}, (1008, 1000)),
        ((128, 128), {"size": (64, 64), "exact_size": True}, (64, 64)),
        ((8192, 8192), {"max_megapixels": None}, (16384, 16384)),
    ],
)
def test_target_sizes(native, more, target) -> None:
    assert target_size(native, SizeRule(**more)) == (target, None)


@given(
    st.tuples(st.integers(16, 4000), st.integers(16, 4000)),
    st.floats(1, 4),
    st.one_of(st.none(), st.integers(64, 8192)),
    st.one_of(st.none(), st.floats(0.1, 64)),
)
def test_sizes_are_multiples_of_8_within_the_caps(native, scale, max_side, max_megapixels) -> None:
    plan = Job.of(("a",), "b", scale=scale, max_side=max_side, max_megapixels=max_megapixels)
    target, skip = target_size(native, plan.size)
    assert target[0] % 8 == target[1] % 8 == 0
    assert min(target) >= 8
    assert skip is not None or target[0] * target[1] > native[0] * native[1]
    if max_side is not None and scale * max(native) > max_side:
        assert max(target) <= max_side
    if max_megapixels is not None and scale * scale * native[0] * native[1] > max_megapixels * 1e6:
        assert target[0] * target[1] <= max(max_megapixels * 1e6 * (1 + 1e-9), 64 * 8 * max(native))
    wanted = native[0] / native[1]
    if min(target) >= 256:
        assert abs(target[0] / target[1] / wanted - 1) < 0.05


def test_a_picture_that_is_large_enough_is_skipped(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", size=(128, 128))
    (plan,) = planned(tmp_path / "in", max_side=64)
    assert plan.skip
    assert plan.problem is None


def test_equal_stems_do_not_collide(tmp_path: Path) -> None:
    source = tmp_path / "in"
    make_picture(source / "a.png")
    for name in ("a.jpg", "a.webp"):
        Image.new("RGB", (32, 32)).save(source / name)
    make_picture(source / "A.png")
    kept = names(source, tmp_path / "o1")
    assert kept == {"A.png": "A.png", "a.jpg": "a.jpg", "a.png": "a-2.png", "a.webp": "a.webp"}
    as_png = names(source, tmp_path / "o2", format="PNG")
    assert len({name.casefold() for name in as_png.values()}) == 4
    assert as_png["a.webp"] == "a-webp.png"


def test_the_tree_is_mirrored_and_several_folders_stay_apart(tmp_path: Path) -> None:
    make_picture(tmp_path / "one" / "sub" / "a.png")
    make_picture(tmp_path / "two" / "sub" / "a.png")
    make_picture(tmp_path / "b.png")
    plan = Job.of(
        (str(tmp_path / "one"), str(tmp_path / "two"), str(tmp_path / "b.png")), str(tmp_path / "out"), recursive=True
    )
    with Journal(tmp_path / "out", memory=True) as journal:
        journal.plan(walk(plan.places), plan, plan_file)
        assert [item.output for item in journal.items()] == ["one/sub/a.png", "two/sub/a.png", "b.png"]
    assert not (tmp_path / "out").exists()


def test_name_patterns(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "sub" / "a.png", "x", 7)
    made = names(tmp_path / "in", tmp_path / "out", recursive=True, name="{stem}-{width}x{height}-s{seed}-{index:03d}")
    assert made == {"sub/a.png": "sub/a-96x64-s7-000.png"}
    (alone,) = planned(tmp_path / "in" / "sub", name="{stem}-{index}")
    assert alone.output == "a-0.png"


@pytest.mark.parametrize(
    "pattern", ["{stem.__class__}", "{0}", "{stem!r}", "{index:999999d}", "", "{", "{prompt}", "."]
)
def test_patterns_that_reach_too_far_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        Job.of(("a",), "b", name=pattern)


@pytest.mark.parametrize("pattern", ["../{stem}", "/etc/{stem}", "../../{stem}", "con/{stem}", "a/../../{stem}"])
def test_patterns_stay_inside_the_output(tmp_path: Path, pattern: str) -> None:
    make_picture(tmp_path / "in" / "a.png")
    (made,) = names(tmp_path / "in", tmp_path / "out", name=pattern).values()
    assert ".." not in made.split("/")
    assert not made.startswith("/")
    assert os.path.normpath(tmp_path / "out" / made).startswith(str(tmp_path / "out"))


@given(st.text(max_size=300), st.booleans())
def test_safe_names_are_safe(text: str, mild: bool) -> None:
    name = safe_name(text, mild=mild, ending=".png")
    assert name not in ("", ".", "..")
    assert "/" not in name
    assert "\\" not in name
    assert mild or all(mark.isprintable() or unicodedata.category(mark) == "Zs" for mark in name)
    assert len(name.encode()) <= 250
    assert name.split(".")[0].strip().lower() not in ("con", "nul", "com1")


def test_request_and_options_round_trip(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "a cat", 2**40)
    (plan,) = planned(tmp_path / "in", config=FamConfig(start=0.5, fm_window=(0.9, 0.1)))
    assert HiresRequest.from_json(plan.request.to_json()) == plan.request
    given_options = options(
        tmp_path / "in", tmp_path / "out", size=(512, 256), rules={"prompt": Rule("prefix", "x")}, include=("*.png",)
    )
    assert Job.from_json(given_options.to_json()) == given_options


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"scale": 0.5}, "scale is 0.5"),
        ({"size": (8, 8)}, "size is 8"),
        ({"method": "magic"}, "method is 'magic'"),
        ({"rules": {"colour": Rule("take")}}, "colour"),
        ({"rules": {"seed": Rule("prefix", "1")}}, "prefix does not fit seed"),
        ({"quality": 0}, "quality is 0"),
        ({"fit": "crop"}, "'fit' is not an option of a job"),
        ({"first": 0}, "first is 0"),
    ],
)
def test_bad_options_are_named(more, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Job.of(("a",), "b", **more)
    with pytest.raises(UsageError, match="no input"):
        Job.of((), "b")
    with pytest.raises(ConfigError, match="rule is"):
        Rule("maybe")


def test_a_jpeg_too_wide_for_its_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (9000, 1000)).save(tmp_path / "in" / "a.webp")
    (plan,) = planned(tmp_path / "in")
    assert "16383" in plan.problem
    with pytest.raises(PictureError, match="too large"):
        target_size((4000, 40000), SizeRule(max_megapixels=None))


def test_files_of_one_size_are_neighbours(tmp_path: Path) -> None:
    for number, side in enumerate([32, 64, 32, 64]):
        make_picture(tmp_path / "in" / f"{number}.png", size=(side, side))
    plan = options(tmp_path / "in", tmp_path / "out")
    with Journal(tmp_path / "out") as journal:
        journal.plan(walk(plan.places), plan, plan_file)
        order = []
        while (item := journal.claim()) is not None:
            order.append(item.key)
    assert order == ["0.png", "2.png", "1.png", "3.png"]


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys, fam_ext.jobs.run, fam_ext.cli;"
        "bad = [m for m in ('torch', 'gradio', 'diffusers', 'ray', 'numpy', 'rich.progress') if m in sys.modules];"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_two_files_share_a_key_when_a_real_name_looks_numbered(tmp_path: Path) -> None:
    folders = [tmp_path / "x" / "a", tmp_path / "y" / "a", tmp_path / "z" / "a-2"]
    for folder in folders:
        make_picture(folder / "one.png")
    job = Job.of(inputs=tuple(map(str, folders)), output=str(tmp_path / "out"))
    assert [candidate.key for candidate in walk(job.places)] == ["a/one.png", "a-2/one.png", "a-2-2/one.png"]


def test_names_sort_by_their_numbers(tmp_path: Path) -> None:
    names = ["2.png", "10.png", "a2b.png", "a10b.png", "B1.png", "\u0663.png", "9" * 100 + ".png", "a.png"]
    assert sorted(names, key=natural_key) == [
        "2.png",
        "10.png",
        "9" * 100 + ".png",
        "a2b.png",
        "a10b.png",
        "a.png",
        "B1.png",
        "\u0663.png",
    ]


def test_the_default_target_is_capped_and_says_so(tmp_path: Path) -> None:
    # 25 MP of one colour: a small file that would become 100 MP at 2x, 400 MP at 4x
    Image.new("1", (5000, 5000)).save(tmp_path / "a.png")
    large = plan_file(next(walk(Job.of((str(tmp_path),), "b").places)), Job.of((str(tmp_path),), "b"))
    assert large.request is not None and large.request.size == (8000, 8000)
    assert large.notes == ("the target is capped at 64 MP (--max-megapixels)",)
    for more, size in (({"max_megapixels": None}, 10000), ({"max_megapixels": 81.0}, 9000), ({"max_side": 6000}, 6000)):
        options = Job.of((str(tmp_path),), "b", **more)
        planned = plan_file(next(walk(options.places)), options)
        assert planned.request is not None and planned.request.size == (size, size)
        assert bool(planned.notes) == (size == 9000)
    assert target_size((8000, 8000), SizeRule())[1] == ("8000 x 8000 px is as large as --max-megapixels 64 allows")


def test_planning_never_holds_the_journal_while_it_reads(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for number in range(4):
        make_picture(source / f"{number}.png", "x", number)
    path = tmp_path / "out" / ".fam-hires" / "journal.sqlite3"

    def slow(*arguments, **more):
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as joiner:
            joiner.execute("BEGIN IMMEDIATE")  # OperationalError: database is locked
            joiner.execute("ROLLBACK")
        return plan_file(*arguments, **more)

    plan = options(source, tmp_path / "out")
    with Journal(tmp_path / "out") as journal:
        for _ in range(2):
            counts = journal.plan(walk(plan.places), plan, slow)
            assert (counts.files, counts.new + journal.counts()["pending"] > 0) == (4, True)
            assert journal.counts()["pending"] == 4
            plan = plan.replace(scale=3.0)


def test_equal_names_are_settled_in_linear_time(tmp_path: Path) -> None:
    plan = Job.of((str(tmp_path),), str(tmp_path / "out"), name="same", scale=2.0)
    request = HiresRequest((64, 64))

    def planned(candidate, options, *, index):
        return Planned(candidate, (32, 32), request, "PNG", "same.png")

    files = [Candidate(f"{number}.png", str(tmp_path / f"{number}.png")) for number in range(2000)]
    with Journal(tmp_path / "out") as journal:
        began = time.process_time()
        journal.plan(iter(files), plan, planned)
        assert time.process_time() - began < 3
        names = [item.output for item in journal.items()]
        assert names == ["same.png", *(f"same-{number}.png" for number in range(2, 2001))]
        # other settings: each keeps its name
        began = time.process_time()
        journal.plan(iter(files), plan.replace(scale=3.0), planned)
        assert time.process_time() - began < 3
        assert [item.output for item in journal.items()] == names


@pytest.mark.slow  # imports torch
def test_one_limit_on_steps_at_every_door(tmp_path: Path) -> None:
    from fam_ext.options.table import BY_NAME
    from fam_ext.samplers.names import MOST_STEPS
    from fam_ext.samplers.run import SamplerRun
    from fam_ext.samplers.trained import Trained

    assert BY_NAME["steps"].high == MOST_STEPS
    with pytest.raises(ConfigError, match=f"steps is 151; choose .* to {MOST_STEPS}"):
        HiresRequest((64, 64), steps=MOST_STEPS + 1)
    with pytest.raises(UsageError, match=f"steps is 151; choose 1 to {MOST_STEPS}"):
        SamplerRun(Trained.of({}), "Euler", "Uniform", steps=MOST_STEPS + 1, seeds=[1])
    for sampler, most in (("Euler", MOST_STEPS), ("LCM", 50)):
        (tmp_path / sampler).mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / sampler / "a.png")
        text = infotext("x", 1).replace("Steps: 20, Sampler: Euler a", f"Steps: 400, Sampler: {sampler}")
        (tmp_path / sampler / "a.txt").write_text(text)
        (plan,) = planned(tmp_path / sampler, renderer=RendererChoice(STANDALONE))
        assert plan.request is not None and plan.request.steps == most
        assert f"{most} is used" in str(plan.notes) or f"{most} are used" in str(plan.notes)


@pytest.mark.parametrize(("renderer", "said"), [(STANDALONE, True), (WEBUI, False)])
def test_a_plan_names_the_textual_inversions_that_are_not_drawn(tmp_path: Path, renderer: str, said: bool) -> None:
    make_picture(tmp_path / "in" / "a.png", "a cat, Easy", TI_hashes='"Easy: c74b4e810b03"')
    (plan,) = planned(tmp_path / "in", renderer=RendererChoice(renderer))
    assert plan.notes == (("no textual inversion is loaded: Easy drawn as plain words",) if said else ())
