"""The page of the real WebUI in Chromium: what a user sees and clicks."""

import json
import time
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def test_txt2img_says_what_ran_and_what_is_wrong(page, server):
    page.small()
    page.click("#txt2img_fam_hires > .label-wrap")
    infotext, log = page.generate()
    assert "FAM" not in infotext and "Hires. fix is off" in log
    page.click("#txt2img_hr-visible-checkbox")
    infotext, log = page.generate()
    assert "FAM version" in infotext and "FAM start: 0.7" in infotext
    page.fill("#txt2img_fam_hires_cutoff input", 900)
    before = len(server.log())
    infotext, log = page.generate()
    assert log.startswith("cutoff is 900") and "512" in log and "FAM version" not in infotext
    # one line in the console, no traceback
    printed = server.log()[before:]
    assert printed.count("cutoff is 900") == 1 and "Traceback" not in printed
    assert page.locator("#txt2img_gallery img").count() == 0
    page.fill("#txt2img_fam_hires_cutoff input", 32)
    assert "FAM version" in page.generate()[0]


def test_paste_restores_the_dials(page):
    text = "a red apple\nSteps: 4, Sampler: Euler, Schedule type: Automatic, CFG scale: 5, Seed: 3, Size: 64x64, "
    text += "Denoising strength: 0.8, FAM version: 0.1.0, FAM cutoff: 0.6, FAM no AM: True, FAM AM window: 0.9 to 0.2, "
    text += "FAM start: 0.8, Hires upscale: 2, Hires upscaler: Lanczos"
    page.fill("#txt2img_prompt textarea", text)
    page.click("#paste")
    assert page.input_value("#txt2img_prompt textarea") == "a red apple"
    assert page.is_checked("#txt2img_fam_hires-visible-checkbox")
    assert page.input_value("#txt2img_fam_hires_cutoff input") == "0.6"
    # the unit lies in a closed fold
    page.has("#txt2img_fam_hires_cutoff", "(share of the native side)")
    page.has("#txt2img_fam_hires_more", "More dials: 3 changed")  # AM, its window, and no soft edge
    assert not page.is_checked("#txt2img_fam_hires_am input")
    assert page.is_checked("#txt2img_fam_hires_fm input")
    assert page.input_value("#txt2img_fam_hires_start input[type=number]") == "0.8"
    page.click("#txt2img_fam_hires_more .label-wrap")
    assert page.input_value("#txt2img_fam_hires_am_window_start input[type=number]") == "0.9"
    assert page.input_value("#txt2img_fam_hires_am_window_end input[type=number]") == "0.2"


def test_a_preset_travels_in_the_infotext_and_its_dials_without_it(page, server):
    file = server.data / "fam-hires" / "presets" / "my own.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"version": 1, "name": "my own", "fam": {"cutoff": 0.3, "start": 0.8}}))
    made = server.generate({"preset": "my own"})
    assert made.fam["FAM preset"] == "my own" and made.fam["FAM cutoff"] == "0.3"
    assert "FAM preset" not in server.generate({"preset": "my own", "start": 0.9}).fam

    def pasted():
        page.fill("#txt2img_prompt textarea", made.infotexts[0])
        page.click("#paste")
        assert page.input_value("#txt2img_prompt textarea") == "a red apple"
        assert page.input_value("#txt2img_fam_hires_cutoff input") == "0.3"
        assert page.input_value("#txt2img_fam_hires_start input[type=number]") == "0.8"
        return page.input_value("#txt2img_fam_hires_preset input")

    page.click("#txt2img_fam_hires .label-wrap >> nth=0")
    page.click("#txt2img_fam_hires_preset_refresh")
    assert pasted() == "my own"
    # the same name with other dials, or none of that name
    file.write_text(json.dumps({"version": 1, "name": "my own", "fam": {"cutoff": 0.7}}))
    assert pasted() == "custom"
    file.unlink()
    assert pasted() == "custom"


def test_a_plot_that_cannot_be_is_one_line(page, server):
    page.small()
    page.click("#txt2img_hr-visible-checkbox")
    page.choose("#script_list", "X/Y/Z plot")
    page.choose("#script_txt2img_xyz_plot_x_type", "[FAM] Cutoff c")
    page.fill("#script_txt2img_xyz_plot_x_values textarea", "0.5, 900")
    before = len(server.log())
    infotext, log = page.generate()
    said = server.log()[before:]
    assert log.startswith("cutoff is 900") and "512" in log and not infotext.strip()
    assert said.count("cutoff is 900") == 1 and "Traceback" not in said
    assert page.locator("#txt2img_gallery img").count() == 0


