"""The ldm adapter on a device that is not the CPU, and in bfloat16: nothing stays behind, nothing crosses over."""

import functools
from collections import Counter
from itertools import pairwise

import pytest
import torch

from fam_ext.core.config import FamConfig
from fam_ext.core.guide import NativeRecord
from fam_ext.errors import NonFiniteLatentError, UnsupportedSamplerError
from fam_ext.hosts import base
from fam_ext.hosts.ldm import sampler as ldm_sampler
from fam_ext.hosts.ldm import schedule as ldm_schedule
from fam_ext.hosts.ldm import unet as ldm_unet
from fam_ext.hosts.steering import Steering
from tests.fake_device import DEVICE, FakeDevice, move
from tests.hosts import ldm_toys
from tests.methods.passes import fam_pass

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ldm_toys.HAS_LDM and ldm_toys.HAS_K_DIFFUSION), reason=ldm_toys.WITHOUT),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor"),  # k-diffusion's DPM solver
]
STEPS = 4
ADAPTIVE = ["sample_dpm_fast", "sample_dpm_adaptive"]  # these put their sigmas in tensors on the device themselves
FIXED = sorted(name for name in ldm_sampler.FOLLOWING if name.startswith("sample_") and name != "sample_lcm")
CPU = torch.device("cpu")


class Event:
    """Stands where a CUDA event stands."""

    def __init__(self, device):
        assert device == DEVICE

    def synchronize(self):
        pass


@pytest.fixture(autouse=True)
def events(monkeypatch):
    monkeypatch.setitem(base.EVENTS, DEVICE.type, Event)


