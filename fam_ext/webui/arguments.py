"""What the script is asked to do: the page's positional values, the API's one dict, and XYZ's overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.metadata.fields import CONFIG_FIELDS
from fam_ext.metadata.presets import PresetStore
from fam_ext.ui.dials import PARTS, read_dials

XYZ_ATTRIBUTE = "_fam_xyz"
"""A dict of named fields on the WebUI's object p, which goes before everything else."""


@dataclass(frozen=True)
class Asked:
    """One generation's wish."""

    enabled: bool
    config: FamConfig
    by_name: bool = False
    """It came as one dict of named fields (API), not from the page."""


def read_arguments(args: Sequence[Any], xyz: Mapping[str, Any], *, store: PresetStore) -> Asked:
    """Return what the script's arguments and the XYZ overrides mean. Raises `ConfigError` naming field and range.

    `args` is [enabled, preset, dials...] from the page, or [{...}] from the API: FamConfig's fields, `preset` (the
    fields that it leaves out) and `enabled` (true when absent).
    """
    by_name = bool(args) and isinstance(args[0], Mapping)
    if by_name:
        fields, enabled = named(args[0], store=store)
    elif xyz or (args and args[0]):
        # the page's dials; an API client that leaves the script out gets the page's defaults
        fields, enabled = read_dials(list(args[2 : 2 + len(PARTS)])), bool(args[0])
    else:
        return Asked(False, FamConfig())
    if xyz:
        overrides = dict(xyz)
        name = overrides.pop("preset", None)
        if name is not None:
            fields = store.get(name).config.to_dict()
        fields, enabled = {**fields, **overrides}, True
    return Asked(enabled, FamConfig.from_dict(fields) if enabled else FamConfig(), by_name)


def named(values: Mapping[str, Any], *, store: PresetStore) -> tuple[dict[str, Any], bool]:
    """Return (fields, enabled) of the API's dict. Raises `ConfigError` for a field that there is not."""
    fields = dict(values)
    enabled = fields.pop("enabled", True)
    if not isinstance(enabled, bool):
        raise ConfigError(f"enabled is {enabled!r}; choose true or false")
    preset = fields.pop("preset", None)
    base: dict[str, Any] = {}
    if preset is not None:
        if not isinstance(preset, str):
            raise ConfigError(f"preset is {preset!r}; choose from {', '.join(store.names())}")
        base = store.get(preset).config.to_dict()
    known = [field.name for field in CONFIG_FIELDS]
    for name in fields:
        if name not in known:
            raise ConfigError(f"{name} is not a field of FAM Hires; choose from enabled, preset, {', '.join(known)}")
    return {**base, **fields}, enabled
