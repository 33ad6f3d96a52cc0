"""Folder jobs and presets through /fam-hires/v1, and what a closed server refuses."""

import csv
import io
import json
import shutil
import time

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.webui.browsing import Browsed

ROUTE = "/fam-hires/v1"


@pytest.fixture
def folder(tmp_path, native_picture):
    """Eight pictures with settings of their own, one of them broken."""
    place = tmp_path / "in"
    place.mkdir()
    for number in range(8):
        info = PngInfo()
        settings = f"Steps: 3, Sampler: Euler, Schedule type: Automatic, CFG scale: 4, Seed: {number}, Size: 64x64"
        info.add_text("parameters", f"a red apple {number}\n{settings}")
        native_picture.save(place / f"{number}.png", pnginfo=info)
    (place / "5.png").write_bytes((place / "5.png").read_bytes()[:300])
    return place


def wait(server, job, timeout=240):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        state = server.ask(f"{ROUTE}/jobs/{job}")[1]
        if state["state"] in ("done", "stopped", "cancelled", "failed"):
            return state
        time.sleep(0.2)
    raise AssertionError(state)


def test_a_folder_of_eight_with_one_broken(server, folder):
    out = folder.parent / "out"
    body = {"input": str(folder), "output": str(out), "fam": {"start": 0.7}, "scale": 2}
    status, job = server.ask(f"{ROUTE}/jobs", body)
    assert status == 200
    busy = server.ask(f"{ROUTE}/jobs", body)
    assert busy[0] == 409 and job["id"] in busy[1]["detail"]
    state = wait(server, job["id"])
    assert (state["state"], state["done"], state["failed"], state["total"]) == ("done", 7, 1, 8), state
    assert [row["key"] for row in state["rows"] if row["state"] == "failed"] == ["5.png"]
    with Image.open(out / "3.png") as result:
        assert result.size == (128, 128)
        text = result.info["parameters"]
    assert text.startswith("a red apple 3\nSteps: 3, Sampler: Euler")
    assert "FAM version" in text and "FAM start: 0.7" in text and "FAM size: 128 x 128" in text
    report = server.ask(f"{ROUTE}/jobs/{job['id']}/report")[1]
    assert len(report["files"]) == 8
    made = next(file for file in report["files"] if file["state"] == "done")
    assert made["model"] in text and made["model_hash"] in text and made["upscaler"] == "Lanczos"
    assert 0 < made["steps_taken"] <= 3 and made["fm_calls"] > 0 and made["am_calls"] > 0
    rows = list(
        csv.DictReader(io.StringIO(server.ask(f"{ROUTE}/jobs/{job['id']}/report?kind=csv", raw=True)[1].decode()))
    )
    assert sorted(row["state"] for row in rows) == ["done"] * 7 + ["failed"]
    # the same again does nothing
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    again = wait(server, server.ask(f"{ROUTE}/jobs", body)[1]["id"])
    assert (again["done"], again["done_before"], again["kept"], again["failed"]) == (0, 7, 0, 1)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")} == written
    # other settings: what is there is kept, and said to be
    other = wait(server, server.ask(f"{ROUTE}/jobs", {**body, "fam": {"start": 0.5}})[1]["id"])
    assert (other["done"], other["done_before"], other["kept"], other["failed"]) == (0, 0, 7, 1)


def test_the_webui_s_old_setting_of_sizes_changes_no_file_s(server, folder):
    setting = "use_old_hires_fix_width_height"
    server.ask("/sdapi/v1/options", {setting: True})
    try:
        state = wait(server, server.ask(f"{ROUTE}/jobs", {"input": str(folder), "scale": 2})[1]["id"])
        assert (state["done"], state["failed"]) == (7, 1), state
        assert server.ask("/sdapi/v1/options")[1][setting]
    finally:
        server.ask("/sdapi/v1/options", {setting: False})
    with Image.open(folder.parent / "in-fam" / "3.png") as result:
        assert result.size == (128, 128)


