"""One picture's way: read and decode, render (with the degrade chain), encode, write. Used by every executor."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from fam_ext.errors import (
    FamError,
    LoadError,
    OutOfMemoryError,
    OutputError,
    PictureError,
    Skipped,
    UnsupportedSamplerError,
    UnsupportedScheduleError,
)
from fam_ext.escapes import sentence
from fam_ext.jobs.contract import Progress, Ran, Rendered, Renderer
from fam_ext.jobs.journal import Journal
from fam_ext.jobs.journal.disk import check_inside, output_sentence, stops_the_job, sync_folder
from fam_ext.jobs.journal.enter import EXISTS, IS_SOURCE
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.ran_text import fields
from fam_ext.jobs.size import enlarged_note, enlarged_size
from fam_ext.jobs.walk import check_allowed
from fam_ext.metadata import pictures
from fam_ext.metadata.infotext import Infotext, add, format_infotext, format_value, parse, request_value, settings_of
from fam_ext.methods.catalog import reads
from fam_ext.options.job import Job
from fam_ext.options.request import HiresRequest
from fam_ext.options.table import REQUEST_FIELDS
from fam_ext.placing import drop, replace
from fam_ext.samplers.names import asked_cfg

FIRST_TILE = 512
SECOND_TILE = 256
FALLBACK_SAMPLER = "DPM++ 2M"
TOO_LARGE = "the picture is too large for this machine's memory; lower --max-input-megapixels or make it smaller"


@dataclass(frozen=True)
class Loaded:
    """A picture in memory, with the hash of the bytes it came from."""

    picture: pictures.Picture
    content_hash: str


@dataclass(frozen=True)
class Drawn:
    """What the renderer made and said, with the request that ran in the end and the whole record."""

    rendered: Rendered
    request: HiresRequest
    ran: Ran
    """What the renderer said, what it left to the request, and each step down that was taken before."""


@dataclass(frozen=True)
class Packed:
    """A finished file's bytes, ready for its place."""

    data: bytes
    content_hash: str
    notes: tuple[str, ...]
    ran: Ran

    @property
    def seconds(self) -> float:
        """Time from the decoded picture to the finished one."""
        return self.ran.seconds


def load(item: Item, options: Job) -> Loaded:
    """Return the decoded picture. Errors as `load_bytes`."""
    try:
        check_allowed(item.source, options.places)  # once more: it may have become a link since the plan
        return load_bytes(pictures.read_file(item.source), item, options)
    except MemoryError:
        raise PictureError(TOO_LARGE) from None


def load_bytes(data: bytes, item: Item, options: Job) -> Loaded:
    """Return the picture decoded from its file's bytes. Raises `PictureError`, one sentence; `Skipped` where its
    output has come to exist since the plan, and would be drawn in vain."""
    if not options.output.overwrite and os.path.lexists(Path(options.places.output, item.output)):
        raise Skipped(EXISTS)
    picture = pictures.decode(data, max_pixels=options.places.max_input_pixels, first_frame=options.places.first_frame)
    if item.native != (0, 0) and picture.header.size != item.native:
        raise PictureError("the file changed after it was planned; run the command again")
    return Loaded(picture, hashlib.sha256(data).hexdigest())


def draw(renderer: Renderer, loaded: Loaded, item: Item, progress: Progress) -> Drawn:
    """Return the rendered picture. Out of memory goes one step down the degrade chain and tries again: smaller VAE
    tiles, low memory, Frequency Modulation only; of these, what the renderer can give up. A sampler that only the
    picture's metadata asked for is replaced.

    Raises what the renderer raises when there is no step left.
    """
    if item.request is None:
        raise PictureError("the plan has no settings for this file; run the command again")
    request = item.request
    native, notes = enlarged(loaded.picture.image)
    given_up: list[str] = []
    began = time.perf_counter()
    while True:
        try:
            rendered = renderer.render(native, request, progress)
            break
        except OutOfMemoryError:
            step = degrade(request, getattr(renderer, "can_give_up", ()))
            if step is None:
                raise
            request, note = step
            notes.append(note)
            given_up.append(note)
        except UnsupportedScheduleError:
            if "schedule" not in item.taken or request.schedule == "Automatic":
                raise
            notes.append(f"schedule {request.schedule} is not offered, Automatic was used")
            request = dataclasses.replace(request, schedule="Automatic")
        except UnsupportedSamplerError:
            if "sampler" not in item.taken or request.sampler == FALLBACK_SAMPLER:
                raise
            notes.append(f"sampler {request.sampler} is not offered, {FALLBACK_SAMPLER} was used")
            request = dataclasses.replace(request, sampler=FALLBACK_SAMPLER)
    height, width = request.size
    if rendered.image.size != (width, height):
        raise PictureError(f"the renderer returned {rendered.image.size}, not {width} x {height} px; report this")
    ran = dataclasses.replace(
        whole(rendered.ran, request),
        given_up=(*given_up, *rendered.ran.given_up),
        notes=(*notes, *rendered.ran.notes),
        seconds=time.perf_counter() - began,
    )
    return Drawn(rendered, request, ran)


