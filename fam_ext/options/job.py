"""What was asked of a job, in a few frozen parts: places, size, picture, output, run, renderer."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, UsageError
from fam_ext.options.field import (
    API,
    CLI,
    EVERY_JOB,
    MAX_SIDE,
    PAGE,
    Checked,
    option,
    options_of,
    said,
)
from fam_ext.options.request import OWN, REQUEST, check_value

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP")
RULES = ("take", "override", "prefix", "suffix", "replace")
WORDS = ("prompt", "negative_prompt")
NAME_FIELDS = ("stem", "format", "width", "height", "scale", "seed", "index", "steps", "method")
DEFAULT_MAX_MEGAPIXELS = 64.0
"""Cap of a target's area, MP, where nothing else is asked for."""
WEBUI = "webui"
STANDALONE = "standalone"


def _place(default: Any, kind: str, label: str, help: str, **more: Any) -> Any:  # noqa: ANN401
    more = {"panel": "where", "decides": "run", "doors": EVERY_JOB, **more}
    return option(default, kind=kind, label=label, help=help, **more)


@dataclass(frozen=True)
class Places(Checked):
    """Which pictures, and where they go."""

    inputs: tuple[str, ...] = _place((), "paths", "Pictures and folders", "Pictures and folders to read.", doors=(CLI,))
    output: str = _place(
        "",
        "path",
        "Output folder",
        "Folder to write to; made if it is not there. On the page and in the API empty is beside the input.",
        flags=("--output", "-o"),
    )
    recursive: bool = _place(
        False,
        "bool",
        "Also folders inside",
        "Folders within folders too; the tree is mirrored.",
        flags=("--recursive", "-r"),
    )
    include: tuple[str, ...] = _place(
        (), "texts", "Only files that match", "Only files that match this pattern (repeatable).", doors=(CLI,)
    )
    exclude: tuple[str, ...] = _place(
        (), "texts", "No files that match", "No files that match this pattern (repeatable).", doors=(CLI, API)
    )
    first: int | None = _place(
        None,
        "int",
        "Trial: first N files (0: all)",
        "A trial: only the first N files; 0: all.",
        low=1,
        high=1 << 40,
        optional=True,
        off=0,
    )
    first_frame: bool = _place(
        False,
        "bool",
        "First frame of animated files",
        "Take frame 1 of animated files, which are refused otherwise.",
        decides="pixels",
        doors=(CLI, API),
        since=True,
    )
    max_input_megapixels: float = _place(
        64.0,
        "float",
        "Largest input (MP)",
        "Refuse larger inputs (MP).",
        decides="size",
        doors=(CLI, API),
        low=0.001,
        high=10_000,
    )
    allowed: tuple[str, ...] = _place(
        (),
        "paths",
        "Folders that may be read",
        "Folders, links resolved, that alone may be read; none is all. For doors that strangers reach.",
        doors=(),
    )

    @property
    def max_input_pixels(self) -> int:
        """`max_input_megapixels` in pixels."""
        return int(self.max_input_megapixels * 1e6)


def _size(default: Any, kind: str, label: str, help: str, **more: Any) -> Any:  # noqa: ANN401
    more = {"panel": "size", "decides": "size", "doors": EVERY_JOB, **more}
    return option(default, kind=kind, label=label, help=help, **more)


@dataclass(frozen=True)
class SizeRule(Checked):
    """How large the results are."""

    scale: float = _size(
        2.0,
        "float",
        "Scale",
        "Target side / native side; not used when a size is given.",
        flags=("--scale", "-s"),
        low=1,
        high=16,
        step=0.05,
    )
    size: tuple[int, int] | None = _size(
        None,
        "size",
        "Target box",
        "Target WxH in px instead of the scale; the aspect is kept within it.",
        doors=(CLI,),
        low=64,
        optional=True,
    )
    """(height, width)"""
    exact_size: bool = _size(
        False, "bool", "Size exactly", "Take the size as it is, whatever the picture's aspect.", doors=(CLI, API)
    )
    max_side: int | None = _size(
        None,
        "int",
        "Max side (px, 0: no limit)",
        "Cap of the target's longer side (px); 0: no limit.",
        low=64,
        high=MAX_SIDE,
        optional=True,
        off=0,
    )
    max_megapixels: float | None = _size(
        DEFAULT_MAX_MEGAPIXELS,
        "float",
        "Max size (MP, 0: no limit)",
        "Cap of the target's area (MP); 0: no limit. A size taken exactly is not capped.",
        low=0.01,
        high=1024,
        optional=True,
        off=0,
    )


