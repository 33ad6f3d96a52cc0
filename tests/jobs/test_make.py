"""One picture's way: what is refused, what the file says of itself, and how an output is put into its place."""

import dataclasses
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from fam_ext.errors import AlreadyGuidedError, LoadError, OutputError, PictureError, RenderError, Skipped
from fam_ext.escapes import sentence
from fam_ext.jobs import make
from fam_ext.jobs.contract import Progress, Ran, Rendered
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.enter import EXISTS
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.run import run_job
from fam_ext.jobs.walk import walk
from fam_ext.metadata.infotext import parse
from fam_ext.metadata.pictures import read_header
from fam_ext.options.parts import Rule, RunRule
from fam_ext.options.request import HiresRequest
from tests.jobs.fakes import Fast, make_picture, options, outputs


def item(source: Path, request: HiresRequest | None = HiresRequest((64, 96)), **more) -> Item:  # noqa: B008
    return Item(1, "a.png", str(source), request, more.pop("native", (32, 48)), "PNG", "a.png", **more)


def test_a_file_that_cannot_be_read_is_another(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"same")
    assert not make._differs(path, b"same") and make._differs(path, b"diff")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert make._differs(path, b"same")


def params(tmp_path: Path, **more) -> dict[str, str]:
    """Return what the output's infotext says beside the picture's own."""
    make_picture(tmp_path / "in" / "a.png", "a cat", 7)
    assert run_job(options(tmp_path / "in", tmp_path / "out", **more), Fast).done == 1
    return parse(read_header(tmp_path / "out" / "a.png").infotext).params


def test_the_infotext_says_what_the_pictures_own_does_not(tmp_path: Path) -> None:
    said = params(tmp_path, rules={"steps": Rule("override", 9)}, settings={"tile": 512, "low_memory": True})
    assert (said["Steps"], said["FAM steps"]) == ("20", "9")
    assert not {"FAM seed", "FAM sampler", "FAM cfg scale", "FAM clip skip"} & said.keys()
    assert (said["FAM tile"], said["FAM low memory"]) == ("512", "True")
    assert "FAM notes" not in said and "FAM prompt" not in said


@pytest.mark.parametrize("base", [None, "a caption"])
def test_without_settings_of_its_own_a_picture_has_what_ran_as_its_line_and_once(base: str | None) -> None:
    request = HiresRequest((64, 96), prompt="a cat", sampler="DPM++ 2M", seed=7)
    ran = Ran(method="direct", steps=30, sampler="DPM++ 2M", schedule="Karras", cfg_scale=7.0, seed=7, vae="None")
    said = parse(make.infotext_of(request, ran, base=base))
    line = {"Steps": "30", "Sampler": "DPM++ 2M", "Schedule type": "Karras", "CFG scale": "7", "Seed": "7"}
    assert said.prompt == (base or "a cat")
    assert {**line, "Size": "96x64"}.items() <= said.params.items()
    ours = {key for key in said.params if key.startswith("FAM ")}
    assert ours == {"FAM method", "FAM original"} | ({"FAM prompt"} if base else set())


def test_a_cfg_scale_that_the_next_run_would_read_otherwise_is_said() -> None:
    base = "a cat\nSteps: 20, Sampler: Euler a CFG++, CFG scale: 7, Seed: 1"
    said = make.infotext_of(HiresRequest((64, 96), prompt="a cat"), Ran(method="direct", cfg_scale=7.0), base=base)
    assert parse(said).params["FAM CFG scale"] == "7"
    assert "FAM CFG scale" not in make.infotext_of(
        HiresRequest((64, 96), prompt="a cat"), Ran(method="direct", cfg_scale=7.0), base=base.replace("CFG++", "")
    )


def test_a_settings_line_of_words_that_are_none_leaves_ours_whole() -> None:
    """Three pairs of a poem: a WebUI takes them for settings, and ours stand on that line."""
    base = "rain: soft, wind: low, night: long"
    said = make.infotext_of(HiresRequest((64, 96), seed=7, prompt=base), Ran(method="direct"), base=base)
    assert said.startswith(f"{base}, Upscaled by:") and "FAM seed: 7" in said and "FAM size: 96 x 64" in said


def test_a_prompt_that_is_not_the_pictures_own_is_said(tmp_path: Path) -> None:
    said = params(tmp_path, rules={"prompt": Rule("suffix", "soft")})
    assert (said["FAM prompt"], "FAM negative prompt" in said) == ("a cat, soft", False)
    assert "FAM tile" not in said and "FAM low memory" not in said


def test_a_picture_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    make_picture(tmp_path / "a.png")
    job = options(tmp_path / "a.png", tmp_path / "out")
    assert make.load(item(tmp_path / "a.png"), job).picture.header.size == (32, 48)
    assert make.load(item(tmp_path / "a.png", native=(0, 0)), job).picture  # the plan does not say
    with pytest.raises(PictureError, match="changed after it was planned"):
        make.load(item(tmp_path / "a.png", native=(32, 40)), job)
    with pytest.raises(PictureError, match="not a regular file"):
        make.load(item(Path(os.devnull)), job)


@pytest.mark.parametrize(("bytes_", "refused"), [(100, False), (99, True)])
def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch, bytes_: int, refused: bool) -> None:
    (tmp_path / "a.png").write_bytes(b"x" * 100)
    monkeypatch.setattr("fam_ext.metadata.files.MAX_FILE_BYTES", bytes_)
    with pytest.raises(PictureError, match="more than 2 GB" if refused else "picture"):
        make.load(item(tmp_path / "a.png"), options(tmp_path / "a.png", tmp_path / "out"))


