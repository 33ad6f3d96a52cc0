"""Named settings: those that ship, and the user's own as JSON files outside the extension's folder."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, FamError
from fam_ext.options.field import Option, check, options_of, pick
from fam_ext.options.request import REQUEST
from fam_ext.placing import write_whole

VERSION = 1
DEFAULT = "balanced"
SETTINGS = tuple(spec.name for spec in REQUEST.values() if spec.preset)
CUSTOM = "custom"
"""What a preset box says when the dials are no preset's; so no preset has this name."""
_FIELDS = ("version", "name", "description", "fam", "settings", "overrides")
_MAX_BYTES = 1 << 20
_DESCRIPTION = Option("text", "Description", "", "", "run", name="description")
_NAME = re.compile(r"[^\W_][\w\- ]{0,78}[\w\-]|[^\W_]")
_NAME_RULE = f"use up to 80 letters, digits, spaces, - or _, beginning with a letter or digit, and not {CUSTOM!r}"


@dataclass(frozen=True)
class Preset:
    """A name for a `FamConfig` and sampler settings."""

    name: str
    description: str = ""
    config: FamConfig = field(default_factory=FamConfig)
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Any of SETTINGS. They hold for a picture that brings none of its own, and for every one when `overrides`."""
    overrides: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the preset as plain JSON values; only what differs from the defaults."""
        fam: dict[str, Any] = {}
        for spec in options_of(FamConfig):
            value = getattr(self.config, spec.name)
            if value != spec.default:
                fam[spec.name] = list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType]
        return {
            "version": VERSION,
            "name": self.name,
            "description": self.description,
            "fam": fam,
            "settings": dict(self.settings),
            "overrides": self.overrides,
        }

    @classmethod
    def from_json(cls, data: object) -> Preset:
        """Return the preset that `to_json` gave, of this version or an earlier one. Raises `ConfigError`."""
        if not isinstance(data, dict):
            raise ConfigError("the preset is not a JSON object; export one with `fam-hires presets export` to compare")
        values = pick(_migrate(cast("dict[str, Any]", data)), _FIELDS, "a preset")
        name = values.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ConfigError("the preset has no name; add one under name")
        fam = _object(values, "fam")
        settings = _object(values, "settings")
        for key, value in settings.items():
            if key not in SETTINGS:
                raise ConfigError(f"settings.{key} is unknown; choose from {', '.join(SETTINGS)}")
            check(dataclasses.replace(REQUEST[key], name=f"settings.{key}"), value)
        description = values.get("description", "")
        if isinstance(description, str):
            check(_DESCRIPTION, description)
        return cls(
            name.strip(),
            description if isinstance(description, str) else "",
            FamConfig.from_dict(fam),
            settings,
            values.get("overrides") is True,
        )


_MEASURED = FamConfig(cutoff=28.0, cutoff_reference="cycles", fm_edge=1.0, start=0.7, am_window=(1.0, 0.4))
"""What docs/benchmark.md chose."""

BUILTIN: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "paper",
            "The paper's settings: c 0.5, lambda 0.7, the whole schedule, latent bicubic, DDIM 50, guidance 7.5.",
            FamConfig(upsample="latent_bicubic"),
            {"steps": 50, "sampler": "DDIM", "schedule": "Automatic", "cfg_scale": 7.5},
            overrides=True,
        ),
        Preset(
            "balanced",
            "Keeps structure on any native size (28 cycles a picture, fading out), starts late, and steers attention "
            "only in the first part of the pass: faster, and clean along outlines.",
            _MEASURED,
            {"steps": 30, "sampler": "DDIM", "schedule": "Automatic", "cfg_scale": 7.0},
        ),
        Preset(
            "fast",
            "As balanced, from later on and in fewer steps; a picture that brings its own steps keeps them.",
            _MEASURED.replace(start=0.6),
            {"steps": 20, "sampler": "DPM++ 2M", "schedule": "Karras", "cfg_scale": 7.0},
        ),
        Preset(
            "few-step",
            "For LCM, Turbo and Lightning models: the pull of FM does not depend on the number of steps, "
            "which begin at the noisiest timestep. A picture that brings steps, sampler and CFG scale keeps them.",
            _MEASURED.replace(step_invariant=True),
            {"steps": 8, "sampler": "LCM", "schedule": "SGM Uniform", "cfg_scale": 1.5, "timestep_spacing": "trailing"},
        ),
    )
}


def user_folder() -> Path:
    """Return the folder of the user's own presets: FAM_HIRES_HOME, else the system's place for settings."""
    home = os.environ.get("FAM_HIRES_HOME")
    if home:
        return Path(home) / "presets"
    if sys.platform == "win32":
        base = os.environ.get("APPDATA") or str(Path.home() / "AppData" / "Roaming")
    else:
        base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "fam-hires" / "presets"


