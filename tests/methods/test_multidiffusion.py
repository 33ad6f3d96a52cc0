"""MultiDiffusion: plain with one view, and the mean where windows overlap."""

import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import seeded_noise
from fam_ext.methods.multidiffusion import MultiDiffusion
from tests.methods.neighbours import CONDITION, LEVEL, Network, begun


def test_multidiffusion_with_one_view_is_plain():
    network, latent = Network(), seeded_noise((4, 8, 8), [5, 6])
    steered = begun(MultiDiffusion(FamConfig()), size=(8, 8))
    assert torch.equal(steered.around_model(network, latent, LEVEL, CONDITION), Network()(latent, LEVEL, CONDITION))
    assert network.sizes == [(8, 8)]
    assert torch.equal(steered.initial(LEVEL), steered.pictures.noise * LEVEL.scale), "from pure noise"


def test_multidiffusion_averages_where_windows_overlap():
    latent = torch.zeros(1, 1, 16, 8)
    latent[..., 8:, :] = 1.0
    steered, network = begun(MultiDiffusion(FamConfig(), stride=0.5), size=(16, 8)), Network()
    out = steered.around_model(network, latent, LEVEL, CONDITION)
    # windows at rows 0, 4, 8 have the means 0, 0.5, 1
    rows = [0.0] * 4 + [0.25] * 4 + [1 + 0.75] * 4 + [2.0] * 4
    assert torch.allclose(out[0, 0, :, 0], torch.tensor(rows))
    assert network.sizes == [(8, 8)] * 3


def test_multidiffusions_views_are_the_papers():
    network = Network()
    begun(MultiDiffusion(FamConfig()), size=(16, 16)).around_model(network, torch.zeros(1, 4, 16, 16), LEVEL, CONDITION)
    assert len(network.sizes) == 9**2
