"""What was asked of a job: its parts together, as a journal keeps them. Standard library only."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, UsageError
from fam_ext.options.field import options_of, said
from fam_ext.options.parts import OutputRule, PictureRule, Places, Rule, SizeRule
from fam_ext.options.renderer import STANDALONE, WEBUI, RendererChoice
from fam_ext.options.request import OWN, REQUEST

_PARTS: Mapping[str, type] = {"places": Places, "size": SizeRule, "output": OutputRule, "renderer": RendererChoice}


@dataclass(frozen=True)
class Job:
    """Everything the outputs of a job depend on. Two runs of equal jobs make equal pictures."""

    places: Places
    size: SizeRule = field(default_factory=SizeRule)
    picture: PictureRule = field(default_factory=PictureRule)
    output: OutputRule = field(default_factory=OutputRule)
    renderer: RendererChoice = field(default_factory=RendererChoice)
    loaded: tuple[str, ...] = ()
    """In a WebUI its checkpoint and its VAE, which draw where a picture names none; a journal keeps them by file."""

    def __post_init__(self) -> None:
        if not self.places.inputs:
            raise UsageError("no input was given; name at least one picture or folder")

    @classmethod
    def of(cls, inputs: tuple[str, ...], output: str, **values: Any) -> Job:  # noqa: ANN401  # options differ in type
        """Return a job from flat options: those of its parts, FAM's `config`, `settings`, `rules`, and settings of a
        request that are the job's (`method`, `tile`, `low_memory`). Raises `ConfigError` for an unknown one."""
        rest = {"inputs": inputs, "output": output, **values}
        settings = {**rest.pop("settings", {})}
        settings |= {name: rest.pop(name) for name in REQUEST if name in rest and name not in OWN and name != "size"}
        picture = PictureRule(rest.pop("config", FamConfig()), settings, rest.pop("rules", {}))
        renderer = rest.pop("renderer", RendererChoice())
        parts = {
            part: table(**{spec.name: rest.pop(spec.name) for spec in options_of(table) if spec.name in rest})
            for part, table in _PARTS.items()
            if part != "renderer"
        }
        for name in rest:
            raise ConfigError(f"{said(name)} is not an option of a job")
        return cls(picture=picture, renderer=renderer, **parts)

    def replace(self, **values: Any) -> Job:  # noqa: ANN401
        """Return a copy with flat options changed, as `of` takes them."""
        parts: dict[str, Any] = {}
        for part, table in _PARTS.items():
            own = {spec.name: values.pop(spec.name) for spec in options_of(table) if spec.name in values}
            if own:
                parts[part] = dataclasses.replace(getattr(self, part), **own)
        fixed = {name: values.pop(name) for name in list(values) if name in REQUEST and name not in OWN}
        if fixed or values:
            settings = {**values.pop("settings", self.picture.settings), **fixed}
            parts["picture"] = dataclasses.replace(self.picture, settings=settings, **values)
        return dataclasses.replace(self, **parts)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of what decides settings, sizes and names; what decides only how the job runs is left out."""
        values: dict[str, Any] = {}
        for part, table in _PARTS.items():
            for spec in options_of(table):
                value = getattr(getattr(self, part), spec.name)
                if part != "renderer" and spec.decides != "run" and not (spec.since and value == spec.default):
                    values[spec.name] = value
        values["renderer"] = [self.renderer.name, self.renderer.identity]
        return digest({**values, **_picture_json(self.picture)})

    def to_json(self) -> dict[str, Any]:
        """Return the job as plain JSON values, flat: the names of options are unique among its parts."""
        values = {
            spec.name: getattr(getattr(self, part), spec.name)
            for part, table in _PARTS.items()
            if part != "renderer"
            for spec in options_of(table)
        }
        values["renderer"] = dataclasses.asdict(self.renderer)
        return cast("dict[str, Any]", json.loads(json.dumps({**values, **_picture_json(self.picture)})))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """Return the job that `to_json` gave, of this version or an earlier one. Raises `ConfigError` for what this
        version cannot read: a journal may be a stranger's."""
        try:
            return cls._from_json(values)
        except UsageError:
            raise
        except ConfigError as error:
            raise _unreadable(error) from None
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise _unreadable(error) from None

    @classmethod
    def _from_json(cls, values: Mapping[str, Any]) -> Job:
        known = {spec.name: spec for part, table in _PARTS.items() if part != "renderer" for spec in options_of(table)}
        flat: dict[str, Any] = {name: value for name, value in values.items() if name in known}
        for name in flat:
            if known[name].kind in ("paths", "texts", "size") and isinstance(flat[name], list):
                flat[name] = tuple(cast("list[object]", flat[name]))
        flat |= _from_old_names(values)
        settings = dict(values.get("settings", {}))
        settings |= {name: values[name] for name in ("method", "tile", "low_memory") if name in values}
        rules = {name: Rule(kind, value) for name, (kind, value) in values.get("rules", {}).items()}
        return cls.of(
            flat.pop("inputs"),
            flat.pop("output"),
            config=FamConfig.from_dict(values.get("config", {})),
            settings=settings,
            rules=rules,
            renderer=_stored_renderer(values),
            **flat,
        )


def _unreadable(error: Exception) -> ConfigError:
    text = " ".join("".join(mark if mark.isprintable() else "?" for mark in str(error)).split())
    return ConfigError(f"the job's options cannot be read ({text[:120]}); run the job's own command again")


def _picture_json(picture: PictureRule) -> dict[str, Any]:
    config = {
        spec.name: getattr(picture.config, spec.name)
        for spec in options_of(FamConfig)
        if not (spec.since and getattr(picture.config, spec.name) == spec.default)
    }
    return {
        "config": config,
        "settings": dict(picture.settings),
        "rules": {name: [rule.kind, rule.value] for name, rule in picture.rules.items()},
    }


def _from_old_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return today's options for what jobs said before the options' table."""
    flat: dict[str, Any] = {}
    if "fit" in values:
        flat["exact_size"] = {"inside": False, "exact": True}[values["fit"]]
    if "max_input_pixels" in values:
        flat["max_input_megapixels"] = values["max_input_pixels"] / 1e6
    return flat


def _stored_renderer(values: Mapping[str, Any]) -> RendererChoice:
    kept = values.get("renderer", {})
    if isinstance(kept, str):  # before the options' table: the identity alone
        if kept.startswith("webui upscaler "):
            return RendererChoice(WEBUI, upscaler=kept.removeprefix("webui upscaler "))
        if values.get("standalone") is True and kept:
            model, loras = json.loads(kept)
            return RendererChoice(STANDALONE, model=model, loras=tuple(f"{file}:{weight}" for file, weight in loras))
        return RendererChoice(STANDALONE if values.get("standalone") is True else kept)
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}
    return RendererChoice(**given)


def digest(value: Any) -> str:  # noqa: ANN401  # anything JSON holds
    """Return a short hash of JSON values, the same in every process."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]
