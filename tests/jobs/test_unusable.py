"""A sampler, a model or sites that cannot be used: what ends a job, what costs one picture, and what is replaced."""

import re
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from fam_ext.errors import (
    UnknownSitesError,
    UnsupportedModelError,
    UnsupportedSamplerError,
    UnsupportedScheduleError,
)
from fam_ext.jobs.run import run_job
from fam_ext.metadata.infotext import parse
from fam_ext.metadata.pictures import read_header
from fam_ext.options.parts import Rule, RunRule
from tests.jobs.fakes import Fast, Odd, make_folder, make_picture, options, page_job

QUICK = RunRule(retries=0)


def test_an_unknown_sampler_from_metadata_is_replaced_but_not_one_asked_for(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "x", 1)
    picture = tmp_path / "in" / "a.png"
    image = Image.open(picture)
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", image.info["parameters"].replace("Euler a", "LMS, Schedule type: Karras"))
    image.save(picture, pnginfo=info)
    assert run_job(options(tmp_path / "in", tmp_path / "out"), Odd, run=QUICK).done == 1
    assert parse(read_header(tmp_path / "out" / "a.png").infotext).params["FAM sampler"] == "DPM++ 2M"
    forced = options(tmp_path / "in", tmp_path / "out2", rules={"sampler": Rule("override", "LMS")})
    with pytest.raises(UnsupportedSamplerError, match="LMS"):
        run_job(forced, Odd, run=QUICK)


def test_an_unknown_sampler_keeps_its_schedule_and_an_unknown_schedule_its_sampler(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "x", 1)
    picture = tmp_path / "in" / "a.png"
    image = Image.open(picture)
    for number, (asked, ran) in enumerate(
        [
            (("LMS", "Exponential"), ("DPM++ 2M", "Exponential")),
            (("Euler", "Beta"), ("Euler", "Automatic")),
            (("LMS", "Beta"), ("DPM++ 2M", "Automatic")),
        ]
    ):
        info = PngImagePlugin.PngInfo()
        own = f"x\nSteps: 4, Sampler: {asked[0]}, Schedule type: {asked[1]}, CFG scale: 7, Seed: 1"
        info.add_text("parameters", own)
        image.save(picture, pnginfo=info)
        output = tmp_path / f"out{number}"
        assert run_job(options(tmp_path / "in", output), Odd, run=QUICK).done == 1
        params = parse(read_header(output / "a.png").infotext).params
        named = params.get("FAM sampler", asked[0]), params.get("FAM schedule", asked[1])
        assert named == ran
        changed = [kind for kind, old, new in zip(("sampler", "schedule"), asked, ran, strict=True) if old != new]
        assert re.findall(r"(sampler|schedule) \w+ is not offered", params["FAM notes"]) == changed


def test_a_schedule_that_is_asked_for_stops_the_job_whoever_names_the_sampler(tmp_path: Path) -> None:
    job = page_job({"input": str(make_folder(tmp_path / "in", 2))})
    with pytest.raises(UnsupportedScheduleError, match="Beta"):
        run_job(job.replace(rules={"schedule": Rule("override", "Beta")}), Odd, run=QUICK)


def test_a_model_that_cannot_be_used_stops_the_job_at_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "in", 3)

    def broken() -> Fast:
        raise UnsupportedModelError("model is Flux; choose SD1.5, SD2.1 or SDXL")

    with pytest.raises(UnsupportedModelError, match="Flux"):
        run_job(options(tmp_path / "in", tmp_path / "out"), broken)
    assert run_job(options(tmp_path / "in", tmp_path / "out"), Fast).done == 3


def test_sites_that_the_model_lacks_stop_the_job_at_once(tmp_path: Path) -> None:
    class Lacking(Fast):
        def render(self, image: Image.Image, request, progress):  # type: ignore[no-untyped-def]
            self.seen.append(request)
            raise UnknownSitesError("am_sites is 'nowhere'; choose \"auto\" or patterns of: up_blocks.1")

    make_folder(tmp_path / "in", 3)
    renderer = Lacking()
    with pytest.raises(UnknownSitesError, match="nowhere"):
        run_job(options(tmp_path / "in", tmp_path / "out"), lambda: renderer, run=QUICK)
    assert len(renderer.seen) == 1
    assert run_job(options(tmp_path / "in", tmp_path / "out"), Fast).done == 3


def test_a_model_that_only_one_picture_asks_for_ends_only_that_picture(tmp_path: Path) -> None:
    class Choosy(Fast):
        def render(self, image: Image.Image, request, progress):  # type: ignore[no-untyped-def]
            if request.model == "gone":
                raise UnsupportedModelError("model gone is not there; choose another")
            return super().render(image, request, progress)

    source = make_folder(tmp_path / "in", 2)
    make_picture(source / "picture 0.png", "first", 3, Model="gone")
    summary = run_job(options(source, tmp_path / "out", rules={"model": Rule("take", None)}), Choosy, run=QUICK)
    assert (summary.done, summary.failed, summary.stopped) == (1, 1, None)
