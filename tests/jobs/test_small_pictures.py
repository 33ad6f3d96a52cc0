"""Pictures and targets too small for a latent: judged in the plan, then really drawn or refused in a sentence."""

import json
from pathlib import Path

import pytest
from PIL import Image

from fam_ext import cli
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.size import MIN_ENLARGED
from fam_ext.jobs.walk import walk
from fam_ext.metadata.infotext import parse
from fam_ext.metadata.pictures import read_header
from fam_ext.options.renderer import STANDALONE, RendererChoice
from tests.jobs.fakes import make_picture, options, strays

ENLARGED = "enlarged from 9 x 12 to 16 x 21 px first, the least size"


def planned(tmp_path: Path, native: tuple[int, int], **more):
    make_picture(tmp_path / "in" / "a.png", size=native)
    plan = options(tmp_path / "in", tmp_path / "out", renderer=RendererChoice(STANDALONE), **more)
    (found,) = (plan_file(candidate, plan) for candidate in walk(plan.places))
    return found


@pytest.mark.parametrize(
    ("native", "more", "problem"),
    [
        ((17, 23), {}, "the target 32 x 48 px is too small; at least 64 px a side are needed"),
        ((17, 23), {"scale": 4}, None),
        ((9, 12), {}, "9 x 12 px is too small; at least 16 px a side are needed, or a target of at least 64 px"),
        ((9, 12), {"size": (256, 256)}, None),
        ((200, 20), {"scale": 2}, "the target 400 x 40 px is too small"),
        (
            (200, 100),
            {"size": (64, 208), "exact_size": True},
            "the target 208 x 64 px is smaller than the picture's 200 x 100",
        ),
        (
            (70, 9),
            {"size": (64, 64), "exact_size": True},
            "the target 64 x 64 px is smaller than the picture's 124 x 16 px",
        ),
        ((128, 128), {"max_side": 64}, None),  # left as it is
    ],
)
def test_the_plan_judges_small_pictures(
    tmp_path: Path, native: tuple[int, int], more: dict, problem: str | None
) -> None:
    found = planned(tmp_path, native, **more)
    assert (found.problem or "").startswith(problem or "") and bool(found.problem) == bool(problem)
    if native == (9, 12) and problem is None:
        assert ENLARGED in found.notes


def test_the_least_target_is_the_renderers() -> None:
    from fam_ext.hires import MIN_TARGET_SIDE

    assert MIN_TARGET_SIDE == MIN_ENLARGED


@pytest.mark.slow
def test_small_pictures_on_the_embedded_model(tmp_path: Path, capsys) -> None:
    """The command says before what it does then: a picture of 17 x 23 px at 2x is refused, at 4x it is drawn."""

    def run(*words: object) -> list[dict]:
        """Return what the command printed, one JSON object a line; the exit code comes last."""
        try:
            cli.main([str(word) for word in ("upscale", tmp_path / "in", *words, "--steps", 1)])
        except SystemExit as end:
            code = end.code
        else:
            code = 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return [*map(json.loads, out.splitlines()), {"code": code}]

    for name, size in (("icon.png", (17, 23)), ("dot.png", (9, 12)), ("good.png", (40, 32))):
        make_picture(tmp_path / "in" / name, size=size)
    for scale, bad in ((2, {"icon.png", "dot.png"}), (8, set())):
        place = ("-o", tmp_path / f"out{scale}", "--scale", scale)
        rows = run(*place, "--dry-run", "--plan-format", "json")
        assert {row["source"] for row in rows[:-1] if row["state"] == "failed"} == bad
        events = run(*place, "--progress", "json")
        assert {event["key"] for event in events if event.get("kind") == "failed"} == bad
        assert sum(event.get("kind") == "finished" for event in events) == 3 - len(bad)
        assert events[-1]["code"] == bool(bad) and strays(tmp_path / f"out{scale}") == []
    header = read_header(tmp_path / "out8" / "dot.png")
    assert header.size == (96, 72) and ENLARGED in parse(header.infotext or "").params["FAM notes"]
    with Image.open(tmp_path / "out8" / "icon.png") as image:
        image.load()
        assert image.size == (136, 184)
