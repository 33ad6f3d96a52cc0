"""The plan: which files, with which settings, at which size, to which name. Reads headers only; no pixel, no torch."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
import stat
import string
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, FamError, PictureError, UsageError
from fam_ext.jobs.walk import Candidate, shown
from fam_ext.metadata import pictures, programs
from fam_ext.metadata.infotext import Infotext, from_fields, is_fam, request_value
from fam_ext.methods.catalog import METHODS
from fam_ext.options.field import MAX_SIDE
from fam_ext.options.presets import Preset
from fam_ext.options.request import HiresRequest, check_value
from fam_ext.options.table import BY_NAME
from fam_ext.samplers import names

log = logging.getLogger(__name__)

RULES = ("take", "override", "prefix", "suffix", "replace")
RULED = (
    "prompt",
    "negative_prompt",
    "seed",
    "steps",
    "sampler",
    "schedule",
    "cfg_scale",
    "model",
    "vae",
    "clip_skip",
    "config",
)
NAME_FIELDS = ("stem", "format", "width", "height", "scale", "seed", "index", "steps", "method")
MIN_SIDE = 16
MIN_ENLARGED = 64
DEFAULT_MAX_MEGAPIXELS = 64.0
"""Cap of a target's area, MP, where nothing else is asked for."""
MAX_ASPECT = 16.0
_MULTIPLE = 8
_MAX_NAME_BYTES = 240
_MAX_SIDECAR = 1 << 20
_PLAIN = re.compile(r"(?!(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$))[\w \-()\[\],;+=@%~]{1,100}")
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)")


@dataclass(frozen=True)
class Rule:
    """How one setting is resolved: `take` the picture's own, else `value`; `override` it; `prefix`, `suffix` or
    `replace` ("old=>new") the picture's own text."""

    kind: str = "take"
    value: Any = None

    def __post_init__(self) -> None:
        if self.kind not in RULES:
            raise ConfigError(f"rule is {self.kind!r}; choose {', '.join(RULES)}")
        if self.kind == "replace" and "=>" not in str(self.value):
            raise ConfigError(f"replace is {self.value!r}; write old=>new")


