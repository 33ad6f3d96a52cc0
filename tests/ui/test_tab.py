"""The tab alone under gradio 3.41.2 in Chromium, and its labels and ids, which other people's settings hold on to."""

import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fam_ext.core.config import FamConfig
from fam_ext.options.presets import Preset, PresetStore
from tests.webui.browsing import chromium

REPOSITORY = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("FAM_GRADIO_PYTHON", REPOSITORY / ".venv-webui" / "bin" / "python"))
SNAPSHOT = Path(__file__).parent / "labels.json"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(
        not PYTHON.exists(), reason="needs gradio 3.41.2 in .venv-webui (pip install -r tests/ui/requirements.txt)"
    ),
]


def run(*arguments, **more):
    command = [str(PYTHON), "-W", "ignore", "-m", "tests.ui.app", *map(str, arguments)]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, **more)


def test_labels_and_ids_are_as_they_were(tmp_path):
    """`ui-config.json` and other extensions pin them: change the snapshot only with an alias and a changelog line:
    .venv-webui/bin/python -m tests.ui.app labels /tmp/home > tests/ui/labels.json"""
    found = run("labels", tmp_path, stdout=subprocess.PIPE, text=True).communicate(timeout=120)[0]
    assert found == SNAPSHOT.read_text()


def test_a_small_picture_is_taken_where_its_target_allows():
    program = """
from pathlib import Path
from fam_ext.errors import PictureError
from fam_ext.options.presets import PresetStore
from fam_ext.ui.outlook import picture_request

store = PresetStore(Path("none"))
values = dict(width=0, height=0, sampler="Euler", schedule="Automatic", steps=9, cfg_scale=5, seed=1, own_model=False)
for scale in (2, 8):
    try:
        print(picture_request((12, 9), "", {**values, "scale": scale}, store).size)
    except PictureError as error:
        print(error)
"""
    done = subprocess.run(
        [PYTHON, "-W", "ignore", "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    refused, size = done.stdout.splitlines()
    assert refused.startswith("9 x 12 px is too small") and size == "(96, 72)"


def test_the_last_results_follow_a_job_of_more_files_than_are_listed(tmp_path):
    program = """
import sys
from pathlib import Path
from types import SimpleNamespace
from fam_ext.jobs import batches
from fam_ext.ui import running
from tests.jobs.fakes import Fast, make_folder, page_job

batches.MAX_ROWS, running._POLL_SECONDS = 2, 0.02
jobs = batches.Batches(lambda options: Fast(0.3))
jobs.start(page_job({"input": str(make_folder(Path(sys.argv[1]), 6))}))
shown = running.Watch(SimpleNamespace(batches=jobs, memory=lambda: None))("")
print({picture.already_saved_as for values in shown if isinstance(values[2], list) for picture in values[2]})
"""
    command = [PYTHON, "-W", "ignore", "-c", program, tmp_path / "in"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.count(".png") == 6


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def url(home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = run(port, home)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            break
        except OSError:
            assert process.poll() is None
            time.sleep(0.3)
    yield url
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, url):
    page = browser.new_page(viewport={"width": 1400, "height": 1200})
    page.set_default_timeout(90_000)
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_selector("#fam_hires_generate")
    time.sleep(0.5)
    yield page
    page.close()


def open_folds(page):
    """Open every fold that can be seen."""
    closed = page.locator(".fam-fold > .label-wrap:not(.open):visible")
    while closed.count():
        closed.first.click()


def picture(path, text=None, color=(200, 60, 40)):
    info = PngInfo()
    if text:
        info.add_text("parameters", text)
    Image.new("RGB", (64, 48), color).save(path, pnginfo=info)


def test_one_picture(page, tmp_path):
    page.click("#fam_hires_generate")
    page.wait_for_selector("#html_log_fam_hires :text('there is no picture')")
    text = "a red apple\nSteps: 7, Sampler: Euler, CFG scale: 3, Seed: 9, FAM version: 0.1.0, FAM cutoff: 0.3"
    picture(tmp_path / "native.png", text)
    page.set_input_files("#fam_hires_image input[type=file]", str(tmp_path / "native.png"))
    page.wait_for_selector("#fam_hires_picture_note :text('its dials are set')")
    assert page.input_value("#fam_hires_infotext textarea") == text
    assert page.input_value("#fam_hires_steps input[type=number]") == "7"
    assert page.input_value("#fam_hires_cutoff input") == "0.3"
    page.click("#fam_hires_generate")
    page.wait_for_selector("#fam_hires_compare [role=slider]")
    infotext = page.inner_text("#html_info_fam_hires")
    assert "Steps: 7" in infotext and "Seed: 9" in infotext and "FAM cutoff: 0.3" in infotext
    sizes = page.eval_on_selector_all(
        "#fam_hires_compare img[slot]", "nodes => nodes.map(n => [n.naturalWidth, n.naturalHeight])"
    )
    assert sizes == [[64, 48], [128, 96]]
    slider = page.locator("#fam_hires_compare [role=slider]")
    slider.focus()
    page.keyboard.press("Shift+ArrowLeft")
    assert slider.get_attribute("aria-valuenow") == "40"


def test_a_picture_without_words_gets_none_of_the_one_before(page, tmp_path):
    picture(tmp_path / "native.png", "a red apple\nSteps: 7, Sampler: Euler, CFG scale: 3, Seed: 9")
    picture(tmp_path / "photo.png")
    words = "#fam_hires_infotext textarea"
    for name, written, note, kept in (
        ("native", None, "are set from the infotext", None),
        ("photo", None, "write a prompt", ""),
        ("native", "my own", "are set from the infotext", None),
        ("photo", None, "are kept", "my own"),
    ):
        page.set_input_files("#fam_hires_image input[type=file]", str(tmp_path / f"{name}.png"))
        page.wait_for_selector(f"#fam_hires_picture_note :text('{note}')")
        if kept is not None:
            assert page.input_value(words) == kept
        elif written is not None:
            open_folds(page)
            page.fill(words, written)


def test_a_picture_brings_clip_skip_and_where_asked_checkpoint_and_vae(page, tmp_path):
    text = "a red apple\nSteps: 7, Sampler: Euler, CFG scale: 3, Seed: 9, Clip skip: 2, Model: other, VAE: fine.pt"
    picture(tmp_path / "native.png", text)
    page.set_input_files("#fam_hires_image input[type=file]", str(tmp_path / "native.png"))
    page.wait_for_function("document.querySelector('#fam_hires_steps input[type=number]').value === '7'")
    open_folds(page)
    page.click("#fam_hires_generate")
    page.wait_for_selector("#html_info_fam_hires:has-text('Asked: None None 2')")
    page.check("#fam_hires_own_model input")
    page.click("#fam_hires_generate")
    page.wait_for_selector("#html_info_fam_hires:has-text('Asked: other fine.pt 2')")


def folder_with(tmp_path, count):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(count):
        picture(
            source / f"{number}.png",
            f"apple {number}\nSteps: 5, Sampler: Euler, CFG scale: 3, Seed: 9",
            (8 * number % 256, 60, 40),
        )
    picture(source / "black.png", color=(0, 0, 0))
    (source / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return source


def open_folder(page, source):
    page.click("#fam_hires_mode button:has-text('Batch folder')")
    open_folds(page)
    page.fill("#fam_hires_folder_input textarea", str(source))


def test_a_folder_is_listed_and_run(page, tmp_path):
    source = folder_with(tmp_path, 5)
    open_folder(page, source)
    page.fill("#fam_hires_folder_prompt textarea", ", best")
    page.click("#fam_hires_folder_prompt_rule input")
    page.click("#fam_hires_folder_prompt_rule li:has-text('suffix')")
    page.click("#fam_hires_list")
    page.wait_for_selector("#fam_hires_plan_table tr:has-text('apple 3, best')")
    assert "7 files, 6 to do, 1 unreadable" in page.inner_text("#fam_hires_status")
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status:has-text('done: 5 done, 2 failed')")
    assert "all black" in page.inner_text("#fam_hires_status_table tr:has-text('black.png')")
    assert "failed" in page.inner_text("#fam_hires_status_table tr:has-text('broken.png')")
    with Image.open(tmp_path / "in-fam" / "3.png") as result:
        assert result.size == (128, 96) and "apple 3, best" in result.info["parameters"]
    assert page.locator("#fam_hires_compare img[slot]").count() == 2
    # a second run with other settings says what differs, and goes into a folder of its own
    assert not page.is_visible("#fam_hires_again")
    page.fill("#fam_hires_scale input[type=number]", "3")
    page.press("#fam_hires_scale input[type=number]", "Tab")
    page.wait_for_selector("#fam_hires_status:has-text('Changed since: Size (px) 128 x 96 to 192 x 144 (5 pictures)')")
    page.click("#fam_hires_again")
    page.wait_for_selector("#fam_hires_status:has-text('done: 5 done, 2 failed')")
    with Image.open(tmp_path / "in-fam-2" / "3.png") as result:
        assert result.size == (192, 144)
    assert page.input_value("#fam_hires_folder_output textarea") == str(tmp_path / "in-fam-2")


def test_a_folder_stops_after_the_file_and_goes_on(page, tmp_path):
    open_folder(page, folder_with(tmp_path, 12))
    page.click("#fam_hires_start")
    # black.png carries no prompt: that is asked once, and again only for other values
    page.wait_for_selector("#fam_hires_status :text('1 of 13 carry no prompt')")
    assert not (tmp_path / "in-fam").exists()
    assert not page.is_visible("#fam_hires_stop") and not page.is_visible("#fam_hires_pause")
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status [data-running]")
    assert not page.is_visible("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status_table tr:has-text('1.png'):has-text('done')")
    page.click("#fam_hires_stop_after")
    page.wait_for_selector("#fam_hires_status .fam-status:has-text('stopped')")
    done = len(list((tmp_path / "in-fam").glob("*.png")))
    assert 2 <= done < 12
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status .fam-status:has-text('done: ')")
    assert len(list((tmp_path / "in-fam").glob("*.png"))) == 12


def test_the_titles_say_what_is_in_force_and_the_panel_what_will_happen(page, tmp_path):
    def title(name):
        return page.inner_text(f"#fam_hires_fold_{name} > .label-wrap > span >> nth=0")

    page.wait_for_function("document.querySelector('#fam_hires_fold_method').innerText.includes('28 cycles')")
    assert "Three steps" in page.inner_text("#fam_hires_outlook")
    # a picture that brings nothing is said too, and asks for words
    picture(tmp_path / "bare.png")
    page.set_input_files("#fam_hires_image input[type=file]", str(tmp_path / "bare.png"))
    page.wait_for_selector("#fam_hires_size:has-text('64 x 48 to 128 x 96 px')")
    page.wait_for_selector("#fam_hires_infotext textarea", state="visible")
    page.click("#fam_hires_image [aria-label='Remove Image'], #fam_hires_image [aria-label='Clear']")
    page.wait_for_selector("#fam_hires_size:has-text('once there is a picture')")
    picture(tmp_path / "native.png", "a red apple\nSteps: 7, Sampler: Euler, CFG scale: 3, Seed: 9")
    page.set_input_files("#fam_hires_image input[type=file]", str(tmp_path / "native.png"))
    page.wait_for_selector("#fam_hires_size:has-text('64 x 48 to 128 x 96 px')")
    page.wait_for_selector("#fam_hires_outlook:has-text('Euler, about 5 of 7 steps')")
    assert title("picture_words") == "Words: “a red apple”" and title("sampling") == "Sampler: Euler, 7 steps, CFG 3"
    page.click("#fam_hires_generate")
    page.wait_for_selector("#fam_hires_compare [role=slider]")
    # the next one's time is known now
    page.fill("#fam_hires_scale input[type=number]", "3")
    page.press("#fam_hires_scale input[type=number]", "Tab")
    page.wait_for_selector("#fam_hires_size:has-text('64 x 48 to 192 x 144 px, about')")
    # a bad value: one sentence, and its part is marked until it is mended
    open_folds(page)
    set_cutoff(page, "900")
    page.wait_for_selector("#fam_hires_outlook .fam-error:has-text('cutoff is 900')")
    page.wait_for_selector("#fam_hires_cutoff.fam-bad")
    set_cutoff(page, "28")
    page.wait_for_selector("#fam_hires_cutoff:not(.fam-bad)")
    # a folder is looked into as soon as it is given
    (tmp_path / "in").mkdir()
    picture(tmp_path / "in" / "0.png", "a leaf\nSteps: 5, Sampler: Euler, CFG scale: 3, Seed: 9")
    assert page.is_visible("#html_info_fam_hires")
    open_folder(page, tmp_path / "in")
    assert not page.is_visible("#html_info_fam_hires"), "the words and the time of that picture are no file's"
    assert not page.is_visible("#html_log_fam_hires")
    page.wait_for_selector("#fam_hires_plan_table tr:has-text('0.png'):has-text('192 x 144')")
    assert title("sampling").startswith("Sampler: each picture's own, else Euler")
    assert not page.is_visible("#fam_hires_fold_picture_words") and not page.is_visible("#fam_hires_generate")


def test_a_job_is_shown_after_a_reload_and_in_a_second_browser(browser, url, page, tmp_path):
    open_folder(page, folder_with(tmp_path, 150))  # longer than a slow browser takes
    page.fill("#fam_hires_folder_prompt textarea", "a stone")
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status [data-running]")  # until then the last job's files are there
    page.wait_for_selector("#fam_hires_status_table tr[data-state=done] >> nth=1")
    page.click("#fam_hires_pause")
    page.wait_for_selector("#fam_hires_status .fam-status:has-text('paused')")
    page.reload()
    other = browser.new_page(viewport={"width": 400, "height": 900})
    other.goto(url)
    for one in (page, other):
        one.click("#fam_hires_mode button:has-text('Batch folder')")
        one.wait_for_selector("#fam_hires_status [data-running]")
        one.wait_for_selector("#fam_hires_pause:has-text('Go on')")
    other.click("#fam_hires_stop")
    for one in (page, other):
        one.wait_for_selector("#fam_hires_status .fam-status:has-text('cancelled')")
        one.wait_for_selector("#fam_hires_start", state="visible")
    # a file is chosen for comparing by its name in the table, and the table shows only what is asked for
    page.wait_for_selector("#fam_hires_compare [role=slider]")
    last = page.get_attribute("#fam_hires_compare img[slot] >> nth=1", "src")
    page.wait_for_function(  # clicked again where the table was just drawn anew
        "src => document.querySelectorAll('#fam_hires_compare img')[1].src !== src || "
        "void [...document.querySelectorAll('.fam-pick')].at(-1).click()",
        arg=last,
        polling=2000,
    )
    page.click(".fam-filter button:has-text('done')")
    states = page.locator("#fam_hires_status_table tbody tr:visible").evaluate_all(
        "rows => rows.map(r => r.dataset.state)"
    )
    assert states and set(states) == {"done"}
    page.click("#fam_hires_status_table th button:has-text('file')")
    files = page.locator("#fam_hires_status_table tbody tr:visible td:nth-child(2)").all_inner_texts()
    assert files == sorted(files, key=lambda name: int(name.split(".")[0]))
    other.close()


def test_errors_of_a_folder_are_said(page, tmp_path):
    open_folder(page, tmp_path / "nothing")
    page.click("#fam_hires_list")
    page.wait_for_selector("#fam_hires_status .fam-error:has-text('does not exist')")
    page.fill("#fam_hires_cutoff input", "900")
    page.press("#fam_hires_cutoff input", "Tab")
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status .fam-error:has-text('cutoff is 900')")


def set_cutoff(page, value):
    page.fill("#fam_hires_cutoff input", value)
    page.press("#fam_hires_cutoff input", "Tab")


def wait_for_preset(page, name):
    page.wait_for_function(f"document.querySelector('#fam_hires_preset input').value === '{name}'")


def test_the_cutoffs_label_has_its_unit_and_the_list_is_read_anew(page, home):
    wait_for_preset(page, "balanced")
    assert "cut-off c (cycles per picture)" in page.inner_text("#fam_hires_cutoff")
    page.click("#fam_hires_preset input")
    page.click("#fam_hires_preset li:has-text('paper')")
    page.wait_for_selector("#fam_hires_cutoff:has-text('cut-off c (share of the native side)')", state="attached")
    wait_for_preset(page, "paper")
    PresetStore(home / "presets").save(Preset("elsewhere", "", FamConfig(cutoff=0.2)))
    page.click("#fam_hires_preset_refresh")
    time.sleep(1)
    page.click("#fam_hires_preset input")
    page.click("#fam_hires_preset li:has-text('elsewhere')")
    page.wait_for_function("document.querySelector('#fam_hires_cutoff input').value === '0.2'")


def test_presets(page, tmp_path):
    open_folds(page)
    page.fill("#fam_hires_cutoff input", "0.35")
    page.press("#fam_hires_cutoff input", "Tab")
    page.fill("#fam_hires_preset_name textarea", "mine")
    page.click("#fam_hires_preset_save")
    page.wait_for_selector("#fam_hires_preset_note:has-text('saved mine')")
    # over an existing one: only when pressed once more
    page.click("#fam_hires_preset_save")
    page.wait_for_selector("#fam_hires_preset_note:has-text('press once more')")
    page.click("#fam_hires_preset_save")
    page.wait_for_selector("#fam_hires_preset_note:has-text('saved mine')")
    # a dial that differs makes the box custom, and back again; choosing a preset applies it
    set_cutoff(page, "0.9")
    wait_for_preset(page, "custom")
    set_cutoff(page, "0.35")
    wait_for_preset(page, "mine")
    set_cutoff(page, "0.9")
    wait_for_preset(page, "custom")
    page.click("#fam_hires_preset_load")
    page.click("#fam_hires_preset input")
    page.click("#fam_hires_preset li:has-text('mine')")
    page.wait_for_function("document.querySelector('#fam_hires_cutoff input').value === '0.35'")
    page.click("#fam_hires_preset_export")
    page.wait_for_selector("#fam_hires_preset_note:has-text('mine.json is ready')")
    page.click("#fam_hires_preset_delete")
    page.wait_for_selector("#fam_hires_preset_note:has-text('deleted mine')")
    (tmp_path / "shared.json").write_text('{"version": 1, "name": "shared", "fam": {"cutoff": 0.15}}')
    page.set_input_files(
        "#fam_hires_preset_import input[type=file], input[type=file] >> nth=-1", str(tmp_path / "shared.json")
    )
    page.wait_for_selector("#fam_hires_preset_note:has-text('imported shared')")
