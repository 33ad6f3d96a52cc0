"""Names of results: safe on every system, mild where the file system holds them already, and what to try next."""

from itertools import islice

import pytest

from fam_ext.jobs.names import alternatives, is_name_of, output_name, safe_name
from fam_ext.options.request import HiresRequest


@pytest.mark.parametrize(
    ("given", "strict", "mild"),
    [
        ("a cat (1)", "a cat (1)", "a cat (1)"),
        ('a<b>:"c|?*', "a_b___c___", 'a<b>:"c|?*'),
        ("a/b\\c", "a_b_c", "a_b_c"),
        (" a. ", "a", " a. "),
        ("a\u202egnp", "a_gnp", "a_gnp"),
        ("a\n\ud800", "a__", "a__"),
        ("a\ue000\u0378", "a__", "a\ue000\u0378"),
        ("cafe\u0301", "caf\u00e9", "cafe\u0301"),
        ("con", "_con", "_con"),
        ("Lpt1.x", "_Lpt1_x", "_Lpt1_x"),
        ("conny", "conny", "conny"),
        ("", "_", "_"),
        (".", "_", "__"),
        ("..", "_", "___"),
    ],
)
def test_names_are_safe_and_mild_ones_keep_what_they_can(given: str, strict: str, mild: str) -> None:
    assert safe_name(given) == strict
    assert safe_name(given, mild=True) == mild


@pytest.mark.parametrize("mild", [False, True])
def test_a_device_is_one_with_its_ending_too(mild: bool) -> None:
    assert safe_name("nul", mild=mild, ending=".png") == "_nul.png"
    assert safe_name("nul.a", mild=mild, ending=".png") == "_nul_a.png"


@pytest.mark.parametrize("mild", [False, True])
def test_long_names_are_cut_to_240_bytes_and_stay_apart(mild: bool) -> None:
    assert safe_name("x" * 236, mild=mild, ending=".png") == "x" * 236 + ".png"
    first, second = (safe_name("\u00e9" * 300 + end, mild=mild, ending=".png") for end in "ab")
    assert first != second
    for name in (first, second):
        assert 238 <= len(name.encode()) <= 240 and name.endswith(".png") and name.startswith("\u00e9" * 100)


@pytest.mark.parametrize(
    ("wanted", "key", "start", "tried"),
    [
        ("f/a.png", "x/a.JPG", 2, ["f/a.png", "f/a-jpg.png", "f/a-2.png", "f/a-3.png"]),
        ("f/a.png", "x/a.PNG", 2, ["f/a.png", "f/a-2.png", "f/a-3.png"]),
        ("a.png", "x.y/a", 5, ["a.png", "a-5.png", "a-6.png"]),
    ],
)
def test_alternatives_are_tried_in_order(wanted: str, key: str, start: int, tried: list[str]) -> None:
    assert list(islice(alternatives(wanted, key, start=start), len(tried))) == tried


def test_the_first_number_is_two() -> None:
    assert list(islice(alternatives("a.png", "a.png"), 2)) == ["a.png", "a-2.png"]


@pytest.mark.parametrize(
    ("key", "pattern", "made"),
    [
        ("a.jpeg", "{stem}", "a.jpeg"),
        ("a?.PNG", "{stem}", "a?.jpg"),
        ("s?b/a.jpg", "{stem}", "s?b/a.jpg"),
        ("s?b/a?.jpg", "{stem}x", "s?b/a_x.jpg"),
        ("a.jpg", "{format}/{stem}?{scale}", "jpeg/a_2.0.jpg"),
        ("a.jpg", "{width}x{height}-{seed}-{index}-{steps}-{method}", "96x64-7-3-30-fam.jpg"),
        ("a", " . /{stem}", "a.jpg"),
        ("a.jpg", "./ ", "picture.jpg"),
        ("a\\b.jpg", "{stem}x", "a_bx.jpg"),
    ],
)
def test_patterns_are_filled_and_made_safe(key: str, pattern: str, made: str) -> None:
    request = HiresRequest((64, 96), seed=7)
    assert output_name(key, request, (32, 48), "JPEG", pattern, 3) == made


def test_a_name_is_one_that_would_be_tried_as_disks_tell_names_apart():
    names = {"a.png": True, "A.png": True, "a-jpg.png": True, "a-7.png": True, "a-2x.png": False, "b.png": False}
    assert {name: is_name_of(name, "a.png", "a.jpg") for name in names} == names
