"""hosts/ldm/unet.py on ldm's own UNet classes: sites, the native pass, rows, and nothing left behind."""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import NativeRecord
from fam_ext.core.schedule import NoiseLevel
from fam_ext.errors import AlreadyGuidedError, ConfigError, UnsupportedModelError
from fam_ext.hosts import base
from fam_ext.hosts.ldm import rows as ldm_rows
from fam_ext.hosts.ldm import unet as ldm_unet
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import Pass
from tests.hosts import ldm_toys
from tests.methods.passes import fam_pass, watch_maps

pytestmark = pytest.mark.skipif(not ldm_toys.HAS_LDM, reason=ldm_toys.WITHOUT)
LEVEL = NoiseLevel(500.0, 1.0, 2.0)


def make_pass(config=None, *, native=(8, 8), target=(16, 16), batch=1, record=None):
    torch.manual_seed(1)
    latent = torch.randn(batch, 4, *native)
    upsampled = torch.nn.functional.interpolate(latent, target, mode="bicubic")
    return fam_pass(
        config, native=latent, target=upsampled, noise=torch.randn(batch, 4, *target), steps=6, record=record
    )


@contextmanager
def guided(unet, steered, *, state=None, at=LEVEL, traits=None):
    """While open, `unet` is called as in a sampler that stands at `state` and `at`; gives the patched sites."""
    steering = Steering()
    with steering.running(steered), ldm_unet.steered_unet(unet, steering, traits=traits) as sites:
        steering.latent, steering.level = state, at
        yield sites


def call(unet, steered, *, rows=(0, 0), in_channels=4, traits=None, at=LEVEL):
    """Return the guided UNet's output for the given rows (each the index of its picture)."""
    state = steered.initial(at)
    x = (state / at.scale)[list(rows)]
    if in_channels > 4:
        x = torch.cat([x, torch.ones(len(rows), in_channels - 4, *x.shape[2:])], 1)
    torch.manual_seed(2)
    context = torch.randn(len(rows), 5, ldm_toys.CONTEXT)
    timesteps = torch.full((len(rows),), at.timestep)
    with guided(unet, steered, state=state, traits=traits):
        return unet(x, timesteps, context=context)


def snapshot(unet):
    """Return everything that a hook could leave behind."""
    return {
        name: (
            sorted(module.__dict__),
            module.__dict__.get("forward"),
            len(module._forward_pre_hooks),
            len(module._forward_hooks),
        )
        for name, module in unet.named_modules()
    }


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sd15", [f"output_blocks.{block}.1.transformer_blocks.0.attn1" for block in (3, 4, 5)]),
        ("sdxl", [f"output_blocks.{block}.1.transformer_blocks.0.attn1" for block in (0, 1, 2)]),
    ],
)
def test_sites_are_the_first_up_block_that_has_attention(kind, expected):
    unet = ldm_toys.unet(kind)
    with guided(unet, make_pass()) as sites:
        assert [site.name for site in sites] == expected


@pytest.mark.parametrize("kind", [pytest.param("sd15", marks=pytest.mark.slow), "sdxl"])
@pytest.mark.parametrize("target", [(16, 16), (24, 16), (20, 16)])
def test_am_acts_once_per_site_and_call_and_changes_the_output(kind, target):
    if kind == "sd15" and target == (20, 16):
        target = (24, 24)  # without the WebUI's patch, ldm takes only whole powers of two
    unet = ldm_toys.unet(kind)
    guide = make_pass(target=target)
    out = call(unet, guide)
    plain = call(unet, make_pass(FamConfig(am=False), target=target))
    assert set(guide.ran().am_calls.values()) == {1}
    assert len(guide.ran().am_calls) == 3
    assert out.shape == plain.shape
    assert not torch.allclose(out, plain, atol=1e-4)


@pytest.mark.parametrize("upcast", [False, True])
@pytest.mark.parametrize("target", [(12, 12), (16, 16), (20, 16)])
def test_am_acts_under_autocast_and_attends_in_float32_where_the_host_asks(monkeypatch, target, upcast):
    unet, seen = ldm_toys.unet("sdxl"), []
    plain = call(unet, make_pass(target=target))
    attend = Steering.attend

    def watched(steering, site, q, k, v, **more):
        out = attend(steering, site, q, k, v, **more)
        seen.append((q.dtype, (q @ k.mT).dtype, out.dtype))
        return out

    monkeypatch.setattr(Steering, "attend", watched)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = call(unet, make_pass(target=target), traits=ldm_unet.Traits(upcast=upcast))
    wanted = torch.float32 if upcast else torch.bfloat16
    assert seen and set(seen) == {(wanted,) * 3}
    assert torch.nn.functional.cosine_similarity(out.float().flatten(), plain.flatten(), dim=0) > 0.99