def test_a_preset_sets_the_dials(page):
    page.click("#txt2img_fam_hires > .label-wrap")
    assert page.is_checked("#txt2img_fam_hires-visible-checkbox")
    page.click("#txt2img_hr-visible-checkbox")
    page.has("#txt2img_fam_hires_hint", "it starts at 0.7 of the noise")
    page.choose("#txt2img_fam_hires_preset", "fast")
    page.has("#txt2img_fam_hires_hint", "it starts at 0.6 of the noise")
    page.choose("#txt2img_fam_hires_preset", "paper")
    page.has("#txt2img_fam_hires_hint", "it starts from noise")
    assert page.input_value("#txt2img_fam_hires_cutoff input") == "0.5"
    assert page.input_value("#txt2img_fam_hires_start input[type=number]") == "1"


def test_a_picture_is_sent_to_the_tab_and_enlarged(page):
    page.small()
    infotext, _ = page.generate()
    page.click("#txt2img_send_to_fam_hires")
    assert page.input_value("#fam_hires_infotext textarea").startswith("a red apple\nSteps: 4")
    assert page.input_value("#fam_hires_seed input") == "1"
    page.click("#fam_hires_generate")
    assert page.locator("#fam_hires_compare img[slot]").count() == 2
    infotext = page.inner_text("#html_info_fam_hires")
    assert "FAM version" in infotext and "Hires resize: 128x128" in infotext and "Seed: 1," in infotext
    slider = page.locator("#fam_hires_compare [role=slider]")
    slider.focus()
    page.keyboard.press("Shift+ArrowLeft")
    assert slider.get_attribute("aria-valuenow") == "40"
    # and back to txt2img, dials and all
    page.click("#fam_hires_send_to_txt2img")
    assert page.is_checked("#txt2img_fam_hires-visible-checkbox")


def test_the_tab_says_what_is_wrong(page):
    page.open_tab()
    page.click("#fam_hires_generate")
    assert "no picture" in page.inner_text("#html_log_fam_hires")


def test_png_info_sends_to_the_tab(page, tmp_path, native_picture):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", "a blue car\nSteps: 7, Sampler: Euler, CFG scale: 3, Seed: 9, Size: 64x64")
    native_picture.save(tmp_path / "sent.png", pnginfo=info)
    page.click("#tabs > div > button:has-text('PNG Info')")
    page.set_input_files("#pnginfo_image input[type=file]", str(tmp_path / "sent.png"))
    page.wait_for_selector("#tab_pnginfo :text('a blue car')")
    page.settle()
    page.click("#pnginfo_send_to_fam_hires")
    assert "a blue car" in page.input_value("#fam_hires_infotext textarea")
    assert page.input_value("#fam_hires_steps input[type=number]") == "7"


def test_a_folder_is_listed_run_and_stopped(page, tmp_path, native_picture):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(8):
        native_picture.save(source / f"{number}.png")
    (source / "5.png").write_bytes((source / "5.png").read_bytes()[:20])
    page.open_folder(source, steps=8)
    page.click("#fam_hires_list")
    listed = page.inner_text("#fam_hires_status")
    assert "8 files" in listed and "1 unreadable" in listed and "128 x 128" in listed and "a red apple" in listed
    assert not (tmp_path / "in-fam").exists()
    page.begin()
    page.wait_for_selector("#fam_hires_status_table tr:has-text('running')")
    page.press("#fam_hires_stop_after")
    page.ended("stopped")
    done = len(list((tmp_path / "in-fam").glob("*.png")))
    assert 1 <= done < 7
    page.start()
    assert page.inner_text("#fam_hires_status").startswith("done")
    assert "5.png" in page.inner_text("#fam_hires_status_table tr:has-text('failed')")
    assert len(list((tmp_path / "in-fam").glob("*.png"))) == 7
    assert page.locator("#fam_hires_compare img[slot]").count() == 2
    with Image.open(tmp_path / "in-fam" / "0.png") as result:
        assert "FAM version" in result.info["parameters"]


def test_start_asks_once_when_files_carry_no_prompt(page, tmp_path, native_picture):
    source = tmp_path / "in"
    source.mkdir()
    info = PngInfo()
    info.add_text("parameters", "a leaf\nSteps: 3, Sampler: Euler, CFG scale: 4, Seed: 1, Version: f2.0")
    native_picture.save(source / "0.png", pnginfo=info)
    native_picture.save(source / "1.png")
    page.open_folder(source, steps=3, prompt="")
    page.click("#fam_hires_list")
    assert page.locator("#fam_hires_plan_table tr:has-text('0.png'):has-text('Forge')").count() == 1
    page.click("#fam_hires_start")
    assert "1 of 2 carry no prompt" in page.inner_text("#fam_hires_status")
    assert not (tmp_path / "in-fam").exists()
    page.start()
    assert page.inner_text("#fam_hires_status").startswith("done: 2 done")


