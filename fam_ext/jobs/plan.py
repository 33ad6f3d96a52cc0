"""The plan: which files, with which settings, at which size, to which name. Reads headers only; no pixel, no torch."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from fam_ext.errors import FamError, PictureError, UsageError
from fam_ext.escapes import one_line, shown
from fam_ext.jobs.names import output_name
from fam_ext.jobs.settings import check_names, idle, offered, request_for, undrawn_embeddings, untaken
from fam_ext.jobs.size import MIN_SIDE, check_native, check_target, enlarged_note, is_capped, target_size
from fam_ext.jobs.walk import Candidate, check_places
from fam_ext.metadata import exif, pictures, programs
from fam_ext.metadata.files import open_regular
from fam_ext.metadata.infotext import Infotext
from fam_ext.methods.capabilities import STANDALONE as STANDALONE_GIVES
from fam_ext.methods.catalog import FAM, entry_for, reads
from fam_ext.options.job import Job
from fam_ext.options.renderer import STANDALONE, WEBUI
from fam_ext.options.request import HiresRequest
from fam_ext.weights import weights_mark

log = logging.getLogger(__name__)

_MAX_SIDECAR = 1 << 20


@dataclass(frozen=True)
class Planned:
    """What is to be done with one file: a request, or a problem, or a reason to leave it."""

    candidate: Candidate
    native: tuple[int, int] = (0, 0)
    request: HiresRequest | None = None
    format: str = ""
    output: str = ""
    """Wanted name below the output folder, with /; the journal makes it unique."""
    taken: tuple[str, ...] = ()
    """Settings that came from the picture itself."""
    program: str | None = None
    """Which program wrote its metadata, as far as the metadata tells."""
    notes: tuple[str, ...] = ()
    """What was not understood, and what runs instead of what was asked for."""
    origin: str | None = None
    """Where its metadata was found: parameters, exif, comfyui, sidecar; None = nowhere."""
    base_text: str | None = None
    """The sidecar's text, which becomes part of the output's metadata."""
    problem: str | None = None
    skip: str | None = None

    def settings_hash(self, options: Job) -> str:
        """Return the hash of everything but the source that the output's bytes depend on."""
        parts = (
            self.request_text or "",
            self.format,
            options.output.identity,
            options.renderer.identity,
            self.base_text or "",
        )
        return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]

    def weights(self, options: Job, marks: tuple[str, ...]) -> str | None:
        """Return the `weights_of` its job that draw it, as the journal holds them; None where they are not known."""
        if options.renderer.name == WEBUI and self.request is not None:
            named = (self.request.model, self.request.vae)  # these are in the request already
            marks = tuple("" if name else mark for mark, name in zip(marks, named, strict=False))
        return json.dumps(marks) if any(marks) else None

    @functools.cached_property
    def request_text(self) -> str | None:
        """The request as JSON, as the journal holds it."""
        return None if self.request is None else self.request.to_text()


def plan_file(candidate: Candidate, options: Job, *, index: int = 0) -> Planned:
    """Return what is to be done with one file; a fault of the file is a `problem`, never an exception."""
    if candidate.problem is not None:
        return Planned(candidate, problem=candidate.problem)
    try:
        return _plan_file(candidate, options, index)
    except FamError as error:
        return Planned(candidate, problem=one_line(str(error)))
    except (Exception, RecursionError) as error:
        # whatever a stranger's file holds: it is that file's row, and the rest goes on
        log.debug("planning %s failed", candidate.key, exc_info=True)
        return Planned(
            candidate, problem=f"its metadata cannot be used ({one_line(f'{type(error).__name__}: {error}')})"
        )


def check_job(options: Job) -> None:
    """Raise a `FamError` where no picture of the job could be made: `UsageError` for its places or a format that cannot
    be written, as `check_names` for what the standalone renderer has not."""
    check_places(options.places)
    if options.renderer.name == STANDALONE:
        check_names(options.picture)
    config = options.picture.config
    if config.am_source == "recorded" and config.am and reads(options.picture.fixed.get("method", FAM), "am"):
        raise UsageError("am_source is 'recorded', and no run of ours made these pictures; choose auto or replay")
    missing = pictures.can_write(options.output.format) if options.output.format is not None else None
    if missing is not None:
        raise UsageError(missing)


def weights_of(options: Job) -> tuple[str, ...]:
    """Return a mark of each file that draws the job, by its content: another may have come under its name."""
    if options.renderer.name != STANDALONE:
        return options.loaded
    return tuple(weights_mark(Path(file)) for _, file in options.renderer.files)


def _plan_file(candidate: Candidate, options: Job, index: int) -> Planned:
    places = options.places
    header = pictures.read_header(candidate.path, max_pixels=places.max_input_pixels, first_frame=places.first_frame)
    native = header.size
    found, origin = header.settings()
    reading = header.reading
    program, notes = (reading.program, reading.notes) if reading is not None else (None, ())
    base_text: str | None = None
    if candidate.sidecar is not None and (found is None or not found.prompt):
        beside = _read_sidecar(candidate.sidecar)
        read = programs.read_text(beside) if beside else None
        if found is None and read is not None:
            found, origin, base_text, notes = read.as_infotext(), "sidecar", beside, read.notes
            program = read.program if read.params else None  # bare words are nobody's
        elif found is not None and read is not None and read.prompt:
            # settings without a prompt: the words come from beside
            negative = read.negative or found.negative_prompt
            found = dataclasses.replace(found, prompt=read.prompt, negative_prompt=negative)
            notes = (*notes, "the prompt is the .txt file's")
    target, skip = target_size(native, options.size)
    check_native(native, target)
    request, taken = request_for(found or Infotext(), target, options.picture)
    notes = (*notes, *untaken(found or Infotext(), request, options.picture), *idle(request))
    if options.renderer.name == STANDALONE:
        if skip is None:
            check_target(native, target)
        entry_for(request.method, STANDALONE_GIVES, where="the standalone host")
        request, changed = offered(request)
        notes = (*notes, *changed, *undrawn_embeddings(found or Infotext(), request))
    notes = tuple(map(shown, notes))
    if skip is None and min(native) < MIN_SIDE:
        notes = (*notes, enlarged_note(native))
    if skip is None and is_capped(native, options.size):
        notes = (*notes, f"the target is capped at {options.size.max_megapixels:g} MP (--max-megapixels)")
    picture_format = options.output.format or pictures.format_of(candidate.path) or header.format
    if picture_format in pictures.PLUGINS:
        picture_format = "PNG"  # read only
    longest = pictures.MAX_SIDE.get(picture_format)
    if longest is not None and max(target) > longest:
        raise PictureError(
            f"{target[1]} x {target[0]} px is more than {picture_format} holds ({longest} px a side); "
            "choose --format png"
        )
    missing = pictures.can_write(picture_format)
    if missing is not None:
        raise PictureError(missing)
    output = output_name(candidate.key, request, native, picture_format, options.output.name, index)
    return Planned(
        candidate,
        native,
        request,
        picture_format,
        output,
        taken,
        program=program,
        notes=notes,
        origin=origin,
        base_text=base_text or None,
        skip=skip,
    )


def _read_sidecar(path: Path) -> str:
    try:
        with open_regular(path) as file:
            raw = file.read(_MAX_SIDECAR)
    except (OSError, PictureError):
        return ""
    return exif.decode_plain(raw).replace("\x00", "").strip()
