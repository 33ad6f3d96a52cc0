"""Folder jobs without a page: what the plan and the table say."""

import dataclasses
import json
import re
import sys
import time

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fam_ext.errors import Skipped, UsageError
from fam_ext.jobs.batches import Batches, _text
from fam_ext.jobs.contract import Rendered
from fam_ext.jobs.journal import Journal
from fam_ext.ui.plan import new_folder, plan_pages, question
from fam_ext.ui.tables import error_html, files_html, row_name, status_html
from tests.jobs.fakes import Fast, make_folder, make_picture, page_job


class SkipsOne(Fast):
    """The user presses Skip while the second picture is made; the first misses a LoRA."""

    def render(self, image, request, progress):
        if request.prompt == "picture 1" and not self.seen[1:]:
            self.seen.append(request)
            raise Skipped("skipped by you; the next run makes it")
        made = super().render(image, request, progress)
        notes = ("Lora not found: x",) if request.prompt == "picture 0" else ()
        return Rendered(made.image, dataclasses.replace(made.ran, notes=notes))


def ended(batches, options):
    batch = batches.start(options)
    deadline = time.monotonic() + 30
    while not batch.over:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return batch.to_json()


def test_an_error_of_the_system_s_own_is_a_sentence(tmp_path):
    said = error_html(OSError("File name too long: \udce9"))
    assert said.isascii() and "the folders cannot be used" in said and "check input and output" in said
    assert "the folders" not in error_html(UsageError("input is empty"))


def test_a_skipped_file_is_skipped_and_made_by_the_next_run(tmp_path):
    renderer = SkipsOne()
    batches = Batches(lambda options: renderer)
    options = page_job({"input": str(make_folder(tmp_path / "in", 3))})
    job = ended(batches, options)
    assert (job["state"], job["done"], job["failed"], job["skipped"]) == ("done", 2, 0, 1)
    rows = {row["key"]: (row["state"], row["message"]) for row in job["rows"]}
    assert rows["picture 1.png"] == ("skipped", "skipped by you; the next run makes it")
    assert "done: 2 done, 1 skipped" in status_html(job)
    # what was missing is in the table, the journal and the report
    assert rows["picture 0.png"] == ("done", "Lora not found: x")
    with Journal(options.places.output, memory=True) as journal:
        assert {item.key: item.notes for item in journal.items()}["picture 0.png"] == ("Lora not found: x",)
    assert "Lora not found: x" in (tmp_path / "in-fam" / "report.html").read_text()
    again = ended(batches, options)
    assert (again["done"], again["done_before"], again["skipped"], again["failed"]) == (1, 2, 0, 0)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are texts there")
def test_a_name_that_is_no_text_is_shown_and_told_and_still_found(tmp_path):
    names = {"caf\udce9.png", "caf\\udce9.png"}  # shown alike
    for name in names:
        make_picture(tmp_path / "in\udce9" / name, "a cat", 1)
    options = page_job({"input": str(tmp_path / "in\udce9")})
    batches = Batches(lambda options: Fast())
    for page in (*plan_pages(options), json.dumps(ended(batches, options), ensure_ascii=False)):
        page.encode()
    assert _text("a\u200db\udce9") == "a\u200db\\udce9", "an emoji's joiner is text: the name still leads to the file"
    batch = batches.latest()
    batch.current = batch.error = "caf\udce9.png"
    json.dumps(batch.to_json(), ensure_ascii=False).encode()
    rows = [{**row, "message": row["key"]} for row in batch.last_rows()]
    table = files_html(rows, lambda row: (None, None))
    assert table.encode().count(b"Compare caf\\udce9.png") == 2
    buttons = set(re.findall('data-key="([^"]*)"', table))
    assert buttons == {row_name(name) for name in names} and len(buttons) == 2
    assert row_name("caf\udce9.png").startswith("/"), "as no key does"
    assert all(batch.source(row).is_file() and batch.result(row).is_file() for row in batch.last_rows())