def test_a_folder_is_paused_resumed_and_a_file_skipped(page, tmp_path, native_picture):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(4):
        native_picture.save(source / f"{number}.png")
    made = tmp_path / "in-fam"
    page.open_folder(source, steps=40)
    page.begin()
    page.wait_for_selector("#fam_hires_status_table tr:has-text('0.png'):has-text('running')")
    page.press("#fam_hires_skip")
    page.wait_for_selector("#fam_hires_status_table tr:has-text('0.png'):has-text('skipped by you')")
    page.wait_for_selector("#fam_hires_status_table tr:has-text('2.png'):has-text('running')")
    page.press("#fam_hires_pause")
    page.has("#fam_hires_status", "paused")
    page.wait_for_selector("#fam_hires_status_table tr:has-text('2.png'):has-text('done')")
    time.sleep(3)  # longer than the rest of the job would take
    assert sorted(path.name for path in made.glob("*.png")) == ["1.png", "2.png"]
    page.click("#fam_hires_pause")
    page.ended()
    assert sorted(path.name for path in made.glob("*.png")) == ["1.png", "2.png", "3.png"]


def import_preset(page, path):
    with page.expect_file_chooser() as chooser:
        page.press("#fam_hires_preset_import")
    chooser.value.set_files(str(path))


def test_presets_are_saved_used_and_deleted(page, server, tmp_path):
    page.open_tab()
    page.open_folds()
    page.fill("#fam_hires_cutoff input", 12)
    page.fill("#fam_hires_preset_name textarea, #fam_hires_preset_name input", "my own")
    page.click("#fam_hires_preset_save")
    assert "saved my own" in page.inner_text("#fam_hires_preset_note")
    files = list((server.data / "fam-hires" / "presets").glob("*.json"))
    assert [file.name for file in files] == ["my own.json"]
    answer = server.ask("/fam-hires/v1/presets")[1]
    assert "my own" in [preset["name"] for preset in answer["presets"]]
    page.fill("#fam_hires_cutoff input", 3)
    assert page.input_value("#fam_hires_preset input") == "custom"
    page.choose("#fam_hires_preset", "my own")
    assert page.input_value("#fam_hires_cutoff input") == "12"
    # saved in the tab, it is in the accordion's list
    page.evaluate("switch_to_txt2img()")
    page.click("#txt2img_fam_hires > .label-wrap")
    page.choose("#txt2img_fam_hires_preset", "my own")
    assert page.input_value("#txt2img_fam_hires_cutoff input") == "12"
    # another's file of that name: nothing is replaced unasked, and then the accordion's dials are no preset's
    shared = tmp_path / "shared.json"
    shared.write_text(json.dumps({"version": 1, "name": "my own", "fam": {"cutoff": 0.3}}))
    page.open_tab()
    for said in ("press once more to replace it", "imported my own"):
        import_preset(page, shared)
        page.has("#fam_hires_preset_note", said)
        page.settle()
    assert page.input_value("#fam_hires_preset input") == "custom"  # its dials are chosen from the list
    page.choose("#fam_hires_preset", "my own")
    assert page.input_value("#fam_hires_cutoff input") == "0.3"
    page.has("#fam_hires_cutoff", "(share of the native side)")
    assert page.input_value("#txt2img_fam_hires_preset input") == "custom"
    # the plot's axis and the setting know a preset of another name
    shared.write_text(json.dumps({"version": 1, "name": "from afar", "fam": {"cutoff": 0.3}}))
    import_preset(page, shared)
    page.has("#fam_hires_preset_note", "imported from afar")
    page.settle()
    page.evaluate("switch_to_txt2img()")
    page.choose("#script_list", "X/Y/Z plot")
    page.choose("#script_txt2img_xyz_plot_x_type", "[FAM] Preset")
    page.choose("div.gradio-dropdown:visible:has(span:text-is('X values'))", "from afar")
    page.click("#tabs > div > button:has-text('Settings')")
    page.click("#settings button:has-text('FAM Hires')")
    page.choose("#setting_fam_default_preset", "from afar")
    page.open_tab()
    page.choose("#fam_hires_preset", "my own")
    page.click("#fam_hires_preset_delete")
    assert "deleted my own" in page.inner_text("#fam_hires_preset_note")
    (left,) = (server.data / "fam-hires" / "presets").glob("*.json")
    left.unlink()
    # a checkpoint that came since
    folder = Path(server.ask("/sdapi/v1/cmd-flags")[1]["ckpt_dir"])
    late = folder / "late.safetensors"
    late.symlink_to(folder / "fluent-tiny.safetensors")
    try:
        page.click("#fam_hires_preset_refresh")
        page.choose("#fam_hires_model", "late.safetensors")
    finally:
        late.unlink()
        server.ask("/sdapi/v1/refresh-checkpoints", {})


