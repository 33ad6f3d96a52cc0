"""Copies, waits and operations of one step of a hires pass, counted on the tests' fake device. No GPU is needed.

    python bench/count_step.py

Networks of SD1.5's and SDXL's true layout with few channels (70 transformer blocks in SDXL's; counts do not depend on
width), guidance on, DPM++ 2M, 2x; the third of four steps. To count another commit's code with the same script:

    git worktree add /tmp/before COMMIT
    PYTHONPATH=/tmp/before python bench/count_step.py

The card's own event is stood in for, so that a check whose answer is read a step later is no wait, as on CUDA.
"""

import copy
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import torch

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY))
import fam_ext  # noqa: E402  # the code to count: what PYTHONPATH names first, else this checkout's

sys.path.insert(0, str(REPOSITORY))
from fam_ext.core.config import FamConfig  # noqa: E402
from fam_ext.hosts import base  # noqa: E402
from fam_ext.hosts.base import Prompt  # noqa: E402
from fam_ext.hosts.diffusers.host import DiffusersHost  # noqa: E402
from fam_ext.hosts.ldm import sampler as ldm_sampler  # noqa: E402
from fam_ext.hosts.ldm import schedule as ldm_schedule  # noqa: E402
from fam_ext.hosts.ldm import unet as ldm_unet  # noqa: E402
from fam_ext.hosts.steering import Steering  # noqa: E402
from tests.fake_device import DEVICE, FakeDevice, move, moved  # noqa: E402
from tests.hosts import ldm_toys, toys  # noqa: E402
from tests.methods.passes import fam_pass  # noqa: E402

STEPS, COUNTED = 4, 2
NATIVE, TARGET = (8, 8), (16, 16)
PLAIN = FamConfig(fm=False, am=False)
COLUMNS = {"to_device": "copies to the device", "to_host": "back", "sync": "waits", "ops": "operations"}


class Event:
    """Stands where a CUDA event stands."""

    def __init__(self, device):
        pass

    def synchronize(self):
        pass


def parts():
    """Return one picture's tensors on the fake device: native, target, noise."""
    generator = torch.Generator().manual_seed(1)
    native, target, noise = (torch.randn(1, 4, *size, generator=generator) for size in (NATIVE, TARGET, TARGET))
    names = ("native", "target", "noise", "native_noise")
    return {name: tensor.to(DEVICE) for name, tensor in zip(names, (native, target, noise, native), strict=True)}


def counted(seen):
    """Return what the counted step cost, from the counts at the beginning of each step."""
    return {name: seen[COUNTED + 1][name] - seen[COUNTED][name] for name in COLUMNS}


def by_diffusers(kind, config):
    if kind == "SD1.5":
        pipe = toys.sd_pipeline()
    else:
        pipe = toys.sdxl_pipeline()
        pipe.unet = toys.sdxl_unet(transformer_layers_per_block=(1, 2, 10)).eval()
    seen = []
    with FakeDevice() as device, torch.no_grad():
        host = DiffusersHost(moved(pipe), name=kind, device=DEVICE, dtype=torch.float32)
        steered = fam_pass(config, steps=STEPS, **parts())
        sampler = host.sampler("DPM++ 2M", "Karras", STEPS, seeds=[1])
        size = tuple(8 * side for side in TARGET)

        def modify(latent, level):
            seen.append(Counter(device.counts))
            return steered.before_step(latent, level)

        with host.model([Prompt("a cat", "blurry")], size=size, cfg_scale=5.0, steered=steered) as model:
            sampler.run(steered.initial(sampler.levels[0]), model, modify=modify)
    return counted(seen)


def ldm_network(kind):
    unet = ldm_toys.unet("sd15" if kind == "SD1.5" else "sdxl")
    for module in unet.modules():
        if kind == "SDXL" and type(module).__name__ == "SpatialTransformer":
            depth = {64: 2, 128: 10}[module.in_channels]
            block = module.transformer_blocks[0]
            module.transformer_blocks = torch.nn.ModuleList(copy.deepcopy(block) for _ in range(depth))
    return unet


def by_ldm(kind, config):
    seen = []
    with FakeDevice() as device, torch.no_grad(), ExitStack() as guided:
        unet, sampler = move(ldm_network(kind)), ldm_toys.Sampler("sample_dpmpp_2m", steps=STEPS)
        move(sampler.model_wrap_cfg)
        context = torch.randn(2, 77, ldm_toys.CONTEXT).to(DEVICE)

        def apply_model(x, t, **kwargs):
            uncond, cond = unet(torch.cat([x, x]), torch.cat([t, t]), context=[context] * 10).chunk(2)
            return uncond + 5.0 * (cond - uncond)

        sampler.inner.inner_model.apply_model = apply_model
        steered, steering = fam_pass(config, steps=STEPS, **parts()), Steering()
        x = steered.initial(ldm_schedule.level_at(sampler, float(sampler.sigmas[0])))
        forward = sampler.model_wrap_cfg.forward

        def noting(x, sigma, **kwargs):
            seen.append(Counter(device.counts))
            return forward(x, sigma, **kwargs)

        sampler.model_wrap_cfg.forward = noting
        guided.enter_context(steering.running(steered))
        guided.enter_context(ldm_unet.steered_unet(unet, steering))
        guided.enter_context(ldm_sampler.steered_sampler(sampler, steering))
        sampler.run(x)
    return counted(seen)


def main():
    print(f"counting {Path(fam_ext.__file__).parent}", file=sys.stderr)
    if hasattr(base, "EVENTS"):
        base.EVENTS[DEVICE.type] = Event
    print(f"| layout | adapter | pass | {' | '.join(COLUMNS.values())} |\n|---|---|---|{'---|' * len(COLUMNS)}")
    for kind in ("SD1.5", "SDXL"):
        for adapter, count in {"diffusers": by_diffusers, "A1111's (ldm)": by_ldm}.items():
            for name, config in {"plain": PLAIN, "FM + AM": FamConfig()}.items():
                cost = count(kind, config)
                numbers = " | ".join(f"{cost[column]:,}" for column in COLUMNS)
                print(f"| {kind} | {adapter} | {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