def test_a_job_stops_now_and_goes_on_later(server, folder):
    body = {"input": str(folder), "output": str(folder.parent / "out"), "steps": 12, "own_settings": False}
    job = server.ask(f"{ROUTE}/jobs", body)[1]["id"]
    while server.ask(f"{ROUTE}/jobs/{job}")[1]["step"] < 2:
        time.sleep(0.05)
    server.ask(f"{ROUTE}/jobs/{job}/cancel", {})
    state = wait(server, job)
    assert state["state"] == "cancelled" and state["done"] < 7
    assert not list((folder.parent / "out").rglob("*.tmp"))
    rest = wait(server, server.ask(f"{ROUTE}/jobs", body)[1]["id"])
    assert (rest["state"], rest["done"], rest["failed"]) == ("done", 7 - state["done"], 1)
    assert len(list((folder.parent / "out").glob("*.png"))) == 7


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["input"]),
        ({"input": "/nowhere/at/all"}, ["/nowhere/at/all", "does not exist"]),
        ({"input": ".", "scal": 2}, ["scal ", "scale"]),
        ({"input": ".", "scale": "2"}, ["scale", "'2'", "1 to 16"]),
        ({"input": ".", "scale": 99}, ["scale", "99", "16"]),
        ({"input": ".", "fam": {"cutoff": 3}}, ["cutoff", "0 to 1", "cutoff_reference"]),
        ({"input": ".", "fam": {"cutoff": 10**400}}, ["cutoff", "0 to "]),
        ({"input": ".", "fam": {"am_sites": "no.such.*"}}, ["am_sites", "no.such.*", "output_blocks"]),
        ({"input": ".", "steps": -3}, ["steps", "-3", "1 to 150"]),
        ({"input": ".", "seed": -2}, ["seed", "-2", "-1 to "]),
        ({"input": ".", "scale": 10**400}, ["scale", "1 to 16"]),
        ({"input": ".", "cfg_scale": float("nan")}, ["cfg_scale", "1 to 30"]),
        ({"input": ".", "first": -1}, ["first", "-1", "1 to "]),
        ({"input": ".", "model": "no such model"}, ["model", "no such model", "fluent-tiny"]),
        ({"input": ".", "sampler": "Magic"}, ["sampler", "Magic", "Euler"]),
        ({"input": ".", "schedule": "Magic"}, ["schedule", "Magic", "Karras"]),
        ({"input": ".", "upscaler": "Magic"}, ["upscaler", "Magic", "Lanczos"]),
        ({"input": "~nobody-here/in"}, ["input", "nobody-here"]),
        ({"input": "a\x00b"}, ["input", "NUL"]),
        ({"input": ".", "\ud800": 1}, ["not a field"]),
        ({"input": ".", "prompt": "\udfff"}, ["prompt", "half of a character"]),
        ({"input": "x" * 5000}, ["input"]),
        ({"input": ".", "format": "TGA"}, ["TGA", "PNG"]),
        ({"input": ".", "width": 512}, ["width", "height"]),
    ],
)
def test_errors_of_a_job_name_the_field(server, body, words):
    status, answer = server.ask(f"{ROUTE}/jobs", body)
    assert status == 422 and all(word in answer["detail"] for word in words), answer


def test_schema_presets_and_openapi(server):
    schema = server.ask(f"{ROUTE}/schema")[1]
    assert schema["fam"]["properties"]["attention"]["maximum"] == 1
    assert schema["job"]["properties"]["input"]["type"] == "string"
    names = [preset["name"] for preset in server.ask(f"{ROUTE}/presets")[1]["presets"]]
    assert names[:2] == ["paper", "balanced"]
    paths = server.ask("/openapi.json")[1]["paths"]
    assert {path for path in paths if path.startswith(ROUTE)} == {
        f"{ROUTE}{path}"
        for path in ("/schema", "/presets", "/jobs", "/jobs/{job_id}", "/jobs/{job_id}/cancel", "/jobs/{job_id}/report")
    }
    assert server.ask(f"{ROUTE}/jobs/none")[0] == 404


