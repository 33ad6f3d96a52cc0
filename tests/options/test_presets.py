"""Presets: built-in values, JSON round trip, atomic store, migration, one from a picture."""

import json
import re
from pathlib import Path

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.metadata.infotext import format_params, to_fields, to_preset
from fam_ext.options.presets import BUILTIN, SETTINGS, Preset, PresetStore


def test_paper_preset_is_the_papers() -> None:
    paper = BUILTIN["paper"]
    assert paper.config == FamConfig(cutoff=0.5, attention=0.7, start=1.0, upsample="latent_bicubic")
    assert (paper.settings["sampler"], paper.settings["steps"], paper.settings["cfg_scale"]) == ("DDIM", 50, 7.5)
    assert paper.overrides


@pytest.mark.parametrize("name", BUILTIN)
def test_json_round_trip(name: str) -> None:
    preset = BUILTIN[name]
    assert Preset.from_json(json.loads(json.dumps(preset.to_json()))) == preset


def test_store_saves_lists_replaces_deletes(tmp_path) -> None:
    store = PresetStore(tmp_path / "own")
    mine = Preset("my own", config=FamConfig(start=0.5), settings={"steps": 12})
    path = store.save(mine)
    assert store.get("my own") == mine
    assert store.names()[-1] == "my own"
    with pytest.raises(ConfigError, match="exists"):
        store.save(mine)
    store.save(Preset("my own"), replace=True)
    assert store.get("my own").settings == {}
    (tmp_path / "own" / "bad.json").write_text("{")
    assert "my own" in store.names()
    store.delete("my own")
    assert not path.exists()
    with pytest.raises(ConfigError, match="ships"):
        store.save(BUILTIN["paper"])
    with pytest.raises(ConfigError, match="paper, balanced"):
        store.get("nothing")
    assert [file.name for file in (tmp_path / "own").iterdir()] == ["bad.json"]


def test_a_description_is_a_text_or_the_preset_hides_itself(tmp_path) -> None:
    store = PresetStore(tmp_path / "own")
    broken = {"version": 1, "name": "x", "description": "\ud800"}
    with pytest.raises(ConfigError, match=r"description holds .* half of a character"):
        Preset.from_json(broken)
    with pytest.raises(UnicodeEncodeError):
        store.save(Preset("x", "\ud800"))
    assert [*store.folder.iterdir()] == []
    (store.folder / "x.json").write_text(json.dumps(broken))
    assert store.names() == [*BUILTIN]


@pytest.mark.parametrize(
    "name", ["../../etc/x", "/etc/x", "a/b", "a.b", "", " a", "a ", "Custom", "a\x00", "\ud800", "x" * 81]
)
def test_what_is_no_file_name_is_no_preset_name(tmp_path, name: str) -> None:
    store = PresetStore(tmp_path / "own")
    with pytest.raises(ConfigError, match="preset name is"):
        store.save(Preset(name))
    with pytest.raises(ConfigError, match="paper, balanced"):
        store.get(name)
    with pytest.raises(ConfigError, match="nothing was deleted"):
        store.delete(name)
    assert not store.folder.exists()


def test_two_names_never_share_a_file(tmp_path) -> None:
    store = PresetStore(tmp_path / "own")
    store.save(Preset("Mine"))
    with pytest.raises(ConfigError, match="'Mine' exists"):
        store.save(Preset("mine"), replace=True)
    with pytest.raises(ConfigError, match="ships"):
        store.save(Preset("Balanced"))


def test_the_store_keys_by_file(tmp_path) -> None:
    """A file that was copied or renamed by hand answers to its own name; foreign files are left alone."""
    store = PresetStore(tmp_path)
    store.save(Preset("one", config=FamConfig(start=0.5)))
    (tmp_path / "one.json").rename(tmp_path / "two.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "package.json").write_text('{"version": "1.0.0", "name": "something else"}')
    assert store.names()[4:] == ["two"]
    assert store.get("two").name == "two" and store.get("two").config.start == 0.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_numbers_beyond_every_range_are_refused(value) -> None:
    with pytest.raises(ConfigError, match="steps"):
        Preset.from_json({"version": 1, "name": "x", "settings": {"steps": value}})
    with pytest.raises(ConfigError, match="cutoff"):
        Preset.from_json({"version": 1, "name": "x", "fam": {"cutoff": value}})


def test_earlier_version_is_migrated_and_later_refused() -> None:
    old = Preset.from_json({"name": "old", "start": 0.6, "settings": {"steps": 9}})
    assert old.config.start == 0.6
    assert old.settings == {"steps": 9}
    with pytest.raises(ConfigError, match="version is 99"):
        Preset.from_json({"version": 99, "name": "x"})


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ([], "JSON object"),
        ({"version": 1}, "name"),
        ({"version": 1, "name": "x", "fam": {"cutof": 1}}, "cutof"),
        ({"version": 1, "name": "x", "settings": {"steps": 0}}, "steps"),
        ({"version": 1, "name": "x", "settings": {"method": "magic"}}, "method"),
        ({"version": 1, "name": "x", "settings": []}, "settings"),
        ({"version": 1, "name": "x", "setings": {"steps": 9}}, "setings is not a field of a preset"),
        ({"name": "old", "strat": 0.6}, "strat is not a field of a preset"),
    ],
)
def test_bad_presets_are_refused_by_name(data, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        Preset.from_json(data)


def test_preset_from_a_picture() -> None:
    config = FamConfig(cutoff=0.3, am=False)
    text = f"a cat\nSteps: 20, Sampler: Euler a, CFG scale: 6.5, {format_params(to_fields(config))}"
    preset = to_preset(text, "cat")
    assert preset.config == config
    assert preset.settings == {"steps": 20, "sampler": "Euler a", "cfg_scale": 6.5}
    with pytest.raises(ConfigError, match="no FAM fields"):
        to_preset("a cat\nSteps: 20, Sampler: Euler a, CFG scale: 6.5", "cat")


def test_fast_and_few_step_are_balanced_but_for_what_they_say() -> None:
    balanced = BUILTIN["balanced"].config
    assert balanced.fm_edge == 1.0 and balanced.am_window == (1.0, 0.4)
    assert BUILTIN["fast"].config == balanced.replace(start=0.6)
    assert BUILTIN["few-step"].config == balanced.replace(step_invariant=True)
    assert BUILTIN["paper"].config == FamConfig(upsample="latent_bicubic")


def test_the_docs_preset_is_read_also_as_notepad_saves_it(tmp_path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```$", text, re.M | re.S)
    for encoding in ("utf-8-sig", "utf-16"):  # Notepad's; PowerShell's >
        (tmp_path / "soft.json").write_text(example, encoding=encoding)
        preset = PresetStore(tmp_path).get("soft")
        assert preset.config.start == 0.6 and preset.settings["sampler"] == "DPM++ 2M"
    assert all(f"`{name}`" in text for name in SETTINGS)
