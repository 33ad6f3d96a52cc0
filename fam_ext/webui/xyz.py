"""Axes of the X/Y/Z plot: every dial, and the presets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import scripts

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, FamError
from fam_ext.metadata.infotext import parse_value
from fam_ext.options.field import Option
from fam_ext.options.resolve import config_of
from fam_ext.options.table import CONFIG_FIELDS
from fam_ext.webui.answers import refuse_axis
from fam_ext.webui.arguments import XYZ_ATTRIBUTE
from fam_ext.webui.known import check_model

PREFIX = "[FAM] "


def add_axes(preset_names: Callable[[], list[str]]) -> None:
    """Add FAM's axes to the X/Y/Z plot, once however often it is called."""
    module = next(
        (entry.module for entry in scripts.scripts_data if entry.script_class.__module__ == "xyz_grid.py"), None
    )
    if module is None:
        return
    known = {option.label for option in module.axis_options}
    for option in axes(module, preset_names):
        if option.label not in known:
            module.axis_options.append(option)


def axes(module: Any, preset_names: Callable[[], list[str]]) -> list[Any]:  # noqa: ANN401
    """Return the axes in the plot's own class. Each switches FAM on in its cells."""
    options = [
        module.AxisOption(f"{PREFIX}Preset", str, _apply("preset"), confirm=_confirm_preset, choices=preset_names)
    ]
    for field in CONFIG_FIELDS:
        more: dict[str, Any] = {"confirm": _confirm(field)}
        if field.choices:
            more["choices"] = lambda field=field: list(field.choices)
        elif field.kind == "bool":
            more["choices"] = lambda: ["True", "False"]
        options.append(module.AxisOption(PREFIX + field.label, _type(field), _apply(field.name), **more))
    return options


class _Number:
    """Reads a number as the plot's own axes do: to what equals `float` it gives its ranges too ("0.1-0.5 (+0.1)")."""

    def __eq__(self, other: object) -> bool:
        return other is float

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __call__(self, value: Any) -> Any:  # noqa: ANN401
        return _read(float, value)


def _read(read: Callable[[Any], Any], value: Any) -> Any:  # noqa: ANN401
    """Return what `value` means, and itself where it means nothing: `confirm`, which knows p, refuses it."""
    try:
        return read(value)
    except (KeyError, ValueError, ConfigError):
        return value


def _type(field: Option) -> Any:  # noqa: ANN401
    if field.kind == "float":
        return _Number()
    if field.kind in ("bool", "window"):
        read = _boolean if field.kind == "bool" else lambda text: parse_value(field, text)
        return lambda value: _read(read, value)
    return str


def words_of(name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the named fields that one value of an axis means: a cut-off may have its unit beside it ("20 cycles")."""
    if name == "cutoff" and isinstance(value, str):
        number, _, unit = value.strip().partition(" ")
        return {"cutoff": _read(float, number), **({"cutoff_reference": unit.strip()} if unit else {})}
    return {name: value}


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.strip().lower()]


def _apply(name: str) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, x: Any, xs: Any) -> None:  # noqa: ANN401
        # a new dict: the plot's cells share the attributes of one p
        setattr(p, XYZ_ATTRIBUTE, {**getattr(p, XYZ_ATTRIBUTE, {}), **words_of(name, x)})

    return apply


def _confirm(field: Option) -> Callable[[Any, list[Any]], None]:
    """Return a check of all of an axis's values, before the plot's first cell."""

    def confirm(p: Any, xs: list[Any]) -> None:  # noqa: ANN401
        given = getattr(p, XYZ_ATTRIBUTE, {})
        for value in xs:
            try:
                config = config_of({**given, **words_of(field.name, value)}, FamConfig())
                if field.name == "am_sites":
                    check_model(p.sd_model, config)
            except FamError as error:
                refuse_axis(p, xs, error)
                return

    return confirm


def _confirm_preset(p: Any, xs: list[str]) -> None:  # noqa: ANN401
    from fam_ext.webui.script import store

    for name in xs:
        try:
            store().get(name)
        except ConfigError as error:
            refuse_axis(p, xs, error)
            return
