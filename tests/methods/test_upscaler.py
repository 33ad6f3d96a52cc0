"""What begins from an upscaler's picture: as a whole, or in tiles."""

import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.methods.upscaler import Tiled, Upscaler, UpscalerImg2img
from tests.methods.neighbours import CONDITION, LEVEL, Network, begun


def test_tiled_with_one_tile_is_img2img():
    latent = seeded_noise((4, 8, 8), [5, 6])
    tiled, whole = (begun(make(FamConfig()), size=(8, 8)) for make in (Tiled, UpscalerImg2img))
    outs = [steered.around_model(Network(), latent, LEVEL, CONDITION) for steered in (tiled, whole)]
    assert torch.equal(*outs) and torch.equal(tiled.initial(LEVEL), whole.initial(LEVEL))


def test_a_tile_sees_its_neighbours_and_only_its_inside_is_kept():
    latent = torch.zeros(1, 1, 16, 8)
    latent[..., 8:, :] = 1.0
    out = begun(Tiled(FamConfig(), overlap=0.25), size=(16, 8)).around_model(Network(), latent, LEVEL, CONDITION)
    assert len(set(out[0, 0, :, 0].tolist())) > 2, "tiles across the edge have other means"
    assert torch.equal(out[..., :1].expand_as(out), out)


def test_after_an_upscaler_the_second_stage_begins_late_at_the_same_size():
    for make in (Tiled, UpscalerImg2img):
        pixels, late = make(FamConfig(start=1.0)).stages((128, 96), (64, 48))
        assert (
            pixels.pixels
            and late.start == 0.35
            and late.upsample == "pixel_lanczos"
            and pixels.size == late.size == (128, 96)
        )
    assert make(FamConfig(), denoise=0.5).stages((128, 96), (64, 48))[-1].start == 0.5
    (alone,) = Upscaler(FamConfig()).stages((128, 96), (64, 48))
    assert alone.pixels