@dataclass(frozen=True)
class PlanOptions:
    """Everything the outputs of a job depend on. Two runs with equal options make equal pictures."""

    inputs: tuple[str, ...]
    output: str
    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    scale: float = 2.0
    size: tuple[int, int] | None = None
    """Target box (height, width) in px; then `scale` is not used."""
    fit: str = "inside"
    """"inside" keeps each picture's aspect within `size`; "exact" takes `size` as it is."""
    max_side: int | None = None
    max_megapixels: float | None = DEFAULT_MAX_MEGAPIXELS
    """Cap of the target's area, MP; None = no cap. A `size` taken exactly is not capped."""
    config: FamConfig = field(default_factory=FamConfig)
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Values for pictures that bring none of their own: steps, sampler, schedule, cfg_scale."""
    rules: Mapping[str, Rule] = field(default_factory=dict[str, Rule])
    method: str = "fam"
    tile: int | None = None
    low_memory: bool = False
    format: str | None = None
    """One of metadata.pictures.FORMATS; None follows the input."""
    quality: int | None = None
    strip_metadata: bool = False
    keep_times: bool = False
    name: str = "{stem}"
    overwrite: bool = False
    first: int | None = None
    allowed: tuple[str, ...] = ()
    """Folders, links resolved, that alone may be read; () = all. For doors that strangers reach."""
    max_input_pixels: int = pictures.DEFAULT_MAX_PIXELS
    first_frame: bool = False
    """Take the first frame of an animated file, which is refused otherwise."""
    renderer: str = ""
    """What else the pixels depend on: the renderer's model and its LoRAs, as one text."""
    standalone: bool = False
    """The renderer is the standalone one: names that it lacks are replaced in the plan, with a note."""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UsageError("no input was given; name at least one picture or folder")
        _check("scale", self.scale, 1.0, 16.0)
        if self.size is not None:
            for side in self.size:
                _check("size", side, 64, MAX_SIDE)
        if self.fit not in ("inside", "exact"):
            raise ConfigError(f"fit is {self.fit!r}; choose inside or exact")
        if self.max_side is not None:
            _check("max_side", self.max_side, 64, MAX_SIDE)
        if self.max_megapixels is not None:
            _check("max_megapixels", self.max_megapixels, 0.01, 1024.0)
        if self.quality is not None:
            _check("quality", self.quality, 1, 100)
        if self.first is not None:
            _check("first", self.first, 1, 1 << 40)
        if self.method not in METHODS:
            raise ConfigError(f"method is {self.method!r}; choose {', '.join(METHODS)}")
        for name, rule in self.rules.items():
            if name not in RULED:
                raise ConfigError(f"rule for {name!r} is unknown; choose from {', '.join(RULED)}")
            if rule.kind in ("prefix", "suffix", "replace") and name not in ("prompt", "negative_prompt"):
                raise ConfigError(f"rule {rule.kind} does not fit {name}; it is for prompt and negative_prompt")
        for name, value in self.settings.items():
            if name in RULED and name != "config":
                check_value(name, value)
        for name, rule in self.rules.items():
            if name != "config" and rule.kind in ("take", "override") and rule.value is not None:
                check_value(name, rule.value)
        check_name_pattern(self.name)
        if self.format is not None:
            missing = pictures.can_write(self.format)
            if missing is not None:
                raise UsageError(missing)

    @functools.cached_property
    def every_rule(self) -> Mapping[str, Rule]:
        """The rule of every field: the user's, else the picture's own setting before the job's default."""
        defaults = {name: Rule("take", self.settings.get(name)) for name in RULED}
        # a checkpoint's name means nothing to another renderer: taken only when asked for
        defaults |= {"model": Rule("override", None), "vae": Rule("override", None)}
        return {**defaults, **self.rules}

    @property
    def fingerprint(self) -> str:
        """Hash of what decides settings, sizes and names; the places, `first` and `overwrite` are left out."""
        values = self.to_json()
        for name in ("inputs", "output", "recursive", "include", "exclude", "first", "overwrite", "allowed"):
            values.pop(name)
        if not self.first_frame:
            values.pop("first_frame")  # as older journals have it
        return digest(values)

    def to_json(self) -> dict[str, Any]:
        """Return the options as plain JSON values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["config"] = self.config.to_dict()
        values["settings"] = dict(self.settings)
        values["rules"] = {name: [rule.kind, rule.value] for name, rule in self.rules.items()}
        return cast("dict[str, Any]", json.loads(json.dumps(values)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PlanOptions:
        """Return the options that `to_json` gave. Raises `ConfigError` for what this version cannot read."""
        try:
            return cls._from_json(values)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            log.debug("a job's options cannot be read", exc_info=True)
            raise ConfigError(
                f"the job's options cannot be read ({one_line(str(error))[:120]}); run the job's own command again"
            ) from None

    @classmethod
    def _from_json(cls, values: Mapping[str, Any]) -> PlanOptions:
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        known["config"] = FamConfig.from_dict(known.get("config", {}))
        known["rules"] = {name: Rule(kind, value) for name, (kind, value) in known.get("rules", {}).items()}
        for name in ("inputs", "include", "exclude", "size", "allowed"):
            if known.get(name) is not None:
                known[name] = tuple(known[name])
        for name, value in known.items():
            kind = _KINDS.get(name)
            if kind is not None and not isinstance(value, kind):
                raise TypeError(f"{name} is {value!r}")
            if name in ("inputs", "include", "exclude", "allowed") and not all(isinstance(part, str) for part in value):
                raise TypeError(f"{name} is {value!r}")
        return cls(**known)


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("output", "fit", "method", "name", "renderer"), str),
    **dict.fromkeys(("recursive", "low_memory", "strip_metadata", "keep_times", "overwrite"), bool),
    **dict.fromkeys(("tile", "first", "quality"), (int, type(None))),
    "max_input_pixels": int,
    "format": (str, type(None)),
    "settings": dict,
}
"""What a stored job's fields must be; the rest is checked where it is built."""


def with_preset(preset: Preset, rules: Mapping[str, Rule]) -> tuple[dict[str, Any], dict[str, Rule]]:
    """Return the defaults and rules of a job with `preset`: an overriding preset (the paper's) beats the pictures'
    own sampler settings, though not what the user asked for."""
    defaults = {name: value for name, value in preset.settings.items() if name != "method"}
    resolved = dict(rules)
    if preset.overrides:
        for name, value in defaults.items():
            resolved.setdefault(name, Rule("override", value))
    return defaults, resolved


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

    def settings_hash(self, options: PlanOptions) -> str:
        """Return the hash of everything but the source that the output's bytes depend on."""
        parts = (
            self.request_text or "",
            self.format,
            f"{options.quality} {options.strip_metadata}",
            options.renderer,
            self.base_text or "",
        )
        return hashlib.sha256("\x00".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]

    @functools.cached_property
    def request_text(self) -> str | None:
        """The request as JSON, as the journal holds it."""
        return None if self.request is None else self.request.to_text()