def test_the_settings_page_has_our_section(page):
    page.click("#tabs > div > button:has-text('Settings')")
    page.wait_for_selector("#settings button:has-text('FAM Hires')")


def test_the_webui_s_own_img2img_batch_uses_fam(page, tmp_path):
    (tmp_path / "in").mkdir()
    for number, color in enumerate(("red", "blue")):
        Image.new("RGB", (64, 64), color).save(tmp_path / "in" / f"{number}.png")
    page.click("#tabs button:has-text('img2img')")
    page.fill("#img2img_prompt textarea", "a red apple")
    page.click("#mode_img2img button:has-text('Batch')")
    page.click("#img2img_batch_source button:has-text('From directory')")
    page.fill("#img2img_batch_input_dir textarea", str(tmp_path / "in"))
    page.fill("#img2img_batch_output_dir textarea", str(tmp_path / "out"))
    for name, value in (("width", 128), ("height", 128), ("steps", 4)):
        page.fill(f"#img2img_{name} input[type=number]", value)
    page.click("#img2img_fam_hires > .label-wrap")
    page.click("#img2img_generate")
    made = sorted((tmp_path / "out").glob("*.png"))
    assert [path.name for path in made] == ["00000-0.png", "00001-1.png"]  # the WebUI's own way of naming
    for path in made:
        with Image.open(path) as picture:
            assert picture.size == (128, 128)
            assert "FAM version" in picture.info["parameters"]


def leaves(source, *colours):
    source.mkdir()
    for number, colour in enumerate(colours):
        info = PngInfo()
        info.add_text("parameters", f"a {colour} leaf\nSteps: 3, Sampler: Euler, CFG scale: 4, Seed: {number}")
        Image.new("RGB", (320, 64), colour).save(source / f"{number}.png", pnginfo=info)
    return source


# the file that the page shows as the chosen one, the first where none is, at the moment of the press
PRESS_SEND = """() => {
    const shown = selected_gallery_button() ?? document.querySelector('#fam_hires_gallery .thumbnail-item');
    document.querySelector('#fam_hires_send_to_img2img').click();
    return new URL(shown.querySelector('img').src).pathname;
}"""
COLOUR = """async image => {
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.getContext('2d').drawImage(image, 0, 0, 1, 1);  // its mean
    const { data } = canvas.getContext('2d').getImageData(0, 0, 1, 1);
    return ['red', 'green', 'blue'][data.indexOf(Math.max(...data.slice(0, 3)))];
}"""


def test_a_picture_that_took_the_chosen_place_is_sent_with_its_own_infotext(page, tmp_path):
    colours = ("red", "green", "blue")
    page.open_folder(leaves(tmp_path / "in", *colours), steps=3)
    page.begin()
    # found and clicked at once: each picture that comes draws the gallery anew, and for a moment it is empty
    second = "document.querySelectorAll('#fam_hires_gallery .thumbnail-item')[1]"
    page.wait_for_function(f"() => {{ const item = {second}; item?.click(); return Boolean(item) }}")
    page.ended("done: 3 done")
    shown = colours[int(Path(page.evaluate(PRESS_SEND)).stem)]
    page.wait_for_selector("#img2img_image img")
    page.wait_for_function("document.querySelector('#img2img_prompt textarea').value !== ''")
    assert page.eval_on_selector("#img2img_image img", COLOUR) == shown
    assert page.input_value("#img2img_prompt textarea") == f"a {shown} leaf"


