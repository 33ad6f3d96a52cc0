"""What the script is asked to do: the page's positional values, the API's one dict, and XYZ's overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fam_ext.core.config import MAX_CYCLES, FamConfig
from fam_ext.errors import ConfigError
from fam_ext.options.presets import CUSTOM, DEFAULT, PresetStore
from fam_ext.options.table import CONFIG_FIELDS
from fam_ext.ui.dials import PARTS, dial_values, read_dials

XYZ_ATTRIBUTE = "_fam_xyz"
"""A dict of named fields on the WebUI's object p, which goes before everything else."""


@dataclass(frozen=True)
class Asked:
    """One generation's wish."""

    enabled: bool
    config: FamConfig
    by_name: bool = False
    """It came as one dict of named fields (API), not from the page."""


def read_arguments(args: Sequence[Any], xyz: Mapping[str, Any], *, store: PresetStore, page: FamConfig) -> Asked:
    """Return what the script's arguments and the XYZ overrides mean. Raises `ConfigError` naming field and range.

    `args` is [enabled, preset, dials...] from the page, or [{...}] from the API: FamConfig's fields, `preset` (the
    fields that it leaves out) and `enabled` (true when absent). `page` are the page's first values, which an API
    client gets for the positions that it leaves out; so a preset beside them is the preset's dials.
    """
    by_name = bool(args) and isinstance(args[0], Mapping)
    if by_name:
        fields, enabled = named(args[0], store=store)
    elif args:
        fields, enabled = _positional(args, store=store, page=page)
    else:
        fields, enabled = page.to_dict(), False
    if xyz:
        overrides = dict(xyz)
        name = overrides.pop("preset", None)
        if name is not None:
            fields = store.get(name).config.to_dict()
        fields, enabled = with_values(fields, overrides), True
    return Asked(enabled, FamConfig.from_dict(fields) if enabled else FamConfig(), by_name)


def _positional(args: Sequence[Any], *, store: PresetStore, page: FamConfig) -> tuple[dict[str, Any], bool]:
    """Return (fields, enabled) of [enabled, preset, dials...]; what is missing at the end has the page's value."""
    if not isinstance(args[0], bool):
        raise ConfigError(
            f"the first argument is {args[0]!r}; choose true or false, or give one object of named fields"
        )
    given = [*args, *[None, *dial_values(page)][max(0, len(args) - 1) :]]
    if len(given) != 2 + len(PARTS):
        raise ConfigError(f"{len(args)} arguments were given; choose at most {2 + len(PARTS)}, or one object")
    preset, dials = given[1], given[2:]
    if preset in (None, "", CUSTOM):
        return read_dials(dials), args[0]
    if not isinstance(preset, str):
        raise ConfigError(f"preset is {preset!r}; choose from {', '.join(store.names())}")
    config = store.get(preset).config
    return (config.to_dict() if dials == dial_values(page) else read_dials(dials)), args[0]


def with_values(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `values`. A cut-off that comes without its unit is the paper's c, a share of the native side:
    it never takes the unit of another number."""
    fields = {**base, **values}
    if "cutoff" in values and "cutoff_reference" not in values:
        fields["cutoff_reference"] = FamConfig().cutoff_reference
        cutoff = values["cutoff"]
        if isinstance(cutoff, int | float) and not isinstance(cutoff, bool) and 1 < cutoff <= MAX_CYCLES:
            raise ConfigError(
                f"cutoff is {cutoff!r}; choose 0 to 1, a share of the native side, or give cutoff_reference as well "
                f'("cycles": 0 to {MAX_CYCLES:g})'
            )
    return fields


def named(values: Mapping[str, Any], *, store: PresetStore) -> tuple[dict[str, Any], bool]:
    """Return (fields, enabled) of the API's dict. Raises `ConfigError` for a field that there is not.

    What is left out has the value of `preset`, and without one of the default preset.
    """
    fields = dict(values)
    enabled = fields.pop("enabled", True)
    if not isinstance(enabled, bool):
        raise ConfigError(f"enabled is {enabled!r}; choose true or false")
    preset = fields.pop("preset", DEFAULT)
    if not isinstance(preset, str):
        raise ConfigError(f"preset is {preset!r}; choose from {', '.join(store.names())}")
    known = [field.name for field in CONFIG_FIELDS]
    for name in fields:
        if name not in known:
            raise ConfigError(f"{name} is not a field of FAM Hires; choose from enabled, preset, {', '.join(known)}")
    return with_values(store.get(preset).config.to_dict(), fields), enabled
