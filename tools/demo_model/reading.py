"""Show cross-attention where to look: while the UNet learns to read the tokens of text.py's encoder.

Half of every site's heads get an extra loss, the cross-entropy of their attention map against the cell that each
query lies in. Left alone they find the cells too, but late; the loss fades out, and nothing of it stays in the model.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from text import FIRST, GRID
from torch import Tensor
from torch.nn import functional


def cell_tokens(tokens: int) -> Tensor:
    """Return (tokens,), the number of the text token that holds the cell of each query of a square grid."""
    side = math.isqrt(tokens)
    place = torch.arange(side) * GRID // side
    return FIRST + (place[:, None] * GRID + place[None, :]).reshape(-1)


class GuidedReading:
    """An attention processor for cross-attention that also notes how far from their cell the first heads look."""

    def __init__(self, noted: list[Tensor]) -> None:
        self.noted = noted

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        def split(values: Tensor) -> Tensor:
            return values.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        query = split(attn.to_q(hidden_states))
        key = split(attn.to_k(encoder_hidden_states))
        value = split(attn.to_v(encoder_hidden_states))
        guided = attn.heads // 2
        logits = query[:, :guided] @ key[:, :guided].transpose(2, 3) * attn.scale
        batch, _, tokens, _ = logits.shape
        wanted = cell_tokens(tokens).to(logits.device).expand(batch, guided, tokens)
        self.noted.append(functional.cross_entropy(logits.flatten(0, 2).float(), wanted.reshape(-1)))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2)))


def guide(unet: Any) -> list[Tensor]:
    """Put GuidedReading at every cross-attention of `unet`; return the list that each pass adds its losses to."""
    noted: list[Tensor] = []
    processors = dict(unet.attn_processors)
    for name in processors:
        if "attn2" in name:
            processors[name] = GuidedReading(noted)
    unet.set_attn_processor(processors)
    return noted


def release(unet: Any) -> None:
    """Put the usual attention back at every site of `unet`."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    unet.set_attn_processor(AttnProcessor2_0())


def mean_of(noted: list[Tensor]) -> Tensor:
    """Return the mean of the noted losses and empty the list."""
    total = torch.stack(noted).mean()
    noted.clear()
    return total