def test_a_renderer_that_returns_another_size_is_named(tmp_path: Path) -> None:
    class Wrong(Fast):
        def render(self, image, request, progress):
            return Rendered(image, Ran())

    make_picture(tmp_path / "a.png")
    one = item(tmp_path / "a.png")
    loaded = make.load(one, options(tmp_path / "a.png", tmp_path / "out"))
    with pytest.raises(PictureError, match=r"returned \(48, 32\), not 96 x 64 px"):
        make.draw(Wrong(), loaded, one, Progress())
    with pytest.raises(PictureError, match="no settings for this file"):
        make.draw(Fast(), loaded, dataclasses.replace(one, request=None), Progress())


def test_what_a_renderer_leaves_open_is_the_requests(tmp_path: Path) -> None:
    request = HiresRequest((64, 96), steps=9, seed=3)
    ran = make.whole(Ran(seed=4, steps=0), request)
    assert (ran.seed, ran.steps, ran.sampler, ran.size) == (4, 0, request.sampler, (64, 96))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PictureError("one\n line"), "one line"),
        (PictureError("gpj.\u202eexe"), "gpj.\\u202eexe"),
        (AlreadyGuidedError(), "AlreadyGuidedError"),
        (ValueError("x" * 400), f"ValueError: {'x' * 300}"),
        (KeyError(), "KeyError"),
    ],
)
def test_an_error_is_one_line(error: Exception, says: str) -> None:
    assert sentence(error) == says


def test_a_renderer_is_loaded_or_says_why_not() -> None:
    class Loads(Fast):
        loaded = False

        def load(self) -> None:
            self.loaded = True

    assert make.ready(Loads).loaded

    def fault(error: Exception):
        def build() -> Fast:
            raise error

        return build

    with pytest.raises(LoadError, match=r"^it is broken$"):
        make.ready(fault(RenderError("it is broken")))
    with pytest.raises(LoadError, match=r"cannot be loaded \(ValueError: x\); check the model"):
        make.ready(fault(ValueError("x")))


@pytest.fixture
def packed(tmp_path: Path):
    """Return the planned job, its open journal, its item, and finished bytes."""
    make_picture(tmp_path / "in" / "a.png")
    os.utime(tmp_path / "in" / "a.png", ns=(1, 10**18))
    job = options(tmp_path / "in", tmp_path / "out", keep_times=True)
    with Journal(tmp_path / "out") as journal:
        journal.plan(walk(job.places), job, plan_file)
        one = journal.claim()
        assert one is not None
        yield job, journal, one, make.Packed(b"data", "c", (), Ran(seconds=1.0))


def test_an_output_is_put_into_its_place_with_its_time(packed, tmp_path: Path) -> None:
    job, journal, one, made = packed
    journal.temporary.rmdir()  # a process that shared the work has tidied up
    make.write(journal, one, made, job)
    assert outputs(tmp_path / "out") == {"a.png": b"data"}
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == 10**18
    (row,) = journal.items()
    assert (row.state, row.bytes, row.seconds, row.content_hash) == ("done", 4, 1.0, "c")


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize(("there", "refused"), [(b"data", False), (b"date", True), (b"dat", True), (None, True)])
def test_what_came_into_an_outputs_place_stays(packed, tmp_path: Path, there: bytes | None, refused: bool) -> None:
    job, journal, one, made = packed
    target = tmp_path / "out" / "a.png"
    if there is None:
        (tmp_path / "far").write_bytes(b"data")
        target.symlink_to(tmp_path / "far")
    else:
        target.write_bytes(there)
    if refused:
        with pytest.raises(Skipped, match=EXISTS):
            make.write(journal, one, made, job)
    else:
        make.write(journal, one, made, job)
    assert target.read_bytes() == (there or b"data") and target.is_symlink() == (there is None)
    assert list(journal.temporary.iterdir()) == []


@pytest.mark.parametrize(("code", "kind"), [(28, OutputError), (5, PictureError)])
def test_a_disk_that_fails_ends_the_run_or_this_picture(packed, monkeypatch, code: int, kind: type) -> None:
    job, journal, one, made = packed

    def fails(*arguments) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(make.os, "replace", fails)
    with pytest.raises(kind):
        make.write(journal, one, made, job)
    assert list(journal.temporary.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_an_output_that_would_leave_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out" / "in").mkdir(parents=True)
    (tmp_path / "out" / "far").symlink_to(tmp_path)
    make.check_inside(tmp_path / "out", tmp_path / "out" / "a.png")
    make.check_inside(tmp_path / "out", tmp_path / "out" / "in" / "a.png")
    make.check_inside(Path("/"), Path("/a.png"))
    (tmp_path / "output").mkdir()
    (tmp_path / "out" / "near").symlink_to(tmp_path / "output")
    for name in ("far", "near"):
        with pytest.raises(PictureError, match="leads outside"):
            make.check_inside(tmp_path / "out", tmp_path / "out" / name / "a.png")


def test_metadata_is_left_out_when_asked(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png", "a cat", 7)
    run_job(options(tmp_path / "in", tmp_path / "out", strip_metadata=True), Fast, run=RunRule(report=False))
    assert read_header(tmp_path / "out" / "a.png").infotext is None
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.info == {}
