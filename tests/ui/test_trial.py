"""A trial's grid: what it says, and on the page."""

import re

import pytest

from fam_ext.jobs.events import Control
from fam_ext.jobs.trial import Forecast, Trial
from fam_ext.ui.trial_grid import forecast_words, trial_html
from tests.jobs.fakes import Fast, Odd, make_folder, make_picture, page_job
from tests.ui.test_tab import browser, home, open_folder, page, url  # noqa: F401


def test_a_head_says_what_the_whole_folder_takes():
    assert forecast_words(Forecast(12, 200.4, 6 * 2**30)) == (
        "about 3 min 20 s for 12 files",
        "needs 6.0 GB of video memory",
    )
    assert forecast_words(Forecast(1, None, None)) == ("time not measured yet", "memory: measured on a GPU only")


def test_the_grid_has_a_row_a_file_and_a_column_a_preset(tmp_path):
    source = make_folder(tmp_path / "in", 2)
    trial = Trial({name: page_job({"input": str(source), "preset": name}) for name in ("fast", "paper")})
    assert trial_html(trial, lambda path: None) == ""
    trial.run(Fast)
    shown = trial_html(trial, lambda path: None)
    assert re.findall(r"Take (\w+)</button><span>about [^<]* for 2 files", shown) == ["fast", "paper"]
    assert re.findall(r"(smallest|largest|busiest): (picture \d.png), 48 x 32 to 96 x 64 px", shown) == [
        ("smallest", "picture 0.png"),
        ("largest", "picture 1.png"),
    ]
    assert re.findall(r'data-key="([^"]*)"', shown) == [
        f"{preset}: picture {number}.png" for number in (0, 1) for preset in ("fast", "paper")
    ]
    assert "waiting" not in shown and "being made" not in shown
    trial.cells(trial.columns[0])[0].output.unlink()  # a result that is gone spoils nothing
    assert "compare" in trial_html(trial, lambda path: None)


def test_a_picture_that_could_not_be_made_says_why(tmp_path):
    make_picture(tmp_path / "in" / "a.png", "raise")
    trial = Trial({"fast": page_job({"input": str(tmp_path / "in"), "preset": "fast"})})
    trial.run(Odd)
    assert re.search(
        r'data-state="failed"><span>failed, .*the renderer fell over', trial_html(trial, lambda path: None)
    )


def test_one_picture_is_being_made_and_the_others_wait(tmp_path):
    source = make_folder(tmp_path / "in", 3)
    trial = Trial({name: page_job({"input": str(source), "preset": name}) for name in ("fast", "paper")})
    control = Control()

    def stop(event):
        if event.kind == "started":
            control.stop_after_this()

    trial.run(lambda: Fast(0.1), control=control, on_event=stop)
    shown = trial_html(trial, lambda path: None, now="paper: picture 0.png")
    assert shown.count("being made") == 1 and shown.count("waiting") == 4 and shown.count("data-key") == 1


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_three_files_are_tried_and_a_column_is_taken(page, tmp_path):  # noqa: F811
    open_folder(page, make_folder(tmp_path / "in", 5))
    for name in ("balanced", "paper", "few-step", "custom"):
        page.check(f"#fam_hires_try_presets label:has(span:text-is('{name}')) input")
    page.click("#fam_hires_try")
    page.wait_for_selector("#fam_hires_status .fam-error:has-text('1 to 3 presets, not 5')")
    assert not list(tmp_path.glob("*-try"))
    for name in ("balanced", "few-step", "custom"):
        page.uncheck(f"#fam_hires_try_presets label:has(span:text-is('{name}')) input")
    page.wait_for_selector("#fam_hires_fold_trial:has-text('Try on 3: fast, paper')")
    page.click("#fam_hires_try")
    page.wait_for_selector("#fam_hires_status [data-running]")
    page.wait_for_selector("#fam_hires_status .fam-status:has-text('done: 6 done')")
    heads = page.locator("#fam_hires_trial thead th")
    assert heads.all_inner_texts()[0] == "as it is"
    assert "Take paper" in heads.nth(2).inner_text() and "for 5 files" in heads.nth(2).inner_text()
    assert page.locator("#fam_hires_trial td img").count() == 9
    page.click("#fam_hires_trial button[data-key] >> nth=0")
    page.wait_for_selector("#fam_hires_compare fam-compare [role=slider]")
    # what the column says is what Start would do
    page.click("#fam_hires_trial button:has-text('Take paper')")
    page.wait_for_function("document.querySelector('#fam_hires_preset input').value === 'paper'")
    assert page.input_value("#fam_hires_steps input[type=number]") == "50"
    assert not page.is_checked("#fam_hires_folder_own_settings input")
    page.wait_for_selector("#fam_hires_status:has-text('5 files, 5 to do')")
    assert page.locator("#fam_hires_trial td img").count() == 9
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status .fam-status:has-text('done: 5 done')")
    assert page.locator("#fam_hires_trial table").count() == 0
