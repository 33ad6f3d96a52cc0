"""The tab for those who hear it or use no mouse: names, states, contrast. With axe-core where FAM_AXE names its
axe.min.js (npm pack axe-core); its own checks need nothing."""

import os
from pathlib import Path

import pytest

from tests.ui.test_tab import browser, folder_with, home, open_folder, open_folds, page, url  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
AXE = Path(os.environ.get("FAM_AXE", ""))
NAMELESS = """() => Array.from(document.querySelectorAll('#fam_hires_row :is(button, input, textarea, select, [role])'))
    .filter(one => one.offsetParent !== null && !one.closest('[data-testid="image"]'))
    .filter(one => !(one.getAttribute('aria-label') || one.labels?.[0]?.innerText || one.innerText || one.title).trim())
    .map(one => one.outerHTML.slice(0, 200))"""

RING = """() => {
    const {outlineStyle, outlineWidth} = getComputedStyle(document.activeElement);
    return [document.activeElement.parentElement.tagName, outlineStyle, outlineWidth];
}"""


def faults(page, part="#fam_hires_row"):  # noqa: F811
    """Return axe-core's serious and critical faults in the tab or another part; none where it is not at hand."""
    if not AXE.is_file():
        return []
    page.evaluate(AXE.read_text())
    found = page.evaluate("part => axe.run(part, {resultTypes: ['violations']})", part)["violations"]
    return [
        (fault["id"], node["html"][:200])
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def test_every_part_has_a_name_in_every_state(page, tmp_path):  # noqa: F811
    open_folds(page)
    assert page.evaluate(NAMELESS) == [] and faults(page) == []
    open_folder(page, folder_with(tmp_path, 2))
    page.fill("#fam_hires_folder_prompt textarea", "a stone")
    page.wait_for_selector("#fam_hires_plan_table tr:has-text('a stone')")
    assert page.evaluate(NAMELESS) == [] and faults(page) == []
    page.focus("#fam_hires_plan_table")
    page.keyboard.press("Tab")
    assert page.evaluate(RING) == ["TH", "solid", "2px"]
    page.click("#fam_hires_start")
    page.wait_for_selector("#fam_hires_status .fam-status:has-text('done: 2 done')")
    page.wait_for_selector("fam-compare [role=slider]")
    page.wait_for_selector("#fam_hires_gallery button[aria-label='Result 1']")
    assert page.evaluate(NAMELESS) == [] and faults(page) == []


def test_help_and_folds_without_a_mouse(page):  # noqa: F811
    scale = page.locator("#fam_hires_scale input[type=number]")
    described = scale.get_attribute("aria-describedby")
    assert "native side" in page.locator(f"#{described}").text_content()
    title = page.locator("#fam_hires_fold_size > .label-wrap")
    assert title.get_attribute("aria-expanded") == "false"
    title.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#fam_hires_fold_size > .label-wrap[aria-expanded=true]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#fam_hires_width') !== null")
    page.wait_for_selector("#fam_hires_width [data-testid=block-info] + div", state="visible")