# --- one file -----------------------------------------------------------------------------------------------------


def plan_file(candidate: Candidate, options: PlanOptions, *, index: int = 0) -> Planned:
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


def one_line(text: str) -> str:
    """Return a sentence that any terminal and database takes: one line, escapes for what is not printed, bounded."""
    return shown(" ".join(text.split()))[:290]


def _plan_file(candidate: Candidate, options: PlanOptions, index: int) -> Planned:
    header = pictures.read_header(candidate.path, max_pixels=options.max_input_pixels, first_frame=options.first_frame)
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
        elif found is not None and read is not None and read.prompt:
            # settings without a prompt: the words come from beside
            found = dataclasses.replace(found, prompt=read.prompt, negative_prompt=read.negative or "")
            notes = (*notes, "the prompt is the .txt file's")
    target, skip = target_size(native, options)
    check_native(native, target)
    request, taken = resolve(found or Infotext(), target, options)
    request, changed = offered(request, taken, options)
    notes = tuple(shown(note) for note in (*notes, *_bounds(found or Infotext(), request, taken), *changed))
    if skip is None and is_capped(native, options):
        notes = (*notes, f"the target is capped at {options.max_megapixels:g} MP (--max-megapixels)")
    picture_format = options.format or pictures.format_of(candidate.path) or header.format
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
    output = output_name(candidate.key, request, native, picture_format, options, index)
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


def check_native(size: tuple[int, int], target: tuple[int, int] | None = None) -> None:
    """Raise `PictureError` for a picture too small or too narrow for a latent. One that is too small is enlarged to
    MIN_SIDE first where the target has MIN_ENLARGED a side."""
    height, width = size
    if min(size) < MIN_SIDE and (target is None or min(target) < MIN_ENLARGED):
        raise PictureError(
            f"{width} x {height} px is too small; at least {MIN_SIDE} px a side are needed, or a target of at least "
            f"{MIN_ENLARGED} px a side"
        )
    if max(size) > MAX_ASPECT * min(size):
        raise PictureError(
            f"{width} x {height} px is too narrow; crop it to at most {MAX_ASPECT:g} times as long as wide"
        )


def target_size(native: tuple[int, int], options: PlanOptions) -> tuple[tuple[int, int], str | None]:
    """Return the target (height, width), multiples of 8 with the aspect kept, and a reason to skip the picture."""
    height, width = native
    if options.size is not None and options.fit == "exact":
        target = (_round(options.size[0]), _round(options.size[1]))
    else:
        factor = options.scale
        if options.size is not None:
            factor = min(options.size[0] / height, options.size[1] / width)
        capped = factor
        if options.max_side is not None:
            capped = min(capped, options.max_side / max(native))
        if options.max_megapixels is not None:
            capped = min(capped, _largest_factor(native, options.max_megapixels))
        rounding = _floor if capped < factor or options.size is not None else _round
        target = (rounding(height * capped), rounding(width * capped))
    if target[0] * target[1] <= height * width and options.fit != "exact":
        if is_capped(native, options):
            return target, f"{width} x {height} px is as large as --max-megapixels {options.max_megapixels:g} allows"
        return target, f"{width} x {height} px is as large as the size asked for; nothing to do"
    if max(target) > MAX_SIDE:
        raise PictureError(f"the target {target[1]} x {target[0]} px is too large; lower --scale or set --max-side")
    return target, None


def is_capped(native: tuple[int, int], options: PlanOptions) -> bool:
    """Return whether `max_megapixels` makes a picture's target smaller than what was asked for."""
    if options.max_megapixels is None or (options.size is not None and options.fit == "exact"):
        return False
    factor = options.scale
    if options.size is not None:
        factor = min(options.size[0] / native[0], options.size[1] / native[1])
    if options.max_side is not None:
        factor = min(factor, options.max_side / max(native))
    return factor > _largest_factor(native, options.max_megapixels)


def _largest_factor(native: tuple[int, int], megapixels: float) -> float:
    return (megapixels * 1e6 / (native[0] * native[1])) ** 0.5


def _round(side: float) -> int:
    return max(_MULTIPLE, int(side / _MULTIPLE + 0.5) * _MULTIPLE)


def _floor(side: float) -> int:
    return max(_MULTIPLE, int(side / _MULTIPLE + 1e-9) * _MULTIPLE)


