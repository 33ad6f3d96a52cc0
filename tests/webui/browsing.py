"""The WebUI's page in Chromium, as a user has it: open, fill, click, and wait until the page has answered."""

import contextlib
import shutil
import time

import pytest

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
# the WebUI's own, without any extension
KNOWN_ERRORS = ("reading 'props'",)
ROUNDS = 6
"""Rounds of the page's own clock without a request after which it is at rest."""
_ROUND = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 30)))"
_WATCH_STATUS = """() => {
    window.fam_test_shown = 0;
    new MutationObserver(() => { fam_test_shown += 1; }).observe(
        gradioApp().querySelector('#fam_hires_status'), { childList: true, subtree: true, characterData: true });
}"""


@contextlib.contextmanager
def chromium():
    """Yield a browser; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright and Chromium")
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Browsed:
    """A page of the WebUI; what it lacks is playwright's.

    An event of gradio's answers when it likes, into parts that may be filled by then: after each `fill`, `click` and
    `choose` the page comes to rest first. What keeps running, a folder job, is begun with `press`.
    """

    def __init__(self, browser, server):
        self._server = server
        self._asked = set()
        self.errors = []
        self._page = browser.new_page(viewport={"width": 1500, "height": 1400})
        self.set_default_timeout(60_000)
        self.on("pageerror", lambda error: self.errors.append(str(error)))
        self.on("websocket", self._open)
        self.on("request", self._begin)
        self.on("framenavigated", lambda frame: self._asked.clear())  # what the page before it asked is not answered
        for event in ("requestfinished", "requestfailed"):
            self.on(event, self._end)
        self.load()

    def __getattr__(self, name):
        return getattr(self._page, name)

    def _open(self, socket):
        self._asked.add(socket)
        socket.on("close", self._end)

    def _begin(self, request):
        if request.url.startswith(self._server.url) and request.resource_type in ("fetch", "xhr"):
            self._asked.add(request)

    def _end(self, asked):
        self._asked.discard(asked)

    def load(self):
        """Load the page, anew where it was there."""
        self.goto(self._server.url, wait_until="domcontentloaded")
        self.wait_for_selector("#txt2img_prompt textarea")
        self.wait_for_function(
            "typeof switch_to_fam_hires === 'function' && gradioApp().querySelector('#tab_fam_hires')"
        )
        self.settle()

    def settle(self, timeout=120):
        """Wait until nothing that was asked is unanswered, and nothing new is asked for some rounds."""
        quiet, deadline = 0, time.monotonic() + timeout
        while quiet < ROUNDS:
            self.evaluate(_ROUND)
            quiet = 0 if self._asked else quiet + 1
            if time.monotonic() > deadline:
                raise AssertionError(f"the page still waits for {[asked.url for asked in self._asked]}")

    def press(self, selector):
        """Click without waiting for the answer."""
        self._page.click(selector)

    def click(self, selector):
        """Click, and wait for what it brings."""
        self.press(selector)
        self.settle()

    def fill(self, selector, value):
        """Fill a field and leave it."""
        self._page.fill(selector, str(value))
        self._page.press(selector, "Tab")
        self.settle()
        assert self.input_value(selector) == str(value), f"{selector} does not keep {value!r}"

    def choose(self, selector, choice):
        """Choose from the dropdown `selector`."""
        self._page.click(f"{selector} input")
        self._page.click(f"{selector} li:has-text('{choice}') >> nth=0")
        self.settle()

    def has(self, selector, words):
        """Wait until the part shows `words`."""
        self.wait_for_function(
            "([selector, words]) => gradioApp().querySelector(selector)?.innerText.includes(words)",
            arg=[selector, words],
        )

    def start(self, says="done: "):
        """Press the folder's Start and wait until the job is over and the page says so, which asks now and then."""
        self.begin()
        self.ended(says)

    def begin(self):
        """Press the folder's Start."""
        self.evaluate(_WATCH_STATUS)
        self.press("#fam_hires_start")

    def ended(self, says="done: "):
        """Wait until the job that `begin` started is over and the page says so."""
        over = (
            "says => fam_test_shown && !fam_hires_running() && "
            "!!gradioApp().querySelector('#fam_hires_status .fam-status')?.innerText.includes(says)"
        )
        for _ in range(5):  # an answer that was on its way may show the run for one look more
            self.wait_for_function(over, arg=says)
            self.settle()
            if self.evaluate(over, says):
                return

    def value(self, selector):
        """Return what a dial of that id holds: the slider's number, the text, or the tick."""
        for kind in ("input[type=number]", "textarea", "input"):
            if self.locator(f"{selector} {kind}").count():
                part = f"{selector} {kind} >> nth=0"
                ticked = self.get_attribute(part, "type") == "checkbox"
                return self.is_checked(part) if ticked else self.input_value(part)
        raise AssertionError(f"{selector} is no dial")

    def open_tab(self, mode="Picture"):
        """Show the FAM Hires tab."""
        self.evaluate("switch_to_fam_hires()")
        self.wait_for_selector("#fam_hires_mode", state="visible")
        self.click(f"#fam_hires_mode button:has-text('{mode}')")

    def open_folds(self):
        """Open every fold of the tab that can be seen."""
        closed = self.locator(".fam-fold > .label-wrap:not(.open):visible")
        while closed.count():
            closed.first.click()

    def open_folder(self, source, *, steps, prompt="a red apple"):
        """Show the tab's Batch folder mode, filled in."""
        self.open_tab("Batch folder")
        self.open_folds()
        self.fill("#fam_hires_folder_input textarea", source)
        self.fill("#fam_hires_folder_prompt textarea", prompt)
        self.fill("#fam_hires_steps input[type=number]", steps)

    def small(self):
        """Ask txt2img for a small picture."""
        self.fill("#txt2img_prompt textarea", "a red apple")
        for name, value in (("width", 64), ("height", 64), ("steps", 4)):
            self.fill(f"#txt2img_{name} input[type=number]", value)
        self.fill("#txt2img_seed input", 1)

    def generate(self):
        """Press txt2img's Generate and return (infotext, log) of that run."""
        self.click("#txt2img_generate")
        return self.inner_text("#html_info_txt2img"), self.inner_text("#html_log_txt2img")

    def close(self):
        """Close the page; its own errors fail the test."""
        self._page.close()
        own = [error for error in self.errors if not any(known in error for known in KNOWN_ERRORS)]
        assert not own, own