def test_the_native_pass_stops_after_the_last_site():
    unet = ldm_toys.unet("sdxl")
    seen = []
    for index, block in enumerate(unet.output_blocks):
        block.register_forward_pre_hook(lambda module, args, index=index: seen.append((index, args[0].shape[-1])))
    call(unet, make_pass())
    # blocks 0-2 run twice, natively at first; what follows runs only for the target
    assert [index for index, _ in seen] == [0, 1, 2, *range(9)]
    assert [side for _, side in seen[:3]] == [2, 2, 2]


def test_no_native_map_lives_on_where_the_networks_memory_peaks():
    unet, steered = ldm_toys.unet("sdxl"), make_pass()
    kept, alive = watch_maps(steered, unet.output_blocks[-1])
    call(unet, steered)
    assert len(kept) == 6 and alive == [0]


def test_merged_tokens_are_told_the_native_size():
    unet, seen, target = ldm_toys.unet("sdxl"), [], (12, 12)
    unet._tome_info = {"size": None}
    # as tomesd: it hears of the size where the network is called as a module, and counts by it in every block
    unet.register_forward_pre_hook(lambda module, args: module._tome_info.update(size=tuple(args[0].shape[2:])))
    unet.input_blocks[-1].register_forward_pre_hook(lambda module, args: seen.append(unet._tome_info["size"]))
    call(unet, make_pass(target=target))
    assert seen == [(8, 8), target] and unet._tome_info == {"size": target}


def test_a_native_pass_like_the_target_changes_nothing():
    unet = ldm_toys.unet("small")
    guide = make_pass(native=(16, 16), target=(16, 16))
    guide.guide.native = guide.guide.target
    guide.guide.native_noise = guide.guide.noise
    out = call(unet, guide)
    plain = call(unet, make_pass(FamConfig(am=False), native=(16, 16), target=(16, 16)))
    assert guide.ran().am_calls
    assert torch.allclose(out, plain, atol=1e-4)


@pytest.mark.parametrize("config", [FamConfig(am=False), FamConfig(attention=0), FamConfig(am_window=(0.4, 0.0))])
def test_am_that_does_not_act_changes_no_bit(config):
    unet = ldm_toys.unet("small")
    guide = make_pass(config)
    out = call(unet, guide)
    state = (guide.initial(LEVEL) / LEVEL.scale)[[0, 0]]
    torch.manual_seed(2)
    plain = unet(state, torch.full((2,), 500.0), context=torch.randn(2, 5, ldm_toys.CONTEXT))
    assert torch.equal(out, plain)
    assert not guide.ran().am_calls


def by_content(network_input, latent, order=None):
    checks = base.LateChecks()
    rows = ldm_rows.rows_of(network_input, latent, order=order, checks=checks)
    checks.send()
    return rows.tolist()


def test_on_the_cpu_a_check_answers_at_once():
    checks = base.LateChecks()
    checks.expect(torch.tensor(True), ConfigError("holds"))
    checks.send()
    checks.expect(torch.tensor(False), ConfigError("does not hold"))
    with pytest.raises(ConfigError, match="does not hold"):
        checks.send()


def test_rows_are_resolved_by_content_in_any_order_and_number():
    torch.manual_seed(3)
    latent = torch.randn(3, 4, 8, 8)
    rows = [2, 0, 0, 1, 2]
    network_input = latent[rows] / 3.7 + 1e-4 * torch.randn(5, 4, 8, 8)
    assert by_content(network_input, latent) == rows
    assert by_content(network_input, latent[:1]) == [0] * 5
    assert by_content(network_input, latent, torch.tensor([0, 1, 2, 0, 1])) == rows, "an order that is wrong"


def test_each_row_is_guided_by_its_own_picture():
    unet = ldm_toys.unet("small")
    both = call(unet, make_pass(batch=2), rows=(1, 0, 1, 0))
    other = call(unet, make_pass(batch=2), rows=(0, 1, 0, 1))
    torch.manual_seed(2)
    # the same context in each row makes rows comparable
    guide = make_pass(batch=2)
    state = guide.initial(LEVEL)
    context = torch.randn(1, 5, ldm_toys.CONTEXT).expand(4, -1, -1)
    x = (state / LEVEL.scale)[[1, 0, 1, 0]]
    with guided(unet, guide, state=state):
        out = unet(x, torch.full((4,), 500.0), context=context)
    assert torch.allclose(out[0], out[2], atol=1e-5) and torch.allclose(out[1], out[3], atol=1e-5)
    assert not torch.allclose(out[0], out[1], atol=1e-2)
    assert both.shape == other.shape


