"""demo-net and the distances in its features."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fam_ext.demo import demo_net
from fam_ext.demo.demo_net import DemoNet, agreement, at_net_size, frechet_distance, kernel_distance
from fam_ext.errors import UsageError

shipped = pytest.mark.skipif(not demo_net.WEIGHTS.is_file(), reason="demo-net's weights are not in this checkout")


def test_the_frechet_distance_is_that_of_two_normal_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(20000, 3, generator=generator, dtype=torch.float64)
    second = torch.randn(20000, 3, generator=generator, dtype=torch.float64) * torch.tensor([2.0, 1.0, 0.5]) + 1
    # |mean|^2 + sum (s1 - s2)^2 for independent coordinates
    assert frechet_distance(first, second) == pytest.approx(3 + 1 + 0.25, rel=0.05)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


def test_the_kernel_distance_is_unbiased_and_grows_with_the_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    same = [
        kernel_distance(torch.randn(50, 8, generator=generator), torch.randn(60, 8, generator=generator))
        for _ in range(200)
    ]
    mean, spread = sum(same) / 200, torch.tensor(same).std().item()
    assert abs(mean) < 3 * spread / math.sqrt(200)
    others = torch.randn(60, 8, generator=generator) + 1
    assert kernel_distance(torch.randn(50, 8, generator=generator), others) > 10 * spread


def test_agreement_counts_first_and_first_five_choices() -> None:
    logits = torch.zeros(2, 8)
    logits[0, 3] = 1
    logits[1, :5] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    assert agreement(logits, [3, 4]) == (0.5, 1.0)
    assert agreement(logits, [3, 7]) == (0.5, 0.5)


def test_padding_looks_like_the_white_ground() -> None:
    net = DemoNet(4).eval()
    white = torch.ones(1, 3, 64, 64)
    features = net.features(white)
    larger = net.features(torch.ones(1, 3, 96, 128))
    assert torch.allclose(features, larger, atol=1e-6)


def test_pictures_come_to_the_nets_size() -> None:
    assert at_net_size(torch.rand(2, 3, 200, 100)).shape == (2, 3, 128, 128)


@shipped
def test_the_shipped_net_is_small_and_knows_its_names() -> None:
    assert demo_net.WEIGHTS.stat().st_size <= 8e6
    net = demo_net.load_demo_net()
    features, logits = demo_net.look(net, [torch.rand(3, 64, 64), torch.rand(3, 256, 256)])
    assert features.shape == (2, 256) and logits.shape == (2, len(demo_net.labels()))
    assert features.isfinite().all() and logits.isfinite().all()


@shipped
def test_a_prompt_names_its_label() -> None:
    names = demo_net.labels()
    assert names[demo_net.label_of("a firefighter, medium skin, emoji")] == "firefighter"
    assert names[demo_net.label_of("an astonished face, emoji")] == "astonished-face"
    with pytest.raises(UsageError, match="names nothing"):
        demo_net.label_of("a photo of the sea")


def test_views_are_repeatable_and_stay_pictures(work: Path) -> None:
    import demo_net as script
    from data import Collection, Renders

    pictures = script.load_pictures(Renders(Collection(work), 128), list(range(11)))
    mirrorable = torch.ones(11, dtype=torch.bool)

    def views(seed: int, plain: float = 0.0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return script.augment(pictures, 64, mirrorable=mirrorable, generator=generator, plain=plain)

    first = views(1)
    assert first.shape == (11, 3, 64, 64) and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, views(1)) and not torch.equal(first, views(2))
    assert (first.mean(dim=(1, 2, 3)) < 0.97).all()  # no drawing was lost
    # the toy's drawings have white corners: only what is plain keeps them, and half of a half is between
    several = (views(1, 1.0), views(1, 0.5), first)
    white = [(view[:, 0, :3, :3] > 0.999).all(dim=(1, 2)).float().mean() for view in several]
    assert white[0] == 1 and white[2] < white[1] < 1