def test_a_closed_server_asks_for_a_password_and_hides_its_folders(start, folder):
    closed = start("--api-auth", "user:word", "--hide-ui-dir-config")
    try:
        assert closed.ask(f"{ROUTE}/presets")[0] == 401
        closed.authorization = "user:wrong"
        assert closed.ask(f"{ROUTE}/jobs", {"input": str(folder)})[0] == 401
        closed.authorization = "user:word"
        assert closed.ask(f"{ROUTE}/presets")[0] == 200
        status, answer = closed.ask(f"{ROUTE}/jobs", {"input": str(folder)})
        assert status == 422 and "--hide-ui-dir-config" in answer["detail"]
        assert not (folder.parent / "in-fam").exists()
    finally:
        closed.stop()


def test_what_is_chosen_while_a_job_runs_stays_chosen_and_draws_none_of_it(server, tmp_path, native_picture):
    folder, chosen = tmp_path / "in", {"sd_model_checkpoint": "tiny-sd15.safetensors", "sd_vae": "None"}
    folder.mkdir()
    for number in range(2):
        info = PngInfo()
        info.add_text("parameters", f"a red apple\nSteps: 40, Sampler: Euler, Seed: {number}, Clip skip: 2")
        native_picture.save(folder / f"{number}.png", pnginfo=info)
    server.generate()
    before = server.ask("/sdapi/v1/options")[1]
    job = server.ask(f"{ROUTE}/jobs", {"input": str(folder)})[1]["id"]
    while not server.ask(f"{ROUTE}/jobs/{job}")[1]["step"]:
        time.sleep(0.05)
    try:
        server.ask("/sdapi/v1/options", chosen)
        assert wait(server, job)["done"] == 2
        after = server.ask("/sdapi/v1/options")[1]
        saved = json.loads((server.data / "config.json").read_text())
    finally:
        server.ask("/sdapi/v1/options", {name: before[name] for name in chosen})
    for number in range(2):
        with Image.open(tmp_path / "in-fam" / f"{number}.png") as made:
            assert "FAM model: fluent-tiny," in made.info["parameters"]
    for settings in (after, saved):
        assert settings["sd_model_checkpoint"].startswith("tiny-sd15") and settings["sd_vae"] == "None"
        assert settings.get("CLIP_stop_at_last_layers", 1) == 1
        assert not settings.get("use_old_hires_fix_width_height")


@pytest.fixture(scope="module")
def remote(start):
    server = start("--listen")
    yield server
    server.stop()


def test_a_server_that_others_reach_keeps_to_its_output_folders(remote, folder):
    status, answer = remote.ask(f"{ROUTE}/jobs", {"input": str(folder)})
    assert status == 422 and "output folders" in answer["detail"]
    assert not (folder.parent / "in-fam").exists()
    inside = remote.data / "outputs" / "txt2img-images" / "in"
    shutil.copytree(folder, inside)
    # a link does not lead out
    (inside.parent / "out").symlink_to(folder.parent)
    leads_out = remote.ask(f"{ROUTE}/jobs", {"input": str(inside), "output": str(inside.parent / "out" / "made")})
    assert leads_out[0] == 422 and not (folder.parent / "made").exists()
    status, job = remote.ask(f"{ROUTE}/jobs", {"input": str(inside), "first": 2})
    assert status == 200 and wait(remote, job["id"])["done"] == 2
    assert len(list((inside.parent / "in-fam").glob("*.png"))) == 2
    # nor does a link to a file, which is said, or to a folder, which is left out
    links = inside.parent / "links"
    links.mkdir()
    (links / "whole.png").write_bytes((folder / "0.png").read_bytes())
    (links / "out.png").symlink_to(folder / "1.png")
    (links / "folder").symlink_to(folder)
    listed = remote.ask(f"{ROUTE}/jobs", {"input": str(links), "recursive": True, "steps": 3})
    ended = wait(remote, listed[1]["id"])
    assert (ended["done"], ended["failed"]) == (1, 1), ended
    assert all("allowed folders" in row["message"] for row in ended["rows"] if row["state"] == "failed")
    # the roots are those of the start, whatever a client of the API sets
    remote.ask("/sdapi/v1/options", {"outdir_samples": str(folder.parent)})
    assert remote.ask(f"{ROUTE}/jobs", {"input": str(folder)})[0] == 422
    # a relative folder stands on the data folder
    relative = "outputs/txt2img-images/in"
    status, job = remote.ask(f"{ROUTE}/jobs", {"input": relative, "first": 1})
    assert status == 200 and job["input"] == [str(inside.resolve())]
    wait(remote, job["id"])