def test_a_recorded_native_run_is_used_at_its_own_level():
    from ldm.modules.diffusionmodules.util import timestep_embedding

    unet = ldm_toys.unet("small")
    record = NativeRecord()
    torch.manual_seed(4)
    recorded = torch.randn(1, 4, 8, 8)
    record.add(recorded, NoiseLevel(480.0, 1.0, 1.8))
    seen = []
    unet.input_blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    # the timestep is embedded before anything else: what goes in tells the level of each pass
    embedded = []
    unet.time_embed.register_forward_pre_hook(lambda module, args: embedded.append(args[0].clone()))
    call(unet, make_pass(record=record))
    at_480, at_500 = (
        timestep_embedding(torch.full((2,), timestep), unet.model_channels) for timestep in (480.0, 500.0)
    )
    assert torch.allclose(embedded[0], at_480, atol=1e-5) and torch.allclose(embedded[1], at_500, atol=1e-5)
    assert torch.allclose(seen[0][0], recorded[0] / (1 + 1.8**2) ** 0.5)
    assert seen[1].shape[-1] == 16


def test_inpainting_channels_are_carried_to_the_native_size():
    unet = ldm_toys.unet(in_channels=9)
    guide = make_pass()
    out = call(unet, guide, in_channels=9)
    assert guide.ran().am_calls and out.shape == (2, 4, 16, 16)


def test_everything_is_restored_after_success_error_and_interrupt():
    class Interrupted(BaseException):
        pass

    unet = ldm_toys.unet("sd15")
    before, weights = snapshot(unet), {name: value.clone() for name, value in unet.state_dict().items()}
    call(unet, make_pass())
    assert snapshot(unet) == before
    for error in (RuntimeError("out of memory"), Interrupted()):

        def raising(module, args, error=error):
            if args[0].shape[-1] == 16:  # not in the native pass
                raise error

        handle = unet.output_blocks[11].register_forward_pre_hook(raising)
        with pytest.raises(type(error)):
            call(unet, make_pass())
        handle.remove()
        assert snapshot(unet) == before
    assert all(torch.equal(value, weights[name]) for name, value in unet.state_dict().items())
    with pytest.raises(ConfigError, match="am_sites"):
        call(unet, make_pass(FamConfig(am_sites="nothing*")))
    assert snapshot(unet) == before


def test_a_second_entry_is_refused_and_leaves_the_first_alone():
    unet = ldm_toys.unet("small")
    before = snapshot(unet)
    with guided(unet, make_pass()):
        with pytest.raises(AlreadyGuidedError), guided(unet, make_pass()):
            pass
        assert "_fam_guided" in unet.__dict__
    assert snapshot(unet) == before


def test_an_earlier_owner_of_a_slot_is_chained_and_put_back():
    unet = ldm_toys.unet("sd15")
    site = unet.output_blocks[3][1].transformer_blocks[0].attn1
    calls = []
    original = site.forward

    def hypertile(x, context=None, mask=None, **kwargs):
        calls.append(x.shape)
        return original(x, context=context, mask=mask, **kwargs)

    site.forward = hypertile
    call(unet, make_pass(FamConfig(am_window=(0.4, 0.0))))
    assert calls and site.__dict__["forward"] is hypertile


def test_a_wrapper_that_stays_on_ours_finds_it_closed():
    unet = ldm_toys.unet("small")
    guide = make_pass()
    state = guide.initial(LEVEL)
    x = (state / LEVEL.scale)[[0, 0]]
    context = torch.zeros(2, 5, ldm_toys.CONTEXT)
    plain = unet(x, torch.full((2,), 500.0), context=context)
    with guided(unet, guide, state=state):
        ours = unet.forward
        unet.forward = lambda *args, **kwargs: ours(*args, **kwargs)
    assert torch.equal(unet(x, torch.full((2,), 500.0), context=context), plain)


