"""From the tab's (or the API's) named values to the job's PlanOptions, and the plan as a list. No gradio, no host."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, UsageError
from fam_ext.jobs.journal import Item, Journal
from fam_ext.jobs.plan import DEFAULT_MAX_MEGAPIXELS, Planned, PlanOptions, Rule, plan_file
from fam_ext.jobs.walk import Candidate, check_places, others, walk
from fam_ext.metadata.pictures import FORMATS
from fam_ext.options.field import MAX_SIDE
from fam_ext.options.request import HiresRequest
from fam_ext.ui.compare import KEPT, duration, table_html

PROMPT_RULES = ("take", "override", "prefix", "suffix")
AS_INPUT = "as input"
MAX_LISTED = 300
_MAX_NAMED = 5
SETTING_NAMES = ("sampler", "schedule", "steps", "cfg_scale", "seed")
FOLDER_FIELDS: Mapping[str, tuple[type | tuple[type, ...], Any, str]] = {
    "input": (str, "", "Folder (or picture) to read."),
    "output": (str, "", "Folder to write to; empty: beside the input, named after it."),
    "pattern": (str, "", "File name patterns separated by commas, such as *.png; empty: every picture."),
    "recursive": (bool, False, "Also the folders inside; their tree is mirrored."),
    "scale": ((int, float), 2.0, "Enlargement, 1 to 16; not used when width and height are given."),
    "width": (int, 0, "Target box in pixels, 0: by scale. The aspect of each picture is kept."),
    "height": (int, 0, "Target box in pixels, 0: by scale."),
    "max_side": (int, 0, "Longest side in pixels that an output may have; 0: no limit."),
    "max_megapixels": (
        (int, float),
        DEFAULT_MAX_MEGAPIXELS,
        "Pixels in millions that an output may have; 0: no limit.",
    ),
    "prompt_rule": (str, "take", "Each file's prompt: take its own, override it, or put the text before or after."),
    "prompt": (str, "", "The prompt for files without one, or the text of the rule."),
    "negative_rule": (str, "take", "The same for the negative prompt."),
    "negative_prompt": (str, "", "The negative prompt for files without one, or the text of the rule."),
    "own_settings": (bool, True, "Take sampler, schedule, steps, CFG scale and seed from each file that has them."),
    "own_model": (bool, False, "Load the checkpoint and the VAE that each file names."),
    "sampler": (str, "DPM++ 2M", "For files that bring none."),
    "schedule": (str, "Automatic", "For files that bring none."),
    "steps": (int, 20, "For files that bring none."),
    "cfg_scale": ((int, float), 7.0, "For files that bring none."),
    "seed": (int, 0, "For files that bring none; -1: one random seed for the job."),
    "model": (str, "", "Checkpoint for every file; empty: the one that is loaded."),
    "upscaler": (str, "Lanczos", "The WebUI's upscaler, used where upsample is auto."),
    "format": (str, AS_INPUT, "File format of the outputs."),
    "name": (str, "{stem}", "Name pattern of the outputs, without the ending."),
    "overwrite": (bool, False, "Replace files of that name that other settings made; else they are kept."),
    "first": (int, 0, "A trial: only the first N files; 0: all."),
}
"""Name -> (type, default, what it does). The tab's components and the API's fields."""
RANGES: Mapping[str, tuple[float, float]] = {
    "scale": (1, 16),
    "width": (0, MAX_SIDE),
    "height": (0, MAX_SIDE),
    "max_side": (0, MAX_SIDE),
    "max_megapixels": (0, 1024),
    "steps": (1, 150),
    "cfg_scale": (1, 30),
    "seed": (-1, 2**64 - 1),
    "first": (0, 1 << 40),
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "prompt_rule": PROMPT_RULES,
    "negative_rule": PROMPT_RULES,
    "format": (AS_INPUT, *FORMATS),
}


def folder_schema() -> dict[str, Any]:
    """Return the JSON Schema of a folder job without FAM's own fields."""
    names = {str: "string", bool: "boolean", int: "integer"}
    properties = {
        name: {
            "type": "number" if isinstance(kind, tuple) else names[kind],
            "default": default,
            "description": text,
        }
        for name, (kind, default, text) in FOLDER_FIELDS.items()
    }
    for name, (low, high) in RANGES.items():
        properties[name] |= {"minimum": low, "maximum": high}
    for name, choices in _CHOICES.items():
        properties[name]["enum"] = list(choices)
    return {"type": "object", "properties": properties, "required": ["input"], "additionalProperties": False}


