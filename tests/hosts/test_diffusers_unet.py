"""The diffusers hooks: what AM does to a real UNet, and that nothing of it stays."""

from contextlib import contextmanager

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import NativeRecord, seeded_noise
from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import AlreadyGuidedError, ConfigError, UnsupportedModelError
from fam_ext.hosts.diffusers.unet import UNetHooks, unet_blocks
from fam_ext.hosts.sites import select_sites
from fam_ext.methods.base import NATIVE, TARGET, Condition
from tests.methods.passes import fam_pass, watch_maps

from . import toys

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run

LEVEL = NoiseLevel(500.0, 0.6, 0.8)
UNETS = {"SD1.5": (toys.sd_unet, 32), "SDXL": (toys.sdxl_unet, 80)}


def make_pass(config=None, *, native=(8, 8), target=(16, 16), record=None):
    return fam_pass(
        config,
        native=seeded_noise((4, *native), [1]),
        target=seeded_noise((4, *target), [2]),
        noise=seeded_noise((4, *target), [3]),
        record=record,
    )


@contextmanager
def guided(unet, steered, hooks=None):
    """While open, gives `step(call, latent, level)`: one guided call of the network, as the host makes it."""
    hooks = hooks or UNetHooks(unet)

    def step(call, latent, level):
        def phased(latent, level, condition, *, phase=TARGET):
            with hooks.steering.during(phase):
                return call(latent, level, phase == NATIVE)

        rows = torch.zeros(latent.shape[0], dtype=torch.int64)
        return steered.around_model(phased, latent, level, Condition(lambda: rows))

    with hooks.running(steered):
        yield step


def make_call(unet, width, passes=None):
    stream = torch.Generator().manual_seed(7)
    context = torch.randn(2, 5, width, generator=stream)
    added = {"text_embeds": torch.zeros(2, 48), "time_ids": torch.zeros(2, 6)} if width == 80 else None

    def call(latent, level, native):
        if passes is not None:
            passes.append((tuple(latent.shape), native))
        with torch.no_grad():
            return unet(latent, level.timestep, encoder_hidden_states=context, added_cond_kwargs=added).sample

    return call


def rows(size, seed=4):
    return seeded_noise((4, *size), [seed]).repeat(2, 1, 1, 1)


def state(unet):
    processors = {name: id(processor) for name, processor in unet.attn_processors.items()}
    hooks = {name: len(module._forward_pre_hooks) for name, module in unet.named_modules()}
    forwards = {name: module.__dict__.get("forward") for name, module in unet.named_modules()}
    return processors, hooks, forwards, {key: value.clone() for key, value in unet.state_dict().items()}


def assert_same_state(before, after):
    assert before[:3] == after[:3]
    assert all(torch.equal(before[3][key], after[3][key]) for key in before[3])


def test_sites_are_the_first_up_block_that_has_attention():
    sd = select_sites(unet_blocks(toys.sd_unet()), "auto")
    assert [site.name.split(".")[1] for site in sd] == ["1"] * 3
    sdxl = select_sites(unet_blocks(toys.sdxl_unet()), "auto")
    finest = {
        len(unet_blocks(unet)): select_sites(unet_blocks(unet), "last") for unet in (toys.sd_unet(), toys.sdxl_unet())
    }
    assert {count: {site.name.split(".attentions")[0] for site in sites} for count, sites in finest.items()} == {
        4: {"up_blocks.3"},
        3: {"up_blocks.1"},
    }
    assert len(sdxl) == 9 and {site.name.split(".")[1] for site in sdxl} == {"0"}
    last = select_sites(unet_blocks(toys.sd_unet()), "up_blocks.3.*, up_blocks.2.attentions.0*")
    assert [site.name.split(".")[1] for site in last] == ["2", "3", "3", "3"]
    with pytest.raises(ConfigError, match=r"am_sites is 'nothing'; choose \"auto\" or patterns of: up_blocks"):
        select_sites(unet_blocks(toys.sd_unet()), "nothing")
    plain = toys.sd_unet(
        down_block_types=("DownBlock2D",) * 4,
        up_block_types=("UpBlock2D",) * 4,
        mid_block_type="UNetMidBlock2DCrossAttn",
    )
    with pytest.raises(UnsupportedModelError, match="no self-attention"):
        select_sites(unet_blocks(plain), "auto")


