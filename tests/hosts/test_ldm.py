"""hosts/ldm.py on ldm's own UNet classes: sites, the native pass, rows, and nothing left behind."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import NativeRecord
from fam_ext.core.schedule import NoiseLevel
from fam_ext.hosts import ldm
from tests.hosts import ldm_toys
from tests.hosts.ldm_toys import LEVEL, call, make_guide

pytestmark = pytest.mark.skipif(not ldm_toys.HAS_LDM, reason=ldm_toys.WITHOUT)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sd15", [f"output_blocks.{block}.1.transformer_blocks.0.attn1" for block in (3, 4, 5)]),
        ("sdxl", [f"output_blocks.{block}.1.transformer_blocks.0.attn1" for block in (0, 1, 2)]),
    ],
)
def test_sites_are_the_first_up_block_that_has_attention(kind, expected):
    unet = ldm_toys.unet(kind)
    with ldm.guided_unet(unet, make_guide(), position=ldm.Position()) as sites:
        assert [site.name for site in sites] == expected


@pytest.mark.parametrize("kind", [pytest.param("sd15", marks=pytest.mark.slow), "sdxl"])
@pytest.mark.parametrize("target", [(16, 16), (24, 16), (20, 16)])
def test_am_acts_once_per_site_and_call_and_changes_the_output(kind, target):
    if kind == "sd15" and target == (20, 16):
        target = (24, 24)  # without the WebUI's patch, ldm takes only whole powers of two
    unet = ldm_toys.unet(kind)
    guide = make_guide(target=target)
    guided = call(unet, guide)
    plain = call(unet, make_guide(FamConfig(am=False), target=target))
    assert set(guide.report.am_calls.values()) == {1}
    assert len(guide.report.am_calls) == 3
    assert guided.shape == plain.shape
    assert not torch.allclose(guided, plain, atol=1e-4)


def test_the_native_pass_stops_after_the_last_site():
    unet = ldm_toys.unet("sdxl")
    seen = []
    for index, block in enumerate(unet.output_blocks):
        block.register_forward_pre_hook(lambda module, args, index=index: seen.append((index, args[0].shape[-1])))
    call(unet, make_guide())
    # blocks 0-2 run twice, natively at first; what follows runs only for the target
    assert [index for index, _ in seen] == [0, 1, 2, *range(9)]
    assert [side for _, side in seen[:3]] == [2, 2, 2]


def test_a_native_pass_like_the_target_changes_nothing():
    unet = ldm_toys.unet("small")
    guide = make_guide(native=(16, 16), target=(16, 16))
    guide.native = guide.target
    guide.native_noise = guide.noise
    guided = call(unet, guide)
    plain = call(unet, make_guide(FamConfig(am=False), native=(16, 16), target=(16, 16)))
    assert guide.report.am_calls
    assert torch.allclose(guided, plain, atol=1e-4)


@pytest.mark.parametrize("config", [FamConfig(am=False), FamConfig(attention=0), FamConfig(am_window=(0.4, 0.0))])
def test_am_that_does_not_act_changes_no_bit(config):
    unet = ldm_toys.unet("small")
    guide = make_guide(config)
    guided = call(unet, guide)
    state = (guide.diffused(LEVEL) / LEVEL.scale)[[0, 0]]
    torch.manual_seed(2)
    plain = unet(state, torch.full((2,), 500.0), context=torch.randn(2, 5, ldm_toys.CONTEXT))
    assert torch.equal(guided, plain)
    assert not guide.report.am_calls


def test_rows_are_resolved_by_content_in_any_order_and_number():
    torch.manual_seed(3)
    latent = torch.randn(3, 4, 8, 8)
    rows = [2, 0, 0, 1, 2]
    network_input = latent[rows] / 3.7 + 1e-4 * torch.randn(5, 4, 8, 8)
    assert ldm.rows_of(network_input, latent).tolist() == rows
    assert ldm.rows_of(network_input, latent[:1]).tolist() == [0] * 5


def test_each_row_is_guided_by_its_own_picture():
    unet = ldm_toys.unet("small")
    both = call(unet, make_guide(batch=2), rows=(1, 0, 1, 0))
    other = call(unet, make_guide(batch=2), rows=(0, 1, 0, 1))
    torch.manual_seed(2)
    # the same context in each row makes rows comparable
    guide = make_guide(batch=2)
    position = ldm.Position(guide.diffused(LEVEL), LEVEL)
    context = torch.randn(1, 5, ldm_toys.CONTEXT).expand(4, -1, -1)
    x = (position.latent / LEVEL.scale)[[1, 0, 1, 0]]
    with ldm.guided_unet(unet, guide, position=position):
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
    call(unet, make_guide(record=record))
    at_480, at_500 = (
        timestep_embedding(torch.full((2,), timestep), unet.model_channels) for timestep in (480.0, 500.0)
    )
    assert torch.allclose(embedded[0], at_480, atol=1e-5) and torch.allclose(embedded[1], at_500, atol=1e-5)
    assert torch.allclose(seen[0][0], recorded[0] / (1 + 1.8**2) ** 0.5)
    assert seen[1].shape[-1] == 16


def test_inpainting_channels_are_carried_to_the_native_size():
    unet = ldm_toys.unet(in_channels=9)
    guide = make_guide()
    out = call(unet, guide, in_channels=9)
    assert guide.report.am_calls and out.shape == (2, 4, 16, 16)


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
        guide = make_guide(native=(16, 16), target=(target, target))
        attend, seen, queries = guide.attend, LargestTensor(), []

        def watched(*args, attend=attend, seen=seen, queries=queries, **kwargs):
            queries.append(args[1].numel())
            with seen:
                return attend(*args, **kwargs)

        monkeypatch.setattr(guide, "attend", watched)
        call(unet, guide)
        assert guide.report.am_calls
        largest[target] = seen.elements
        assert seen.elements <= 2 * max(queries)
    assert largest[64] <= 4.2 * largest[32]  # four times the tokens