def folder_options(values: Mapping[str, Any], config: FamConfig, *, default_output: str = "") -> PlanOptions:
    """Return the job that the named values mean. Raises `ConfigError` or `UsageError` naming the field."""
    given: dict[str, Any] = {name: default for name, (_, default, _) in FOLDER_FIELDS.items()}
    for name, value in values.items():
        if name not in FOLDER_FIELDS:
            raise ConfigError(f"{name} is not a field of a folder job; choose from {', '.join(FOLDER_FIELDS)}")
        given[name] = _checked(name, value)
    if not given["input"].strip():
        raise UsageError("input is empty; give the folder to read")
    source = _expanded("input", given["input"])
    output = given["output"].strip() or default_output or f"{source.rstrip('/')}-fam"
    settings = {name: given[name] for name in SETTING_NAMES}
    settings["seed"] = _seed(given["seed"])
    kind = "take" if given["own_settings"] else "override"
    rules = {name: Rule(kind, settings[name]) for name in SETTING_NAMES}
    rules["prompt"] = _prompt_rule("prompt_rule", given["prompt_rule"], given["prompt"])
    rules["negative_prompt"] = _prompt_rule("negative_rule", given["negative_rule"], given["negative_prompt"])
    rules |= model_rules(given["model"].strip() or None, own=given["own_model"])
    width, height = given["width"], given["height"]
    if bool(width) != bool(height):
        raise ConfigError("width and height go together; give both in pixels, or 0 for both to use the scale")
    return PlanOptions(
        inputs=(source,),
        output=_expanded("output", output),
        recursive=given["recursive"],
        include=tuple(part.strip() for part in given["pattern"].split(",") if part.strip()),
        scale=float(given["scale"]),
        size=(height, width) if width else None,
        max_side=given["max_side"] or None,
        max_megapixels=given["max_megapixels"] or None,
        config=config,
        rules=rules,
        format=None if given["format"] == AS_INPUT else _format(given["format"]),
        name=given["name"],
        overwrite=given["overwrite"],
        first=given["first"] or None,
        renderer=f"webui upscaler {given['upscaler']}",
    )


def model_rules(model: str | None, *, own: bool) -> dict[str, Rule]:
    """Return how checkpoint and VAE are resolved: the picture's own where `own`, else `model` and its VAE."""
    kind = "take" if own else "override"
    return {"model": Rule(kind, model), "vae": Rule(kind, None)}


def upscaler_of(options: PlanOptions) -> str:
    """Return the upscaler's name that `folder_options` put into the job."""
    return options.renderer.removeprefix("webui upscaler ")


def _checked(name: str, value: Any) -> Any:  # noqa: ANN401
    kind, default, _ = FOLDER_FIELDS[name]
    if value is None:
        return default
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # gradio's numbers
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        wanted = (
            "a number" if isinstance(kind, tuple) else {str: "a text", bool: "true or false", int: "an integer"}[kind]
        )
        raise ConfigError(f"{name} is {value!r}; choose {wanted}")
    if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:  # NaN as well
        low, high = RANGES[name]
        raise ConfigError(f"{name} is {value!r}; choose {low:,} to {high:,}".replace(",", ""))
    if isinstance(value, str) and ("\x00" in value or any("\ud800" <= mark <= "\udfff" for mark in value)):
        raise ConfigError(f"{name} is {value!r}; choose a text without NUL and lone surrogates")
    return value


def _expanded(name: str, folder: str) -> str:
    try:
        return str(Path(folder.strip()).expanduser())
    except RuntimeError:
        raise UsageError(f"{name} is {folder!r}, a home folder that there is not; give the folder in full") from None


def _seed(seed: int) -> int:
    if seed >= 0:
        return seed
    return secrets.randbelow(1 << 32)


def _prompt_rule(field: str, kind: str, text: str) -> Rule:
    if kind not in PROMPT_RULES:
        raise ConfigError(f"{field} is {kind!r}; choose {', '.join(PROMPT_RULES)}")
    return Rule(kind, text)


def _format(name: str) -> str:
    if name not in FORMATS:
        raise ConfigError(f"format is {name!r}; choose {AS_INPUT}, {', '.join(FORMATS)}")
    return name


_COLUMNS = ("file", "native", "target", "output", "prompt", "program", "notes", "plan")


