"""Every entry of the catalog keeps the contract, and is offered only where it gets what it needs."""

import ast
from pathlib import Path

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import UsageError
from fam_ext.methods import catalog
from fam_ext.methods.base import Pass, Pictures, Stage
from fam_ext.methods.capabilities import ATTENTION, CAPABILITIES, PIXELS, SAMPLER_STATE, STAGES, STANDALONE, VIEWS
from fam_ext.methods.catalog import METHODS, Entry, choices, entry_for, reads
from fam_ext.options.field import options_of
from fam_ext.options.renderer import RendererChoice
from fam_ext.options.table import BY_NAME
from tests.methods.neighbours import CONDITION

PACKAGE = Path(catalog.__file__).parents[1]
LEVEL = NoiseLevel(500.0, 0.6, 0.8)
OPTIONS = {spec.name for spec in options_of(RendererChoice)}
CONFIG = FamConfig(start=0.7, upsample="latent_bilinear")


def begun(entry, config=CONFIG):
    """Return the method's first pass that samples."""
    method = entry.load()(config)
    stage = next(stage for stage in method.stages((128, 96), (64, 64)) if not stage.pixels)
    target = None if stage.upsample is None else seeded_noise((4, 16, 12), [2])
    latents = seeded_noise((4, 8, 8), [1]), target, seeded_noise((4, 16, 12), [3])
    return method.begin(stage, Pictures(*latents, None, steps=10))


@pytest.mark.parametrize("entry", METHODS.values(), ids=list(METHODS))
def test_an_entry_says_what_there_is(entry):
    assert METHODS[entry.name] is entry and entry.title
    assert entry.needs <= CAPABILITIES
    assert all(knob in BY_NAME for knob in entry.knobs)
    assert entry_for(entry.name, CAPABILITIES, where="this test") is entry


STEERS_OUTPUT = {"diffusehigh"}
"""Those that change what the network has said."""
SAMPLED = [entry for entry in METHODS.values() if entry.needs != {PIXELS}]
"""Those that the sampler has a part in."""


@pytest.mark.parametrize("entry", METHODS.values(), ids=list(METHODS))
def test_stages_say_what_they_need(entry):
    stages = entry.load()(CONFIG).stages((256, 192), (64, 48))
    assert all(isinstance(stage, Stage) and 0 < stage.start <= 1 for stage in stages)
    assert stages[-1].size == (256, 192)
    assert (len(stages) > 1) == (STAGES in entry.needs)
    assert any(stage.pixels for stage in stages) == (PIXELS in entry.needs)


@pytest.mark.parametrize("entry", SAMPLED, ids=lambda entry: entry.name)
def test_a_pass_changes_no_argument(entry):
    steered = begun(entry)
    assert isinstance(steered, Pass)
    state = steered.initial(LEVEL)
    assert state.shape == steered.pictures.noise.shape
    kept = state.clone()
    assert steered.before_step(state, LEVEL).shape == state.shape and torch.equal(state, kept)
    latent = torch.cat([state, state])
    kept = latent.clone()
    calls = []

    def call(latent, level, condition, *, phase="target"):
        calls.append(phase)
        return latent * 2

    out = steered.around_model(call, latent, LEVEL, CONDITION)
    assert torch.equal(latent, kept) and out.shape == latent.shape
    if VIEWS not in entry.needs and entry.name not in STEERS_OUTPUT:
        assert torch.equal(out, latent * 2), "the network's own output, without patches"
    assert calls and set(calls) <= {"off", "native", "target"}


@pytest.mark.parametrize("entry", SAMPLED, ids=lambda entry: entry.name)
def test_a_method_needs_what_it_does(entry):
    steered = begun(entry)
    state = steered.initial(LEVEL) * 0.5
    changes_state = not torch.equal(steered.before_step(state, LEVEL), state)
    assert changes_state == (SAMPLER_STATE in entry.needs)
    assert {patch.place for patch in steered.patches()} == entry.needs & {
        *("attention", "cross-attention", "convolution", "feature size")
    }


