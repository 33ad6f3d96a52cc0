"""The one table and the dataclasses agree both ways."""

import dataclasses
import re

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.jobs.request import METHODS, HiresRequest
from fam_ext.metadata.fields import (
    BY_KEY,
    BY_NAME,
    CONFIG_FIELDS,
    FIELDS,
    METHOD_CHOICES,
    REQUEST_FIELDS,
    json_schema,
    markdown_table,
)


def test_config_table_is_the_dataclass() -> None:
    assert [spec.name for spec in CONFIG_FIELDS] == [field.name for field in dataclasses.fields(FamConfig)]
    for field in dataclasses.fields(FamConfig):
        assert BY_NAME[field.name].default == field.default


def test_request_table_is_the_dataclass() -> None:
    fields = {field.name: field for field in dataclasses.fields(HiresRequest) if field.name != "config"}
    assert {spec.name for spec in REQUEST_FIELDS} == set(fields)
    for spec in REQUEST_FIELDS:
        if spec.name != "size":
            assert spec.default == fields[spec.name].default
    assert METHOD_CHOICES == METHODS


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
    if spec.kind == "bool":
        assert spec.inverted is spec.default


def test_schema_and_docs_hold_every_field() -> None:
    properties = json_schema()["properties"]
    assert set(properties) == set(BY_NAME)
    assert set(json_schema("config")["properties"]) == {spec.name for spec in CONFIG_FIELDS}
    table = markdown_table()
    assert all(f"`{spec.key}`" in table for spec in FIELDS)
