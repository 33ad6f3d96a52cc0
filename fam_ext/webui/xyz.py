"""Axes of the X/Y/Z plot: every dial, and the presets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import scripts

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.metadata.infotext import parse_value
from fam_ext.options.field import Option
from fam_ext.options.table import CONFIG_FIELDS
from fam_ext.webui.arguments import XYZ_ATTRIBUTE
from fam_ext.webui.session import answer_of

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


def _type(field: Option) -> Callable[[str], Any]:
    if field.kind == "float":
        return float
    if field.kind == "bool":
        return _boolean
    if field.kind == "window":
        return lambda text: parse_value(field, text)
    return str


def _boolean(text: str) -> bool:
    if text.strip().lower() not in ("true", "false"):
        raise ConfigError(f"the value is {text!r}; choose True or False")
    return text.strip().lower() == "true"


def _apply(name: str) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, x: Any, xs: Any) -> None:  # noqa: ANN401
        # a new dict: the plot's cells share the attributes of one p
        setattr(p, XYZ_ATTRIBUTE, {**getattr(p, XYZ_ATTRIBUTE, {}), name: x})

    return apply


def _confirm(field: Option) -> Callable[[Any, list[Any]], None]:
    """Return a check of all of an axis's values, before the plot's first cell."""

    def confirm(p: Any, xs: list[Any]) -> None:  # noqa: ANN401
        given = getattr(p, XYZ_ATTRIBUTE, {})
        for value in xs:
            # a cut-off's unit may be another axis's: then either unit's range will do
            unit = {"cutoff_reference": "cycles"} if field.name == "cutoff" and value > 1 else {}
            try:
                FamConfig.from_dict({**FamConfig().to_dict(), **given, **unit, field.name: value})
            except ConfigError as error:
                raise answer_of(p, error) from None

    return confirm


def _confirm_preset(p: Any, xs: list[str]) -> None:  # noqa: ANN401
    from fam_ext.webui.script import store

    for name in xs:
        try:
            store().get(name)
        except ConfigError as error:
            raise answer_of(p, error) from None
