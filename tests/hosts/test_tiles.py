"""The VAE in tiles: none is a sliver, together they are the whole, and no border shows."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import avg_pool2d, interpolate

from fam_ext import hires
from fam_ext.hosts.diffusers.tiles import in_tiles, spans


@given(side=st.integers(1, 600), tile=st.integers(4, 128))
def test_tiles_cover_all_are_equal_and_none_is_small(side, tile):
    found = spans(side, tile)
    assert found[0].start == 0 and found[-1].stop == side
    (length,) = {span.stop - span.start for span in found}
    assert length <= tile and (length > tile / 2 or length == side)
    assert all(before.stop - after.start >= tile // 4 for before, after in pairwise(found))


@pytest.mark.parametrize("size", [(49, 49), (16, 20), (7, 33), (12, 50)])
def test_what_sees_no_further_than_a_pixel_is_the_same_in_tiles(size):
    latent = torch.rand(1, 3, *size)
    pixels = torch.rand(1, 3, 8 * size[0], 8 * size[1])
    for tile in (0, 4, 13, 16, 64):
        enlarged = in_tiles(lambda part: interpolate(part, scale_factor=8), latent, tile, made=8)
        assert torch.allclose(enlarged, interpolate(latent, scale_factor=8), atol=1e-5)
        reduced = in_tiles(lambda part: avg_pool2d(part, 8), pixels, tile, taken=8)
        assert torch.allclose(reduced, avg_pool2d(pixels, 8), atol=1e-5)


def test_what_is_not_finite_stays_so():
    latent = torch.rand(1, 3, 40, 40)
    latent[..., 35, 3] = torch.nan
    made = in_tiles(lambda part: interpolate(part, scale_factor=8), latent, 16, made=8)
    assert made.isnan().any() and made[..., :160, :].isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(200, 200), (200, 104), (112, 200)])
def test_the_embedded_models_borders_are_no_worse_than_its_inside(size):
    """With a tile of 128 px diffusers' own tiles leave 8 or 16 px at the right and at the bottom of these."""
    from fam_ext.standalone import demo_model, load_pipeline

    host = load_pipeline(device="cpu")
    sample = sorted((demo_model().parent / "samples").glob("*.png"))[0]
    image = Image.open(sample).convert("RGB").resize(size[::-1], Image.Resampling.LANCZOS)
    pixels = hires.to_tensor(image)
    latent = host.encode(pixels, tile=0)
    for error, edge in (
        (host.encode(pixels, tile=128) - latent, 1),
        (host.decode(latent, tile=128) - host.decode(latent, tile=0), 8),
    ):
        inside = error[..., :-edge, :-edge].abs().mean()
        assert error[..., -edge:].abs().mean() <= inside and error[..., -edge:, :].abs().mean() <= inside
