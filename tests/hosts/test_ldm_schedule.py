"""Noise levels of what A1111's samplers call sigma."""

import pytest
import torch

from fam_ext.hosts.ldm.schedule import level_at
from tests.hosts import ldm_toys

pytestmark = pytest.mark.skipif(not ldm_toys.HAS_K_DIFFUSION, reason=ldm_toys.WITHOUT)


@pytest.mark.parametrize("sigma", [0.001, 0.03, 0.0313, 0.5, 1.0, 3.86, 7.7, 14.5, 14.6, 100.0])
def test_a_sigmas_timestep_is_k_diffusions_own_and_within_the_trained(sigma):
    sampler = ldm_toys.Sampler("sample_euler")
    own = sampler.inner.sigma_to_t(torch.tensor([sigma]), quantize=False)
    level = level_at(sampler, sigma)
    assert level.timestep == pytest.approx(float(own.clamp(0, 999)), abs=2e-3)
    assert (level.signal, level.noise) == (1.0, sigma)


def test_a_trained_sigma_stands_at_its_own_timestep():
    sampler = ldm_toys.Sampler("sample_euler")
    for timestep in (0, 1, 500, 998, 999):
        assert level_at(sampler, float(sampler.inner.sigmas[timestep])).timestep == pytest.approx(timestep, abs=2e-3)


def test_in_the_ddim_family_it_is_the_timestep_itself():
    sampler = ldm_toys.Sampler("sample_euler")
    sampler.model_wrap_cfg.inner_model = torch.nn.Identity()  # which has no sigmas
    level = level_at(sampler, 501.0)
    abar = float(ldm_toys.alphas_cumprod()[501])
    assert level.timestep == 501.0
    assert level.signal**2 == pytest.approx(abar) and level.noise**2 == pytest.approx(1 - abar)


def test_lcm_s_denoiser_has_every_20th_level_and_its_timesteps_are_the_network_s():
    """As the WebUI builds it: 50 trained levels, of the timesteps 19, 39, .. 999."""
    _, external = ldm_toys.k_diffusion()
    sampler = ldm_toys.Sampler("sample_euler")
    lcm = external.DiscreteEpsDDPMDenoiser(torch.nn.Identity(), ldm_toys.alphas_cumprod()[19::20], quantize=None)
    lcm.skip_steps = 20
    sampler.model_wrap_cfg.inner_model = lcm
    assert len(lcm.sigmas) == 50
    for at in (0, 1, 25, 49):
        assert level_at(sampler, float(lcm.sigmas[at])).timestep == pytest.approx(20 * at + 19, abs=0.05)
