"""A VAE trained without GroupNorm's statistics does the same as an ordinary AutoencoderKL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import norms
import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run


@pytest.fixture(scope="module")
def vae() -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    kind: Any = AutoencoderKL
    widths = {"block_out_channels": [64, 64, 96], "layers_per_block": 1, "norm_num_groups": 32}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    return kind.from_config({**widths, **blocks, "mid_block_add_attention": False, "sample_size": 32}).eval()


def pictures(count: int, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    ground = torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1
    values = ground.expand(count, 3, side, side).clone()
    values[..., side // 4 : side // 2, side // 4 : side // 2] = torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1
    return values


@torch.no_grad()
def both(vae: Any, values: Tensor) -> tuple[Tensor, Tensor]:
    latents = vae.encode(values).latent_dist.mode()
    return latents, vae.decode(latents).sample


@torch.no_grad()
def test_only_the_half_that_was_trained_is_judged(vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder was judged when it was made; one that fp16 holds badly must not keep a new decoder from its file."""
    freed = norms.free(vae, pictures(2))
    coded = norms._coded

    def other_latents(vae: Any, picture: Tensor) -> tuple[Tensor, Tensor]:
        latent, _ = coded(vae, picture)
        latent = latent + latent.std()
        return latent, vae.decode(latent).sample

    monkeypatch.setattr(norms, "_coded", other_latents)
    with pytest.raises(SystemExit, match="another latent"):
        norms.bound(freed, pictures(3))
    norms.bound(freed, pictures(3), decoder_only=True)

    def other_pictures(vae: Any, picture: Tensor) -> tuple[Tensor, Tensor]:
        latent, decoded = coded(vae, picture)
        return latent, decoded + decoded.std()

    monkeypatch.setattr(norms, "_coded", other_pictures)
    with pytest.raises(SystemExit, match="another picture"):
        norms.bound(freed, pictures(3), decoder_only=True)


@torch.no_grad()
def test_the_bound_vae_does_what_the_freed_one_does(vae: Any) -> None:
    freed = norms.free(vae, pictures(2))
    plain = norms.bound(freed, pictures(3))
    assert {key: value.shape for key, value in plain.state_dict().items()} == {
        key: value.shape for key, value in vae.state_dict().items()
    }
    for wanted, found in zip(both(freed, pictures(2, 48)), both(plain, pictures(2, 48)), strict=True):
        assert (found - wanted).abs().max() < 0.08 * wanted.std()
        assert (found - wanted).abs().mean() < 0.02 * wanted.std()
    half = plain.half().float()  # as it is stored
    for wanted, found in zip(both(freed, pictures(3)), both(half, pictures(3)), strict=True):
        assert (found - wanted).abs().mean() < 0.02 * wanted.std()


@torch.no_grad()
def test_fp16_holds_a_vae_whose_features_grow(vae: Any) -> None:
    """As a trained encoder's do, from 1 to 300: one factor for all of them leaves weights that fp16 has not."""
    freed = norms.free(vae, pictures(2))
    wanted = both(freed, pictures(3))
    for half in (freed.encoder, freed.decoder):
        for step, stretch in enumerate(norms.stretches(half)):
            for convolution in (stretch.first, *stretch.writes):
                convolution.parametrizations.weight.original.mul_(4**step)
                convolution.parametrizations.bias.original.mul_(4**step)
            stretch.first.parametrizations.weight.original.div_(4 ** max(0, step - 1))
            for norm in stretch.norms:
                norm.weight.div_(4**step)
    for found, right in zip(both(freed, pictures(3)), wanted, strict=True):
        assert torch.allclose(found, right, atol=1e-4)
    half = norms.bound(freed, pictures(3)).half().float()
    for found, right in zip(both(half, pictures(3)), wanted, strict=True):
        assert (found - right).abs().mean() < 0.02 * right.std()


@torch.no_grad()
def test_what_else_is_in_the_picture_then_changes_nothing(vae: Any) -> None:
    dark, light = -torch.ones(1, 3, 96, 16), torch.ones(1, 3, 96, 16)
    dark[..., :64, :] = light[..., :64, :] = pictures(1, 64)[..., :16]
    plain = norms.bound(norms.free(vae, pictures(2)), torch.cat([dark, light]))
    near = slice(0, 8)  # far from where they differ

    def apart(model: Any) -> float:
        one, other = both(model, dark)[1], both(model, light)[1]
        return ((one - other)[:, :, near].abs().max() / one.std()).item()

    assert apart(vae) > 0.05
    assert apart(plain) < 0.01


@torch.no_grad()
def test_freeing_keeps_what_groupnorm_did_on_average(vae: Any) -> None:
    flat = pictures(1)
    freed = norms.free(vae, flat)
    for module in freed.modules():
        for field in ("weight", "bias"):  # as they were, without the sums that are taken out
            if torch.nn.utils.parametrize.is_parametrized(module, field):
                torch.nn.utils.parametrize.remove_parametrizations(module, field, leave_parametrized=False)
    for wanted, found in zip(both(vae, flat), both(freed, flat), strict=True):
        assert torch.allclose(found, wanted, atol=1e-3)


def test_a_vae_with_one_channel_a_group_is_refused(vae: Any) -> None:
    kind: Any = type(vae)
    thin = kind.from_config({**vae.config, "block_out_channels": [32, 64, 64]})
    with pytest.raises(SystemExit, match="32 channels in 32 groups"):
        norms.free(thin)


@torch.no_grad()
def test_what_was_written_can_be_trained_on(vae: Any, tmp_path: Path) -> None:
    freed = norms.free(vae, pictures(2))
    norms.write_freed(freed, tmp_path)
    assert norms.has_freed(tmp_path) and not norms.has_freed(tmp_path / "other")
    again = norms.free(vae)
    norms.read_freed(again, tmp_path)
    for wanted, found in zip(both(freed, pictures(2)), both(again, pictures(2)), strict=True):
        assert (found - wanted).abs().mean() < 0.03 * wanted.std()


def test_decoder_only_leaves_the_encoder_to_the_bit(vae: Any, shapes: Path) -> None:
    import vae as script
    from safetensors.torch import load_file

    start = shapes / "start"
    vae.save_pretrained(start)
    freed = norms.free(vae, pictures(2))
    norms.write_freed(freed, start)
    places = ["--work", str(shapes), "--start", str(start), "--out", str(shapes / "out")]
    sizes = ["--sizes", "64", "--crop", "32", "--batch", "1", "--state", str(shapes / "vae.pt")]
    how = ["--decoder-only", "--latent-noise", "0.1", "--steps", "2", "--average", "0.5"]
    script.train(script.parse([*places, *sizes, *how]))
    before, after = (load_file(folder / norms.FREED) for folder in (start, shapes / "out"))
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder", "post_quant_conv"}
    with pytest.raises(SystemExit, match="another --decoder-only"):
        script.train(script.parse([*places, *sizes, *[word for word in how if word != "--decoder-only"]]))


def test_what_stands_for_a_norm_lives_where_the_norm_does() -> None:
    affine = norms.Affine(torch.nn.GroupNorm(2, 4, device="meta"))
    assert {value.device.type for value in affine.state_dict().values()} == {"meta"}