@dataclass(frozen=True)
class Rule:
    """How one setting is resolved: `take` the picture's own, else `value`; `override` it; `prefix`, `suffix` or
    `replace` ("old=>new") the picture's own text."""

    kind: str = "take"
    value: Any = None

    def __post_init__(self) -> None:
        if self.kind not in RULES:
            raise ConfigError(f"rule is {said(self.kind)}; choose {', '.join(RULES)}")
        if self.kind == "replace" and "=>" not in str(self.value):
            raise ConfigError(f"replace is {said(self.value)}; write old=>new")


@dataclass(frozen=True)
class PictureRule:
    """What each picture is drawn with: FAM's dials, and for every setting of a request the job's value or a rule."""

    config: FamConfig = field(default_factory=FamConfig)
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Request settings: for those that a picture may bring (`request.OWN`), what counts where it brings none."""
    rules: Mapping[str, Rule] = field(default_factory=dict[str, Rule])
    """By setting, or "config": what the user said of it."""

    def __post_init__(self) -> None:
        for name, rule in self.rules.items():
            if name not in (*OWN, "config"):
                raise ConfigError(f"rule for {said(name)} is unknown; choose from {', '.join((*OWN, 'config'))}")
            if rule.kind in ("prefix", "suffix", "replace") and name not in WORDS:
                raise ConfigError(f"rule {rule.kind} does not fit {name}; it is for {' and '.join(WORDS)}")
            if name != "config" and rule.kind in ("take", "override") and rule.value is not None:
                check_value(name, rule.value)
        for name, value in self.settings.items():
            if name not in REQUEST or name == "size":
                raise ConfigError(f"setting {said(name)} is unknown; choose from {', '.join(REQUEST)}")
            check_value(name, value)

    @functools.cached_property
    def every_rule(self) -> Mapping[str, Rule]:
        """The rule of every setting that a picture may bring: the user's, else its own before the job's."""
        defaults = {name: Rule("take", self.settings.get(name)) for name in OWN}
        # a checkpoint's name means nothing to another renderer: taken only when asked for
        defaults |= {"model": Rule("override", None), "vae": Rule("override", None)}
        return {**defaults, **self.rules}

    @property
    def fixed(self) -> Mapping[str, Any]:
        """The settings that are the job's for every picture."""
        return {name: value for name, value in self.settings.items() if name not in OWN}


def _output(default: Any, kind: str, label: str, help: str, **more: Any) -> Any:  # noqa: ANN401
    more = {"panel": "output", "decides": "file", "doors": EVERY_JOB, **more}
    return option(default, kind=kind, label=label, help=help, **more)