def whole(ran: Ran, request: HiresRequest) -> Ran:
    """Return a record with what its renderer left to the request."""
    names = ("method", "steps", "sampler", "schedule", "cfg_scale", "seed", "size")
    return dataclasses.replace(ran, **{name: getattr(request, name) for name in names if getattr(ran, name) is None})


def enlarged(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return a picture of the least size that a latent needs, and a note where it was smaller."""
    native = (image.height, image.width)
    height, width = enlarged_size(native)
    if (height, width) == native:
        return image, []
    return image.resize((width, height), Image.Resampling.LANCZOS), [enlarged_note(native)]


def ready(build: Callable[[], Renderer]) -> Renderer:
    """Return a renderer whose model is loaded, where it has a `load`. Raises `LoadError`: no picture can be made."""
    try:
        renderer = build()
        getattr(renderer, "load", lambda: None)()
    except FamError as error:
        raise LoadError(sentence(error)) from error
    except Exception as error:
        raise LoadError(f"the renderer cannot be loaded ({sentence(error)}); check the model and the device") from error
    return renderer


def degrade(request: HiresRequest, can: Collection[str]) -> tuple[HiresRequest, str] | None:
    """Return the request one step down the chain with a sentence of what changed, or None at the end.

    `can` is what the renderer can give up: "tile", "low_memory", "am". A step that would change nothing is left out.
    """
    smaller = _tile(request, FIRST_TILE) if "tile" in can else None
    if smaller is not None:
        return dataclasses.replace(request, tile=smaller), f"out of memory: VAE tiles of {smaller} px"
    if "low_memory" in can and not request.low_memory:
        smaller = _tile(request, SECOND_TILE) if "tile" in can else None
        steers = reads(request.method, "am") and request.config.am
        done = [f"VAE tiles of {smaller} px"] if smaller is not None else []
        done += ["guidance in halves"] if request.cfg_scale != 1 else []
        done += ["native queries and keys in main memory"] if steers else []
        if done:
            tile = request.tile if smaller is None else smaller
            return dataclasses.replace(request, tile=tile, low_memory=True), f"out of memory: {', '.join(done)}"
    if "am" in can and reads(request.method, "am") and request.config.am:
        return dataclasses.replace(request, config=request.config.replace(am=False)), "out of memory: FM only"
    return None


def _tile(request: HiresRequest, tile: int) -> int | None:
    """Return `tile` where it is smaller than the request's own and than the picture, else None."""
    return tile if max(request.size) > tile and (not request.tile or request.tile > tile) else None


def pack(loaded: Loaded, drawn: Drawn, item: Item, options: Job) -> Packed:
    """Return the finished file's bytes, metadata included. Equal inputs give equal bytes. Raises `PictureError`."""
    header = loaded.picture.header
    text = None if options.output.strip_metadata else describe(header, drawn, item)
    encoded = pictures.encode(
        drawn.rendered.image,
        item.format,
        origin=header,
        alpha=loaded.picture.alpha,
        infotext=text,
        strip=options.output.strip_metadata,
        quality=options.output.quality,
    )
    return Packed(
        encoded.data,
        loaded.content_hash,
        tuple(dict.fromkeys((*item.notes, *loaded.picture.notes, *drawn.ran.notes, *encoded.notes))),
        drawn.ran,
    )


def describe(header: pictures.Header, drawn: Drawn, item: Item) -> str:
    """Return the output's infotext: the picture's own, word for word, then what ran."""
    ran = dataclasses.replace(drawn.rendered.ran, notes=drawn.ran.notes)
    return infotext_of(drawn.request, ran, base=header.own_text or item.base_text)


def infotext_of(request: HiresRequest, ran: Ran, *, base: str | None = None) -> str:
    """Return the infotext of a picture made by `request`: the earlier text `base`, word for word, then what ran, where
    that does not say it already. Without a settings line in `base` what ran is that line."""
    own = parse(base) if base else Infotext()
    told = fields(ran)
    for spec in REQUEST_FIELDS:
        value: Any = getattr(request, spec.name)
        if spec.name in ("prompt", "negative_prompt"):
            before: Any = own.prompt if spec.name == "prompt" else own.negative_prompt
            if base and value != before:
                told[spec.key] = str(value)
        elif spec.name == "size":
            told[spec.key] = format_value(spec, value)
        elif spec.name == "clip_skip" and spec.key not in told:
            continue  # it did not act
        elif spec.name == "vae":
            if (own.params.get("VAE") or "None") == told.get(spec.key):
                del told[spec.key]  # the picture's own text says it already, or that there was none
        elif spec.host_key is not None and spec.name != "model":
            if spec.name in ("sampler", "schedule") and spec.key in told:
                value = told[spec.key]  # as resolved: "Automatic" is what was asked, not what ran
            before = request_value({spec.host_key: own.params.get(spec.host_key, "")}, spec.name)
            if spec.name == "cfg_scale" and before is not None:  # as the next run reads it
                before = asked_cfg(own.params.get("Sampler", ""), before)
            if value is None or before == value:
                told.pop(spec.key, None)  # the picture's own text says it already
            else:
                told.setdefault(spec.key, format_value(spec, value))
        elif spec.name in ("tile", "low_memory") and value:
            told.setdefault(spec.key, format_value(spec, value))
    if ran.notes:
        told["FAM notes"] = "; ".join(ran.notes)
    heading = format_infotext(Infotext(request.prompt, request.negative_prompt))
    resolved = whole(ran, request)
    settings = settings_of(dataclasses.replace(request, sampler=resolved.sampler, schedule=resolved.schedule))
    return add(base, told, settings=settings, heading=heading)


def write(journal: Journal, item: Item, packed: Packed, options: Job) -> None:
    """Put the file in its place and journal it: temporary file, fsync, journal `saving`, rename, journal `done`.

    A process killed between any two of these resumes with nothing lost and nothing done twice. Raises `OutputError`
    when no further picture can be written either, `PictureError` when only this one cannot,
    `Skipped` when its output has come to exist.
    """
    target = journal.output / item.output
    temporary = journal.temporary_path(item.id)
    output_hash = hashlib.sha256(packed.data).hexdigest()
    journal.check_there()
    try:
        if target.parent not in journal.places:
            check_inside(journal.output, target)
            target.parent.mkdir(parents=True, exist_ok=True)
            journal.temporary.mkdir(exist_ok=True)
            journal.places.add(target.parent)
        if not options.output.overwrite and os.path.lexists(target) and _differs(target, packed.data):
            raise Skipped(EXISTS)
        if options.output.overwrite and journal.is_source(target):
            raise PictureError(IS_SOURCE)
        _write_synced(temporary, packed.data)
        notes = (*packed.notes, *(_keep_times(item.source, temporary) if options.output.keep_times else ()))
        journal.saving(
            item,
            output_hash=output_hash,
            size=len(packed.data),
            content_hash=packed.content_hash,
            notes=notes,
            ran=packed.ran,
        )
        replace(temporary, target)
    except OSError as error:
        drop(temporary)
        journal.check_there()
        if stops_the_job(error, journal.output, temporary):
            raise OutputError(output_sentence(journal.output, error)) from None
        reason = error.strerror or type(error).__name__
        forbidden = isinstance(error, PermissionError)
        what = "close what has it open, or change its folder's permissions" if forbidden else "check the disk"
        raise PictureError(f"the output cannot be written ({reason}); {what}") from None
    except FamError:
        drop(temporary)
        raise
    sync_folder(target.parent)
    journal.done(item)


def _keep_times(source: str, path: Path) -> tuple[str, ...]:
    """Give a file its source's times; where that cannot be, return a note: the picture counts, not its time."""
    try:
        status = os.stat(source)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    except OSError as error:
        return (f"the times were not kept ({error.strerror or type(error).__name__})",)
    return ()


def _write_synced(path: Path, data: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)  # a process that shared the work has tidied up
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _differs(path: Path, data: bytes) -> bool:
    try:
        return path.is_symlink() or path.stat().st_size != len(data) or path.read_bytes() != data
    except OSError:
        return True
