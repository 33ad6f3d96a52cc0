"""The table of a picture's options: FAM's dials and the request's settings, by name and by infotext key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fam_ext.core.config import FamConfig
from fam_ext.options.field import Option, options_of
from fam_ext.options.request import REQUEST

VERSION_KEY = "FAM version"
CONFIG_FIELDS: tuple[Option, ...] = options_of(FamConfig)
REQUEST_FIELDS: tuple[Option, ...] = tuple(REQUEST.values())
FIELDS: tuple[Option, ...] = (*CONFIG_FIELDS, *REQUEST_FIELDS)
BY_NAME: Mapping[str, Option] = {spec.name: spec for spec in FIELDS}
BY_KEY: Mapping[str, Option] = {spec.key: spec for spec in FIELDS}

_JSON_TYPES = {"float": "number", "int": "integer", "bool": "boolean"}


def json_schema(options: Iterable[Option]) -> dict[str, Any]:
    """Return the JSON Schema of one object of named fields."""
    properties = {spec.name: _property(spec) for spec in options}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _property(spec: Option) -> dict[str, Any]:
    entry: dict[str, Any] = {"title": spec.label, "description": spec.help}
    if spec.kind in ("window", "size"):
        item = {"type": "number", "minimum": 0, "maximum": 1} if spec.kind == "window" else {"type": "integer"}
        entry |= {"type": "array", "items": item, "minItems": 2, "maxItems": 2}
    elif spec.kind in ("texts", "paths"):
        entry |= {"type": "array", "items": {"type": "string"}}
    else:
        entry["type"] = _JSON_TYPES.get(spec.kind, "string")
    if spec.choices:
        entry["enum"] = [*spec.choices, *([spec.off] if isinstance(spec.off, str) and spec.off else [])]
    if spec.kind in ("float", "int"):
        low = spec.off if isinstance(spec.off, int | float) and spec.low is not None else spec.low
        entry |= {} if low is None else {"exclusiveMinimum" if spec.above and low == spec.low else "minimum": low}
        entry |= {} if spec.high is None else {"maximum": spec.high}
    default = spec.off if spec.default is None else spec.default
    if default is not None:
        entry["default"] = list(default) if isinstance(default, tuple) else default
    return entry