def attend(module, x, context=None, mask=None):
    context = x if context is None else context
    q, k, v = (
        projection(source).unflatten(2, (module.heads, -1)).transpose(1, 2)
        for projection, source in ((module.to_q, x), (module.to_k, context), (module.to_v, context))
    )
    return module.to_out(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def halve(unet, dtype):
    """Put a network of ldm's into half precision as the WebUI runs it: norms in float32, attention by torch's own."""
    for module in unet.modules():
        if type(module).__name__ == "CrossAttention":
            module.forward = functools.partial(attend, module)
        if "Norm" not in type(module).__name__:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    unet.dtype = dtype
    unet.time_embed.register_forward_pre_hook(lambda module, args: (args[0].to(dtype),))


class Run:
    """Two pictures, two rows each, guided in a sampler of k-diffusion's around ldm's UNet."""

    def __init__(self, kind, function, device, *, dtype=torch.float32, **dials):
        generator = torch.Generator().manual_seed(1)
        self.unet = ldm_toys.unet(kind)
        if dtype != torch.float32:
            halve(self.unet, dtype)
        self.sampler = ldm_toys.Sampler(function, steps=STEPS)
        context = torch.randn(4, 5, ldm_toys.CONTEXT, generator=generator)
        native = torch.randn(2, 4, 8, 8, generator=generator)
        target = torch.nn.functional.interpolate(native, (16, 16), mode="bicubic")
        noise = torch.randn(2, 4, 16, 16, generator=generator)
        self.stream = torch.Generator().manual_seed(2)
        if device == DEVICE:
            move(self.unet), move(self.sampler.model_wrap_cfg)
        context, native, target, noise = (tensor.to(device) for tensor in (context.to(dtype), native, target, noise))

        def apply_model(x, t, **kwargs):
            rows = torch.cat([x, x]).to(dtype)
            uncond, cond = self.unet(rows, torch.cat([t, t]), context=context).float().chunk(2)
            return uncond + 3 * (cond - uncond)

        self.sampler.inner.inner_model.apply_model = apply_model
        self.native, self.config = native, FamConfig(**dials)
        self.parts = {"native": native, "target": target, "noise": noise, "steps": STEPS}

    def record(self):
        """Return the record of a native run."""
        record = NativeRecord()
        with ldm_sampler.recorded_sampler(self.sampler, record):
            self.sample(self.native * 14.6)
        return record

    def guided(self, record=None):
        steered, steering = fam_pass(self.config, record=record, **self.parts), Steering()
        x = steered.initial(ldm_schedule.level_at(self.sampler, float(self.sampler.sigmas[0])))
        with (
            steering.running(steered),
            ldm_unet.steered_unet(self.unet, steering),
            ldm_sampler.steered_sampler(self.sampler, steering),
        ):
            return self.sample(x)

    def sample(self, x):
        more = {}
        if "sde" in self.sampler.funcname:  # the WebUI's own noise is drawn by its rules
            noise = torch.randn(2, 4, 16, 16, generator=self.stream).to(x.device)[..., : x.shape[-2], : x.shape[-1]]
            more["noise_sampler"] = lambda sigma, following: noise
        return self.sampler.run(x, **more)


def counted(kind, function, monkeypatch):
    """Return what each model call of a guided pass cost after the first, with the sampler's own work around it."""
    seen, forward = [], ldm_toys.Denoiser.forward
    with FakeDevice() as device:

        def noting(self, x, sigma, **kwargs):
            seen.append(Counter(device.counts))
            return forward(self, x, sigma, **kwargs)

        monkeypatch.setattr(ldm_toys.Denoiser, "forward", noting)
        Run(kind, function, DEVICE).guided()
    return [Counter({name: after[name] - before[name] for name in after}) for before, after in pairwise(seen[1:])]


@pytest.mark.parametrize(
    ("kind", "function"),
    [*(("small", name) for name in [*FIXED, *ADAPTIVE]), ("sd15", "sample_heun"), ("sdxl", "sample_dpmpp_2m")],
)
def test_every_sampler_gives_the_cpus_latent_elsewhere(kind, function):
    here = Run(kind, function, CPU).guided()
    with FakeDevice():
        there = Run(kind, function, DEVICE).guided()
    scale = here.abs().mean()
    assert torch.allclose(there.inner, here, atol=1e-3 * float(scale))


@pytest.mark.parametrize("dials", [{"am_interp": "nearest"}, {"am": False}, {"fm": False}, {"attention": 1.0}])
def test_a_recorded_run_and_every_dial_give_the_cpus_latent_elsewhere(dials):
    run = Run("small", "sample_dpmpp_2m", CPU, **dials)
    here = run.guided(run.record())
    with FakeDevice():
        run = Run("small", "sample_dpmpp_2m", DEVICE, **dials)
        there = run.guided(run.record())
    assert torch.allclose(there.inner, here, atol=1e-3 * float(here.abs().mean()))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("function", [*FIXED, *ADAPTIVE])
def test_bfloat16_stays_near_float32(kind, function):
    exact = Run(kind, function, CPU).guided()
    rounded = Run(kind, function, CPU, dtype=torch.bfloat16).guided()
    assert rounded.isfinite().all()
    assert (rounded - exact).std() < 0.1 * exact.std()


@pytest.mark.parametrize("function", ["sample_euler", "sample_lms", "sample_dpmpp_2m", "sample_dpmpp_3m_sde"])
def test_no_call_after_the_first_copies_or_waits(function, monkeypatch):
    for call in counted("small", function, monkeypatch):
        assert (call["to_device"], call["sync"]) == (0, 0)
        assert call["to_host"] == 1  # the answers of the late checks, read a call later


def test_a_stage_of_a_second_order_sampler_is_read_and_its_state_is_not(monkeypatch):
    calls = counted("small", "sample_dpm_2", monkeypatch)
    assert [call["sync"] for call in calls] == [0, 1, 0, 1, 0, 1][: len(calls)]


def test_a_sampler_that_leaves_its_schedule_is_refused():
    with FakeDevice():
        run = Run("small", "sample_euler", DEVICE)
        own = run.sampler.func

        def sample_euler(model, x, sigmas, **kwargs):
            return own(model, x, torch.cat([sigmas[:2], sigmas[2:] * 1.1]), **kwargs)

        run.sampler.func = sample_euler
        with pytest.raises(UnsupportedSamplerError, match=r"sample_euler left its own schedule.*choose another"):
            run.guided()


def test_churned_noise_levels_are_read():
    with FakeDevice():
        run = Run("small", "sample_euler", DEVICE)
        own = run.sampler.func
        run.sampler.func = lambda *args, **kwargs: own(*args, s_churn=2.0, s_tmax=10.0, **kwargs)
        run.sampler.func.__name__ = "sample_euler"
        run.sampler.p = type("P", (), {"s_churn": 2.0})
        assert run.guided().inner.isfinite().all()


@pytest.mark.parametrize("at", [0, 1, STEPS - 1])
def test_the_first_state_that_is_not_finite_ends_the_run(at):
    done = []
    with FakeDevice():
        run = Run("small", "sample_euler", DEVICE)
        apply_model = run.sampler.inner.inner_model.apply_model

        def breaking(x, t, **kwargs):
            done.append(t)
            return apply_model(x, t, **kwargs) * (float("nan") if len(done) == at + 1 else 1)

        run.sampler.inner.inner_model.apply_model = breaking
        if at == STEPS - 1:  # the last: nothing follows it inside the sampler
            with pytest.raises(NonFiniteLatentError, match="--no-half"):
                ldm_sampler.check_finite(run.guided())
        else:
            with pytest.raises(NonFiniteLatentError, match="--no-half"):
                run.guided()
            assert len(done) <= at + 3  # on the fly, and one call late where nobody waits
