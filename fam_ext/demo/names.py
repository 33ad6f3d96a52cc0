"""What the shipped model was taught: the words of `names.json`, which is written when a model ships."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("names.json")
ALIKE = 0.7
"""How alike two spellings are that may be meant for one another, 0 to 1."""
LONGER = 0.25
"""By how much of the longer one two such spellings may differ in length: "red" is not meant for "bread"."""
SMALL_WORDS = frozenset({"the", "and", "with", "emoji", "photo", "picture", "ground", "plain"})


@dataclass(frozen=True)
class Names:
    """`form` is how a prompt is written; `lists` the words for each part of it, by title; `subjects` the titles of
    those lists of which a prompt has to name something."""

    form: str
    subjects: tuple[str, ...]
    lists: dict[str, tuple[str, ...]]

    def near(self, prompt: str, *, count: int = 5) -> list[str] | None:
        """Return None when `prompt` names a subject, as whole words anywhere in it; else the subjects that are spelled
        like one or two of its words, the nearest first, at most `count`, perhaps none."""
        words = _words(prompt)
        known = [name for title in self.subjects for name in self.lists[title]]
        if any(f" {name} " in f" {' '.join(words)} " for name in known):
            return None
        others = self._parts(title for title in self.lists if title not in self.subjects)
        return _alike([word for word in _telling(words) if word not in others], known, count)

    def strange(self, prompt: str, *, count: int = 5) -> tuple[list[str], list[str]]:
        """Return the words of `prompt` that are in no list, and what is spelled like them; none where the model knows
        no more than its subjects, so that other words are no mistake."""
        if set(self.lists) == set(self.subjects):
            return [], []
        parts = self._parts(self.lists)
        strange = [word for word in _telling(_words(prompt)) if word not in parts]
        return strange, _alike(strange, [name for listed in self.lists.values() for name in listed], count)

    def _parts(self, titles: Iterable[str]) -> set[str]:
        """Return the words that the names in the lists of `titles` are made of."""
        return {part for title in titles for name in self.lists[title] for part in name.split()}


@cache
def names() -> Names:
    """Return the words of the shipped model."""
    return names_in(FILE)


def names_in(path: Path) -> Names:
    """Return the words that a file as `names.json` holds."""
    held = json.loads(path.read_text(encoding="utf-8"))
    lists = {title: tuple(words) for title, words in held["lists"].items()}
    return Names(form=held["form"], subjects=tuple(held["subjects"]), lists=lists)


def note_on(prompt: str) -> str | None:
    """Return a sentence when the shipped model was not taught what `prompt` asks for, with the nearest names."""
    near = names().near(prompt)
    said = f"{prompt!r} names nothing that the embedded model was taught to draw, so expect no likeness"
    if near is None:
        strange, near = names().strange(prompt)
        if not strange:
            return None
        said = f"{prompt!r} has {', '.join(strange)}, which the embedded model was not taught, so it may not show"
    hint = f"; near: {', '.join(near)}" if near else ""
    return f'{said}{hint}; `fam-hires demo names` lists all; write "{names().form}"'


def _alike(told: list[str], known: list[str], count: int) -> list[str]:
    """Return those of `known` that are spelled like one or two words of `told`, the nearest first, at most `count`."""
    scores: dict[str, float] = {}
    for part in [*told, *(f"{one} {other}" for one, other in itertools.pairwise(told))]:
        likely = [name for name in known if part in name.split() or _of_one_length(name, part)]
        for name in difflib.get_close_matches(part, likely, n=count, cutoff=ALIKE):
            scores[name] = max(scores.get(name, 0.0), difflib.SequenceMatcher(None, name, part).ratio())
    return sorted(scores, key=lambda name: (-scores[name], name))[:count]


def _of_one_length(name: str, part: str) -> bool:
    return abs(len(name) - len(part)) <= LONGER * max(len(name), len(part))


def _telling(words: list[str]) -> list[str]:
    """Return those of `words` that may name something."""
    return [word for word in words if len(word) > 2 and not word.isdigit() and word not in SMALL_WORDS]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
