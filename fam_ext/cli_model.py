"""Commands that need a model at hand: generate, compare, demo, bench. Torch is imported inside them."""

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

from fam_ext.errors import OutputError, UsageError
from fam_ext.jobs.contract import Progress
from fam_ext.metadata import pictures
from fam_ext.methods.catalog import METHODS
from fam_ext.options import presets as preset_store
from fam_ext.options.request import HiresRequest
from fam_ext.terminal import say

if TYPE_CHECKING:
    from PIL import Image

demo_app = typer.Typer(help="The embedded model: see it work, export it to a WebUI.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure on this machine.", no_args_is_help=True)

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Diffusers folder or .safetensors; default: the embedded model.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: the best there is.")]
Dtype = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]
Offload = Annotated[
    str, typer.Option(help="none; model: one network at a time on the device; sequential: one layer at a time.")
]
Lora = Annotated[list[str] | None, typer.Option(help="LoRA file, or FILE:WEIGHT (repeatable).")]
ModelConfig = Annotated[
    str | None,
    typer.Option(help="Diffusers folder of the same architecture, for a .safetensors file where no hub is reached."),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    app.command()(generate)
    app.command()(compare)
    app.add_typer(demo_app, name="demo")
    app.add_typer(bench_app, name="bench")


def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the pictures; made if needed.")] = "out",
    scale: Annotated[float, typer.Option("--scale", "-s", help="Target side / native side.")] = 2.0,
    size: Annotated[str | None, typer.Option(help="Target WxH in px instead of --scale.")] = None,
    negative: Annotated[str, typer.Option("--negative", "-n", help="Negative prompt.")] = "",
    count: Annotated[int, typer.Option(help="How many pictures, with seeds counting up.")] = 1,
    seed: Annotated[int | None, typer.Option(help="First seed; default: from the clock.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampler steps of each pass.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Sampler by its usual name.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Schedule type.")] = None,
    cfg_scale: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    preset: Annotated[str, typer.Option(help="Named settings; see `fam-hires presets list`.")] = preset_store.DEFAULT,
    method: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(METHODS)} (the others are comparisons); default: the preset's, or fam."),
    ] = None,
    no_fm: Annotated[bool, typer.Option("--no-fm", help="Frequency Modulation off.")] = False,
    no_am: Annotated[bool, typer.Option("--no-am", help="Attention Modulation off.")] = False,
    cutoff: Annotated[float | None, typer.Option(help="c, or cycles per picture; see `upscale --help`.")] = None,
    cutoff_reference: Annotated[str | None, typer.Option(help="native, target or cycles.")] = None,
    attention: Annotated[float | None, typer.Option(help="lambda: share of the native attention map, 0 to 1.")] = None,
    start: Annotated[float | None, typer.Option(help="Where the pass begins in rho, up to 1.")] = None,
    keep_native: Annotated[bool, typer.Option("--keep-native", help="Write the native picture too.")] = False,
    model: Model = None,
    model_config: ModelConfig = None,
    lora: Lora = None,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = "none",
    low_memory: Annotated[
        bool,
        typer.Option("--low-memory", help="Guidance in halves, native queries and keys in main memory: slower."),
    ] = False,
) -> None:
    """Make a picture from text: native first, then its high-resolution pass. Existing files are never replaced."""
    from fam_ext.cli import fam_config, lora_entry, parse_size

    chosen = preset_store.PresetStore().get(preset)
    changes = {"cutoff_reference": cutoff_reference, "attention": attention, "start": start}
    config = fam_config(chosen.config, changes, cutoff, no_fm, no_am, [])
    given = {"steps": steps, "sampler": sampler, "schedule": schedule, "cfg_scale": cfg_scale, "method": method}
    settings = dict(chosen.settings) | {name: value for name, value in given.items() if value is not None}
    if count < 1:
        raise UsageError(f"--count is {count}; choose at least 1")
    folder = _folder(output)

    from fam_ext import standalone
    from fam_ext.demo.names import note_on

    if model is None and (note := note_on(prompt)):
        say(note, err=True)
    host = standalone.load_pipeline(
        model,
        device=device,
        dtype=dtype,
        loras=[lora_entry(entry) for entry in lora or []],
        config=model_config,
        offload=offload,
    )
    side = round(host.native_side * scale / 8) * 8
    target = (side, side) if size is None else parse_size(size)
    first = seed if seed is not None else int(time.time()) % 2**31
    for number in range(count):
        request = HiresRequest(
            size=target,
            prompt=prompt,
            negative_prompt=negative,
            seed=first + number,
            config=config,
            low_memory=low_memory,
            **settings,
        )
        with _steps(f"seed {request.seed}") as progress:
            rendered, native = standalone.generate(host, request, progress=progress)
        for note in rendered.notes:
            typer.echo(note, err=True)
        name = f"{request.seed}-{_slug(prompt)}"
        path = _write_new(folder, name, rendered.image, _infotext(request, rendered.ran))
        say(f"{path} ({target[1]}x{target[0]}) in {rendered.seconds:.1f} s")
        if keep_native:
            say(str(_write_new(folder, f"{name}-native", native, None)))