def resolve(found: Infotext, target: tuple[int, int], options: PlanOptions) -> tuple[HiresRequest, tuple[str, ...]]:
    """Return the request for one picture, and the names of the settings that the picture itself brought."""
    taken: list[str] = []
    values: dict[str, Any] = {}
    for name, rule in options.every_rule.items():
        if name == "config":
            continue
        own = _own(found, name)
        value = _apply(rule, own)
        if own is not None and rule.kind != "override":
            taken.append(name)
        if value is not None:
            values[name] = value
    config = options.config
    if "config" in options.rules and options.rules["config"].kind == "take" and is_fam(found.params):
        config = from_fields(found.params)
        taken.append("config")
    sampler, schedule = values.get("sampler"), values.get("schedule")
    if isinstance(sampler, str):
        # "DPM++ 2M Karras", as the WebUI named them before 1.9, and every other program's spelling
        usual, inner = names.usual(sampler, None)
        values["sampler"] = usual
        if inner is not None and "sampler" in taken and "schedule" not in taken:
            schedule = inner
    if isinstance(schedule, str):
        values["schedule"] = names.schedule(schedule) or schedule
    request = HiresRequest(
        size=target,
        config=config,
        method=options.method,
        tile=options.tile,
        low_memory=options.low_memory,
        **values,
    )
    return request, tuple(taken)


def offered(
    request: HiresRequest, taken: tuple[str, ...], options: PlanOptions
) -> tuple[HiresRequest, tuple[str, ...]]:
    """Return the request as it will run, and a note for each name that the renderer doesn't offer and each number out
    of its range. What the user asked for stays."""
    if not options.standalone:
        return request, ()
    notes: list[str] = []
    sampler, schedule, changed = names.choose(request.sampler, request.schedule)
    if "sampler" in taken:
        request = dataclasses.replace(request, sampler=sampler, schedule=schedule)
        notes += changed
    elif "schedule" in taken and request.sampler in names.OFFERED:
        request = dataclasses.replace(request, schedule=schedule)
        notes += changed
    most = names.most_steps(request.sampler)
    if "steps" in taken and request.steps > most:
        notes.append(f"{request.sampler} takes at most {most} steps, {most} are used, not {request.steps}")
        request = dataclasses.replace(request, steps=most)
    return request, tuple(notes)


def _bounds(found: Infotext, request: HiresRequest, taken: tuple[str, ...]) -> list[str]:
    """Return a note for each number of the picture that had to be brought into range."""
    notes: list[str] = []
    for name in ("steps", "cfg_scale"):
        asked = request_value(found.params, name)
        if name in taken and asked is not None and asked != getattr(request, name):
            notes.append(f"{BY_NAME[name].host_key} {asked:g} is out of range, {getattr(request, name):g} is used")
    return notes


def _own(found: Infotext, name: str) -> Any:  # noqa: ANN401  # fields differ in type
    if name in ("prompt", "negative_prompt"):
        ours = request_value(found.params, name)
        if ours is not None:
            return ours
        text = found.prompt if name == "prompt" else found.negative_prompt
        # a picture with settings has said that its negative prompt is empty; an empty prompt says nothing
        return text if text or (found.params and name != "prompt") else None
    value = request_value(found.params, name)
    if value is None:
        return None
    if name == "seed":
        return value if 0 <= value < 2**64 else None
    spec = BY_NAME[name]
    if spec.kind in ("int", "float"):
        low, high = spec.low, spec.high
        if not -1e9 < value < 1e9:
            return None  # inf, nan, or no number that anybody chose
        if name == "cfg_scale" and value < 1:
            return 1.0  # as distilled models are told that there is no guidance
        if name == "steps" and high is not None and value > high:
            return int(high)
        if not (low is None or value >= low) or not (high is None or value <= high):
            return None
    return value


def _apply(rule: Rule, own: Any) -> Any:  # noqa: ANN401  # fields differ in type
    if rule.kind == "override":
        return rule.value
    if rule.kind == "take":
        return rule.value if own is None else own
    text = str(own or "")
    extra = str(rule.value)
    if rule.kind == "replace":
        old, _, new = extra.partition("=>")
        return text.replace(old, new)
    first, second = (extra, text) if rule.kind == "prefix" else (text, extra)
    if not first or not second:
        return first or second
    return first + second if first[-1:].isspace() or second[:1] in ", " else f"{first.rstrip(',')}, {second}"


def _read_sidecar(path: Path) -> str:
    try:
        # never waits: a FIFO that has taken the file's place since the walk would
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            raw = file.read(_MAX_SIDECAR)
    except OSError:
        return ""
    return raw.decode("utf-8-sig", "replace").replace("\x00", "").strip()


# --- names --------------------------------------------------------------------------------------------------------


