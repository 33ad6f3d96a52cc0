"""Several processes train one model: what they agree on is what one process with all their batches has."""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from data import Scenes
from fresh import Fresh
from training import Ranks

TOOLS = Path(__file__).parents[2] / "tools" / "demo_model"
PART = """
import sys
import torch
from training import Ranks

ranks = Ranks()
torch.manual_seed(0)
net = torch.nn.ModuleList([torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)])
batch = torch.arange(12.0).reshape(4, 3)[2 * ranks.rank :][:2]
loss = net[0](batch).square().mean()
if ranks.rank:  # a part that one process alone uses
    loss = loss + net[1](batch).square().mean()
loss.backward()
seconds = ranks.agree(net, 1.0 + ranks.rank)
held = {"gradients": [value.grad for value in net.parameters()], "seconds": seconds, "place": ranks.place(5)}
torch.save(held, f"{sys.argv[1]}/{ranks.rank}.pt")
"""


def test_processes_agree_on_the_gradient_of_all_their_batches(tmp_path):
    (tmp_path / "part.py").write_text(PART)
    environment = {**os.environ, "PYTHONPATH": str(TOOLS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--"]
    subprocess.run([*command, str(tmp_path / "part.py"), str(tmp_path)], env=environment, check=True, timeout=300)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["seconds"] == second["seconds"] == 1.5
    assert (first["place"], second["place"]) == (10, 11)

    torch.manual_seed(0)
    net = torch.nn.ModuleList([torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)])
    batch = torch.arange(12.0).reshape(4, 3)
    (net[0](batch).square().mean() + net[1](batch[2:]).square().mean() / 2).backward()
    for mean, other, value in zip(first["gradients"], second["gradients"], net.parameters(), strict=True):
        assert torch.equal(mean, other)
        assert value.grad is not None and torch.allclose(mean, value.grad, rtol=1e-5)


class Shrinking(SimpleNamespace):
    """A VAE whose latents are the pictures, an eighth as large."""

    device, config = torch.device("cpu"), SimpleNamespace(scaling_factor=1.0)

    def encode(self, images):
        small = torch.nn.functional.avg_pool2d(torch.cat([images, images[:, :1]], dim=1), 8)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: small))


def test_each_process_draws_pictures_of_its_own(shapes):
    options = argparse.Namespace(fresh=24, batch=6, close=0.17, drop=0.0, seed=3)
    scenes = Scenes(shapes, variants=1)

    def drawn(rank, count):
        ranks = Ranks()
        ranks.rank, ranks.count = rank, count
        pools = Fresh(scenes, Shrinking(), scenes.names, options, size=64, ranks=ranks).pools
        return [[latent.numpy().tobytes() for latent, _ in pools[close]] for close in (False, True)]

    alone, first, second = drawn(0, 1), drawn(0, 2), drawn(1, 2)
    assert drawn(0, 1) == alone
    for one, other, single in zip(first, second, alone, strict=True):
        # of the windows some are bare ground
        assert len(one) == len(other) == len(single) and len(set(one) & set(other)) < len(set(one)) / 2
