"""Commands that need a model at hand: generate and demo. Torch is imported inside them."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fam_ext.cli.making import (
    MADE,
    PRESET,
    RENDERER,
    SIZES,
    load_renderer,
    picture_words,
    steps_bar,
)
from fam_ext.cli.options import takes
from fam_ext.cli.upscale import renderer_of
from fam_ext.cli.written import folder_at, write_new
from fam_ext.errors import RenderError, UsageError
from fam_ext.jobs.make import infotext_of
from fam_ext.jobs.settings import check_names, idle, request_of_words
from fam_ext.jobs.size import rounded
from fam_ext.options import resolve
from fam_ext.options.presets import PresetStore
from fam_ext.terminal import say

demo_app = typer.Typer(help="The embedded model: see it work, export it to a WebUI.", no_args_is_help=True)


@takes([*SIZES, *MADE, *PRESET, *RENDERER], own_settings=False)
def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the pictures; made if needed.")] = "out",
    count: Annotated[int, typer.Option(help="How many pictures, with seeds counting up.")] = 1,
    keep_native: Annotated[bool, typer.Option("--keep-native", help="Write the native picture too.")] = False,
    *,
    said: dict[str, Any],
) -> None:
    """Make a picture from text: native first, then its high-resolution pass. Existing files are never replaced.

    The seed is drawn from the clock where none is given.
    """
    if count < 1:
        raise UsageError(f"--count is {count}; choose at least 1")
    renderer = renderer_of(said)
    words = {"prompt": prompt, "seed": int(time.time()) % 2**31, **picture_words(said)}
    job = resolve.job({**words, "inputs": ["text"]}, preset_of=PresetStore().get)
    check_names(job.picture)
    resolve.refuse_unread(said, [resolve.method_of(job)])
    resolve.refuse_unasked(said, job)
    folder = folder_at(output)

    from fam_ext import standalone
    from fam_ext.comparison.run import check
    from fam_ext.demo.names import note_on

    if renderer.model is None and (note := note_on(prompt)):
        say(note, err=True)
    loaded = load_renderer(renderer)
    height, width = job.size.size or (loaded.host.native_side * job.size.scale,) * 2
    first, changed = request_of_words((rounded(height), rounded(width)), job.picture)
    for note in (*changed, *idle(first)):
        say(note, err=True)
    check(loaded.host, [first], recorded=True)
    for number in range(count):
        request = dataclasses.replace(first, seed=first.seed + number)
        with steps_bar(f"seed {request.seed}") as progress:
            rendered, native = standalone.generate(loaded.host, request, upscaler=loaded.upscaler, progress=progress)
        for note in rendered.ran.notes:
            say(note, err=True)
        name = f"{request.seed}-{_slug(prompt)}"
        path = write_new(folder, name, rendered.image, infotext_of(request, rendered.ran))
        say(f"{path} ({request.size[1]}x{request.size[0]}) in {rendered.ran.seconds:.1f} s")
        if keep_native:
            say(str(write_new(folder, f"{name}-native", native, None)))


@demo_app.command("run")
def demo_run(
    output: Annotated[str, typer.Option("--out", "-o", help="Folder for pictures and contact sheet.")] = "out/demo",
    count: Annotated[int, typer.Option("--pictures", help="How many of the sample pictures.")] = 4,
) -> None:
    """Upscale the sample folder by FAM and by direct inference with the embedded model, and show them side by side."""
    from fam_ext.cli.progress import Interrupted, View, watched
    from fam_ext.demo.run import run_demo

    if count < 1:
        raise UsageError(f"--pictures is {count}; choose at least 1")
    began = time.perf_counter()
    folder = folder_at(output)
    with watched(View.auto) as (control, listen, _):
        try:
            sheet, lines = run_demo(folder, count=count, say=say, control=control, listen=listen)
        except RenderError:
            if control.cancelled:
                raise Interrupted from None
            raise
    for line in lines:
        say(line)
    say(f"contact sheet: {sheet} ({time.perf_counter() - began:.0f} s)")
    _open_for_a_person(sheet)


@demo_app.command("export")
def demo_export(
    webui: Annotated[str, typer.Option(help="The WebUI's own folder.")],
    model: Annotated[str | None, typer.Option(help="Another diffusers folder of the same layout.")] = None,
    layout: Annotated[str, typer.Option(help="What the WebUI takes it for: sd (SD1.5) or sdxl.")] = "sd",
) -> None:
    """Write the embedded model as an A1111 checkpoint (.safetensors and .yaml)."""
    from fam_ext.demo.export import export_webui

    for path in export_webui(webui, model=model, layout=layout):
        say(str(path))


@demo_app.command("names")
def demo_names() -> None:
    """List what the embedded model was taught, and how a prompt for it is written."""
    from fam_ext.demo.names import names

    known = names()
    say(f'A prompt is "{known.form}".')
    for title, words in known.lists.items():
        say(f"\n{len(words)} {title}:\n{', '.join(words)}")


def _slug(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text, flags=re.UNICODE).strip("-")[:60] or "picture"


def _open_for_a_person(path: Path) -> None:
    """Open the sheet where a person sits before the screen; elsewhere its name is enough."""
    opener = {"darwin": "open", "linux": "xdg-open"}.get(sys.platform)
    has_screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if opener and has_screen and sys.stdout.isatty() and not os.environ.get("CI"):
        try:
            subprocess.Popen([opener, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except OSError:
            return
