"""Commands that need a model at hand: generate and demo. Torch is imported inside them."""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fam_ext.cli.options import takes
from fam_ext.cli.upscale import renderer_of
from fam_ext.core.config import FamConfig
from fam_ext.errors import OutputError, UsageError
from fam_ext.jobs.contract import Progress, Ran
from fam_ext.jobs.settings import request_for
from fam_ext.metadata import pictures
from fam_ext.metadata.infotext import Infotext
from fam_ext.options import resolve
from fam_ext.options.field import CLI, options_of
from fam_ext.options.presets import PresetStore
from fam_ext.options.renderer import RendererChoice
from fam_ext.options.request import HiresRequest
from fam_ext.options.resolve import options_at
from fam_ext.terminal import say

if TYPE_CHECKING:
    from PIL import Image

demo_app = typer.Typer(help="The embedded model: see it work, export it to a WebUI.", no_args_is_help=True)

ModelConfig = Annotated[
    str | None,
    typer.Option(help="Diffusers folder of the same architecture, for a .safetensors file where no hub is reached."),
]

_AT_CLI = options_at(CLI)
_RENDERER = [spec for spec in _AT_CLI if spec in options_of(RendererChoice)]
_MADE = [spec for spec in _AT_CLI if spec in (*options_of(HiresRequest), *options_of(FamConfig))]
_SIZES = [spec for spec in _AT_CLI if spec.name in ("scale", "size")]
_PRESET = [spec for spec in _AT_CLI if spec.name == "preset"]


@takes([*_SIZES, *_MADE, *_PRESET, *_RENDERER])
def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the pictures; made if needed.")] = "out",
    count: Annotated[int, typer.Option(help="How many pictures, with seeds counting up.")] = 1,
    keep_native: Annotated[bool, typer.Option("--keep-native", help="Write the native picture too.")] = False,
    model_config: ModelConfig = None,
    *,
    said: dict[str, Any],
) -> None:
    """Make a picture from text: native first, then its high-resolution pass. Existing files are never replaced.

    The seed is drawn from the clock where none is given.
    """
    if count < 1:
        raise UsageError(f"--count is {count}; choose at least 1")
    renderer = renderer_of(said)
    words = {"prompt": prompt, "seed": int(time.time()) % 2**31, **_words(said)}
    job = resolve.job({**words, "inputs": ["text"]}, preset_of=PresetStore().get)
    folder = _folder(output)

    from fam_ext import standalone
    from fam_ext.demo.names import note_on

    if renderer.model is None and (note := note_on(prompt)):
        say(note, err=True)
    host = _load(renderer, model_config)
    side = round(host.native_side * job.size.scale / 8) * 8
    first = request_for(Infotext(), job.size.size or (side, side), job.picture)[0]
    for number in range(count):
        request = dataclasses.replace(first, seed=first.seed + number)
        with _steps(f"seed {request.seed}") as progress:
            rendered, native = standalone.generate(host, request, progress=progress)
        for note in rendered.ran.notes:
            typer.echo(note, err=True)
        name = f"{request.seed}-{_slug(prompt)}"
        path = _write_new(folder, name, rendered.image, _infotext(request, rendered.ran))
        say(f"{path} ({request.size[1]}x{request.size[0]}) in {rendered.ran.seconds:.1f} s")
        if keep_native:
            say(str(_write_new(folder, f"{name}-native", native, None)))


def _words(said: dict[str, Any]) -> dict[str, Any]:
    """Return what was said of the picture: without the renderer's options."""
    return {name: value for name, value in said.items() if name not in {spec.name for spec in _RENDERER}}


@demo_app.command("run")
def demo_run(
    output: Annotated[str, typer.Option("--out", "-o", help="Folder for pictures and contact sheet.")] = "out/demo",
    count: Annotated[int, typer.Option("--pictures", help="How many of the sample pictures.")] = 4,
) -> None:
    """Upscale the sample folder by FAM and by direct inference with the embedded model, and show them side by side."""
    from fam_ext.cli.progress import View, watched
    from fam_ext.demo.run import run_demo

    began = time.perf_counter()
    folder = _folder(output)
    with watched(View.auto) as (control, listen, _):
        sheet, lines = run_demo(folder, count=count, say=say, control=control, listen=listen)
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


def _load(renderer: RendererChoice, config: str | None) -> Any:  # noqa: ANN401  # a host: torch is imported here
    from fam_ext import standalone

    arguments = renderer.arguments
    del arguments["upscaler"]
    return standalone.load_pipeline(arguments.pop("model"), **arguments, config=config)


def _upscaler(renderer: RendererChoice) -> Any:  # noqa: ANN401  # an Upscaler, or None: torch is imported here
    from fam_ext import standalone

    return standalone.load_renderer(**renderer.arguments).upscaler


# --- small parts --------------------------------------------------------------------------------------------------


@contextmanager
def _steps(label: str) -> Iterator[Progress]:
    """Show a bar of the sampler's steps with the time left; nothing when not in a terminal."""
    if not sys.stdout.isatty():
        yield Progress()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, transient=True) as bars:
        task = bars.add_task(label, total=None)
        yield Progress(step=lambda done, total: bars.update(task, completed=done, total=total))


def _folder(path: str) -> Path:
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}); choose another folder") from None
    return folder


def _write_new(folder: Path, stem: str, image: Image.Image, infotext: str | None) -> Path:
    """Write a PNG whole under a name that no file has yet, and return its path."""
    data = pictures.encode(image, "PNG", infotext=infotext).data
    try:
        temporary = folder / f".fam-{secrets.token_hex(8)}.part"  # tempfile's can be read by their maker alone
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            for number in range(1, 10_000):
                path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
                try:
                    os.link(temporary, path)  # unlike a rename it never replaces
                    return path
                except FileExistsError:
                    continue
        finally:
            os.unlink(temporary)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); free space or choose another") from None
    raise OutputError(f"{folder} has 9999 pictures named {stem}; choose another folder")


def _infotext(request: HiresRequest, ran: Ran) -> str:
    from fam_ext.jobs.ran_text import fields
    from fam_ext.metadata.infotext import add

    heading = request.prompt + (f"\nNegative prompt: {request.negative_prompt}" if request.negative_prompt else "")
    settings = {
        "Steps": str(request.steps),
        "Sampler": request.sampler,
        "Schedule type": request.schedule,
        "CFG scale": f"{request.cfg_scale:g}",
        "Seed": str(request.seed),
    }
    notes = {"FAM notes": "; ".join(ran.notes)} if ran.notes else {}
    return add(None, fields(ran) | notes, settings=settings, heading=heading)


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
