"""What an option decides is what the hashes follow: one that changes pixels, size or file is never left out."""

import dataclasses

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.jobs.plan import Planned
from fam_ext.jobs.walk import Candidate
from fam_ext.options.field import Option, options_of
from fam_ext.options.job import Job
from fam_ext.options.parts import OutputRule, Places, SizeRule
from fam_ext.options.renderer import STANDALONE, WEBUI, RendererChoice
from fam_ext.options.request import HiresRequest

SAMPLES = {
    "text": "{stem}-x",
    "name": "other",
    "path": "/other",
    "texts": ("*.x",),
    "paths": ("/other",),
    "window": (0.9, 0.1),
    "size": (640, 640),
}
RENDERERS = (STANDALONE, WEBUI)


def another(spec: Option) -> object:
    """Return a value that the option allows and that is not its default."""
    if spec.kind == "bool":
        return not spec.default
    if spec.kind == "choice":
        return next(choice for choice in spec.choices if choice != spec.default)
    if spec.kind in ("int", "float"):
        low = max(spec.low or 0, 0)
        value = low + 0.25 if spec.kind == "float" else low + 1
        return value if value != spec.default else value + 1
    return SAMPLES[spec.kind]


def options(*tables: type, but: tuple[str, ...] = ()) -> list:
    found = [(table, spec) for table in tables for spec in options_of(table) if spec.name not in but]
    return [pytest.param(table, spec, id=f"{table.__name__}.{spec.name}") for table, spec in found]


def hashed(request: HiresRequest, job: Job) -> str:
    return Planned(Candidate("a.png", "/in/a.png", 1, 1), request=request, format="PNG").settings_hash(job)


@pytest.mark.parametrize(("table", "spec"), options(Places, SizeRule, OutputRule))
def test_a_jobs_hash_follows_all_but_how_it_is_run(table, spec) -> None:
    plain = Job.of(("/in",), "/out")
    changed = plain.replace(**{spec.name: another(spec)})
    assert (changed.fingerprint != plain.fingerprint) == (spec.decides != "run")


@pytest.mark.parametrize(("table", "spec"), options(OutputRule, but=("format",)))
def test_a_files_hash_follows_what_its_bytes_depend_on(table, spec) -> None:
    plain = Job.of(("/in",), "/out")
    changed = plain.replace(**{spec.name: another(spec)})
    request = HiresRequest((64, 64))
    assert (hashed(request, changed) != hashed(request, plain)) == (spec.decides == "file")


@pytest.mark.parametrize(("table", "spec"), options(RendererChoice, but=("name",)))
def test_a_jobs_and_a_pictures_hash_follow_what_the_renderer_draws_with(table, spec) -> None:
    differs = []
    for name in RENDERERS:
        plain = Job.of(("/in",), "/out", renderer=RendererChoice(name))
        changed = Job.of(("/in",), "/out", renderer=RendererChoice(name, **{spec.name: another(spec)}))
        request = HiresRequest((64, 64))
        differs.append(changed.fingerprint != plain.fingerprint)
        assert (hashed(request, changed) != hashed(request, plain)) == differs[-1]
    assert any(differs) == (spec.decides != "run")


@pytest.mark.parametrize(("table", "spec"), options(HiresRequest, FamConfig))
def test_a_pictures_hash_follows_everything_it_is_drawn_with(table, spec) -> None:
    plain, job = HiresRequest((64, 64)), Job.of(("/in",), "/out")
    values = {spec.name: another(spec)}
    changed = (
        dataclasses.replace(plain, **values)
        if table is HiresRequest
        else dataclasses.replace(plain, config=FamConfig(**values))
    )
    assert hashed(changed, job) != hashed(plain, job)
