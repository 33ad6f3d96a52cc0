"""Command-line options drawn from the options' table: their flags, help, and what was said with them."""

from __future__ import annotations

import glob
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from fam_ext.errors import ConfigError, UsageError
from fam_ext.metadata.infotext import parse_value
from fam_ext.options.field import PANELS, Option
from fam_ext.options.parts import WORDS, SizeRule
from fam_ext.options.presets import BUILTIN, DEFAULT
from fam_ext.options.table import CONFIG_FIELDS

_TYPES: Mapping[str, Any] = {"texts": list[str], "paths": list[str]}
_NUMBERS: Mapping[str, tuple[Callable[[str], float], str]] = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
}


def named_files(words: Iterable[str]) -> list[str]:
    """Return paths with the files that *.png means, which no shell of Windows says; a [ is in many names, and is
    itself."""
    found: list[str] = []
    for word in words:
        path = os.path.expanduser(word)
        is_pattern = re.search(r"[*?]", path) and not os.path.lexists(path)
        files = sorted(glob.glob(path.replace("[", "[[]"), recursive=True)) if is_pattern else []
        found += files or [path]
    return found


def takes(
    options: Iterable[Option], *, own_settings: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds `options` to a command's parameters and calls it with `said`: their values by name,
    those that were given alone. `own_settings`: pictures may bring some, which an
    option then replaces."""
    table = list(options)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for parameter in inspect.signature(function, eval_str=True).parameters.values()
            if parameter.name != "said"
        ]
        taken = {parameter.name for parameter in own}
        added = [_parameter(spec, own=own_settings) for spec in table if spec.name not in taken]

        def command(**values: Any) -> None:  # noqa: ANN401
            said: dict[str, Any] = {}
            for spec in table:
                value = values.pop(spec.name) if spec.name not in taken else None
                if value is not None and value is not False:  # a switch that was not given is False
                    said[spec.name] = _read(spec, value)
            with in_flags(table):
                function(**values, said=said)

        # the command's own first: they are its arguments; keyword only, so that any order of defaults will do
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *added)]
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        setattr(command, "__signature__", inspect.Signature(parameters))  # noqa: B010  # what typer reads
        return command

    return decorate


def flag(spec: Option) -> str:
    """Return an option's long name: `--` and the name, of a switch that is on by default `--no-`."""
    plain = f"--{'no-' if spec.inverted else ''}{spec.name.replace('_', '-')}"
    return next((name for name in spec.flags if name.startswith("--")), plain)


def default_shown(spec: Option) -> str:
    """Return what an option is where nothing is said, which is the default preset; "" for nothing."""
    preset = BUILTIN[DEFAULT]
    value = preset.config.to_dict().get(spec.name, preset.settings.get(spec.name, spec.default))
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, tuple):
        return " to ".join(f"{end:g}" for end in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parameter(spec: Option, *, own: bool) -> inspect.Parameter:
    text = f"Off: {spec.help[0].lower()}{spec.help[1:]}" if spec.inverted else spec.help
    if spec.choices and not all(choice in text for choice in spec.choices):
        text += f" One of {', '.join(spec.choices)}."
    if own and spec.own and spec.name not in WORDS:
        text += " For all, instead of each picture's own."
    elif spec.kind != "bool" and (default := default_shown(spec)):
        text += f" (default: {default})"  # in brackets rich takes it for markup, and shows nothing
    names = [flag(spec), *(name for name in spec.flags if not name.startswith("--"))]
    more: dict[str, Any] = {"help": text, "show_default": False, "rich_help_panel": PANELS[spec.panel]}
    if spec.kind == "bool":
        return _keyword(spec.name, bool, typer.Option(*names, **more), False)
    if spec.kind in _NUMBERS:
        more["metavar"] = f"<{spec.kind}>"  # read by us: the error repeats what was given
    kind = _TYPES.get(spec.kind, str)
    return _keyword(spec.name, kind | None, typer.Option(*names, **more), None)


def _keyword(name: str, kind: Any, option: Any, default: Any) -> inspect.Parameter:  # noqa: ANN401
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _read(spec: Option, value: Any) -> Any:  # noqa: ANN401
    if spec.kind == "bool":
        return not spec.default
    if spec.kind in _NUMBERS:
        read, what = _NUMBERS[spec.kind]
        try:
            return read(value)
        except ValueError:
            raise UsageError(f"{flag(spec)} is {value!r}; write {what}") from None
    if spec.kind == "size":
        return parse_size(value)
    if spec.kind == "window":
        start, _, end = value.replace(",", " to ").partition(" to ")
        try:
            return float(start), float(end)
        except ValueError:
            raise UsageError(f"{flag(spec)} is {value!r}; write two numbers in rho, as 1,0.4") from None
    return tuple(value) if isinstance(value, list) else value


@contextmanager
def in_flags(options: Iterable[Option]) -> Iterator[None]:
    """Let an error about an option name it as it stands on the command line."""
    try:
        yield
    except (ConfigError, UsageError) as error:
        flags = {spec.name: flag(spec) for spec in options}
        name, _, rest = str(error).removeprefix("the ").partition(" ")
        if name not in flags:
            raise
        rest = re.sub(r"(?<=\bgive )\w+|(?<= or )\w+", lambda found: flags.get(found[0], found[0]), rest)
        raise type(error)(f"{flags[name]} {rest}") from None


def parse_size(text: str, *, said_by: str = "--size") -> tuple[int, int]:
    """Return (height, width) of WIDTHxHEIGHT. Raises `UsageError`, which names the flag `said_by`."""
    width, separator, height = text.lower().replace(" ", "").partition("x")
    try:
        if not separator:
            raise ValueError
        return int(height), int(width)
    except ValueError:
        raise UsageError(f"{said_by} is {text!r}; write WIDTHxHEIGHT in px, as 1024x1536") from None


def parse_scales(text: str) -> list[float]:
    """Return the scales of --scales, a comma-separated list. Raises `UsageError` for what is none, or out of range."""
    try:
        # as its label has it: 1.5000001 is 1.5
        scales = list(dict.fromkeys(float(f"{float(part):g}") for part in text.split(",") if part.strip()))
    except ValueError:
        scales = []
    if not scales:
        raise UsageError(f"--scales is {text!r}; write numbers from 1 to 16 with commas between, as 2,3")
    for scale in scales:
        try:
            SizeRule(scale=scale)
        except ConfigError:
            raise UsageError(f"--scales has {scale:g}; choose 1 to 16") from None
    return scales


def parse_rules(entries: Iterable[str]) -> dict[str, str]:
    """Return the rules by field of FIELD=RULE entries. Raises `UsageError`."""
    rules: dict[str, str] = {}
    for entry in entries:
        name, separator, kind = entry.partition("=")
        if not separator:
            raise UsageError(f"--rule is {entry!r}; write FIELD=RULE, as seed=take")
        rules[name] = kind
    return rules


def parse_dials(entries: Iterable[str], *, said_by: str = "--set") -> dict[str, Any]:
    """Return FAM's fields of FIELD=VALUE entries, values as in infotext. Raises `UsageError`, which names the flag
    `said_by`, or `ConfigError`."""
    dials: dict[str, Any] = {}
    for entry in entries:
        name, separator, text = entry.partition("=")
        spec = next((field for field in CONFIG_FIELDS if field.name == name), None)
        if not separator or spec is None:
            names = ", ".join(field.name for field in CONFIG_FIELDS)
            raise UsageError(f"{said_by} is {entry!r}; write FIELD=VALUE with one of {names}")
        value = parse_value(spec, text.replace(",", " to ") if spec.kind == "window" else text)
        if spec.kind == "bool" and text.strip().lower() not in ("true", "false"):
            raise ConfigError(f"{said_by} is {entry!r}; choose {name}=true or {name}=false")
        dials[name] = (not value if spec.inverted else value) if spec.kind == "bool" else value
    return dials
