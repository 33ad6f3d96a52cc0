"""What the model draws: things told by their shape, materials, grounds, and the prompts that name them.

A prompt is "a MATERIAL THING on a GROUND ground"; without a material the thing is plain, without a ground it stands on
white. Some (thing, material) pairs are never trained on: composition is measured on them.
"""

from __future__ import annotations

import difflib
import hashlib
import random
import re
from dataclasses import dataclass

HELD_OUT_SHARE = 0.12

GROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "cream": (250, 240, 215),
    "grey": (205, 208, 214),
    "pink": (246, 205, 216),
    "blue": (190, 216, 242),
    "green": (200, 228, 200),
    "lilac": (216, 206, 240),
    "navy": (44, 56, 92),
}
"""Colours behind the thing; white is what a prompt without one means."""

MATERIALS = (
    "knitted",
    "woven",
    "brick",
    "scaly",
    "furry",
    "wooden",
    "mosaic",
    "crystalline",
    "dotted",
    "striped",
)
"""In the order of `materials.TEXTURES`, beside the plain thing, which no word names."""

_SAME_AS_FILE = """
    accordion airplane amphora anchor avocado axe backpack banana basket bat bathtub bed bell bone bread
    broccoli bucket butterfly cactus camera carrot castle chair cherries chipmunk church compass crab crocodile
    croissant crown cupcake dolphin door doughnut drum duck eagle elephant envelope factory fire-engine flamingo
    fox frog giraffe grapes guitar hamburger hammer hedgehog helicopter hippopotamus honeybee horse hut jar
    jellyfish kangaroo key kite ladder lemon light-bulb lion lobster locomotive lotus maple-leaf moai mosque
    mushroom octopus onion owl panda parrot peacock pear penguin pie pig pineapple pizza potted-plant pretzel
    rabbit rhinoceros rocket rooster sailboat sandwich saxophone scissors seal shark snail snake snowman squid
    strawberry sunflower swan teapot teddy-bear tent tomato toolbox tractor trophy tulip turtle umbrella unicorn
    volcano watermelon wrench
"""
_OTHER_FILE = {
    "apple": "red-apple",
    "balloon": "balloon",
    "camel": "two-hump-camel",
    "car": "automobile",
    "cheese": "cheese-wedge",
    "chick": "front-facing-baby-chick",
    "dinosaur": "sauropod",
    "gem": "gem-stone",
    "leafy tree": "deciduous-tree",
    "mug": "beer-mug",
    "pine tree": "evergreen-tree",
    "pumpkin": "jack-o-lantern",
    "racing car": "racing-car",
    "scooter": "motor-scooter",
    "ship": "passenger-ship",
    "shoe": "running-shoe",
    "train": "bullet-train",
    "truck": "delivery-truck",
    "whale": "whale",
}

THINGS: dict[str, str] = dict(
    sorted({**{stem.replace("-", " "): stem for stem in _SAME_AS_FILE.split()}, **_OTHER_FILE}.items())
)
"""The words for each thing, and the stem of its drawing in Fluent emoji's `modern` style."""


@dataclass(frozen=True)
class Scene:
    """What a prompt asks for: a `thing` of THINGS, a `material` of MATERIALS or None, a `ground` of GROUNDS."""

    thing: str
    material: str | None = None
    ground: str = "white"

    @property
    def caption(self) -> str:
        """The whole prompt: "a knitted teapot on a blue ground"; white and plain are not mentioned."""
        words = f"{self.material} {self.thing}" if self.material else self.thing
        ground = "" if self.ground == "white" else f" on {article(self.ground)} ground"
        return f"{article(words)}{ground}"


def article(words: str) -> str:
    """Return `words` behind "a" or "an"."""
    # a unicorn is spoken with a y
    return f"{'an' if words[0] in 'aeiou' and not words.startswith('uni') else 'a'} {words}"


def parse(prompt: str) -> Scene:
    """Return the scene that `prompt` names, in any wording: "a woven owl", "owl, woven, on a pink ground".

    Raises `ValueError` when it names no thing, more than one, or something that is neither thing, material nor ground;
    the message suggests the nearest known words.
    """
    words = re.findall(r"[a-z]+", prompt.lower())
    text = " ".join(words)
    ground = "white"
    for name in GROUNDS:
        if re.search(rf"\bon (a |an )?{name}( ground)?\b", text):
            text, ground = re.sub(rf"\bon (a |an )?{name}( ground)?\b", " ", text), name
    # the longest first: "leafy tree" before what one of its words might name
    things = [name for name in sorted(THINGS, key=len, reverse=True) if _takes(text, name)]
    things = [name for name in things if not any(name != other and _takes(other, name) for other in things)]
    materials = [name for name in MATERIALS if _takes(text, name)]
    for name in things + materials:
        text = re.sub(rf"\b{name}\b", " ", text)
    rest = [word for word in text.split() if word not in ("a", "an", "the", "plain", "emoji", "on", "ground")]
    known = [*THINGS, *MATERIALS, *GROUNDS]
    if len(things) == 1 and len(materials) <= 1 and not rest:
        return Scene(things[0], materials[0] if materials else None, ground)
    if rest:
        near = [name for word in rest for name in difflib.get_close_matches(word, known, n=3, cutoff=0.5)]
        hint = f"; near: {', '.join(dict.fromkeys(near))}" if near else ""
        raise ValueError(f"{prompt!r} has {', '.join(rest)}, which the model was not taught{hint}")
    found = ", ".join(things + materials) or "nothing"
    raise ValueError(f"{prompt!r} names {found}; name one thing and at most one material")


def _takes(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def is_held_out(thing: str, material: str | None) -> bool:
    """Whether a pair is never trained on. Chosen by hash, so the list is the same everywhere; never a plain thing."""
    if material is None:
        return False
    digest = hashlib.sha256(f"{material} {thing}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 < HELD_OUT_SHARE


def pairs(*, held_out: bool = False) -> list[tuple[str, str | None]]:
    """Return every (thing, material) pair that is trained on, or with `held_out` those that are not."""
    every: list[tuple[str, str | None]] = [(thing, material) for thing in THINGS for material in (None, *MATERIALS)]
    return [pair for pair in every if is_held_out(*pair) == held_out]


def draw_scenes(rng: random.Random, count: int, *, held_out: bool = False) -> list[Scene]:
    """Return `count` scenes: pairs evenly, half of them on white and the others on any ground."""
    pool = pairs(held_out=held_out)
    scenes: list[Scene] = []
    for _ in range(count):
        thing, material = rng.choice(pool)
        scenes.append(Scene(thing, material, draw_ground(rng)))
    return scenes


def draw_ground(rng: random.Random) -> str:
    return "white" if rng.random() < 0.5 else rng.choice(list(GROUNDS))