@pytest.mark.parametrize(
    "entry", [entry for entry in SAMPLED if ATTENTION in entry.needs], ids=lambda entry: entry.name
)
def test_attention_is_at_the_layers_own_scale(entry):
    def said(factor, scale):
        steered, found = begun(entry), []

        def call(latent, level, condition, *, phase="target"):
            size = tuple(latent.shape[-2:])
            q, k, v = (seeded_noise((2, size[0] * size[1], 4), [seed]) for seed in range(3))
            for patch in steered.patches():
                if patch.place == ATTENTION:
                    found.append(patch.act("a", q * factor, k, v, size=size, scale=scale, phase=phase))
            return latent

        steered.around_model(call, steered.initial(LEVEL), LEVEL, CONDITION)
        return torch.cat([each.flatten() for each in found if each is not None])

    assert torch.allclose(said(1.0, None), said(4.0, 4**-0.5 / 4), atol=1e-5)


def test_a_method_is_offered_where_it_gets_what_it_needs_and_refused_by_name_elsewhere(monkeypatch):
    stub = Entry("stub", "a stub", "nowhere:nothing", frozenset((VIEWS, ATTENTION)))
    monkeypatch.setitem(METHODS, "stub", stub)
    assert entry_for("stub", STANDALONE, where="this host") is stub and "stub" in choices(STANDALONE)
    only = STANDALONE - {VIEWS}
    assert "stub" not in choices(only) and "fam" in choices(only)
    with pytest.raises(UsageError, match=r"method stub needs views, which the WebUI does not give; choose one of fam"):
        entry_for("stub", only, where="the WebUI")
    with pytest.raises(UsageError, match=r"needs attention and sampler state, which sampler UniPC does not give"):
        entry_for("fam", {"native pass"}, where="sampler UniPC")
    with pytest.raises(UsageError, match="method is 'magic'; choose one of fam, direct"):
        entry_for("magic", STANDALONE, where="this host")
    with pytest.raises(ValueError, match="wings"):
        Entry("bird", "a bird", "nowhere:nothing", frozenset(("wings",)))


def test_what_reads_what():
    assert reads("fam", "am") and not reads("direct", "am")
    assert not reads("of a later version", "am") and not reads(None, "am")


@pytest.mark.parametrize("entry", METHODS.values(), ids=list(METHODS))
@pytest.mark.parametrize("dial", ["start", "upsample"])
def test_what_an_entry_says_of_the_first_dials_is_what_its_code_reads(entry, dial):
    ways = [
        entry.load()(config).stages((256, 192), (64, 48))
        for config in (FamConfig(**{dial: getattr(CONFIG, dial)}), FamConfig())
    ]
    assert (ways[0] != ways[1]) == (dial in entry.dials) == entry.diffuses


def names_in_tests(tree):
    """Return the names of methods that code compares with, or looks up by."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            constants = [each for part in parts for each in ast.walk(part) if isinstance(each, ast.Constant)]
            yield from (each.value for each in constants if each.value in METHODS and each.value not in OPTIONS)


def test_no_code_asks_for_a_method_by_name():
    found = {
        f"{path.relative_to(PACKAGE)} {name}"
        for path in PACKAGE.rglob("*.py")
        for name in names_in_tests(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not found, "ask what it needs or reads"
    assert list(names_in_tests(ast.parse("if request.method == 'fam': pass"))) == ["fam"]
    assert list(names_in_tests(ast.parse("x in ('direct', 'b')"))) == ["direct"]


def test_what_a_method_fixes_is_in_its_own_dials():
    config = FamConfig(cutoff=0.25, attention=0.3)
    assert METHODS["fam-constant"].load()(config).config == config.replace(reference="constant")
    assert METHODS["fam-swap"].load()(config).config == config.replace(attention=1.0)
    assert not METHODS["fam-swap"].knobs.count("attention") and "reference" in METHODS["fam-swap"].knobs