class PresetStore:
    """The user's presets, one JSON file each, in a folder of their own; those that ship cannot be changed."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = user_folder() if folder is None else folder

    def names(self) -> list[str]:
        """Return all names, those that ship first."""
        return [*BUILTIN, *self._own()]

    def get(self, name: str) -> Preset:
        """Return the preset of that name. Raises `ConfigError` naming those there are."""
        if name in BUILTIN:
            return BUILTIN[name]
        if is_name(name) and (path := self.file(name)).is_file():
            return replace(read(path), name=name)
        raise ConfigError(f"preset is {name!r}; choose from {', '.join(self.names())}")

    def save(self, preset: Preset, *, replace: bool = False) -> Path:
        """Write the preset atomically and return its file. Raises `ConfigError` when the name is taken."""
        if preset.name.casefold() in BUILTIN:
            raise ConfigError(f"preset {preset.name!r} ships with FAM Hires; choose another name")
        path = self.file(preset.name)
        if (taken := self.taken(preset.name)) is not None and not (replace and taken == preset.name):
            raise ConfigError(f"preset {taken!r} exists; choose another name, or replace it")
        write(preset, path, replace=replace)
        return path

    def taken(self, name: str) -> str | None:
        """Return the user's preset that `name` would share a file with, also where capitals do not count."""
        files = list(self.folder.glob("*.json")) if self.folder.is_dir() else []
        return next((path.stem for path in files if path.stem.casefold() == name.casefold()), None)

    def delete(self, name: str) -> None:
        """Remove one of the user's presets. Raises `ConfigError` when there is none of that name, or it stays."""
        if name in BUILTIN or not is_name(name) or not self.file(name).is_file():
            raise ConfigError(f"preset {name!r} is not one of your own; nothing was deleted")
        try:
            self.file(name).unlink()
        except OSError as error:
            raise ConfigError(f"preset {name!r} cannot be deleted ({error.strerror}); close what has it open") from None

    def file(self, name: str) -> Path:
        """Return the file of the user's preset of that name. Raises `ConfigError` for what is no name."""
        if not is_name(name):
            raise ConfigError(f"preset name is {name[:80]!r}; {_NAME_RULE}")
        return self.folder / f"{name}.json"

    def _own(self) -> list[str]:
        """Return the names of the user's presets: those of the files, whatever stands inside them."""
        found: list[str] = []
        for path in sorted(self.folder.glob("*.json")) if self.folder.is_dir() else []:
            try:
                read(path)
            except FamError:
                continue  # a damaged or foreign file hides itself only
            if is_name(path.stem) and path.stem not in BUILTIN:
                found.append(path.stem)
        return found


def is_name(name: str) -> bool:
    """Return whether a preset may have this name: it is its file's name too, so no two share one."""
    return _NAME.fullmatch(name) is not None and name.casefold() != CUSTOM


def read(path: Path) -> Preset:
    """Return the preset in a JSON file. Raises `ConfigError`, one sentence."""
    try:
        if not path.is_file():
            raise ConfigError(f"{path.name} is no file; choose one made by presets export")
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path.name} is too large for a preset; choose a file made by presets export")
        loaded: object = json.loads(path.read_bytes())  # with the mark of Notepad, or of PowerShell's UTF-16
    except ConfigError:  # a ValueError too
        raise
    except (ValueError, RecursionError):
        raise ConfigError(f"{path.name} is not JSON; choose a file made by presets export") from None
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read ({error.strerror}); check the path") from None
    return Preset.from_json(loaded)


def write(preset: Preset, path: Path, *, replace: bool = False) -> None:
    """Write the preset as JSON: a temporary file, then a rename. Raises `ConfigError`, one sentence: where the file
    exists, unless it is to be replaced, and where it cannot be written."""
    if not replace and os.path.lexists(path):
        raise ConfigError(f"{path} exists; choose another file, or replace it")
    text = json.dumps(preset.to_json(), indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); choose another place") from None


def _object(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{key} is {value!r}; choose an object of named fields")
    return dict(cast("dict[str, Any]", value))


def _from_version_0(values: dict[str, Any]) -> dict[str, Any]:
    """Before the first release FAM's fields stood beside the name, without a version."""
    names = {spec.name for spec in options_of(FamConfig)}
    fam = {key: value for key, value in values.items() if key in names}
    rest = {key: value for key, value in values.items() if key not in names}
    return {**rest, "fam": {**_object(values, "fam"), **fam}, "version": 1}


_MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {0: _from_version_0}


def _migrate(values: dict[str, Any]) -> dict[str, Any]:
    version = values.get("version", 0)
    if isinstance(version, bool) or not isinstance(version, int) or not 0 <= version <= VERSION:
        raise ConfigError(f"the preset's version is {version!r}; this FAM Hires reads 0 to {VERSION}, so update it")
    while version < VERSION:
        values = _MIGRATIONS[version](values)
        version += 1
    return values