def question(options: PlanOptions) -> str:
    """Return what Start asks before a job with files that carry no prompt, "" when there is nothing to ask.

    Reads headers only, and nothing where the job brings a prompt of its own. Raises `UsageError` where the places
    cannot be used.
    """
    check_places(options)
    if options.every_rule["prompt"].value:
        return ""
    with Journal(options.output, memory=True) as journal:
        journal.plan(walk(options), options, plan_file)
        wordless, pending = journal.wordless()
    if not wordless:
        return ""
    return (
        f"{_wordless(wordless, pending)}: write one, or put .txt files beside them; press Start again to go on without"
    )


def _wordless(wordless: int, pending: int) -> str:
    return f"{wordless} of {pending} carry no prompt"


def plan_pages(options: PlanOptions) -> Iterator[str]:
    """Yield the dry run as HTML: at once the first files of a large folder, then the whole with its totals.

    Each file has its target size, prompt and outcome. Writes nothing. Raises `UsageError` where the places cannot be
    used.
    """
    began = time.perf_counter()
    check_places(options)
    files = walk(options)
    first = list(islice(files, MAX_LISTED + 1))
    if len(first) > MAX_LISTED:
        planned = (plan_file(candidate, options, index=index) for index, candidate in enumerate(first[:MAX_LISTED]))
        rows = [
            _row(entry.candidate.key, entry, entry.request, entry.output, entry.problem or entry.skip or "")
            for entry in planned
        ]
        note = f"the first {MAX_LISTED} files; the rest is being read"
        yield table_html(_COLUMNS, rows, element_id="fam_hires_plan_table", note=note)
    asked: dict[str, HiresRequest] = {}
    """What this job asks for, where it is not what the journal holds: a kept file's row tells of its own making."""

    keys: set[str] = set()

    def plan(candidate: Candidate, options: PlanOptions, *, index: int) -> Planned:
        entry = plan_file(candidate, options, index=index)
        if entry.request is not None and len(asked) < MAX_LISTED:
            asked[candidate.key] = entry.request
        return entry

    with Journal(options.output, memory=True) as journal:
        found = journal.plan(_noting(chain(first, files), keys), options, plan)
        counts = journal.counts()
        history = journal.history()
        pixels = journal.pending_pixels()
        wordless = journal.wordless()
        rows = [
            _row(
                item.key,
                item,
                asked.get(item.key, item.request),
                item.output or "",
                "kept: made with other settings" if item.key in found.kept_keys else _outcome(item),
            )
            for item in journal.items(limit=MAX_LISTED)
        ]
    total = sum(counts.values())
    waiting = counts["pending"] + counts["running"] + counts["saving"]
    parts = [f"{total} files", f"{waiting} to do"]
    for number, word in (
        (counts["done"] - found.kept, "done"),
        (found.kept, KEPT),
        (counts["skipped"], "skipped"),
        (counts["failed"], "unreadable"),
    ):
        if number:
            parts.append(f"{number} {word}")
    if wordless[0]:
        parts.append(_wordless(*wordless))
    if (rest := others(options, keys)) is not None:
        parts.append(rest)
    parts.append(f"{pixels / 1e6:.1f} megapixels to make")
    if history is not None:
        parts.append(f"about {duration(history[0] * pixels / 1e6)} and {history[1] * pixels / 1e12:.1f} MB")
    parts.append(f"planned in {time.perf_counter() - began:.1f} s")
    note = ", ".join(parts)
    if total > MAX_LISTED:
        note += f"; the first {MAX_LISTED} are listed"
    yield table_html(_COLUMNS, rows, element_id="fam_hires_plan_table", note=note)


def _noting(candidates: Iterator[Candidate], keys: set[str]) -> Iterator[Candidate]:
    for candidate in candidates:
        keys.add(candidate.key)
        yield candidate


def _outcome(item: Item) -> str:
    return item.error or ("to do" if item.state == "pending" else item.state)


def _row(
    key: str, found: Item | Planned, request: HiresRequest | None, output: str, outcome: str
) -> tuple[str, str, str, str, str, str, str, str]:
    size = f"{found.native[1]} x {found.native[0]}" if found.native != (0, 0) else ""
    target = f"{request.size[1]} x {request.size[0]}" if request else ""
    prompt = "" if request is None else request.prompt[:80]
    return key, size, target, output, prompt, found.program or "", "; ".join(found.notes), outcome
