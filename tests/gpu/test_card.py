"""`make gpu`: the embedded model on a CUDA card, against the CPU. Writes out/gpu.json."""

import json
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fam_ext import hires
from fam_ext.core.config import FamConfig
from fam_ext.standalone import load_pipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card on this machine"),
]
RESULTS = Path("out/gpu.json")
# dB; another rounding at each step moves the sampler's path, so these say "the same picture", not "the same bits"
BOUNDS = {"float32": 40, "float16": 25, "bfloat16": 20}
SAMPLING = hires.Sampling(prompt="a cat", seed=3, steps=10, sampler="DPM++ 2M")


def note(**values):
    RESULTS.parent.mkdir(exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known |= {"device": torch.cuda.get_device_name(), "torch": torch.__version__} | values
    RESULTS.write_text(json.dumps(known, indent=2))


def make(host):
    side = host.native_side
    native = hires.generate_native(host, size=(side, side), sampling=SAMPLING)
    return np.asarray(hires.upscale(host, native, size=(2 * side, 2 * side), sampling=SAMPLING).image, dtype=float)


@pytest.fixture(scope="module")
def cpus():
    return make(load_pipeline(device="cpu"))


@pytest.mark.parametrize("dtype", BOUNDS)
def test_the_same_picture_as_on_the_cpu(dtype, cpus):
    host = load_pipeline(device="cuda", dtype=dtype)
    torch.cuda.reset_peak_memory_stats()
    picture = make(host)
    psnr = float(10 * np.log10(255**2 / max(((picture - cpus) ** 2).mean(), 1e-9)))
    note(**{dtype: {"psnr_db": psnr, "bound_db": BOUNDS[dtype], "peak_bytes": torch.cuda.max_memory_allocated()}})
    assert picture.std() > 1  # not black
    assert psnr >= BOUNDS[dtype]


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloaded_it_is_the_same_picture(offload, cpus):
    picture = make(load_pipeline(device="cuda", dtype="float32", offload=offload))
    assert 10 * np.log10(255**2 / max(((picture - cpus) ** 2).mean(), 1e-9)) >= BOUNDS["float32"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_times_of_a_step_with_and_without_fam_in_turns(dtype):
    host = load_pipeline(device="cuda", dtype=dtype)
    side, seconds = host.native_side, {"with": [], "without": []}
    native = hires.generate_native(host, size=(side, side), sampling=SAMPLING)
    for turn in range(6):
        for name, config in {"with": FamConfig(), "without": FamConfig(fm=False, am=False)}.items():
            torch.cuda.synchronize()
            began = time.perf_counter()
            done = hires.upscale(host, native, size=(2 * side, 2 * side), sampling=SAMPLING, config=config)
            torch.cuda.synchronize()
            if turn:
                seconds[name].append((time.perf_counter() - began) / done.steps)
    note(**{f"step_seconds_{dtype}": {name: statistics.median(taken) for name, taken in seconds.items()}})
