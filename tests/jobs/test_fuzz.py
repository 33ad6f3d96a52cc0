"""Whatever a stranger writes, each door answers with a value or one sentence, within two seconds.

The suite takes the same 3,000 inputs each time (`make unit` a tenth); FAM_FUZZ is another number of inputs in all,
drawn anew (`make fuzz`).
"""

import json
import os
import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fam_ext.errors import ConfigError, FamError
from fam_ext.escapes import one_line, shown
from fam_ext.hosts.diffusers.prompts import parse_emphasis, split_extra_networks
from fam_ext.jobs.journal.rows import request_of
from fam_ext.jobs.names import output_name
from fam_ext.jobs.renderers import kept_renderer
from fam_ext.jobs.walk import natural_key
from fam_ext.options.field import API
from fam_ext.options.job import Job
from fam_ext.options.parts import Rule
from fam_ext.options.presets import BUILTIN, Preset
from fam_ext.options.request import HiresRequest, check_value
from fam_ext.options.resolve import options_at
from fam_ext.options.table import BY_NAME, REQUEST_FIELDS
from tests.inputs import drawn
from tests.jobs.fakes import page_job

TESTS = 12
INPUTS = int(os.environ.get("FAM_FUZZ", drawn(3000)))
fuzz = settings(
    max_examples=-(-INPUTS // TESTS),
    derandomize="FAM_FUZZ" not in os.environ,
    deadline=2000,
    database=None,
    suppress_health_check=list(HealthCheck),
)
MAX_GROWTH = 500 << 20


@pytest.fixture(autouse=True)
def bounded_memory():
    """Fail a test whose inputs made the process's peak grow by more than MAX_GROWTH bytes."""
    resource = pytest.importorskip("resource")
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < MAX_GROWTH


marks = st.one_of(
    st.characters(),
    st.characters(categories=["Cs", "Cc", "Cf"]),
    st.sampled_from("()[]{}<>:|\\,./~=%$\u202e\ud800\x00\x1b"),
)
texts = st.one_of(st.text(marks, max_size=40), st.sampled_from(["", "..", "con", "~nobody", "{stem}", "Euler a"]))
numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, -(10**400), 2**63, 2**64, 1e308, float("nan")]), st.booleans()
)
scalars = st.one_of(st.none(), numbers, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


def answered(call: Callable[[], object]) -> object | None:
    """Return what the call gave, None where it refused in a sentence; any other exception is the defect."""
    try:
        return call()
    except FamError as error:
        sentence = str(error)
        assert sentence and "Traceback" not in sentence and len(sentence) < 4000
        return None


def changed(base: dict[str, object]) -> st.SearchStrategy[dict[str, object]]:
    """Return a valid object with a few of its fields replaced, dropped, or added."""
    fields = st.one_of(st.sampled_from(sorted(base)), texts)
    return st.builds(
        lambda new, gone: {name: value for name, value in {**base, **new}.items() if name not in gone},
        st.dictionaries(fields, values, max_size=3),
        st.lists(fields, max_size=1),
    )


PRESET = BUILTIN["few-step"].to_json()
OPTIONS = Job.of(("in",), "out", size=(512, 512), rules={"seed": Rule("override", 3)}).to_json()
REQUEST = HiresRequest((64, 64), "a cat", clip_skip=2).to_json()


@fuzz
@given(st.one_of(values, changed(PRESET)), st.dictionaries(st.sampled_from(sorted(PRESET["fam"])), values, max_size=2))
def test_presets(data: object, dials: dict[str, object]) -> None:
    if isinstance(data, dict) and isinstance(data.get("fam"), dict):
        data = {**data, "fam": {**data["fam"], **dials}}
    preset = answered(lambda: Preset.from_json(data))
    if isinstance(preset, Preset):
        assert Preset.from_json(json.loads(json.dumps(preset.to_json()))) == preset


@fuzz
@given(st.sampled_from(sorted(spec.name for spec in REQUEST_FIELDS if spec.name in BY_NAME)), values)
def test_request_values(name: str, value: object) -> None:
    def build() -> HiresRequest:
        return HiresRequest(**{"size": (64, 64), name: value})

    if name != "size":
        try:
            check_value(name, value)
        except ConfigError:
            with pytest.raises(ConfigError):
                build()
            return
    request = answered(build)
    if isinstance(request, HiresRequest):
        assert HiresRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


@fuzz
@given(
    st.dictionaries(st.sampled_from(sorted([*(spec.name for spec in options_at(API)), "rules"])), values, max_size=3)
)
def test_api_jobs(words: dict[str, object]) -> None:
    job = answered(lambda: page_job({"input": "/in", **words}))
    if isinstance(job, Job):
        assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job


@fuzz
@given(st.one_of(values, changed(OPTIONS)))
def test_stored_options(data: object) -> None:
    job = answered(lambda: Job.from_json(data))  # type: ignore[arg-type]
    if isinstance(job, Job):
        assert answered(lambda: job.fingerprint) and list(job.picture.every_rule)


@fuzz
@given(st.one_of(texts, values.map(json.dumps), changed(REQUEST).map(json.dumps)))
def test_journal_rows(text: str) -> None:
    request = answered(lambda: request_of(text))
    assert request is None or isinstance(request, HiresRequest)


@fuzz
@given(st.one_of(values, changed({"name": "standalone", "arguments": {"model": "m"}, "target": "a:b"})))
def test_stored_renderers(kept: object) -> None:
    spec = answered(lambda: kept_renderer(kept))
    assert spec is None or spec.name == "standalone"


@fuzz
@given(
    st.one_of(
        texts, st.lists(st.sampled_from(["{stem}", "{index:03d}", "{", "}", "/", "..", "{seed}", "a"])).map("".join)
    ),
    st.text(marks.filter(lambda mark: mark not in "/\x00"), min_size=1, max_size=300),
)
def test_names(pattern: str, name: str) -> None:
    job = answered(lambda: Job.of(("in",), "out", name=pattern))
    if not isinstance(job, Job):
        return
    made = answered(lambda: output_name(f"sub/{name}.png", HiresRequest((64, 64)), (32, 32), "PNG", pattern, 7))
    if made is None:
        return
    assert isinstance(made, str)
    for part in made.split("/"):
        assert part not in ("", ".", "..") and len(part.encode()) <= 255
        assert not any(unicodedata.category(mark) in ("Cc", "Cf", "Cs") for mark in part)


@fuzz
@given(st.lists(st.text(marks, max_size=200), max_size=3))
def test_file_names(names: list[str]) -> None:
    for name in sorted(names, key=natural_key):
        assert shown(name).isprintable() and one_line(name).isprintable()


@fuzz
@given(
    st.text(marks, max_size=200),
    st.sampled_from(["(a", "<a:b", "[", "\\", "((a:1.2)", "<lora:x:1>", ":1.5)", "BREAK "]),
    st.integers(0, 5000),
)
def test_prompts(text: str, part: str, count: int) -> None:
    prompt = text + part * count
    spans = answered(lambda: parse_emphasis(prompt))
    assert spans is None or all(span.weight == span.weight for span in spans)
    clean, _ = answered(lambda: split_extra_networks(prompt)) or ("", [])
    assert isinstance(clean, str) and len(clean) <= len(prompt)