def check_name_pattern(pattern: str) -> None:
    """Raise `ConfigError` for a pattern with unknown fields, attribute access or a very wide format."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError:
        raise ConfigError(f"name pattern is {pattern!r}; close every {{ and double those that stay") from None
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in NAME_FIELDS or conversion is not None:
            raise ConfigError(f"name pattern has {{{name}}}; choose from {', '.join(NAME_FIELDS)}")
        if not re.fullmatch(r"(0?[0-9]{1,2}d?|\.[0-9]g)?", spec or ""):
            raise ConfigError(f"name pattern has the format {spec!r}; choose one like 04d")
    if not pattern.strip(" ./\\"):
        raise ConfigError("name pattern is empty; choose one like {stem}")


def output_name(
    key: str,
    request: HiresRequest,
    native: tuple[int, int],
    picture_format: str,
    options: PlanOptions,
    index: int,
) -> str:
    """Return the output's place below the output folder: the mirrored folder and the pattern's name, made safe."""
    folder, _, name = key.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    mild = options.name == "{stem}"
    made = stem if mild else _fill(options.name, stem, request, native, picture_format, index)
    ending = "." + suffix if pictures.format_of(name) == picture_format else pictures.PREFERRED_SUFFIX[picture_format]
    parts = [safe_name(part, mild=True) for part in folder.split("/") if part]
    made_parts = [part for part in (made.split("/") if not mild else [made]) if part.strip(" .")]
    parts += [safe_name(part, mild=mild) for part in made_parts[:-1]]
    parts.append(safe_name(made_parts[-1] if made_parts else "picture", mild=mild, ending=ending))
    return "/".join(parts)


def _fill(
    pattern: str, stem: str, request: HiresRequest, native: tuple[int, int], picture_format: str, index: int
) -> str:
    values: dict[str, Any] = {
        "stem": stem,
        "format": picture_format.lower(),
        "width": request.size[1],
        "height": request.size[0],
        "scale": round(request.size[0] / native[0], 2),
        "seed": request.seed,
        "index": index,
        "steps": request.steps,
        "method": request.method,
    }
    safe = {
        name: value.replace("/", "_").replace("\\", "_") if isinstance(value, str) else value
        for name, value in values.items()
    }
    try:
        return pattern.format_map(safe)
    except (ValueError, TypeError):
        raise ConfigError(f"name pattern {pattern!r} does not fit its fields; use d for whole numbers") from None


def safe_name(part: str, *, mild: bool = False, ending: str = "") -> str:
    """Return one path component that is safe on every system: no separators, control or direction marks, no device
    names, no `..`, at most 240 bytes. `mild` keeps what a file system already holds (as ? on Linux)."""
    text = unicodedata.normalize("NFC", part) if not mild else part
    if part.isascii() and part.isprintable() and mild and _PLAIN.fullmatch(part):
        return part + ending
    unwanted = ("Cc", "Cf", "Cs", "Zl", "Zp") if mild else ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co")
    text = "".join("_" if unicodedata.category(mark) in unwanted else mark for mark in text)
    text = re.sub(r"[/\\]" if mild else r'[<>:"/\\|?*]', "_", text)
    if not mild:
        text = text.strip(" ")
        text = text.rstrip(".")
    if text in ("", ".", "..") or _RESERVED.match(text + ending):
        text = "_" + text.replace(".", "_")
    if len((text + ending).encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        mark = "~" + hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        room = _MAX_NAME_BYTES - len(mark) - len(ending.encode())
        text = text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore") + mark
    return text + ending


def fold(name: str) -> str:
    """Return a name's form for comparing: file systems that ignore case or normalise must not merge two outputs."""
    return unicodedata.normalize("NFC", name).casefold()


def alternatives(wanted: str, key: str, *, start: int = 2) -> Iterator[str]:
    """Yield names to try in order: the wanted one, one with the source's suffix, then those numbered from `start`."""
    yield wanted
    folder, slash, name = wanted.rpartition("/")
    stem, _, suffix = name.rpartition(".")
    source_suffix = key.rsplit(".", 1)[-1].lower()
    if source_suffix != suffix.lower() and "/" not in source_suffix:
        yield folder + slash + safe_name(f"{stem}-{source_suffix}", mild=True, ending="." + suffix)
    for number in range(start, 1_000_000):
        yield folder + slash + safe_name(f"{stem}-{number}", mild=True, ending="." + suffix)


# --- small things -------------------------------------------------------------------------------------------------


def digest(value: Any) -> str:  # noqa: ANN401  # anything JSON holds
    """Return a short hash of JSON values, the same in every process."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _check(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{name} is {value!r}; choose {low:g} to {high:g}")
