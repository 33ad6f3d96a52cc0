"""Which files a job reads: hidden files, links, loops, and the output under other names."""

import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from fam_ext.errors import UsageError
from fam_ext.jobs.plan import plan_file
from fam_ext.jobs.run import run_job
from fam_ext.jobs.walk import HIDDEN, LINKS, _label, check_places, is_within, left_out_line, others, walk
from fam_ext.options.job import Job
from tests.jobs.fakes import Fast, make_picture, options

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links")


def keys(source: Path, output: Path, **more) -> list[str]:
    plan = options(source, output, recursive=True, **more)
    check_places(plan.places)
    return [candidate.key for candidate in walk(plan.places)]


def test_hidden_files_are_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".b.png", ".git/c.png", "sub/._d.png", "sub/d.png"):
        make_picture(tmp_path / "in" / name)
    left: Counter[str] = Counter()
    plan = options(tmp_path / "in", tmp_path / "out", recursive=True)
    assert [candidate.key for candidate in walk(plan.places, left)] == ["a.png", "sub/d.png"]
    assert left[HIDDEN] == 3
    assert keys(tmp_path / "in" / ".b.png", tmp_path / "out") == [".b.png"]  # named, so wanted


def test_a_link_upward_never_grows_the_plan(tmp_path: Path) -> None:
    make_picture(tmp_path / "all" / "in" / "a.png")
    make_picture(tmp_path / "all" / "other" / "b.png")
    source, output = tmp_path / "all" / "in", tmp_path / "all" / "out"
    (source / "loop").symlink_to("..", target_is_directory=True)
    (source / "result").symlink_to(output, target_is_directory=True)
    for _ in range(3):
        assert keys(source, output) == ["a.png"]
        run_job(options(source, output, recursive=True), Fast)
    assert sorted(path.name for path in output.glob("**/*.png")) == ["a.png"]
    left: Counter[str] = Counter()
    list(walk(options(source, output, recursive=True).places, left))
    assert left[LINKS] == 2


