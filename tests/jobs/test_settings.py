"""What is taken from a picture's own settings, and what is said where it cannot be."""

import pytest

from fam_ext.jobs.settings import request_for, undrawn_embeddings, untaken
from fam_ext.metadata.infotext import Infotext
from fam_ext.options.job import Job
from fam_ext.options.parts import Rule
from fam_ext.options.request import HiresRequest


def taken(params: dict[str, str], **rules: Rule) -> tuple[HiresRequest, tuple[str, ...], list[str]]:
    """Return the request for a picture that says `params`, the names taken from it, and the notes."""
    picture = Job.of(("a",), "b", rules=rules).picture
    found = Infotext("a cat", "", params)
    request, names = request_for(found, (64, 64), picture)
    return request, names, untaken(found, request, picture)


@pytest.mark.parametrize(
    ("key", "text", "name", "value", "note"),
    [
        ("Seed", str(2**64 - 1), "seed", 2**64 - 1, None),
        ("Seed", "0", "seed", 0, None),
        ("Steps", "150", "steps", 150, None),
        ("Steps", "151", "steps", 150, "Steps 151 is out of range, 150 is used"),
        ("Steps", "1", "steps", 1, None),
        ("CFG scale", "1", "cfg_scale", 1.0, None),
        ("CFG scale", "0.5", "cfg_scale", 1.0, "CFG scale 0.5 is out of range, 1 is used"),
        ("CFG scale", "30", "cfg_scale", 30.0, None),
        ("Clip skip", "12", "clip_skip", 12, None),
        ("Sampler", "Heun", "sampler", "Heun", None),
    ],
)
def test_a_number_is_taken_up_to_its_ends(key: str, text: str, name: str, value: object, note: str | None) -> None:
    request, names, notes = taken({key: text})
    assert getattr(request, name) == value and name in names
    assert notes == ([note] if note else [])


@pytest.mark.parametrize(
    ("key", "text", "name"),
    [
        ("Seed", str(2**64), "seed"),
        ("CFG scale", "inf", "cfg_scale"),
        ("CFG scale", "nan", "cfg_scale"),
        ("CFG scale", "-inf", "cfg_scale"),
        ("Clip skip", "13", "clip_skip"),
        ("Sampler", "a\x1bb", "sampler"),
    ],
)
def test_what_cannot_be_taken_leaves_the_default_and_is_said(key: str, text: str, name: str) -> None:
    request, names, notes = taken({key: text})
    assert getattr(request, name) == getattr(HiresRequest((64, 64)), name) and name not in names
    assert len(notes) == 1 and notes[0].startswith(f"{key} {text}"[:20])


def test_what_is_overridden_is_not_missed() -> None:
    request, names, notes = taken({"Steps": "0", "Seed": "5"}, steps=Rule("override", 7), seed=Rule("override", 8))
    assert (request.steps, request.seed, notes) == (7, 8, [])
    assert not {"steps", "seed"} & set(names)


@pytest.mark.parametrize(
    ("params", "sampler", "schedule"),
    [
        ({"Sampler": "DPM++ 2M Karras"}, "DPM++ 2M", "Karras"),
        ({"Sampler": "DPM++ 2M Karras", "Schedule type": "Exponential"}, "DPM++ 2M", "Exponential"),
        ({"Sampler": "euler_a", "Schedule type": "karras"}, "Euler a", "Karras"),
    ],
)
def test_a_schedule_in_a_samplers_name_counts_where_none_is_named(
    params: dict[str, str], sampler: str, schedule: str
) -> None:
    request, *_ = taken(params)
    assert (request.sampler, request.schedule) == (sampler, schedule)


def test_a_schedule_in_the_name_of_a_sampler_that_is_asked_for_counts_unless_one_is_asked_for() -> None:
    asked = Rule("override", "Euler a Karras")
    assert taken({"Schedule type": "Beta"}, sampler=asked)[0].schedule == "Karras"
    request, *_ = taken({}, sampler=asked, schedule=Rule("override", "Simple"))
    assert (request.sampler, request.schedule) == ("Euler a", "Simple")


@pytest.mark.parametrize(
    ("prompt", "params", "words"),
    [("", {}, (None, None)), ("", {"Steps": "9"}, (None, "")), ("a cat", {}, ("a cat", None))],
)
def test_settings_say_that_a_negative_prompt_is_empty(prompt: str, params: dict[str, str], words) -> None:
    picture = Job.of(("a",), "b", rules={"prompt": Rule("take", "fallback"), "negative_prompt": Rule("take", "dark")})
    request, names = request_for(Infotext(prompt, "", params), (64, 64), picture.picture)
    expected = tuple(
        word if word is not None else other for word, other in zip(words, ("fallback", "dark"), strict=True)
    )
    assert (request.prompt, request.negative_prompt) == expected
    assert [name in names for name in ("prompt", "negative_prompt")] == [word is not None for word in words]


def test_textual_inversions_of_the_pictures_words_are_named() -> None:
    found = Infotext("a cat", "", {"TI hashes": "EasyNegative: c74b4e810b03, badhand: 5e40d722fc3d"})
    request = HiresRequest(size=(64, 64), prompt="a cat", negative_prompt="(EasyNegative:1.2), blurry")
    said = ["no textual inversion is loaded: EasyNegative drawn as plain words"]
    assert undrawn_embeddings(found, request) == said, "the other one is in no word that is drawn"
    assert undrawn_embeddings(Infotext("EasyNegative", ""), request) == []
    names = [f"name{number}" for number in range(7)]
    many = Infotext("", "", {"TI hashes": ", ".join(f"{name}: 0" for name in names)})
    for number, end in ((5, "name4 drawn"), (7, "name4 and 2 more drawn")):
        request = HiresRequest(size=(64, 64), prompt=" ".join(names[:number]))
        assert end in undrawn_embeddings(many, request)[0]
