"""Names, captions and renders of the emoji."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import data
import numpy as np
import pytest
from data import Collection, Emoji, Renders


def test_skins_are_split_off_only_where_there_is_a_default() -> None:
    stems = ["cook-default", "cook-medium-light", "cook-light", "police-car-light"]
    assert data.parse_stems(stems) == [
        Emoji("cook-default", "cook", "default"),
        Emoji("cook-medium-light", "cook", "medium-light"),
        Emoji("cook-light", "cook", "light"),
        Emoji("police-car-light", "police-car-light"),
    ]


@pytest.mark.parametrize(
    ("name", "skin", "text"),
    [
        ("firefighter", "medium", "a firefighter, medium skin, emoji"),
        ("artist", "medium-light", "an artist, medium light skin, emoji"),
        ("cook", "default", "a cook, emoji"),
        ("red-apple", None, "a red apple, emoji"),
    ],
)
def test_captions_are_the_first_versions(name: str, skin: str | None, text: str) -> None:
    assert data.caption(name, skin) == text


def test_a_tenth_of_the_names_is_held_out_the_same_ones_each_time() -> None:
    names = [f"name-{number}" for number in range(5000)]
    held = [name for name in names if data.is_held_out(name)]
    assert 0.085 < len(held) / len(names) < 0.115
    assert held == [name for name in names if data.is_held_out(name)]


def test_names_are_drawn_evenly_however_many_variants_they_have(work: Path) -> None:
    collection = Collection(work)
    assert len(collection.emojis) == 11 and len(collection.names) == 6
    drawn = Counter(collection.emojis[index].name for index in collection.draw(random.Random(0), 6000))
    assert all(850 < drawn[name] < 1150 for name in collection.names)
    skins = Counter(collection.emojis[index].skin for index in collection.draw(random.Random(0), 6000, names=["cook"]))
    assert len(skins) == 6 and min(skins.values()) > 850


def test_synonyms_are_other_names_of_the_same_emoji(work: Path) -> None:
    collection = Collection(work)
    assert collection.synonyms == {"red-circle": ["red-dot"], "cook": ["chef"]}
    index = collection.variants["cook"][2]
    rng = random.Random(0)
    captions = {collection.draw_caption(rng, index, synonym_share=0.5) for _ in range(40)}
    skin = str(collection.emojis[index].skin).replace("-", " ")
    assert captions == {f"a cook, {skin} skin, emoji", f"a chef, {skin} skin, emoji"}


def test_what_says_left_is_not_mirrored(work: Path) -> None:
    collection = Collection(work)
    assert collection.mirrors_another("left-arrow")
    assert not collection.mirrors_another("red-circle")


def test_renders_are_square_on_white_and_kept(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection(work)
    index = next(i for i, emoji in enumerate(collection.emojis) if emoji.stem == "tall-stick")
    picture = Renders(collection, 64)[index].copy()
    assert picture.shape == (64, 64, 3)
    assert (picture[:, :16] == 255).all() and (picture[:, -16:] == 255).all()  # narrow drawings stand in the middle
    assert (picture[32, 16:48] != 255).any()

    def fail(path: Path, size: int) -> np.ndarray:
        raise AssertionError("rendered again")

    monkeypatch.setattr(data, "render", fail)
    assert np.array_equal(Renders(collection, 64)[index], picture)


def test_at_most_so_many_variants_and_another_choice_for_each_name() -> None:
    from data import pick_variants

    assert pick_variants("teapot", [7], 2) == [7]
    chosen = {name: tuple(pick_variants(name, range(6), 2)) for name in ("cook", "judge", "pilot", "farmer", "singer")}
    assert all(len(set(indices)) == 2 for indices in chosen.values())
    assert len(set(chosen.values())) > 1
    assert pick_variants("cook", range(6), 6) == [0, 1, 2, 3, 4, 5]


def test_listed_names_are_drawn_as_often_as_asked(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = Collection(work)
    held, listed, other = collection.names[0], collection.names[1], collection.names[2]
    monkeypatch.setattr(Collection, "held_out", frozenset({held}))
    first = work / "first.txt"
    first.write_text(f"{listed} {held}\n{listed}\n", encoding="utf-8")
    assert collection.first_names(first) == [listed]
    assert collection.training_pool(None, 0.5) == collection.names[1:]
    pool = Counter(collection.training_pool(first, 0.75))
    # 4 others, so 12 of 16
    assert pool[listed] == 12 and pool[other] == 1 and pool.total() == 16 and held not in pool


@pytest.mark.parametrize(("text", "share", "said"), [("cook no-such", 0.5, "no-such"), ("cook", 1.0, "--first-share")])
def test_a_list_that_cannot_be_drawn_from_is_refused(work: Path, text: str, share: float, said: str) -> None:
    first = work / "first.txt"
    first.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=said):
        Collection(work).training_pool(first, share)


def test_the_list_of_the_embedded_model_names_each_once() -> None:
    listed = (Path(data.__file__).parent / "first.txt").read_text(encoding="utf-8").split()
    assert len(listed) == len(set(listed)) == 236
    assert sum(data.is_held_out(name) for name in listed) == 36