def test_reference_style_context_is_self_attention_and_banks_fall_through():
    unet = ldm_toys.unet("sd15")
    guide = make_pass()
    block = unet.output_blocks[3][1].transformer_blocks[0]
    original = block._forward

    def reference_style(x, context=None):
        x_norm = block.norm1(x)
        x = block.attn1(x_norm, context=x_norm) + x
        x = block.attn2(block.norm2(x), context=context) + x
        return block.ff(block.norm3(x)) + x

    block._forward = reference_style
    call(unet, guide)
    assert guide.ran().am_calls["output_blocks.3.1.transformer_blocks.0.attn1"] == 1

    def with_bank(x, context=None):
        x_norm = block.norm1(x)
        x = block.attn1(x_norm, context=torch.cat([x_norm, x_norm], 1)) + x
        x = block.attn2(block.norm2(x), context=context) + x
        return block.ff(block.norm3(x)) + x

    block._forward = with_bank
    guide = make_pass()
    call(unet, guide)
    assert "output_blocks.3.1.transformer_blocks.0.attn1" not in guide.ran().am_calls
    assert len(guide.ran().am_calls) == 2
    block._forward = original


@pytest.mark.parametrize("is_cast", [False, True])
def test_am_acts_on_the_pictures_own_run_and_not_on_a_references(is_cast):
    unet, guide, runs = ldm_toys.unet("sdxl"), make_pass(), []
    plain, blended = type(unet).forward, guide.guide.blended
    given, reference = {}, torch.randn(2, 4, 16, 16)

    def controlnet(x, timesteps=None, context=None, y=None, **kwargs):
        x = x.clone() if is_cast else x
        for name, latent in (("reference", reference), ("picture", x)):
            runs.append(name)
            given[name] = plain(unet, latent, timesteps, context, y=y)
        return given["picture"]

    def noting(site, *args, **kwargs):
        out = blended(site, *args, **kwargs)
        runs.extend([site] if out is not None else [])
        return out

    guide.guide.blended, unet.forward = noting, controlnet
    call(unet, guide)
    assert runs[:2] == ["reference", "picture"] and len(runs) == 5
    seen = given["reference"]
    call(unet, make_pass(FamConfig(am=False)))
    assert torch.equal(given["reference"], seen)


def test_whose_latent_runs_is_told_by_identity_or_by_value_in_its_own_format():
    hook = ldm_unet.UNetHook(None, Steering(), ldm_unet.Traits(), None)
    x, nan = torch.randn(1, 4, 8, 8), torch.tensor(torch.nan)
    own, others = ((None, x), (x, x.half()), (nan, nan)), ((x, x + 1), (x, x[..., :4]))
    for given, first, is_other in [*((*each, False) for each in own), *((*each, True) for each in others)]:
        hook._given = given
        hook.note_input(None, (first,))
        assert hook.steering.is_other == is_other


def test_every_latent_that_a_pass_calls_with_is_its_own():
    guide = make_pass()
    around = guide.around_model
    guide.around_model = lambda *given: (around(*given), around(*given))[1]
    call(ldm_toys.unet("small"), guide)
    assert set(guide.ran().am_calls.values()) == {2}


def test_hypernetworks_reach_keys_and_values():
    unet = ldm_toys.unet("small")
    plain = call(unet, make_pass())
    changed = call(unet, make_pass(), traits=ldm_unet.Traits(hypernetworks=lambda context: (2 * context, context - 1)))
    assert not torch.allclose(plain, changed, atol=1e-4)


def test_no_network_of_another_kind():
    with pytest.raises(UnsupportedModelError, match="Linear"):
        ldm_unet.up_blocks(torch.nn.Linear(2, 2))


