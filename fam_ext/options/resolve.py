"""From the words of any door to one job.

What counts: said now, then an overriding preset, then the picture's metadata where the rule says take, then the preset,
then the default. A prompt that is said is for pictures without one, unless its rule says otherwise.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fam_ext.core.config import CUTOFFS, MAX_CYCLES, FamConfig
from fam_ext.errors import ConfigError, UsageError
from fam_ext.methods.catalog import FAM, METHODS, WITHOUT_FAM
from fam_ext.options.field import (
    API,
    EVERY_JOB,
    MAX_SIDE,
    PAGE,
    PANELS,
    SCRIPT,
    Checked,
    Option,
    check,
    option,
    options_of,
    pick,
    said,
    spoken,
)
from fam_ext.options.job import Job
from fam_ext.options.parts import RULES, WITH_QUALITY, WORDS, OutputRule, Places, Rule, SizeRule
from fam_ext.options.presets import DEFAULT, Preset
from fam_ext.options.renderer import LANCZOS, RendererChoice
from fam_ext.options.request import OWN, REQUEST, HiresRequest

RANDOM_SEED = -1
_SEPARATORS = "/\\" if os.name == "nt" else "/"
SAMPLING = ("sampler", "schedule", "steps", "cfg_scale", "seed")
"""Settings that `own_settings` speaks of."""
_KINDS_OF_FORMAT = {"jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "tif": "tiff"}


def _word(default: Any, kind: str, label: str, help: str, panel: str, doors: tuple[str, ...], **more: Any) -> Any:  # noqa: ANN401
    return option(default, kind=kind, label=label, help=help, panel=panel, doors=doors, **{"decides": "pixels", **more})


@dataclass(frozen=True)
class Words(Checked):
    """What doors say that is no part of a job itself: shorthands, and how the parts of a page are called."""

    preset: str = _word(
        DEFAULT,
        "name",
        "Preset",
        "Named settings: the values of what is left out; see the list of presets.",
        "method",
        (*EVERY_JOB, SCRIPT),
    )
    enabled: bool = _word(
        True, "bool", "FAM", "false leaves FAM off: direct, from the diffused native picture.", "method", (API, SCRIPT)
    )
    input: str = _word("", "path", "Input folder", "Folder (or picture) to read.", "where", (PAGE, API), decides="run")
    pattern: str = _word(
        "",
        "text",
        "File pattern",
        "File name patterns separated by commas, such as *.png; empty: every picture.",
        "where",
        (PAGE, API),
        decides="run",
    )
    width: int | None = _word(
        None,
        "int",
        "Target width (px, 0: by scale)",
        "Target box in pixels, 0: by scale. The aspect of each picture is kept.",
        "size",
        (PAGE, API),
        decides="size",
        low=64,
        high=MAX_SIDE,
        optional=True,
        off=0,
    )
    height: int | None = _word(
        None,
        "int",
        "Target height (px, 0: by scale)",
        "Target box in pixels, 0: by scale.",
        "size",
        (PAGE, API),
        decides="size",
        low=64,
        high=MAX_SIDE,
        optional=True,
        off=0,
    )
    prompt_rule: str = _word(
        "take",
        "choice",
        "Prompt from metadata",
        "take: the picture's own prompt, else the one given; override: the one given always; prefix or suffix: before "
        'or after its own; replace: "old=>new" within its own.',
        "words",
        EVERY_JOB,
        choices=RULES,
    )
    negative_rule: str | None = _word(
        None,
        "choice",
        "Negative prompt from metadata",
        "The same for the negative prompt; left out: as the prompt's.",
        "words",
        EVERY_JOB,
        choices=RULES,
        optional=True,
    )
    own_settings: bool | None = _word(
        None,
        "bool",
        "Take sampler, steps, CFG and seed from each file",
        "true: sampler, schedule, steps, CFG scale and seed are for files that bring none; false: for all. Left out: "
        "those that are given are for all, the others each file's own.",
        "words",
        (PAGE, API),
        optional=True,
    )
    own_model: bool = _word(
        False,
        "bool",
        "Take the checkpoint from each file",
        "Load the checkpoint and the VAE that each file names.",
        "model",
        (PAGE, API),
    )
    model: str = _word(
        "", "name", "Checkpoint", "Checkpoint for every file; empty: the one that is loaded.", "model", (PAGE, API)
    )


_WORDS: Mapping[str, Option] = {spec.name: spec for spec in options_of(Words)}
_SPOKEN_SETTINGS = tuple(name for name in REQUEST if name not in ("size", "model"))


def options_at(door: str, *tables: type) -> list[Option]:
    """Return the options that stand at a door, in the order of panels; of all tables, or of those named."""
    every = tables or (Words, Places, SizeRule, HiresRequest, FamConfig, OutputRule, RendererChoice)
    found: dict[str, Option] = {}
    for table in every:
        for spec in options_of(table):
            if door in spec.doors:
                found.setdefault(spec.name, spec)
    panels = list(PANELS)
    return sorted(found.values(), key=lambda spec: panels.index(spec.panel))


def job(
    words: Mapping[str, Any],
    *,
    preset_of: Callable[[str], Preset],
    renderer: RendererChoice | None = None,
) -> Job:
    """Return the job that named `words` mean; None, and what a door says for nothing, is not said.

    Names are those of the options: of `Words`, the job's parts, a request's settings, FAM's dials. `rules` gives by
    setting how the picture's own counts. Raises `ConfigError` or `UsageError` naming the field, before anything runs.
    """
    rules = _rules(words.get("rules"))
    given = _given({name: value for name, value in words.items() if name != "rules"})
    preset = preset_of(given.get("preset", DEFAULT))
    config = config_of(given, preset.config)
    settings, resolved = _settings(given, preset, rules)
    if given.get("enabled") is False:
        settings["method"] = WITHOUT_FAM
    if renderer is None:
        renderer = RendererChoice()
    if "upscaler" in given:
        renderer = dataclasses.replace(renderer, upscaler=given["upscaler"])
    flat = {
        spec.name: given[spec.name]
        for table in (Places, SizeRule, OutputRule)
        for spec in options_of(table)
        if spec.name in given
    }
    flat |= _places(given) | _box(given)
    if flat.get("exact_size") and not flat.get("size"):
        raise UsageError("exact_size is true; give a size as well")
    if flat.get("quality") is not None and flat.get("format") not in (None, *WITH_QUALITY):
        choose = f"choose {', '.join(WITH_QUALITY)}, or leave quality out"
        raise UsageError(f"quality is {flat['quality']}, and {flat['format']} has none; {choose}")
    return Job.of(
        flat.pop("inputs", ()),
        flat.pop("output", ""),
        config=config,
        settings=settings,
        rules=resolved,
        renderer=renderer,
        **flat,
    )


def _rules(said_: object) -> dict[str, str]:
    """Return the rules by setting. Raises `ConfigError` for anything but an object of texts."""
    if said_ is None:
        return {}
    if not isinstance(said_, Mapping):
        raise ConfigError(f'rules is {said(said_)}; choose an object of rules by setting, as {{"seed": "take"}}')
    return {str(name): str(kind) for name, kind in said_.items()}


def _given(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was said, each checked alone; `preset` and its like included."""
    known = {**_WORDS, **{name: REQUEST[name] for name in _SPOKEN_SETTINGS}}
    for table in (Places, SizeRule, OutputRule, FamConfig):
        known |= {spec.name: spec for spec in options_of(table) if spec.doors}
    known["upscaler"] = next(spec for spec in options_of(RendererChoice) if spec.name == "upscaler")
    known["seed"] = dataclasses.replace(known["seed"], low=RANDOM_SEED)
    given: dict[str, Any] = {}
    for name, value in pick(words, known, "a job").items():
        value = spoken(known[name], value)
        if value is None:
            if known[name].off is not None and words[name] is not None:
                given[name] = None  # said: no limit
            continue
        if name == "format" and isinstance(value, str):
            typed = value.strip().lower().lstrip(".")
            value = _KINDS_OF_FORMAT.get(typed, typed).upper()
        # a cut-off's range depends on its unit: with it
        given[name] = value if name == "cutoff" else check(known[name], value)
    return given


