"""Peak memory of `modulated_attention`, measured as the peak resident size of a process of its own."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
import torch
from torch.nn.functional import scaled_dot_product_attention
from fam_ext.core.attention import modulated_attention

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def split(tokens):
    return tokens.unflatten(2, (20, 64)).transpose(1, 2)

def run(side, native, kind):
    # as every host has them: heads split from one tensor, so that a grid of all heads is a view
    q, k, v = (split(torch.rand(2, side * side, 20 * 64)) for _ in range(3))
    if kind == "plain":
        return scaled_dot_product_attention(q, k, v)
    native_q, native_k = (split(torch.rand(2, native * native, 20 * 64)) for _ in range(2))
    sizes = {"size": (side, side), "native_size": (native, native)}
    return modulated_attention(q, k, v, native_q, native_k, strength=0.7, **sizes)

with torch.inference_mode():
    run(4, 2, sys.argv[1])  # kernels and their workspaces are loaded before the baseline
    baseline = resident()
    out = run(96, 48, sys.argv[1])
print(json.dumps({"peak": peak() - baseline, "shape": list(out.shape)}))
"""


def measure(kind):
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_stays_near_plain_attention_on_the_same_tensors():
    plain, ours = measure("plain"), measure("ours")
    inputs = 3 * 2 * 20 * 96**2 * 64 * 4
    assert plain["shape"] == ours["shape"] == [2, 20, 96**2, 64]
    assert plain["peak"] > 1.3 * inputs  # inputs and output: the measure sees the tensors at all
    assert ours["peak"] < 1.4 * plain["peak"], (ours, plain)
