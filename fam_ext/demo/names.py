"""What the shipped model was taught: the words of `names.json`, which is written when a model ships."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("names.json")
ALIKE = 0.7
"""How alike two spellings are that may be meant for one another, 0 to 1."""
SMALL_WORDS = frozenset({"the", "and", "with", "emoji", "photo", "picture", "ground"})


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
        told = [word for word in words if len(word) > 2 and word not in SMALL_WORDS]
        scores: dict[str, float] = {}
        for part in [*told, *(f"{one} {other}" for one, other in itertools.pairwise(told))]:
            for name in difflib.get_close_matches(part, known, n=count, cutoff=ALIKE):
                scores[name] = max(scores.get(name, 0.0), difflib.SequenceMatcher(None, name, part).ratio())
        return sorted(scores, key=lambda name: (-scores[name], name))[:count]


@cache
def names() -> Names:
    """Return the words of the shipped model."""
    held = json.loads(FILE.read_text(encoding="utf-8"))
    lists = {title: tuple(words) for title, words in held["lists"].items()}
    return Names(form=held["form"], subjects=tuple(held["subjects"]), lists=lists)


def note_on(prompt: str) -> str | None:
    """Return a sentence when the shipped model was not taught what `prompt` asks for, with the nearest names."""
    near = names().near(prompt)
    if near is None:
        return None
    hint = f"; near: {', '.join(near)}" if near else ""
    return (
        f"{prompt!r} names nothing that the embedded model was taught, so expect no likeness{hint};"
        f' `fam-hires demo names` lists all; write "{names().form}"'
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