def compare(
    picture: Annotated[str, typer.Argument(help="A picture; its prompt and settings come from its metadata.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The sheet to write (PNG).")] = "compare.png",
    scale: Annotated[float, typer.Option("--scale", "-s", help="Target side / native side.")] = 2.0,
    methods: Annotated[str, typer.Option(help="Comma-separated; each of " + ", ".join(METHODS))] = "direct,fam",
    preset: Annotated[str, typer.Option(help="Named settings of FAM.")] = preset_store.DEFAULT,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Prompt, if the picture has none.")] = None,
    model: Model = None,
    model_config: ModelConfig = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Make one picture by several methods and put them side by side: native, plain resize, then each method."""
    from fam_ext.compare import Cell, contact_sheet, structure_psnr
    from fam_ext.jobs.plan import PlanOptions, Rule, plan_file, with_preset
    from fam_ext.jobs.walk import walk

    names = [name.strip() for name in methods.split(",") if name.strip()]
    for name in names:
        if name not in METHODS:
            raise UsageError(f"--methods has {name!r}; choose from {', '.join(METHODS)}")
    target = Path(output).expanduser()
    if target.exists():
        raise OutputError(f"{target} exists; choose another --output")
    chosen = preset_store.PresetStore().get(preset)
    rules = {"prompt": Rule("take", prompt)} if prompt is not None else {}
    defaults, resolved = with_preset(chosen, rules)
    path = Path(picture).expanduser()
    options = PlanOptions(
        (str(path),), str(target.parent), scale=scale, config=chosen.config, settings=defaults, rules=resolved
    )
    planned = plan_file(next(walk(options)), options)
    if planned.request is None:
        raise UsageError(f"{path.name}: {planned.problem}")
    native = pictures.decode(path.read_bytes()).image

    from fam_ext import standalone

    host = standalone.load_pipeline(model, device=device, dtype=dtype, config=model_config)
    height, width = planned.request.size
    cells = [Cell(native, f"{native.width}x{native.height}"), Cell(native.resize((width, height)), "bicubic")]
    for name in names:
        request = dataclasses.replace(planned.request, method=name)
        with _steps(name) as progress:
            made = standalone.render_on(host, native, request, progress)
        for note in made.notes:
            typer.echo(f"{name}: {note}", err=True)
        structure = structure_psnr(made.image, native)
        say(f"{name}: structure {structure:.1f} dB, {made.seconds:.1f} s")
        cells.append(Cell(made.image, f"{structure:.1f} dB, {made.seconds:.1f} s"))
    sheet = contact_sheet([cells], header=["native", "plain resize", *names], side=min(512, max(height, width)))
    say(str(_write_new(_folder(str(target.parent)), target.stem, sheet, None)))


@demo_app.command("run")
def demo_run(
    output: Annotated[str, typer.Option("--out", "-o", help="Folder for pictures and contact sheet.")] = "out/demo",
    count: Annotated[int, typer.Option("--pictures", help="How many of the sample pictures.")] = 4,
) -> None:
    """Upscale the sample folder by FAM and by direct inference with the embedded model, and show them side by side."""
    from fam_ext.cli import View, watched
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


@bench_app.command("cost")
def bench_cost(
    model: Model = None,
    model_config: ModelConfig = None,
    device: Device = None,
    dtype: Dtype = None,
    scales: Annotated[str, typer.Option(help="Comma-separated.")] = "2,3",
    steps: Annotated[int, typer.Option(help="Sampler steps timed per method.")] = 4,
    repeats: Annotated[int, typer.Option(help="Rounds; methods take turns, the median counts.")] = 3,
) -> None:
    """Time and peak memory of FAM beside direct inference, on your model and device."""
    from fam_ext import standalone
    from fam_ext.bench import cost_table

    host = standalone.load_pipeline(model, device=device, dtype=dtype, config=model_config)
    for line in cost_table(host, [float(scale) for scale in scales.split(",")], steps=steps, repeats=repeats):
        say(line)


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


def _infotext(request: HiresRequest, ran: Any) -> str:  # noqa: ANN401
    from fam_ext.metadata.infotext import add

    heading = request.prompt + (f"\nNegative prompt: {request.negative_prompt}" if request.negative_prompt else "")
    settings = {
        "Steps": str(request.steps),
        "Sampler": request.sampler,
        "Schedule type": request.schedule,
        "CFG scale": f"{request.cfg_scale:g}",
        "Seed": str(request.seed),
    }
    return add(None, ran, settings=settings, heading=heading)


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
