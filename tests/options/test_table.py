"""The one table: the dataclasses are it, and every door is drawn from it."""

import dataclasses
import json
import re

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError
from fam_ext.options.field import Checked, Option, check, option, options_of, spoken
from fam_ext.options.request import HiresRequest
from fam_ext.options.table import BY_KEY, BY_NAME, CONFIG_FIELDS, FIELDS, json_schema


def test_every_field_of_a_table_is_an_option() -> None:
    assert [spec.name for spec in CONFIG_FIELDS] == [field.name for field in dataclasses.fields(FamConfig)]
    fields = {field.name: field for field in dataclasses.fields(HiresRequest) if field.name != "config"}
    assert [spec.name for spec in options_of(HiresRequest)] == list(fields)
    for spec in FIELDS:
        assert spec.panel and spec.decides in ("pixels", "size", "file", "name", "run") and spec.help.endswith(".")


def test_keys_follow_the_webui_grammar() -> None:
    assert len(BY_KEY) == len(FIELDS)
    for spec in FIELDS:
        assert re.fullmatch(r"FAM [\w \-/]+", spec.key)
    labels = [spec.label for spec in FIELDS]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("spec", CONFIG_FIELDS, ids=lambda spec: spec.name)
def test_choices_and_ranges_are_those_the_config_enforces(spec) -> None:
    for choice in spec.choices:
        FamConfig.from_dict({spec.name: choice})
    if spec.kind == "float":
        base = {"cutoff_reference": "cycles"} if spec.name == "cutoff" else {}
        FamConfig.from_dict({**base, spec.name: spec.high})
        with pytest.raises(ValueError, match=spec.name):
            FamConfig.from_dict({**base, spec.name: spec.high + 0.01})


def test_the_schema_holds_every_field() -> None:
    properties = json_schema(FIELDS)["properties"]
    assert set(properties) == set(BY_NAME)
    assert properties["steps"]["minimum"] == 1 and properties["steps"]["maximum"] == 150
    assert properties["start"]["exclusiveMinimum"] == 0 and "minimum" not in properties["start"]
    json.dumps(properties)


def made(kind: str, **more) -> Option:
    return Option(kind, "Label", "Help.", "run", "run", name="it", **more)


@pytest.mark.parametrize(
    ("spec", "good", "bad", "words"),
    [
        (made("int", low=1, high=9), 3, 3.5, "a whole number from 1 to 9"),
        (made("int", low=1, high=9), 9, True, "it is True"),
        (made("float", low=0, above=True, high=1), 1, 0, "more than 0 to 1"),
        (made("float", low=0), 1e9, float("nan"), "at least 0"),
        (made("float"), -1e9, float("nan"), "a number"),
        (made("float", low=0, high=1), 1, 10**400, "more than 40 digits"),
        (made("bool"), True, 1, "true or false"),
        (made("choice", choices=("a", "b")), "a", ["a"], "a, b"),
        (made("name"), "Euler a", "a\x1b[2J", "without control"),
        (made("text"), "two\nlines", "\ud800", "half of a character"),
        (made("path"), "\udcff", "a\x00b", "without NUL"),
        (made("texts"), ["a"], "a", "a list of texts"),
        (made("window"), [1, 0], [0, 1], "start >= end"),
        (made("size", low=8, step=8), (64, 80), (64, 81), "81x64; choose multiples of 8"),
        (made("size", low=8, step=8), (64, 80), 64, "(height, width)"),
    ],
)
def test_a_value_is_checked_with_one_sentence(spec, good, bad, words) -> None:
    check(spec, good)
    with pytest.raises(ConfigError) as told:
        check(spec, bad)
    assert words in str(told.value) and "it" in str(told.value) and len(str(told.value)) < 250


def test_equal_values_are_equal_whatever_their_type() -> None:
    @dataclasses.dataclass(frozen=True)
    class Table(Checked):
        share: float = option(1, kind="float", label="S", help="H.", panel="run", decides="run")
        names: tuple[str, ...] = option((), kind="texts", label="N", help="H.", panel="run", decides="run")

    assert Table(1, ["a"]) == Table(1.0, ("a",)) and type(Table(1).share) is float and hash(Table(1, ["a"]))


def test_what_doors_say_for_nothing() -> None:
    assert spoken(made("int", low=1, optional=True, off=0), 0) is None
    assert spoken(made("int", low=1), 20.0) == 20 and type(spoken(made("int", low=1), 20.0)) is int
    assert spoken(made("choice", choices=("a",), optional=True, off="as input"), "as input") is None
    assert spoken(made("bool", off=0), False) is False, "false is not nothing"
