"""Draw what a real WebUI has to draw: the demo's samples, and the pictures of its page in `docs/`.

    python tools/webui_pictures.py samples     # fam_ext/demo/samples, from tools/demo_model/samples.txt
    python tools/webui_pictures.py page        # docs/webui-*.webp, of those samples
    python tools/webui_pictures.py try         # of these only the trial's, which takes longest

It needs what tests/webui needs: A1111 in ~/stable-diffusion-webui or FAM_WEBUI_DIR, and for the page a browser. The
embedded model is the one that is shipped.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "demo_model")]

from truths import read_samples  # noqa: E402

from fam_ext.demo.export import export_checkpoint  # noqa: E402
from fam_ext.demo.run import samples  # noqa: E402
from tests.webui.browsing import Browsed, chromium  # noqa: E402
from tests.webui.server import Server, find_webui  # noqa: E402

SAMPLERS = (
    *(("DPM++ 2M", "Karras"), ("Euler a", "Automatic"), ("DDIM", "Automatic"), ("Heun", "Karras")),
    *(("DPM++ 2M SDE", "Exponential"), ("Euler", "Automatic"), ("UniPC", "Automatic"), ("LMS", "Karras")),
)
FORMATS = ("png", "webp", "jpg", "png")
NEGATIVE = ("", 'blurry: "dark", grey', "blurry, [dark]", "")
"""As people write them: what an infotext has to quote."""
STEPS, GUIDANCE, SIDE = 24, 3.0, 512
LONGEST = 3_600_000
"""Milliseconds that a folder of pictures may take: the trial draws nine."""


@contextmanager
def webui() -> Iterator[Server]:
    """Yield a WebUI with the shipped model; exits where there is none."""
    found = find_webui()
    if isinstance(found, str):
        raise SystemExit(found)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "checkpoints").mkdir()
        export_checkpoint(folder / "checkpoints")
        server = Server(*found, folder / "data", folder / "checkpoints", log=folder / "log.txt")
        try:
            yield server
        finally:
            server.stop()


def draw_samples(server: Server) -> list[Path]:
    """Return the samples, drawn through the API and saved by the WebUI itself; earlier ones go."""
    pattern = {"samples_filename_pattern": "[seed]-[prompt_spaces]", "save_to_dirs": False}
    ways = zip(read_samples(), cycle(SAMPLERS), cycle(FORMATS), cycle(NEGATIVE), strict=False)
    for (name, prompt, seed), (sampler, schedule), ending, negative in ways:
        _ask(server, "options", {**pattern, "samples_format": ending})
        words = {"prompt": prompt, "negative_prompt": negative, "sampler_name": sampler, "scheduler": schedule}
        numbers = {"seed": seed, "steps": STEPS, "cfg_scale": GUIDANCE, "width": SIDE, "height": SIDE}
        _ask(server, "txt2img", {**words, **numbers, "save_images": True})
        print(name)
    drawn = sorted((server.data / "outputs" / "txt2img-images").iterdir())
    wrong = {path.stem for path in drawn} ^ {name for name, _, _ in read_samples()}
    if wrong:
        raise SystemExit(f"the WebUI named its files otherwise: {', '.join(sorted(wrong))}")
    for path in samples().iterdir():
        path.unlink()
    return [Path(shutil.copy(path, samples())) for path in drawn]


def _ask(server: Server, what: str, body: dict[str, object]) -> None:
    status, answer = server.ask(f"/sdapi/v1/{what}", body)
    if status != 200:
        raise SystemExit(f"the WebUI refuses {what} {body}: {answer}")


def draw_page(server: Server, browser: object, out: Path) -> None:
    """Write the pictures of the page to `out`, but for the trial's."""
    sources = sorted(samples().iterdir())
    with tempfile.TemporaryDirectory() as place:
        page = Browsed(browser, server)
        page.click("#txt2img_hr-visible-checkbox")
        page.click("#txt2img_fam_hires > .label-wrap")  # which ticks it too
        page.has("#txt2img_fam_hires_hint", "it starts at")
        _shot(page, out / "webui-txt2img.webp", "#txt2img_hr", "#txt2img_fam_hires")

        page.set_default_timeout(LONGEST)  # what follows draws
        page.open_tab()
        page.set_input_files("#fam_hires_image input[type=file]", str(sources[0]))
        page.settle()
        page.click("#fam_hires_generate")
        _shot(page, out / "webui-picture.webp")

        folder = Path(place) / "in"
        folder.mkdir()
        for path in sources[:4]:
            shutil.copy(path, folder)
        page.open_tab("Batch folder")
        page.fill("#fam_hires_folder_input textarea", folder)
        page.start()
        _shot(page, out / "webui-folder.webp")
        page.close()


def draw_trial(server: Server, browser: object, out: Path) -> None:
    """Write the picture of a trial of three presets to `out`."""
    with tempfile.TemporaryDirectory() as place:
        for path in sorted(samples().iterdir())[:3]:
            shutil.copy(path, place)
        page = Browsed(browser, server)
        page.set_default_timeout(LONGEST)
        page.open_tab("Batch folder")
        page.fill("#fam_hires_folder_input textarea", place)
        page.press("#fam_hires_try")
        page.settle(LONGEST / 1000)
        _shot(page, out / "webui-try.webp", "#fam_hires_trial")
        page.close()


def _shot(page: Browsed, path: Path, *parts: str) -> None:
    """Save the page, or the rectangle around `parts` of it."""
    taken = path.with_suffix(".png")
    page.screenshot(path=str(taken), full_page=True)
    with Image.open(taken) as image:
        if parts:
            boxes = [page.locator(part).first.bounding_box() for part in parts]
            top = page.evaluate("scrollY")
            left, right = min(box["x"] for box in boxes), max(box["x"] + box["width"] for box in boxes)
            upper = min(box["y"] for box in boxes) + top
            lower = max(box["y"] + box["height"] for box in boxes) + top
            image = image.crop((round(left), round(upper), round(right), round(lower)))
        image.convert("RGB").save(path, quality=85, method=6)
    taken.unlink()
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("samples", "page", "try"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder for the pictures of the page")
    options = parser.parse_args()
    with webui() as server:
        if options.what == "samples":
            draw_samples(server)
        else:
            with chromium() as browser:
                if options.what == "page":
                    draw_page(server, browser, options.out)
                draw_trial(server, browser, options.out)


if __name__ == "__main__":
    main()
