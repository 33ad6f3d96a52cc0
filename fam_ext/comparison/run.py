"""Make a comparison's pictures: what stands in the folder stays, what is missing is made, one cell after the other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from PIL import Image

from fam_ext import hires, standalone
from fam_ext.compare import high_band_energy, structure_psnr
from fam_ext.comparison.attention import QUERIES, Watch, atlas
from fam_ext.comparison.plan import Plan, Row, keyed, request_of, short
from fam_ext.comparison.results import Attention, Cell, Native, Results, write_new
from fam_ext.comparison.spectrum import radial_spectrum
from fam_ext.core.config import FamConfig
from fam_ext.core.guide import NativeRecord
from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import Cancelled, OutputError
from fam_ext.escapes import sentence, shown
from fam_ext.hosts.base import Prompt
from fam_ext.hosts.diffusers.host import DiffusersHost
from fam_ext.jobs.contract import Progress, Ran, Rendered
from fam_ext.jobs.make import enlarged
from fam_ext.metadata import pictures
from fam_ext.methods.base import Pictures
from fam_ext.methods.catalog import METHODS, WITHOUT_FAM
from fam_ext.options.request import HiresRequest
from fam_ext.quality.protocol import lanczos_note, surroundings_of, without_upscaler
from fam_ext.upscalers import Upscaler

_Drawn = TypeVar("_Drawn")
_OTHERWISE = "made with other settings, model files or another version"
_SMALL = 8
"""Side of the latents on which a method is tried before anything runs."""


@dataclass(frozen=True)
class Workshop:
    """With what the pictures are made, and how that is told."""

    host: DiffusersHost
    upscaler: Upscaler | None
    surroundings: Mapping[str, object]
    """What the pixels depend on beside a request (`quality.setting.surroundings`), as JSON values."""
    steps: Callable[[str], AbstractContextManager[Progress]]
    """Shows a bar under a label."""
    say: Callable[[str], None]
    infotext: Callable[[HiresRequest, Ran], str]
    preset: str = ""
    """Its name, for the page."""


@dataclass(frozen=True)
class _Asked:
    """A cell that is to stand in the results."""

    row: Row
    method: str
    scale: float
    request: HiresRequest
    digest: str

    @property
    def label(self) -> str:
        return f"{self.row.label} by {self.method} at {self.scale:g}x"


def make(shop: Workshop, plan: Plan, results: Results) -> int:
    """Make what `results` lack, write them after each cell, and return how many of those asked for could not be made.

    Raises `OutputError` where the folder holds other pictures than those asked for, before anything is made.
    """
    plan = _keyed(shop, plan, results)
    asked = _asked(shop, plan)
    todo = _missing(shop, asked, results)
    for row in plan.rows:
        missing = [each for each in todo if each.row is row]
        known = results.natives.get(row.key)
        if missing or known is None or not results.holds(known.file):
            native = _native(shop, row, results)
            for each in missing:
                cell = _cell(shop, each, native, results)
                results.cells[cell.key] = cell
                results.write()
    cells = [results.cells[each.row.key, each.method, each.scale] for each in asked]
    natives = [results.natives[row.key] for row in plan.rows]
    return sum(each.problem is not None for each in (*natives, *cells))


def check_missing(shop: Workshop, plan: Plan, results: Results) -> None:
    """Raise what `make` would, and the error of a method that this model or sampler cannot do. Say which methods lack
    an upscaler."""
    asked = _asked(shop, _keyed(shop, plan, results))
    todo = _missing(shop, asked, results)
    check(shop.host, [each.request for each in todo], recorded=any(each.row.path is None for each in todo))
    requests = ((each.method, each.request, _native_size(shop.host, each.row)) for each in asked)
    if shop.upscaler is None and (note := lanczos_note(requests)):
        shop.say(note)


def _keyed(shop: Workshop, plan: Plan, results: Results) -> Plan:
    natives = {key: (native.title, native.digest) for key, native in results.natives.items()}
    return dataclasses.replace(plan, rows=keyed(plan.rows, [_native_digest(shop, row) for row in plan.rows], natives))


def _asked(shop: Workshop, plan: Plan) -> list[_Asked]:
    found: list[_Asked] = []
    for row in plan.rows:
        for scale in plan.scales:
            for method in plan.methods:
                native = _native_size(shop.host, row)
                request = request_of(row, native, method, scale)
                around = json.dumps(surroundings_of(request, native, shop.surroundings))
                found.append(_Asked(row, method, scale, request, _digest(row.digest, request.to_text(), around)))
    return found


def _missing(shop: Workshop, asked: list[_Asked], results: Results) -> list[_Asked]:
    machine, where = machine_of(shop.host), f"{shown(results.folder)} holds"
    if results.natives and results.machine != machine:
        was, now = (", ".join(values.values()) for values in (results.machine, machine))
        raise OutputError(f"{where} pictures of {was}, and this is {now}; choose another --out")
    results.machine = machine
    todo: list[_Asked] = []
    for each in asked:
        native = results.natives.get(each.row.key)
        if native is not None and native.digest != _native_digest(shop, each.row):
            raise OutputError(f"{where} {each.row.label} {_differing(native, each.row)}; choose another --out")
        cell = results.cells.get((each.row.key, each.method, each.scale))
        if cell is not None and cell.digest != each.digest:
            raise OutputError(f"{where} {each.label} {_OTHERWISE}; choose another --out, or those settings")
        if cell is None or not results.holds(cell.file):
            todo.append(each)
    return todo


def check(host: DiffusersHost, requests: list[HiresRequest], *, recorded: bool) -> None:
    """Raise the error of a method that `host` or a sampler cannot do: each is set up on a tiny latent, and not run."""
    small = torch.zeros(1, host.latent_channels, _SMALL, _SMALL)
    record = NativeRecord() if recorded else None
    if record is not None:
        record.add(small, NoiseLevel(1.0, 1.0, 0.0))
    seen: set[str] = set()
    for request in requests:
        same = dataclasses.replace(request, prompt="", negative_prompt="", seed=0)
        if same.to_text() in seen:
            continue
        seen.add(same.to_text())
        method = METHODS[request.method].load()(request.config)
        for stage in method.stages(request.size, (request.size[0] // 2, request.size[1] // 2)):
            if stage.pixels:
                continue
            host.sampler(
                *(request.sampler, request.schedule, request.steps),
                seeds=[request.seed],
                start=stage.start,
                spacing=request.timestep_spacing,
            )
            larger = torch.zeros(1, host.latent_channels, 2 * _SMALL, 2 * _SMALL)
            pictures = Pictures(small, None if stage.upsample is None else larger, larger, None, 1, record)
            with host.model([Prompt()], size=stage.size, cfg_scale=1, steered=method.begin(stage, pictures)):
                pass


def machine_of(host: DiffusersHost) -> dict[str, str]:
    """Return model, device and number format, in words."""
    device = torch.cuda.get_device_name(host.device) if host.device.type == "cuda" else host.device.type
    return {"model": host.name, "device": device, "dtype": str(host.dtype).removeprefix("torch.")}


def _differing(native: Native, row: Row) -> str:
    """Return in what a row that stands in the results differs from what is asked for now."""
    names = ("prompt", "seed", "steps", "sampler", "cfg_scale")
    changed = [name for name in names if getattr(native, name) != getattr(row.request, name)]
    was, now = ([short(f"{getattr(each, name)}") for name in changed] for each in (native, row.request))
    phrases = [f"{name} {old}, now {new}" for name, old, new in zip(changed, was, now, strict=True)]
    return f"made with {'; '.join(phrases)}" if phrases else f"made from another picture, or {_OTHERWISE}"


# --- one row


def _native_size(host: DiffusersHost, row: Row) -> tuple[int, int]:
    return row.native or (host.native_side, host.native_side)


def _native_digest(shop: Workshop, row: Row) -> str:
    if row.path is not None:
        return _digest(row.digest)
    request = request_of(row, _native_size(shop.host, row), WITHOUT_FAM, 1)
    plain = dataclasses.replace(request, config=FamConfig())  # it has no part in the native picture
    return _digest(plain.to_text(), json.dumps(without_upscaler(shop.surroundings)))


def _native(shop: Workshop, row: Row, results: Results) -> hires.Native | Image.Image | str:
    """Return the native picture of a row, from its file, or made from the prompt with the record that AM attends to; or
    why there is none. It stands in the results afterwards."""
    size, label, path = _native_size(shop.host, row), f"{row.label}, native", row.path
    began = time.perf_counter()
    if path is not None:
        # the row's notes say where it is enlarged
        native = _tried(shop, label, lambda: enlarged(pictures.decode(pictures.read_file(path)).image)[0])
    else:

        def drawn() -> hires.Native:
            with shop.steps(label) as progress:
                return standalone.native_on(shop.host, row.request, progress, size=size)

        native = _tried(shop, label, drawn)
    seconds = time.perf_counter() - began
    known = results.natives.get(row.key)
    if known is None or not results.holds(known.file):
        entry = Native(
            row=row.key,
            title=row.title,
            prompt=row.request.prompt,
            digest=_native_digest(shop, row),
            size=size,
            seed=row.request.seed,
            steps=row.request.steps,
            sampler=row.request.sampler,
            cfg_scale=row.request.cfg_scale,
        )
        if isinstance(native, str):
            entry = dataclasses.replace(entry, problem=native)
        else:
            image = _image(native)
            entry = dataclasses.replace(
                entry,
                file=write_new(results.folder, f"native/{row.key}.png", _png(image)),
                size=(image.height, image.width),
                spectrum=radial_spectrum(image),
                seconds=round(seconds, 3) if row.path is None else None,
            )
        results.natives[row.key] = entry
        results.write()
    return native


def _cell(shop: Workshop, asked: _Asked, native: hires.Native | Image.Image | str, results: Results) -> Cell:
    cell = Cell(asked.row.key, asked.method, asked.scale, asked.digest, asked.request.size)
    if isinstance(native, str):
        return dataclasses.replace(cell, problem=native)
    watch = Watch()

    def drawn() -> Rendered:
        with shop.steps(asked.label) as progress:
            return standalone.render_on(
                *(shop.host, native, asked.request, progress), upscaler=shop.upscaler, around=watch.around
            )

    made = _tried(shop, asked.label, drawn)
    if isinstance(made, str):
        return dataclasses.replace(cell, problem=made)
    image = _image(native)
    place = f"{asked.method}-{asked.scale:g}x"
    structure = structure_psnr(made.image, image)
    cell = dataclasses.replace(
        cell,
        file=write_new(
            results.folder, f"{place}/{asked.row.key}.png", _png(made.image, shop.infotext(asked.request, made.ran))
        ),
        seconds=round(made.ran.seconds, 3),
        steps=made.ran.steps_taken,
        peak_memory=made.ran.peak_memory,
        structure=round(structure, 2) if math.isfinite(structure) else None,
        detail=round(high_band_energy(made.image, image), 3),
        spectrum=radial_spectrum(made.image),
        notes=made.ran.notes,
        settings=_settings(shop, asked.request, made.ran),
        upscaler=made.ran.upscaler,
    )
    maps = f"attention/{place}-{asked.row.key}.png"
    seen = _tried(shop, f"{asked.label}, its attention", lambda: _attention(watch, maps, results))
    if not isinstance(seen, str):  # the picture itself is made
        cell = dataclasses.replace(cell, attention=seen)
    shop.say(f"{asked.label}: structure {structure:.1f} dB, {made.ran.seconds:.1f} s")
    return cell


def _settings(shop: Workshop, request: HiresRequest, ran: Ran) -> dict[str, Any]:
    """Return with what a picture was made, as JSON values: the sampler's where it ran, of FAM's dials those that its
    method reads."""
    names = ("sampler", "schedule", "steps", "cfg_scale", "timestep_spacing", "clip_skip") if ran.steps_taken else ()
    values = {"preset": shop.preset, **{name: getattr(ran, name) for name in names}}
    dials = request.config.to_dict()
    return {**values, **{name: dials[name] for name in METHODS[request.method].dials}}


def _tried(shop: Workshop, label: str, draw: Callable[[], _Drawn]) -> _Drawn | str:
    """Return what `draw` does, or why it failed: one picture's fault is its own, and the others go on."""
    try:
        return draw()
    except Cancelled:
        raise
    except Exception as error:
        problem = sentence(error)
        shop.say(f"{label} failed: {problem}")
        return problem


def _image(native: hires.Native | Image.Image) -> Image.Image:
    return native.image if isinstance(native, hires.Native) else native


def _attention(watch: Watch, file: str, results: Results) -> Attention | None:
    maps = watch.maps()
    if maps is None:
        return None
    sheet, peaks = atlas(maps)
    native, target = ((each.shape[1], each.shape[2]) for each in (maps.native, maps.target))
    return Attention(
        file=write_new(results.folder, file, _png(sheet)),
        site=maps.site,
        step=maps.step,
        rho=round(maps.rho, 4),
        queries=QUERIES,
        native=native,
        target=target,
        peaks=tuple(peaks),
    )


def _png(image: Image.Image, infotext: str | None = None) -> bytes:
    return pictures.encode(image, "PNG", infotext=infotext).data


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]
