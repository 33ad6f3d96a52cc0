"""The parts of a job: which pictures, how large, with what, how written, how run. Standard library only."""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.options.field import (
    API,
    CLI,
    EVERY_JOB,
    MAX_SIDE,
    Checked,
    option,
    options_of,
    said,
)
from fam_ext.options.request import OWN, REQUEST, check_value

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP")
WITH_QUALITY = ("JPEG", "WEBP", "AVIF")
NUMBER_RULES = ("take", "override")
"""Those that fit every setting."""
RULES = (*NUMBER_RULES, "prefix", "suffix", "replace")
"""Those that fit the two prompts."""
WORDS = ("prompt", "negative_prompt")
NAME_FIELDS = ("stem", "format", "width", "height", "scale", "seed", "index", "steps", "method")
DEFAULT_MAX_MEGAPIXELS = 64.0
"""Cap of a target's area, MP, where nothing else is asked for."""


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
        (), "texts", "Only files that match", "Only files that match this pattern (repeatable).", doors=(CLI, API)
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
        if self.kind == "replace" and str(self.value).find("=>") < 1:
            raise ConfigError(f"replace is {said(self.value)}; write old=>new, with the words to look for before =>")


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
            if rule.kind in RULES and rule.kind not in NUMBER_RULES and name not in WORDS:
                raise ConfigError(f"rule {rule.kind} does not fit {name}; it is for {' and '.join(WORDS)}")
            if name in WORDS and rule.kind != "take" and rule.value is None:
                raise ConfigError(f"{name} is left out, and its rule is {rule.kind}; give {name}, or choose take")
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
    keep_times: bool = _output(
        False, "bool", "Keep times", "Give outputs the inputs' times.", decides="name", doors=(CLI, API)
    )
    name: str = _output(
        "{stem}",
        "text",
        "Output name",
        "Name pattern without the ending: " + " ".join(f"{{{name}}}" for name in NAME_FIELDS) + ", as {index:04d}.",
        decides="name",
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

    @property
    def identity(self) -> str:
        """What a file's bytes depend on beside its picture and its format, as one text; part of the settings hash."""
        values = [
            getattr(self, spec.name)
            for spec in options_of(OutputRule)
            if spec.decides == "file" and spec.name != "format"
            if not (spec.since and getattr(self, spec.name) == spec.default)
        ]
        return " ".join(map(str, values))


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
