"""Everything on a device that is not the CPU, and in bfloat16: nothing stays behind, nothing crosses over in a step."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from fam_ext import hires
from fam_ext.core.config import FamConfig
from fam_ext.hosts.diffusers.host import DiffusersHost
from fam_ext.methods.catalog import METHODS
from fam_ext.samplers.names import OFFERED
from tests.fake_device import DEVICE, FakeDevice, moved
from tests.hosts import toys

pytestmark = pytest.mark.slow
PIPES = {"SD": toys.sd_pipeline, "SDXL": toys.sdxl_pipeline}


@pytest.fixture(scope="module")
def hosts():
    made = {}

    def get(kind, device, dtype=torch.float32):
        if (kind, device, dtype) not in made:
            pipe = PIPES[kind]().to(dtype)
            made[kind, device, dtype] = DiffusersHost(
                pipe if device.type == "cpu" else moved(copy.deepcopy(pipe)), name="toy", device=device, dtype=dtype
            )
        return made[kind, device, dtype]

    return get


def make(host, *, sampler="DDIM", method="fam", config=None, low_memory=False, steps=3):
    sampling = hires.Sampling(prompt="a cat", seed=3, steps=steps, sampler=sampler, cfg_scale=3.0)
    native = hires.generate_native(host, size=(64, 64), sampling=sampling)
    done = hires.upscale(
        host, native, size=(96, 128), sampling=sampling, config=config, method=method, low_memory=low_memory
    )
    return np.asarray(done.image, dtype=np.int16)


CPU = torch.device("cpu")
SLOW = "multidiffusion"
"""45 calls a step, and nothing in it that "demofusion" has not."""
CASES = [*OFFERED, *(name for name in METHODS if name != SLOW), "low memory"]


def choice_of(case):
    choice = {"sampler": case} if case in OFFERED else {"method": case} if case in METHODS else {}
    return choice | {"low_memory": case == "low memory"}


def on_the_cpu(hosts, kind, case, *, made={}):  # noqa: B006  # each picture is made once
    if (kind, case) not in made:
        made[kind, case] = make(hosts(kind, CPU), **choice_of(case))
    return made[kind, case]


@pytest.mark.parametrize("kind", PIPES)
@pytest.mark.parametrize("case", CASES)
def test_every_sampler_and_method_makes_the_cpus_picture_elsewhere(hosts, kind, case):
    with FakeDevice():
        there = make(hosts(kind, DEVICE), **choice_of(case))
    apart = np.abs(on_the_cpu(hosts, kind, case) - there)
    if case == "accdiffusion":  # a window has a word or not: rounding decides where a toy's flat map is at its mean
        assert apart.mean() < 0.5
    else:
        assert apart.max() <= 1


def test_a_picture_from_a_file_is_encoded_there_and_latent_upsampling_stays_there(hosts):
    image = Image.effect_noise((64, 64), 60).convert("RGB")

    def made(device, mode):
        config, sampling = FamConfig(upsample=mode), hires.Sampling(steps=2)
        done = hires.upscale(hosts("SD", device), image, size=(96, 96), sampling=sampling, config=config)
        return np.asarray(done.image, dtype=np.int16)

    for mode in ("auto", "latent_bicubic"):
        with FakeDevice():
            there = made(DEVICE, mode)
        assert np.abs(made(CPU, mode) - there).max() <= 1


@pytest.mark.parametrize("kind", PIPES)
@pytest.mark.parametrize("case", CASES)
def test_every_sampler_and_method_makes_the_same_picture_in_bfloat16(hosts, kind, case):
    exact = on_the_cpu(hosts, kind, case)
    rounded = make(hosts(kind, CPU, torch.bfloat16), **choice_of(case))
    # levels of 255; half a level is what was seen. What was sharpened has more of what the VAE's rounding left
    assert np.abs(rounded - exact).mean() < (4 if case == "diffusehigh" else 2)


@pytest.mark.parametrize("kind", PIPES)
def test_bfloat16_stays_there(hosts, kind):
    with FakeDevice():
        assert make(hosts(kind, DEVICE, torch.bfloat16), sampler="DPM++ 2M").std() > 0


@pytest.mark.parametrize("kind", PIPES)
def test_no_step_after_the_first_copies_from_the_host(hosts, kind):
    sampling, seen = hires.Sampling(prompt="a cat", steps=5), []
    with FakeDevice() as device:
        host = hosts(kind, DEVICE)
        native = hires.generate_native(host, size=(64, 64), sampling=sampling)
        callbacks = hires.Callbacks(lambda done, total: seen.append(dict(device.counts)))
        hires.upscale(host, native, size=(96, 128), sampling=sampling, callbacks=callbacks)
    later = [after.get("to_device", 0) - before.get("to_device", 0) for before, after in pairwise(seen)]
    assert later == [0] * 4
    syncs = [after.get("sync", 0) - before.get("sync", 0) for before, after in pairwise(seen)]
    assert max(syncs) <= 1  # the finite check
