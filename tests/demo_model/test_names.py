"""What the shipped model was taught, and what is near to a prompt that it was not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fam_ext.demo.names import Names, names, names_in, note_on
from fam_ext.demo.run import samples
from fam_ext.metadata.infotext import parse
from fam_ext.metadata.pictures import read_header

TAUGHT = Names("a NAME", ("names",), {"names": ("teapot", "red apple", "castle", "cat", "bread"), "grounds": ("navy",)})


@pytest.mark.parametrize("prompt", ["a teapot", "A Castle on a hill, emoji", "(red apple:1.2)", "cat"])
def test_a_name_is_found_anywhere_in_a_prompt(prompt: str) -> None:
    assert TAUGHT.near(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "nearest"),
    [
        ("a tepot, emoji", ["teapot"]),
        ("a masterpiece, a red aple", ["red apple"]),
        ("castels", ["castle"]),
        ("the sea", []),
        ("navy", []),
        ("red", []),  # too short to be meant for bread
        ("an apple", ["red apple"]),
        ("concatenation", []),  # a cat is in it, but is no word of it
        ("", []),
    ],
)
def test_the_nearest_names_are_suggested(prompt: str, nearest: list[str]) -> None:
    assert TAUGHT.near(prompt) == nearest


def test_the_shipped_list_knows_the_samples_and_says_what_is_near() -> None:
    listed = [word for words in names().lists.values() for word in words]
    assert len(listed) == len(set(listed)) > 100 and set(names().subjects) <= names().lists.keys()
    prompts = [parse(read_header(path).infotext or "").prompt for path in samples().iterdir()]
    assert len(prompts) >= 6 and {prompt: note_on(prompt) for prompt in prompts} == dict.fromkeys(prompts)
    note = note_on("a tepot")
    assert note is not None and "'a tepot' names nothing" in note and "near: teapot" in note and "demo names" in note


@pytest.fixture
def materials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Names:
    """A model of materials as the exporter writes it, in the shipped one's place."""
    import export

    export.write_names(tmp_path / "names.json", export.names_of())
    known = names_in(tmp_path / "names.json")
    monkeypatch.setattr("fam_ext.demo.names.names", lambda: known)
    return known


def test_the_model_lists_things_materials_and_grounds(materials: Names, capsys: pytest.CaptureFixture[str]) -> None:
    from fam_ext.cli.model import demo_names

    demo_names()
    said = capsys.readouterr().out
    assert 'A prompt is "a MATERIAL THING on a GROUND ground".' in said
    assert all(f"{len(materials.lists[title])} {title}:" in said for title in ("things", "materials", "grounds"))
    assert "knitted, woven" in said and "navy" in said and "leafy tree" in said


@pytest.mark.parametrize(
    "prompt", ["a knitted owl on a navy ground", "teapot, brick, emoji", "a plain leafy tree", "(owl:1.25)", "an owl"]
)
def test_what_a_model_of_materials_was_taught_has_no_note(materials: Names, prompt: str) -> None:
    assert note_on(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (
            "a knitted tepot",
            "names nothing that the embedded model was taught to draw, so expect no likeness; near: teapot;",
        ),
        ("a knited owl", "has knited, which the embedded model was not taught, so it may not show; near: knitted"),
        (
            "an owl on a gren ground",
            "has gren, which the embedded model was not taught, so it may not show; near: green",
        ),
        ("a marzipan owl", "has marzipan, which the embedded model was not taught, so it may not show; `fam-hires"),
        ("navy", "names nothing that the embedded model was taught to draw, so expect no likeness; `fam-hires demo"),
    ],
)
def test_a_prompt_outside_a_model_of_materials_gets_the_nearest_words(materials: Names, prompt: str, said: str) -> None:
    note = note_on(prompt)
    assert note is not None and said in note and note.endswith('write "a MATERIAL THING on a GROUND ground"')
