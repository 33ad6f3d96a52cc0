"""With which words and numbers a picture is drawn: the job's rules over what its metadata brought."""

from __future__ import annotations

import dataclasses
from typing import Any

from fam_ext.errors import ConfigError, UnsupportedSamplerError, UnsupportedScheduleError
from fam_ext.jobs.contract import undrawn
from fam_ext.metadata.infotext import Infotext, from_fields, is_fam, request_value
from fam_ext.methods.catalog import reads
from fam_ext.options.parts import PictureRule, Rule
from fam_ext.options.request import HiresRequest
from fam_ext.options.table import BY_NAME
from fam_ext.samplers import names

_MAX_NOTED = 24


def request_for(found: Infotext, target: tuple[int, int], picture: PictureRule) -> tuple[HiresRequest, tuple[str, ...]]:
    """Return the request for one picture, and the names of the settings that the picture itself brought."""
    taken: list[str] = []
    values: dict[str, Any] = {}
    for name, rule in picture.every_rule.items():
        if name == "config":
            continue
        own = _own(found, name)
        value = _apply(rule, own)
        if own is not None and rule.kind != "override":
            taken.append(name)
        if value is not None:
            values[name] = value
    config = picture.config
    if "config" in picture.rules and picture.rules["config"].kind == "take" and is_fam(found.params):
        config = from_fields(found.params)
        taken.append("config")
    sampler, schedule = values.get("sampler"), values.get("schedule")
    if isinstance(sampler, str):
        # "DPM++ 2M Karras", as the WebUI named them before 1.9, and every other program's spelling
        usual, inner = names.usual(sampler, None)
        values["sampler"] = usual
        rules = picture.every_rule
        asked = rules["sampler"].kind == "override" and not _names_one(rules["schedule"])
        if inner is not None and (asked or ("sampler" in taken and "schedule" not in taken)):
            schedule = inner
    if isinstance(schedule, str):
        values["schedule"] = names.schedule(schedule) or schedule
    request = HiresRequest(
        size=target,
        config=config,
        **picture.fixed,
        **values,
    )
    return request, tuple(taken)


def check_names(picture: PictureRule) -> None:
    """Raise `UnsupportedSamplerError`, `UnsupportedScheduleError` or `ConfigError` for a sampler, schedule or number of
    steps that the standalone renderer has not, where the user or a preset says it; a picture's own are `offered`."""
    rules = picture.every_rule
    sampler, schedule, steps = (rules[name] for name in ("sampler", "schedule", "steps"))
    name, inner = names.usual(sampler.value, None) if sampler.value else (None, None)
    if name is not None:
        names.split_name(name, "Automatic")
        if (times := names.asked_cfg(sampler.value, 1.0)) != 1.0:
            raise UnsupportedSamplerError(
                f"sampler {sampler.value!r} takes CFG++'s own scale; choose DDIM CFG++, whose cfg_scale is {times:g} "
                "times that"
            )
    plan = (names.schedule(schedule.value) or schedule.value) if schedule.value else None
    if plan is not None:
        names.split_name(names.FALLBACK, plan)
    if name is None or sampler.kind != "override":
        return
    plan = plan if _names_one(schedule) else inner
    if not names.has_schedule(name, plan or "Automatic"):
        raise UnsupportedScheduleError(
            f"schedule {plan!r} does not go with sampler {name}; choose {', '.join(names.OWN_SCHEDULES[name])}"
        )
    most = names.most_steps(name)
    if steps.kind == "override" and steps.value is not None and steps.value > most:
        raise ConfigError(f"steps is {steps.value}, and sampler {name} takes at most {most}; choose fewer")


def offered(request: HiresRequest) -> tuple[HiresRequest, tuple[str, ...]]:
    """Return the request as the standalone renderer will run it, and a note for each name that it doesn't offer and
    each number out of its range. What the user asked for has passed `check_names`: it changes only beside a sampler
    that the picture brings."""
    sampler, schedule, changed = names.choose(request.sampler, request.schedule)
    request = dataclasses.replace(request, sampler=sampler, schedule=schedule)
    notes = list(changed)
    most = names.most_steps(request.sampler)
    if request.steps > most:
        notes.append(f"{request.sampler} takes at most {most} steps, {most} are used, not {request.steps}")
        request = dataclasses.replace(request, steps=most)
    return request, tuple(notes)


def request_of_words(target: tuple[int, int], picture: PictureRule) -> tuple[HiresRequest, tuple[str, ...]]:
    """Return the request of a picture made from words alone, as the standalone renderer will run it, and its notes.
    Raises as `check_names`."""
    check_names(picture)
    return offered(request_for(Infotext(), target, picture)[0])


def untaken(found: Infotext, request: HiresRequest, picture: PictureRule) -> list[str]:
    """Return a note for each setting of the picture that could not be taken as it stands there."""
    notes: list[str] = []
    for name in ("seed", "steps", "cfg_scale", "clip_skip", "sampler", "schedule"):
        spec = BY_NAME[name]
        text = found.params.get(spec.key) or found.params.get(spec.host_key or "") or ""
        own, asked, ran = _own(found, name), request_value(found.params, name), getattr(request, name)
        if text and picture.every_rule[name].kind == "take" and (own is None or own != asked):
            why = "is not understood" if asked is None or spec.kind == "name" else "is out of range"
            used = "the default" if ran is None else f"{ran:g}" if isinstance(ran, float) else ran
            notes.append(f"{spec.host_key} {text[:_MAX_NOTED]} {why}, {used} is used")
    return notes


def idle(request: HiresRequest) -> list[str]:
    """Return a note for each part of FAM that is asked for, and never acts."""
    return request.config.idle() if reads(request.method, "am") else []


def undrawn_embeddings(found: Infotext, request: HiresRequest) -> list[str]:
    """Return a note of the WebUI's textual inversions in the picture's words; the standalone host loads none."""
    hashes = found.params.get("TI hashes", "")
    words = f"{request.prompt} {request.negative_prompt}"
    named = [name for entry in hashes.split(",") if (name := entry.partition(":")[0].strip()) and name in words]
    return undrawn(named)


def _names_one(schedule: Rule) -> bool:
    """Return whether a schedule is asked for; Automatic, as an overriding preset says, leaves it to the sampler."""
    return schedule.kind == "override" and names.schedule(str(schedule.value or "")) != "Automatic"


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
    if name in ("sampler", "schedule") and not str(value).isprintable():
        return None  # no program names one so
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