def config_of(given: Mapping[str, Any], base: FamConfig) -> FamConfig:
    """Return FAM's dials: those of `given`, else `base`'s. A cut-off never takes another number's unit: without one it
    is the paper's c, a share of the native side; a unit alone brings its usual cut-off. Raises `ConfigError`."""
    dials = {spec.name: given[spec.name] for spec in options_of(FamConfig) if spec.name in given}
    cutoff, unit = dials.get("cutoff"), dials.get("cutoff_reference")
    if cutoff is not None and unit is None:
        if isinstance(cutoff, int | float) and not isinstance(cutoff, bool) and cutoff > 1:
            raise ConfigError(
                f"cutoff is {said(cutoff)}; choose 0 to 1, a share of the native side, or give cutoff_reference as "
                f'well ("cycles": 0 to {MAX_CYCLES:g})'
            )
        dials["cutoff_reference"] = FamConfig().cutoff_reference
    elif cutoff is None and unit in CUTOFFS and unit != base.cutoff_reference:
        dials["cutoff"] = CUTOFFS[unit]
    return base.replace(**dials)


def _settings(
    given: Mapping[str, Any], preset: Preset, rules: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Rule]]:
    """Return the job's settings and rules."""
    settings = {name: value for name, value in preset.settings.items() if name in REQUEST}
    settings |= {name: given[name] for name in _SPOKEN_SETTINGS if name in given and name not in OWN}
    if given.get("seed") == RANDOM_SEED:
        given = {**given, "seed": _thrown_seed(given)}
    resolved: dict[str, Rule] = {}
    own = given.get("own_settings")
    for name in OWN:
        value = given.get(name)
        if name in WORDS:
            if value is not None:
                resolved[name] = Rule(_word_rule(given, name), value)
        elif name in ("model", "vae"):
            if given.get("own_model") or value:
                resolved[name] = Rule("take" if given.get("own_model") else "override", value or None)
        elif name in SAMPLING and own is not None:
            chosen = settings.get(name, REQUEST[name].default) if value is None else value
            resolved[name] = Rule("take" if own else "override", chosen)
        elif value is not None:
            resolved[name] = Rule("override", value)
        elif preset.overrides and name in settings:
            resolved[name] = Rule("override", settings[name])
    for rule, words in (("prompt_rule", WORDS), ("negative_rule", WORDS[1:])):
        if given.get(rule, "take") != "take" and not any(name in given for name in words):
            raise UsageError(f"{rule} is {given[rule]}; give {' or '.join(words)} as well")
    for name, kind in rules.items():
        known = resolved.get(name)
        value = settings.get(name) if known is None else known.value
        if kind == "override" and value is None and name in OWN and name not in WORDS and not REQUEST[name].optional:
            raise ConfigError(f"{name} is left out, and its rule is override; give {name}, or choose take")
        resolved[name] = Rule(kind, value)
    return settings, resolved