@pytest.mark.parametrize("kind", UNETS)
@pytest.mark.parametrize("target", [(16, 16), (16, 32), (12, 20), (13, 11)])
def test_am_acts_once_per_site_and_call_and_changes_the_output(kind, target):
    make, width = UNETS[kind]
    unet, passes = make().eval(), []
    call = make_call(unet, width, passes)
    plain = call(rows(target), LEVEL, False)
    guide = make_pass(target=target)
    kept, alive = watch_maps(guide, unet.up_blocks[-1])
    passes.clear()
    with guided(unet, guide) as step:
        result = step(call, rows(target), LEVEL)
    sites = select_sites(unet_blocks(unet), "auto")
    assert guide.ran().am_calls == {site.name: 1 for site in sites}
    assert passes == [((2, 4, 8, 8), True), ((2, 4, *target), False)]
    assert kept and alive == [len(kept), 0], "none lives on where the network's memory peaks"
    assert result.shape == plain.shape
    assert (result - plain).abs().max() > 1e-4 * plain.abs().max()


def test_a_recorded_native_run_is_used_at_its_own_timestep():
    recorded = NoiseLevel(480.0, 1.0, 1.8)
    record = NativeRecord()
    record.add(torch.ones(1, 4, 8, 8), recorded)
    guide, unet, seen = make_pass(record=record), toys.sd_unet().eval(), []
    call = make_call(unet, 32)

    def noting(latent, level, native):
        seen.append((native, level.timestep))
        return call(latent, level, native)

    with guided(unet, guide) as step:
        step(noting, rows((16, 16)), LEVEL)
    assert seen == [(True, 480.0), (False, 500.0)]


def test_the_native_pass_stops_after_the_last_site():
    unet, reached = toys.sdxl_unet().eval(), []
    unet.up_blocks[1].resnets[0].register_forward_hook(lambda *_: reached.append("up_blocks.1"))
    with guided(unet, make_pass()) as step:
        step(make_call(unet, 80), rows((16, 16)), LEVEL)
    assert reached == ["up_blocks.1"]  # by the target pass alone


@pytest.mark.parametrize("kind", UNETS)
def test_native_and_target_of_one_size_and_latent_change_nothing(kind):
    """With the native pass on the very latent of the target pass, U is the identity and the maps are equal."""
    make, width = UNETS[kind]
    unet = make().eval()
    call = make_call(unet, width)
    guide = make_pass(target=(8, 8))
    latent, _ = guide.guide.native_input(LEVEL)
    both = latent.repeat(2, 1, 1, 1)
    with guided(unet, guide) as step:
        result = step(call, both, LEVEL)
    assert torch.allclose(result, call(both, LEVEL, False), atol=1e-5)
    assert guide.ran().am_calls


@pytest.mark.parametrize("config", [FamConfig(am=False), FamConfig(attention=0.0), FamConfig(am_window=(0.4, 0.1))])
def test_am_that_does_not_act_is_a_short_cut_that_changes_no_bit(config):
    unet, passes = toys.sd_unet().eval(), []
    call = make_call(unet, 32, passes)
    plain, guide = call(rows((16, 16)), LEVEL, False), make_pass(config)
    with guided(unet, guide) as step:
        assert torch.equal(step(call, rows((16, 16)), LEVEL), plain)
    assert len(passes) == 2 and not guide.ran().am_calls


def test_hooks_between_passes_change_no_bit_and_a_closed_network_is_as_it_was():
    unet = toys.sd_unet().eval()
    before, call, hooks = state(unet), make_call(unet, 32), UNetHooks(unet)
    plain, native = call(rows((16, 16)), LEVEL, False), call(rows((8, 8)), LEVEL, True)
    with guided(unet, make_pass(), hooks) as step:
        first = step(call, rows((16, 16)), LEVEL)
    inside = state(unet)
    assert inside[0] != before[0], "they stay"
    assert torch.equal(call(rows((16, 16)), LEVEL, False), plain)
    with hooks.steering.during(NATIVE):
        assert torch.equal(call(rows((8, 8)), LEVEL, True), native)
    with guided(unet, make_pass(), hooks) as step:
        assert torch.equal(step(call, rows((16, 16)), LEVEL), first)
    assert_same_state(inside, state(unet))
    hooks.close()
    assert_same_state(before, state(unet))