def test_a_folders_result_is_sent_whole_with_its_own_infotext(page, tmp_path):
    page.open_folder(leaves(tmp_path / "in #1%20", "red", "green"), steps=3)
    page.start()
    assert page.inner_text("#fam_hires_status").startswith("done: 2 done")
    page.wait_for_function(
        "[...document.querySelectorAll('#fam_hires_gallery .thumbnail-item img')].every(one => one.naturalWidth)"
    )
    page.click("#fam_hires_gallery .thumbnail-item >> nth=1")
    page.click("#fam_hires_send_to_img2img")
    page.wait_for_selector("#img2img_image img")
    assert page.input_value("#img2img_prompt textarea") == "a red leaf"
    sent = {"img2img": "#img2img_image img"}
    for tab, shown in (
        ("inpaint", "#img2maskimg img"),
        ("extras", "#extras_image img"),
        ("pnginfo", "#pnginfo_image img"),
    ):
        page.evaluate("switch_to_fam_hires()")
        page.click(f"#fam_hires_send_to_{tab}")
        page.wait_for_selector(shown, state="attached")
        sent[tab] = shown
    page.wait_for_selector("#tab_pnginfo :text('a red leaf')")
    for tab, shown in sent.items():
        assert page.eval_on_selector(shown, "node => node.naturalWidth") == 640, tab
    assert page.input_value("#img2img_prompt textarea") == "a red leaf"


def test_the_gallery_keeps_a_picture_that_could_not_be_enlarged(page):
    page.small()
    infotext, _ = page.generate()
    page.click("#txt2img_fam_hires > .label-wrap")
    page.fill("#txt2img_fam_hires_cutoff input", 900)
    page.click("#txt2img_upscale")
    assert page.inner_text("#html_log_txt2img").startswith("cutoff is 900")
    assert page.locator("#txt2img_gallery .grid-container img").count() == 1
    assert page.inner_text("#html_info_txt2img") == infotext
    # and may still be
    page.fill("#txt2img_fam_hires_cutoff input", 32)
    page.click("#txt2img_upscale")
    assert "FAM version" in page.inner_text("#html_info_txt2img")


def test_the_last_generation_brings_fam_back(page):
    page.small()
    page.click("#txt2img_hr-visible-checkbox")
    page.click("#txt2img_fam_hires > .label-wrap")
    page.fill("#txt2img_fam_hires_cutoff input", 24)
    assert "FAM cutoff: 24" in page.generate()[0]
    page.fill("#txt2img_prompt textarea", "")
    page.fill("#txt2img_fam_hires_cutoff input", 12)
    page.click("#paste")
    assert page.input_value("#txt2img_prompt textarea") == "a red apple"
    assert page.is_checked("#txt2img_fam_hires-visible-checkbox")
    assert page.input_value("#txt2img_fam_hires_cutoff input") == "24"


@pytest.mark.parametrize("grids", [{}, {"grid_only_if_multiple": False, "return_grid": False, "grid_save": True}])
def test_img2img_s_batch_goes_on_past_a_file_that_is_refused(page, server, tmp_path, native_picture, grids):
    before = server.ask("/sdapi/v1/options")[1]
    server.ask("/sdapi/v1/options", grids)
    for name, size in (("0", (64, 64)), ("1", (256, 256)), ("2", (72, 64))):
        native_picture.resize(size).save(tmp_path / f"{name}.png")
    page.click("#tabs > .tab-nav > button:has-text('img2img')")
    page.click("#mode_img2img button:has-text('Batch')")
    page.click("#img2img_batch_source button:has-text('From directory')")
    page.fill("#img2img_batch_input_dir textarea", tmp_path)
    for name, value in (("width", 128), ("height", 128), ("steps", 4)):
        page.fill(f"#img2img_{name} input[type=number]", value)
    page.click("#img2img_fam_hires > .label-wrap")
    page.click("#img2img_generate")
    server.ask("/sdapi/v1/options", {name: before[name] for name in grids})
    assert page.locator("#img2img_gallery .grid-container img").count() == 2
    assert "the input picture is 256 x 256" in page.inner_text(".toast-body")


def test_tabs_are_found_whatever_the_page_s_language(page, tmp_path, native_picture):
    native_picture.save(tmp_path / "in.png")
    page.open_tab()
    page.set_input_files("#fam_hires_image input[type=file]", str(tmp_path / "in.png"))
    page.settle()
    page.open_folds()
    page.fill("#fam_hires_steps input[type=number]", 3)
    page.click("#fam_hires_generate")
    page.evaluate("gradioApp().querySelectorAll('#tabs > .tab-nav > button').forEach((one) => one.textContent += '!')")
    page.click("#fam_hires_send_to_pnginfo")
    page.wait_for_selector("#tab_pnginfo :text('FAM version')")
    assert page.is_visible("#tab_pnginfo") and not page.is_visible("#tab_fam_hires")
    page.evaluate("switch_to_fam_hires()")
    assert page.is_visible("#tab_fam_hires")