def _thrown_seed(given: Mapping[str, Any]) -> int:
    """Return a seed for -1: of an output folder's name, so that the same words resume and a new folder is a new throw;
    by chance where no folder is read or written."""
    if not given.get("input") and not given.get("output"):
        return secrets.randbelow(1 << 32)
    name = Path(_places(given)["output"]).name.casefold()
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:4], "big")


def _word_rule(given: Mapping[str, Any], name: str) -> str:
    rule = given.get("prompt_rule", "take")
    return given.get("negative_rule", rule) if name == "negative_prompt" else rule


def _places(given: Mapping[str, Any]) -> dict[str, Any]:
    places: dict[str, Any] = {}
    if source := pasted(given.get("input", "")):
        places["inputs"] = (expanded("input", source),)
    elif "inputs" not in given:
        raise UsageError("input is empty; give the folder to read")
    else:
        places["inputs"] = tuple(expanded("input", path) for path in given["inputs"])
    output = pasted(given.get("output", ""))
    places["output"] = expanded("output", output) if output else f"{places['inputs'][0].rstrip(_SEPARATORS)}-fam"
    if given.get("pattern"):
        parts = tuple(part.strip() for part in given["pattern"].split(",") if part.strip())
        places["include"] = (*given.get("include", ()), *parts)
    return places