def test_the_page_of_such_a_server_says_it_at_the_field(browser, remote, folder, native_picture):
    page = Browsed(browser, remote)
    inside = remote.data / "outputs" / "txt2img-images" / "page"
    inside.mkdir(parents=True)
    native_picture.save(inside / "0.png")
    (inside.parent / "link").symlink_to(folder)
    for outside in (folder, inside.parent / "link"):
        page.open_folder(outside, steps=3)
        page.click("#fam_hires_start")
        assert page.inner_text("#fam_hires_status").startswith("input lies outside this WebUI's output folders")
        assert page.locator("#fam_hires_folder_input.fam-bad").count() == 1
    page.open_folder(inside, steps=3)
    page.fill("#fam_hires_folder_output textarea", folder.parent / "made")
    page.click("#fam_hires_start")
    assert page.inner_text("#fam_hires_status").startswith("output lies outside this WebUI's output folders")
    assert page.locator("#fam_hires_folder_output.fam-bad").count() == 1
    page.fill("#fam_hires_folder_output textarea", "")
    page.start("done: 1 done")
    assert not (folder.parent / "made").exists() and not (folder.parent / "in-fam").exists()
    page.close()


def test_a_job_is_json_and_says_so(server, folder):
    """A form of any other site in the same browser could send the rest without asking."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        status, answer = server.ask(f"{ROUTE}/jobs", {"input": str(folder)}, content_type=kind)
        assert status == 415 and "application/json" in answer["detail"]
    assert not (folder.parent / "in-fam").exists()


def test_a_job_with_fam_off_is_not_labelled(server, folder):
    job = server.ask(f"{ROUTE}/jobs", {"input": str(folder), "first": 1, "fam": {"enabled": False}})[1]["id"]
    assert wait(server, job)["done"] == 1
    with Image.open(folder.parent / "in-fam" / "0.png") as result:
        assert "FAM version" not in result.info["parameters"]


def test_a_picture_on_which_am_never_acted_says_so(server, folder):
    out = folder.parent / "out"
    body = {"input": str(folder), "output": str(out), "first": 1, "fam": {"am_window": [0.02, 0.01]}, "scale": 2}
    job = server.ask(f"{ROUTE}/jobs", body)[1]["id"]
    assert wait(server, job)["done"] == 1
    made = server.ask(f"{ROUTE}/jobs/{job}/report")[1]["files"][0]
    assert made["am_calls"] == 0 and "FAM no AM: True" in made["fam"] and "FAM AM window" not in made["fam"]
    with Image.open(out / "0.png") as result:
        assert "FAM no AM: True" in result.info["parameters"]


def test_the_schema_carries_ranges_choices_and_the_one_set_of_defaults(server):
    schema = server.ask(f"{ROUTE}/schema")[1]
    job, fam = schema["job"]["properties"], schema["fam"]["properties"]
    assert (job["steps"]["minimum"], job["steps"]["maximum"]) == (1, 150)
    assert "override" in job["prompt_rule"]["enum"]
    assert (fam["cutoff"]["default"], fam["cutoff_reference"]["default"], fam["start"]["default"]) == (
        28,
        "cycles",
        0.7,
    )