class LargestTensor(TorchDispatchMode):
    """Notes the most elements of any tensor that an operation gives while open."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_no_tensor_of_am_grows_with_the_square_of_the_targets_tokens(kind, monkeypatch):
    unet = ldm_toys.unet(kind)
    largest = {}
    for target in (32, 64):
        guide = make_pass(native=(16, 16), target=(target, target))
        attend, seen, queries = guide.guide.blended, LargestTensor(), []

        def watched(*args, attend=attend, seen=seen, queries=queries, **kwargs):
            queries.append(args[1].numel())
            with seen:
                return attend(*args, **kwargs)

        monkeypatch.setattr(guide.guide, "blended", watched)
        call(unet, guide)
        assert guide.ran().am_calls
        largest[target] = seen.elements
        assert seen.elements <= 2 * max(queries)
    assert largest[64] <= 4.2 * largest[32]  # four times the tokens


# --- rows of equal latents


def equal_pictures():
    """Return a pass of two pictures whose latents are equal and whose native pictures are not."""
    torch.manual_seed(1)
    native, target = torch.randn(2, 4, 8, 8), torch.randn(1, 4, 16, 16)
    same = target.repeat(2, 1, 1, 1)
    return fam_pass(native=native, target=same, noise=torch.randn(1, 4, 16, 16).repeat(2, 1, 1, 1), steps=6)


def native_rows(steered, order, layout):
    """Return which native picture each row of a call was given; `order` are the rows' pictures, `layout` the host's."""
    unet, seen = ldm_toys.unet(), []
    unet.input_blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    state = steered.initial(LEVEL)
    x = (state / LEVEL.scale)[order]
    steering = Steering()
    with steering.running(steered), ldm_unet.steered_unet(unet, steering):
        steering.latent, steering.level = state, LEVEL
        steering.layout = [(picture, False) for picture in layout]
        for rows in (x,) if len(layout) == len(order) else x.split(len(order) // 2):
            unet(rows, torch.full((len(rows),), 500.0), context=torch.zeros(len(rows), 5, ldm_toys.CONTEXT))
    given, _ = steered.guide.native_input(LEVEL)
    natives = [rows for rows in seen if rows.shape[-1] == 8]
    return [int((given - row).flatten(1).norm(dim=1).argmin()) for rows in natives for row in rows]


def test_equal_latents_keep_their_own_native_maps_by_the_hosts_order():
    assert native_rows(equal_pictures(), [0, 1, 0, 1], [0, 1, 0, 1]) == [0, 1, 0, 1]
    assert native_rows(equal_pictures(), [0, 0, 1, 0, 1], [0, 0, 1, 0, 1]) == [0, 0, 1, 0, 1]  # one has two AND parts
    halves = [0, 1, 0, 1, 0, 1]  # what is left of the layout is another call's, or was left out
    assert native_rows(equal_pictures(), [0, 1, 0, 1], halves) == [0, 1, 0, 1]


def test_equal_latents_without_an_order_are_refused():
    latent = torch.randn(1, 4, 8, 8).repeat(2, 1, 1, 1)
    other = torch.cat([latent, torch.randn(1, 4, 8, 8)])
    for order in (None, torch.tensor([2, 2])):
        with pytest.raises(UnsupportedModelError, match=r"two pictures of the batch are equal.*set Batch size to 1"):
            by_content(other[:2], other, order)
    assert by_content(other[2:], other) == [2], "the third is nobody's equal"
    assert by_content(latent / 3, latent, torch.tensor([1, 0])) == [1, 0]


def test_the_layout_is_the_hosts_own():
    def cond(*parts):
        return type("Multicond", (), {"batch": [["part"] * count for count in parts]})

    uncond = [(0, True), (1, True)]
    assert ldm_rows.layout_of(cond(1, 1), 2) == [(0, False), (1, False), *uncond, *uncond]
    assert ldm_rows.layout_of(cond(2, 1), 2) == [(0, False), (0, False), (1, False), *uncond, *uncond]
    assert ldm_rows.layout_of(cond(1, 1), 3) is None and ldm_rows.layout_of(object(), 1) is None
    steering = Steering()
    steering.layout = [(0, False), (1, False), *uncond]
    assert [steering.next_rows(count) for count in (2, 2, 1)] == [((0, False), (1, False)), tuple(uncond), None]


class UncondNotes(Pass):
    """Notes which rows of each call are unconditional."""

    def __init__(self, pictures):
        super().__init__(pictures)
        self.seen = []

    def around_model(self, call, latent, level, condition):
        self.seen += condition.uncond.tolist()
        return call(latent, level, condition)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_pass_is_told_which_rows_are_unconditional(calls):
    unet, steered = ldm_toys.unet(), UncondNotes(equal_pictures().pictures)
    state, steering = steered.initial(LEVEL), Steering()
    with steering.running(steered), ldm_unet.steered_unet(unet, steering):
        steering.latent, steering.level = state, LEVEL
        steering.layout = [(0, False), (0, False), (1, False), (1, False), (0, True), (1, True)]
        for rows in torch.cat([state, state, state]).chunk(calls):
            unet(rows, torch.full((len(rows),), 500.0), context=torch.zeros(len(rows), 5, ldm_toys.CONTEXT))
        assert steered.seen == [False] * 4 + [True] * 2
        with pytest.raises(UnsupportedModelError, match=r"which rows of the batch are unconditional; disable"):
            unet(state, torch.full((2,), 500.0), context=torch.zeros(2, 5, ldm_toys.CONTEXT))
