"""What hosts/ldm.py hangs into a network of ldm's own classes: nothing stays, nothing of others is lost."""

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.errors import AlreadyGuidedError, ConfigError, UnsupportedModelError
from fam_ext.hosts import ldm
from tests.hosts import ldm_toys
from tests.hosts.ldm_toys import LEVEL, call, make_guide

pytestmark = pytest.mark.skipif(not ldm_toys.HAS_LDM, reason=ldm_toys.WITHOUT)


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


def test_everything_is_restored_after_success_error_and_interrupt():
    class Interrupted(BaseException):
        pass

    unet = ldm_toys.unet("sd15")
    before, weights = snapshot(unet), {name: value.clone() for name, value in unet.state_dict().items()}
    call(unet, make_guide())
    assert snapshot(unet) == before
    for error in (RuntimeError("out of memory"), Interrupted()):

        def raising(module, args, error=error):
            if args[0].shape[-1] == 16:  # not in the native pass
                raise error

        handle = unet.output_blocks[11].register_forward_pre_hook(raising)
        with pytest.raises(type(error)):
            call(unet, make_guide())
        handle.remove()
        assert snapshot(unet) == before
    assert all(torch.equal(value, weights[name]) for name, value in unet.state_dict().items())
    with pytest.raises(ConfigError, match="am_sites"):
        call(unet, make_guide(FamConfig(am_sites="nothing*")))
    assert snapshot(unet) == before


def test_a_second_entry_is_refused_and_leaves_the_first_alone():
    unet = ldm_toys.unet("small")
    before = snapshot(unet)
    with ldm.guided_unet(unet, make_guide(), position=ldm.Position()):
        with pytest.raises(AlreadyGuidedError), ldm.guided_unet(unet, make_guide(), position=ldm.Position()):
            pass
        assert "_fam_guided" in unet.__dict__
    assert snapshot(unet) == before


def test_an_earlier_owner_of_a_slot_is_chained_and_put_back():
    unet = ldm_toys.unet("sdxl")
    site = unet.output_blocks[3][1].transformer_blocks[0].attn1
    calls = []
    original = site.forward

    def hypertile(x, context=None, mask=None, **kwargs):
        calls.append(x.shape)
        return original(x, context=context, mask=mask, **kwargs)

    site.forward = hypertile
    call(unet, make_guide(FamConfig(am_window=(0.4, 0.0))))
    assert calls and site.__dict__["forward"] is hypertile


def test_a_wrapper_that_stays_on_ours_finds_it_closed():
    unet = ldm_toys.unet("small")
    guide = make_guide()
    position = ldm.Position(guide.diffused(LEVEL), LEVEL)
    x = (position.latent / LEVEL.scale)[[0, 0]]
    context = torch.zeros(2, 5, ldm_toys.CONTEXT)
    plain = unet(x, torch.full((2,), 500.0), context=context)
    with ldm.guided_unet(unet, guide, position=position):
        ours = unet.forward
        unet.forward = lambda *args, **kwargs: ours(*args, **kwargs)
    assert torch.equal(unet(x, torch.full((2,), 500.0), context=context), plain)


def test_reference_style_context_is_self_attention_and_banks_fall_through():
    unet = ldm_toys.unet("sd15")
    guide = make_guide()
    block = unet.output_blocks[3][1].transformer_blocks[0]
    original = block._forward

    def reference_style(x, context=None):
        x_norm = block.norm1(x)
        x = block.attn1(x_norm, context=x_norm) + x
        x = block.attn2(block.norm2(x), context=context) + x
        return block.ff(block.norm3(x)) + x

    block._forward = reference_style
    call(unet, guide)
    assert guide.report.am_calls["output_blocks.3.1.transformer_blocks.0.attn1"] == 1

    def with_bank(x, context=None):
        x_norm = block.norm1(x)
        x = block.attn1(x_norm, context=torch.cat([x_norm, x_norm], 1)) + x
        x = block.attn2(block.norm2(x), context=context) + x
        return block.ff(block.norm3(x)) + x

    block._forward = with_bank
    guide = make_guide()
    call(unet, guide)
    assert "output_blocks.3.1.transformer_blocks.0.attn1" not in guide.report.am_calls
    assert len(guide.report.am_calls) == 2
    block._forward = original


def test_hypernetworks_reach_keys_and_values():
    unet = ldm_toys.unet("small")
    plain = call(unet, make_guide())
    changed = call(unet, make_guide(), traits=ldm.Traits(hypernetworks=lambda context: (2 * context, context - 1)))
    assert not torch.allclose(plain, changed, atol=1e-4)


def test_no_network_of_another_kind():
    with pytest.raises(UnsupportedModelError, match="Linear"):
        ldm.up_blocks(torch.nn.Linear(2, 2))