def pasted(path: str) -> str:
    """Return a path as it was meant: Windows' *Copy as path* puts it between quotes."""
    path = path.strip()
    return path[1:-1].strip() if len(path) > 1 and path[0] == path[-1] == '"' else path


def expanded(name: str, folder: str) -> str:
    """Return a path with a home folder in full. Raises `UsageError` for one that there is not."""
    try:
        return str(Path(folder).expanduser()) if folder.startswith("~") else folder
    except RuntimeError:
        raise UsageError(
            f"{name} is {said(folder)}, a home folder that there is not; give the folder in full"
        ) from None


def _box(given: Mapping[str, Any]) -> dict[str, Any]:
    width, height = given.get("width"), given.get("height")
    if bool(width) != bool(height):
        raise ConfigError("width and height go together; give both in pixels, or 0 for both to use the scale")
    return {"size": (height, width)} if width else {}


def script(words: Mapping[str, Any], *, preset_of: Callable[[str], Preset]) -> tuple[FamConfig, bool, str]:
    """Return (dials, enabled, method) of the hires script's one object of named fields. What is left out has the value
    of `preset`, and without one of the default preset. Raises `ConfigError` for a field that there is not."""
    specs = {spec.name: spec for spec in options_at(SCRIPT)}
    given = {
        name: value if name == "cutoff" else check(specs[name], value)
        for name, value in pick(words, specs, "FAM Hires").items()
    }
    preset = preset_of(given.get("preset", DEFAULT))
    method = given.get("method", preset.settings.get("method", FAM))
    return config_of(given, preset.config), given.get("enabled", True), method


def method_of(job: Job) -> str:
    """Return by which method a job makes its pictures."""
    return job.picture.fixed.get("method", FAM)


def refuse_unread(said: Collection[str], methods: Iterable[str]) -> None:
    """Raise `UsageError` for a dial that was said and that none of the methods reads; a preset's are not said."""
    if sentence := unread(said, methods):
        raise UsageError(sentence)


def refuse_unasked(said: Mapping[str, Any], job: Job) -> None:
    """Raise `UsageError` for an upscaler that was said, where upsampling is said, or set by the preset, to be other."""
    upsample = job.picture.config.upsample
    if said.get("upscaler") not in (None, LANCZOS) and METHODS[method_of(job)].diffuses and upsample != "auto":
        raise UsageError(f"upscaler is given, and upsample is {upsample}; give upsample as auto, or leave upscaler out")


def unread(said: Collection[str], methods: Iterable[str]) -> str | None:
    """Return a sentence about the first dial that was said and that none of the methods reads; None for none."""
    entries = [METHODS[name] for name in dict.fromkeys(methods)]
    for spec in options_of(FamConfig):
        if spec.name in said and not any(spec.name in entry.dials for entry in entries):
            names = ", ".join(entry.name for entry in entries)
            others = ", ".join(entry.name for entry in METHODS.values() if spec.name in entry.dials)
            return f"{spec.name} is given, and {names} never reads it; leave it out, or choose one of {others}"
    return None