def test_a_link_inside_the_root_changes_no_place(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "z" / "a.png")
    make_picture(tmp_path / "in" / ".kept" / "b.png")
    before = keys(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a-link").symlink_to(tmp_path / "in" / "z", target_is_directory=True)
    (tmp_path / "in" / "z" / "up").symlink_to("..", target_is_directory=True)
    assert before == keys(tmp_path / "in", tmp_path / "out") == ["z/a.png"]
    (tmp_path / "in" / "shown").symlink_to(".kept", target_is_directory=True)
    assert keys(tmp_path / "in", tmp_path / "out") == ["z/a.png", "shown/b.png"]


def test_the_output_is_no_input_under_any_name(tmp_path: Path) -> None:
    make_picture(tmp_path / "in" / "a.png")
    make_picture(tmp_path / "out" / "made.png")
    (tmp_path / "alias").symlink_to("out", target_is_directory=True)
    (tmp_path / "in" / "to-out").symlink_to("../out", target_is_directory=True)
    (tmp_path / "in" / "made.png").symlink_to("../out/made.png")
    for output in (tmp_path / "out", tmp_path / "alias"):
        assert keys(tmp_path / "in", output) == ["a.png"]
    (tmp_path / "inside").symlink_to("in/new", target_is_directory=True)
    with pytest.raises(UsageError, match="lies inside the input"):
        check_places(options(tmp_path / "in", tmp_path / "inside").places)
    with pytest.raises(UsageError, match="lies inside the output"):
        check_places(options(tmp_path / "in", tmp_path).places)
    assert is_within(tmp_path / "alias" / "x", tmp_path / "out") and not is_within(tmp_path / "out2", tmp_path / "out")


def test_links_to_files_are_followed_unless_folders_are_limited(tmp_path: Path) -> None:
    make_picture(tmp_path / "elsewhere" / "far.png", "far")
    make_picture(tmp_path / "in" / "near.png")
    (tmp_path / "in" / "far.png").symlink_to(tmp_path / "elsewhere" / "far.png")
    (tmp_path / "secret.txt").write_text("a password")
    (tmp_path / "in" / "near.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "in" / "also.png").symlink_to(tmp_path / "in" / "near.png")
    free = options(tmp_path / "in", tmp_path / "out")
    assert [candidate.problem for candidate in walk(free.places)] == [None] * 3
    limited = options(tmp_path / "in", tmp_path / "out", allowed=(str(tmp_path / "in"), str(tmp_path / "out")))
    also, far, near = (plan_file(candidate, limited) for candidate in walk(limited.places))
    assert (
        far.request is None
        and far.problem == "it is a link that leads outside the allowed folders; put the picture itself there"
    )
    assert near.request is not None and near.candidate.sidecar is None
    assert also.request is not None
    assert Job.from_json(limited.to_json()) == limited


def test_other_kinds_are_counted_on_one_line_and_droppings_are_not(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("a.png", "@eaDir/a.png/SYNO.jpg", "__MACOSX/a.png", "$RECYCLE.BIN/b.png", "sub/c.png"):
        make_picture(source / name)
    for name in ("a.txt", "b.GIF", "c.psd", "sub/d.gif", "Thumbs.db", "desktop.ini", ".DS_Store", "sub/notes"):
        (source / name).write_bytes(b"x")
    make_picture(source / "._a.png")
    Image.new("RGB", (24, 16)).save(source / "sub" / "c.png")
    plan = options(source, tmp_path / "out", recursive=True)
    left: Counter[str] = Counter()
    assert [candidate.key for candidate in walk(plan.places, left)] == ["a.png", "sub/c.png"]
    assert left_out_line(left) == "5 left out: .gif, .psd, 1 hidden, 1 without a suffix"
    events = []
    summary = run_job(plan, Fast, on_event=events.append)
    assert summary.left_out == left_out_line(left)
    planned = next(event for event in events if event.kind == "planned")
    assert planned.notes == ("1 of 2 carry no prompt: give --prompt, or .txt files", summary.left_out)
    assert "from A1111" in (tmp_path / "out" / "report.html").read_text()
    again: Counter[str] = Counter()
    list(walk(options(source, tmp_path / "out", include=("*.png",)).places, again))
    assert left_out_line(again) == "1 left out: 1 hidden"
    assert left_out_line(Counter()) == ""
    many = Counter({f".k{number}": 1 for number in range(300)})
    assert left_out_line(many).endswith(".k103, .k104, 292 more kinds")


def test_many_equal_inputs_are_labelled_in_linear_time() -> None:
    class Asked(dict[str, int]):
        count = 0

        def __contains__(self, name: object) -> bool:
            self.count += 1
            return super().__contains__(name)

    labels = Asked()
    made = [_label("a.png", labels) for _ in range(3000)]
    assert made[:3] == ["a.png", "a-2.png", "a-3.png"] and len(set(made)) == 3000
    assert labels.count < 4 * 3000  # each number was tried again for each: 4.5 million
    more = [_label(name, labels) for name in ("b-2", "b", "b", "b", "a-2.png", "b-2")]
    assert more == ["b-2", "b", "b-3", "b-4", "a-2-2.png", "b-2-2"]


def test_a_single_picture_brings_the_text_beside_it(tmp_path: Path) -> None:
    make_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a lamp")
    for name, sidecar in (("a.png", tmp_path / "a.txt"), ("a.txt", None)):
        (found,) = walk(options(tmp_path / name, tmp_path / "out").places)
        assert (found.key, found.sidecar, bool(found.sidecar_mark)) == (name, sidecar, sidecar is not None)
    (found,) = walk(options(tmp_path, tmp_path / "out").places)
    before = found.sidecar_mark
    (tmp_path / "a.txt").write_text("a red lamp")
    (found,) = walk(options(tmp_path, tmp_path / "out").places)
    assert (found.sidecar, found.sidecar_mark != before) == (tmp_path / "a.txt", True)


def test_a_text_in_capitals_is_read_where_no_other_is(tmp_path: Path) -> None:
    make_picture(tmp_path / "a.png")
    for name in ("a.TXT", "a.txt"):  # on most disks of Windows and macOS one file
        (tmp_path / name).write_text("a lamp")
        for source in (tmp_path, tmp_path / "a.png"):
            (found,) = walk(options(source, tmp_path / "out").places)
            assert found.sidecar is not None and found.sidecar.samefile(tmp_path / name) and found.sidecar_mark


def test_what_is_no_part_of_a_job_is_named(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("a.png", "sub/b.png"):
        make_picture(source / name)
    for name in ("a.txt", "a.psd", "c.txt", "sub/b.TXT", "sub/d.mp4"):
        (source / name).write_bytes(b"x")

    def said(**more) -> str | None:
        places = options(source, tmp_path / "out", **more).places
        return others(places, {candidate.key for candidate in walk(places)})

    assert said() == "3 left out (a.psd, c.txt, sub/)"
    assert said(recursive=True) == "3 left out (a.psd, c.txt, sub/d.mp4)"
    for number in range(20):
        (source / f"{number}.gif").write_bytes(b"x")
    assert str(said()).endswith("3.gif, 4.gif, 5.gif, 6.gif, 7.gif and 15 more)")
    assert others(options(source / "a.png", tmp_path / "out").places, {"a.png"}) is None


def test_a_link_given_as_an_input_is_walked_and_no_file_is_named(tmp_path: Path) -> None:
    make_picture(tmp_path / "real" / "a.png")
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    os.mkfifo(tmp_path / "pipe.png")
    both = Job.of((str(tmp_path / "link"), str(tmp_path / "real"), str(tmp_path / "pipe.png")), str(tmp_path / "out"))
    assert [(found.key, found.problem) for found in walk(both.places)] == [
        ("real/a.png", None),  # once
        ("pipe.png", "it is not a regular file; choose a picture file"),
    ]
