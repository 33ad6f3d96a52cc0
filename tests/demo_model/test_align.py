"""A VAE's latents get the meaning of another's, and its pictures stay."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import align
import torch
from torch import Tensor, nn


def latents(count: int = 3) -> Tensor:
    """Return (count, 4, 8, 8), the last channel narrow."""
    values = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return values * torch.tensor([1.0, 0.5, 2.0, 0.05])[:, None, None]


def mapped(values: Tensor, found: Tensor, offset: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", found, values) + offset[:, None, None]


def test_a_mixed_and_moved_latent_is_found_again() -> None:
    wanted = latents()
    mixed = mapped(wanted, 3 * torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))[0],
                   torch.tensor([1.0, -5.0, 0.0, 2.0]))  # fmt: skip
    torch.testing.assert_close(mapped(mixed, *align.fit(mixed, wanted, floor=0.0)), wanted, atol=1e-3, rtol=0)
    wide = mapped(mixed, *align.fit(mixed, wanted, floor=0.3))
    torch.testing.assert_close(wide[:, :3], wanted[:, :3], atol=0.02, rtol=0)
    assert abs(wide[:, 3].std().item() - 0.3) < 0.02


class Coder(SimpleNamespace):
    """The two 1x1 convolutions of a VAE between a fixed 8-channel and a fixed 4-channel stage."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(quant_conv=nn.Conv2d(8, 8, 1), post_quant_conv=nn.Conv2d(4, 4, 1))

    def both(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moments: Any = self.quant_conv(features)
        return moments[:, :4], moments[:, 4:], self.post_quant_conv(moments[:, :4])


@torch.no_grad()
def test_the_map_changes_what_is_encoded_and_not_what_is_decoded() -> None:
    coder, features = Coder(), torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(2))
    before, spreads, decoded = coder.both(features)
    found, offset = torch.eye(4) * 2 + 0.3, torch.tensor([0.5, -1.0, 2.0, 0.0])
    align.put_in(coder, found, offset)
    after, same, again = coder.both(features)
    torch.testing.assert_close(after, mapped(before, found, offset))
    torch.testing.assert_close(again, decoded, atol=1e-5, rtol=1e-5)
    assert torch.equal(spreads, same)
