"""What the script is asked to do: the page's positional values, the API's one dict, and XYZ's overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.methods.catalog import FAM
from fam_ext.options import resolve
from fam_ext.options.presets import CUSTOM, PresetStore
from fam_ext.ui.dials import PARTS, dial_values, read_dials

XYZ_ATTRIBUTE = "_fam_xyz"
"""A dict of named fields on the WebUI's object p, which goes before everything else."""


@dataclass(frozen=True)
class Asked:
    """One generation's wish."""

    enabled: bool
    config: FamConfig
    method: str = FAM
    by_name: bool = False
    """It came as one dict of named fields (API), not from the page."""


def read_arguments(args: Sequence[Any], xyz: Mapping[str, Any], *, store: PresetStore, page: FamConfig) -> Asked:
    """Return what the script's arguments and the XYZ overrides mean. Raises `ConfigError` naming field and range.

    `args` is [enabled, preset, dials...] from the page, or [{...}] from the API: FamConfig's fields, `method`, `preset`
    (the fields that it leaves out) and `enabled` (true when absent). `page` are the page's first values, which an API
    client gets for the positions that it leaves out; so a preset beside them is the preset's dials.
    """
    by_name, method = bool(args) and isinstance(args[0], Mapping), FAM
    if by_name:
        config, enabled, method = resolve.script(args[0], preset_of=store.get)
        fields = config.to_dict()
    elif args:
        fields, enabled = _positional(args, store=store, page=page)
    else:
        fields, enabled = page.to_dict(), False
    if xyz:
        overrides = dict(xyz)
        name = overrides.pop("preset", None)
        if name is not None:
            fields = store.get(name).config.to_dict()
        fields, enabled = resolve.config_of(overrides, FamConfig.from_dict(fields)).to_dict(), True
    return Asked(enabled, FamConfig.from_dict(fields) if enabled else FamConfig(), method, by_name)


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