def test_the_plan_of_other_settings_shows_them_and_what_is_kept(tmp_path):
    values = {"input": str(make_folder(tmp_path / "in", 3)), "prompt_rule": "suffix", "prompt": ", soft"}
    ended(Batches(lambda options: Fast()), page_job(values))
    same = list(plan_pages(page_job(values)))[-1]
    assert "3 files, 0 to do, 3 done" in same and "kept" not in same
    other = list(plan_pages(page_job({**values, "prompt": ", hard", "scale": 4})))[-1]
    assert "3 files, 0 to do, 3 kept: made with other settings" in other
    assert "Changed since: Size (px) 96 x 64 to 192 x 128 (3 pictures); Prompt (3 pictures)" in other
    assert "Start would make nothing; All again makes every picture" in other and "data-kept" in other
    assert "data-kept" not in same
    assert other.count("<td>kept: made with other settings, or changed since</td>") == 3
    assert "picture 1, hard" in other and "picture 1, soft" not in other and "192 x 128" in other


def test_the_list_names_what_it_left_out(tmp_path):
    source = make_folder(tmp_path / "in", 2)
    (source / "picture 0.txt").write_text("its own prompt")
    whole = {"input": str(source)}
    assert "left out" not in list(plan_pages(page_job(whole)))[-1]
    for name in ("notes.txt", "film.mp4", ".hidden.png"):
        (source / name).write_bytes(b"x")
    make_folder(source / "inside", 1)
    said = list(plan_pages(page_job(whole)))[-1]
    assert "left out" in said and all(name in said for name in ("notes.txt", "film.mp4", "inside/"))
    inner = list(plan_pages(page_job({**whole, "recursive": True})))[-1]
    assert "inside/picture 0.png" in inner and "inside/," not in inner
    trial = list(plan_pages(page_job({**whole, "pattern": "*1.png"})))[-1]
    assert "1 files, 1 to do" in trial and "picture 0.png" in trial


def test_the_list_shows_program_and_notes_and_start_has_a_question(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    line = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: -1, Version: f2.0"
    for name, text in (("made.png", f"a lamp\n{line}"), ("bare.png", None), ("beside.png", None)):
        info = PngInfo()
        if text:
            info.add_text("parameters", text)
        Image.new("RGB", (64, 48)).save(source / name, pnginfo=info)
    (source / "beside.txt").write_text("a chair")
    values = {"input": str(source)}
    listed = list(plan_pages(page_job(values)))[-1]
    assert ">program</button>" in listed and ">notes</button>" in listed
    assert "<td>Forge</td><td>seed -1 says that it was drawn at random" in listed
    assert "1 of 3 carry no prompt" in listed
    assert question(page_job(values)).startswith("1 of 3 carry no prompt: write one")
    assert question(page_job({**values, "prompt": "a table"})) == ""
    assert not (tmp_path / "in-fam").exists()
    with pytest.raises(UsageError, match="does not exist"):
        question(page_job({"input": str(tmp_path / "none")}))
    (source / "bare.png").unlink()
    assert question(page_job(values)) == ""


def test_a_second_run_says_what_has_changed(tmp_path):
    values = {"input": str(make_folder(tmp_path / "in", 3)), "own_settings": False, "steps": 20}
    ended(Batches(lambda options: Fast()), page_job(values))
    make_folder(tmp_path / "in", 5)  # two more since
    said = list(plan_pages(page_job({**values, "steps": 30})))[-1]
    assert "5 files, 2 to do, 3 kept" in said
    assert "Changed since: Steps 20 to 30 (3 pictures). Start makes the other 2; All again" in said
    assert not re.search("Changed since", list(plan_pages(page_job(values)))[-1])
    assert len(list((tmp_path / "in-fam").glob("*.png"))) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_all_again_goes_into_a_folder_that_is_not_there_yet(tmp_path):
    (tmp_path / "in-fam-2").mkdir()
    (tmp_path / "in-fam-3").symlink_to(tmp_path / "gone")
    assert new_folder(str(tmp_path / "in-fam")) == str(tmp_path / "in-fam-4")