def test_after_an_error_and_an_interrupt_the_hooks_sleep_and_the_next_pass_runs():
    unet = toys.sd_unet().eval()
    before, call, hooks = state(unet), make_call(unet, 32), UNetHooks(unet)
    plain = call(rows((16, 16)), LEVEL, False)
    with guided(unet, make_pass(), hooks) as step:
        expected = step(call, rows((16, 16)), LEVEL)

    def failing(latent, level, native):
        if not native:
            raise RuntimeError("inside the target pass")
        return call(latent, level, native)

    for error, made in ((ValueError("in the loop"), call), (KeyboardInterrupt(), call), (RuntimeError(), failing)):
        steered = make_pass()
        with pytest.raises(type(error)), guided(unet, steered, hooks) as step:
            step(made, rows((16, 16)), LEVEL)
            raise error
        assert not steered.guide._maps
        assert torch.equal(call(rows((16, 16)), LEVEL, False), plain)
        with guided(unet, make_pass(), hooks) as step:
            assert torch.equal(step(call, rows((16, 16)), LEVEL), expected)
    hooks.close()
    assert_same_state(before, state(unet))


def test_a_second_entry_and_a_foreign_owner_are_refused_and_leave_no_trace():
    unet = toys.sd_unet().eval()
    before, hooks = state(unet), UNetHooks(unet)
    with guided(unet, make_pass(), hooks):
        inside = state(unet)
        with pytest.raises(AlreadyGuidedError, match="guided already"), guided(unet, make_pass(), hooks):
            pass
        assert_same_state(inside, state(unet))
    hooks.close()
    assert_same_state(before, state(unet))

    class PerturbedAttention:
        def __call__(self, attn, hidden_states, *args, **kwargs):
            return hidden_states

    sites = select_sites(unet_blocks(unet), "auto")
    sites[-1].attention.set_processor(PerturbedAttention())
    before = state(unet)
    with pytest.raises(UnsupportedModelError, match="steered by PerturbedAttention"), guided(unet, make_pass()):
        pass
    assert_same_state(before, state(unet))


def test_an_owner_that_came_after_the_hook_is_taken_over():
    from diffusers.models.attention_processor import AttnProcessor

    unet = toys.sd_unet().eval()
    call, hooks = make_call(unet, 32), UNetHooks(unet)
    for _ in range(2):
        steered = make_pass()
        with guided(unet, steered, hooks) as step:
            step(call, rows((16, 16)), LEVEL)
        assert len(steered.ran().am_calls) == 3
        unet.set_attn_processor(AttnProcessor())


@pytest.mark.parametrize(
    ("kind", "sites"), [("SD1.5", "up_blocks.1.attentions.1*"), ("SDXL", "*.transformer_blocks.0.*")]
)
def test_a_native_call_leaves_out_what_follows_its_last_site(kind, sites, monkeypatch):
    make, width = UNETS[kind]
    unet = make().eval()
    last = select_sites(unet_blocks(unet), sites)[-1]
    ran, names = [], {module: name for name, module in unet.named_modules()}
    for layer in (torch.nn.Linear, torch.nn.Conv2d):
        forward = layer.forward
        noting = lambda self, x, forward=forward: ran.append(names[self]) or forward(self, x)  # noqa: E731
        monkeypatch.setattr(layer, "forward", noting)
    call = make_call(unet, width)
    with guided(unet, make_pass(FamConfig(am_sites=sites))) as step:
        step(lambda *args: ran.append("native" if args[2] else "target") or call(*args), rows((16, 16)), LEVEL)
    native = ran[: ran.index("target")]
    place = last.name.removesuffix(".attn1")
    assert f"{place}.attn1.to_q" in native
    beside = [name for name in native[native.index(f"{place}.attn1.to_q") :] if not name.startswith(f"{place}.")]
    assert beside == [f"{place.rpartition('.transformer_blocks')[0]}.proj_out"]