@dataclass(frozen=True)
class OutputRule(Checked):
    """How the files are written."""

    format: str | None = _output(
        None,
        "choice",
        "Output format",
        "File format of the outputs; else as the input.",
        flags=("--format", "-f"),
        choices=FORMATS,
        optional=True,
        off="as input",
    )
    quality: int | None = _output(
        None,
        "int",
        "Quality",
        "1 to 100 for JPEG, WebP, AVIF.",
        doors=(CLI, API),
        low=1,
        high=100,
        optional=True,
    )
    strip_metadata: bool = _output(
        False, "bool", "Strip metadata", "Write pixels and colour profile only.", doors=(CLI, API)
    )
    keep_times: bool = _output(False, "bool", "Keep times", "Give outputs the inputs' times.", doors=(CLI, API))
    name: str = _output(
        "{stem}",
        "text",
        "Output name",
        "Name pattern without the ending: " + " ".join(f"{{{name}}}" for name in NAME_FIELDS) + ", as {index:04d}.",
    )
    overwrite: bool = _output(
        False,
        "bool",
        "Replace outputs made with other settings",
        "Replace outputs that exist; else they are kept.",
        decides="run",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name_pattern(self.name)


def _run(default: Any, kind: str, label: str, help: str, **more: Any) -> Any:  # noqa: ANN401
    more = {"panel": "run", "decides": "run", "doors": (CLI,), **more}
    return option(default, kind=kind, label=label, help=help, **more)


@dataclass(frozen=True)
class RunRule(Checked):
    """How the job is run; nothing here changes a picture."""

    workers: int = _run(0, "int", "Workers", "Renderer processes, one a GPU; 0: in this process.", low=0, high=1024)
    ray: str | None = _run(None, "name", "Ray", "Ray cluster: local, auto or an address.", optional=True)
    ray_gpus: float = _run(1.0, "float", "GPUs a Ray actor", "GPUs for each Ray actor.", low=0, high=64)
    join: bool = _run(False, "bool", "Join", "Share the work with a process already at it.")
    retries: int = _run(
        1, "int", "Retries", "Further tries when the renderer fails or a worker is lost.", low=0, high=1000
    )
    timeout: float | None = _run(
        None,
        "float",
        "Timeout (s)",
        "Longest time for one picture (s).",
        low=0,
        above=True,
        high=1_000_000,
        optional=True,
        hint="seconds",
    )
    stop_on_error: bool = _run(False, "bool", "Stop on error", "End at the first failure.")
    report: bool = _run(True, "bool", "Report", "Write the reports at the end.", doors=())


def _model(default: Any, kind: str, label: str, help: str, **more: Any) -> Any:  # noqa: ANN401
    more = {"panel": "model", "decides": "run", "doors": (CLI,), **more}
    return option(default, kind=kind, label=label, help=help, **more)


@dataclass(frozen=True)
class RendererChoice(Checked):
    """What draws: the standalone renderer and its model, or the WebUI that the job runs in."""

    name: str = _model(
        "", "name", "Renderer", "By its name in our own list; empty is one that was handed in.", doors=()
    )
    model: str | None = _model(
        None,
        "path",
        "Model",
        "Diffusers folder or .safetensors; default: the embedded model.",
        decides="pixels",
        flags=("--model", "-m"),
        optional=True,
    )
    loras: tuple[str, ...] = _model(
        (), "paths", "LoRAs", "LoRA file, or FILE:WEIGHT (repeatable).", decides="pixels", flags=("--lora",)
    )
    device: str | None = _model(
        None, "name", "Device", "cpu, cuda, cuda:1, mps; default: the best there is.", optional=True
    )
    dtype: str | None = _model(
        None,
        "choice",
        "Number format",
        "Number format of the weights; default: float32 on a CPU, else float16.",
        choices=("float32", "float16", "bfloat16"),
        optional=True,
    )
    offload: str = _model(
        "none",
        "choice",
        "Offload",
        "none: the model on the device; model: one network there at a time; sequential: one layer, slowest.",
        choices=("none", "model", "sequential"),
    )
    sdxl_clip_l_skip: bool = _model(
        False,
        "bool",
        "Clip skip SDXL",
        'As the WebUI\'s "Clip skip SDXL": a clip skip acts on CLIP-L.',
        decides="pixels",
    )
    upscaler: str = _model(
        "Lanczos",
        "text",
        "Upscaler",
        "The WebUI's upscaler, used where upsample is auto.",
        decides="pixels",
        doors=(PAGE, API),
    )

    @property
    def weighted_loras(self) -> list[tuple[str, float]]:
        """Each LoRA's file and weight. Raises `UsageError` for a weight that is none."""
        return [_weighted(entry) for entry in self.loras]

    @property
    def identity(self) -> str:
        """What the pixels depend on beside a request, as one text; part of the settings hash."""
        if self.name == STANDALONE:
            marks = ["clip_l_skip"] if self.sdxl_clip_l_skip else []
            return json.dumps([self.model, self.weighted_loras, *marks])
        return f"webui upscaler {self.upscaler}" if self.name == WEBUI else self.name

    @property
    def arguments(self) -> dict[str, Any]:
        """What the standalone renderer is built with."""
        loras = [list(entry) for entry in self.weighted_loras]
        return {
            "model": self.model,
            "device": self.device,
            "dtype": self.dtype,
            "loras": loras,
            "offload": self.offload,
            "clip_l_skip": self.sdxl_clip_l_skip,
        }


def _weighted(entry: str) -> tuple[str, float]:
    path, separator, weight = entry.rpartition(":")
    if separator:
        try:
            number = float(weight)
        except ValueError:
            return entry, 1.0  # a drive letter or a colon in the name
        if not -100 <= number <= 100:  # not: also nan
            raise UsageError(f"loras is {said(entry)}; choose a weight from -100 to 100")
        return path, number
    return entry, 1.0


_PARTS: Mapping[str, type] = {"places": Places, "size": SizeRule, "output": OutputRule, "renderer": RendererChoice}


@dataclass(frozen=True)
class Job:
    """Everything the outputs of a job depend on. Two runs of equal jobs make equal pictures."""

    places: Places
    size: SizeRule = field(default_factory=SizeRule)
    picture: PictureRule = field(default_factory=PictureRule)
    output: OutputRule = field(default_factory=OutputRule)
    renderer: RendererChoice = field(default_factory=RendererChoice)

    def __post_init__(self) -> None:
        if not self.places.inputs:
            raise UsageError("no input was given; name at least one picture or folder")

    @classmethod
    def of(cls, inputs: tuple[str, ...], output: str, **values: Any) -> Job:  # noqa: ANN401  # options differ in type
        """Return a job from flat options: those of its parts, FAM's `config`, `settings`, `rules`, and settings of a
        request that are the job's (`method`, `tile`, `low_memory`). Raises `ConfigError` for an unknown one."""
        rest = {"inputs": inputs, "output": output, **values}
        settings = {**rest.pop("settings", {})}
        settings |= {name: rest.pop(name) for name in REQUEST if name in rest and name not in OWN and name != "size"}
        picture = PictureRule(rest.pop("config", FamConfig()), settings, rest.pop("rules", {}))
        renderer = rest.pop("renderer", RendererChoice())
        parts = {
            part: table(**{spec.name: rest.pop(spec.name) for spec in options_of(table) if spec.name in rest})
            for part, table in _PARTS.items()
            if part != "renderer"
        }
        for name in rest:
            raise ConfigError(f"{said(name)} is not an option of a job")
        return cls(picture=picture, renderer=renderer, **parts)

    def replace(self, **values: Any) -> Job:  # noqa: ANN401
        """Return a copy with flat options changed, as `of` takes them."""
        parts: dict[str, Any] = {}
        for part, table in _PARTS.items():
            own = {spec.name: values.pop(spec.name) for spec in options_of(table) if spec.name in values}
            if own:
                parts[part] = dataclasses.replace(getattr(self, part), **own)
        fixed = {name: values.pop(name) for name in list(values) if name in REQUEST and name not in OWN}
        if fixed or values:
            settings = {**values.pop("settings", self.picture.settings), **fixed}
            parts["picture"] = dataclasses.replace(self.picture, settings=settings, **values)
        return dataclasses.replace(self, **parts)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of what decides settings, sizes and names; what decides only how the job runs is left out."""
        values: dict[str, Any] = {}
        for part, table in _PARTS.items():
            for spec in options_of(table):
                value = getattr(getattr(self, part), spec.name)
                if part != "renderer" and spec.decides != "run" and not (spec.since and value == spec.default):
                    values[spec.name] = value
        values["renderer"] = [self.renderer.name, self.renderer.identity]
        return digest({**values, **_picture_json(self.picture)})

    def to_json(self) -> dict[str, Any]:
        """Return the job as plain JSON values, flat: the names of options are unique among its parts."""
        values = {
            spec.name: getattr(getattr(self, part), spec.name)
            for part, table in _PARTS.items()
            if part != "renderer"
            for spec in options_of(table)
        }
        values["renderer"] = dataclasses.asdict(self.renderer)
        return cast("dict[str, Any]", json.loads(json.dumps({**values, **_picture_json(self.picture)})))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """Return the job that `to_json` gave, of this version or an earlier one. Raises `ConfigError` for what this
        version cannot read: a journal may be a stranger's."""
        try:
            return cls._from_json(values)
        except UsageError:
            raise
        except ConfigError as error:
            raise _unreadable(error) from None
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise _unreadable(error) from None

    @classmethod
    def _from_json(cls, values: Mapping[str, Any]) -> Job:
        known = {spec.name: spec for part, table in _PARTS.items() if part != "renderer" for spec in options_of(table)}
        flat: dict[str, Any] = {name: value for name, value in values.items() if name in known}
        for name in flat:
            if known[name].kind in ("paths", "texts", "size") and isinstance(flat[name], list):
                flat[name] = tuple(cast("list[object]", flat[name]))
        flat |= _from_old_names(values)
        settings = dict(values.get("settings", {}))
        settings |= {name: values[name] for name in ("method", "tile", "low_memory") if name in values}
        rules = {name: Rule(kind, value) for name, (kind, value) in values.get("rules", {}).items()}
        return cls.of(
            flat.pop("inputs"),
            flat.pop("output"),
            config=FamConfig.from_dict(values.get("config", {})),
            settings=settings,
            rules=rules,
            renderer=_stored_renderer(values),
            **flat,
        )


def _unreadable(error: Exception) -> ConfigError:
    text = " ".join("".join(mark if mark.isprintable() else "?" for mark in str(error)).split())
    return ConfigError(f"the job's options cannot be read ({text[:120]}); run the job's own command again")


def _picture_json(picture: PictureRule) -> dict[str, Any]:
    config = {
        spec.name: getattr(picture.config, spec.name)
        for spec in options_of(FamConfig)
        if not (spec.since and getattr(picture.config, spec.name) == spec.default)
    }
    return {
        "config": config,
        "settings": dict(picture.settings),
        "rules": {name: [rule.kind, rule.value] for name, rule in picture.rules.items()},
    }


def _from_old_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return today's options for what jobs said before the options' table."""
    flat: dict[str, Any] = {}
    if "fit" in values:
        flat["exact_size"] = {"inside": False, "exact": True}[values["fit"]]
    if "max_input_pixels" in values:
        flat["max_input_megapixels"] = values["max_input_pixels"] / 1e6
    return flat


def _stored_renderer(values: Mapping[str, Any]) -> RendererChoice:
    kept = values.get("renderer", {})
    if isinstance(kept, str):  # before the options' table: the identity alone
        if kept.startswith("webui upscaler "):
            return RendererChoice(WEBUI, upscaler=kept.removeprefix("webui upscaler "))
        if values.get("standalone") is True and kept:
            model, loras = json.loads(kept)
            return RendererChoice(STANDALONE, model, tuple(f"{file}:{weight}" for file, weight in loras))
        return RendererChoice(STANDALONE if values.get("standalone") is True else kept)
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
    return RendererChoice(**given)


def digest(value: Any) -> str:  # noqa: ANN401  # anything JSON holds
    """Return a short hash of JSON values, the same in every process."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def check_name_pattern(pattern: str) -> None:
    """Raise `ConfigError` for a pattern with unknown fields, attribute access or a very wide format."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError:
        raise ConfigError(f"name pattern is {said(pattern)}; close every {{ and double those that stay") from None
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in NAME_FIELDS or conversion is not None:
            raise ConfigError(f"name pattern has {{{name}}}; choose from {', '.join(NAME_FIELDS)}")
        if not re.fullmatch(r"(0?[0-9]{1,2}d?|\.[0-9]g)?", spec or ""):
            raise ConfigError(f"name pattern has the format {spec!r}; choose one like 04d")
    if not pattern.strip(" ./\\"):
        raise ConfigError("name pattern is empty; choose one like {stem}")
