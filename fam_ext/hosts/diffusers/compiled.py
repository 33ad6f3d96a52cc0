"""A pass's attention inside a network under `torch.compile`: one operator that the compiler does not look into.

What a pass does changes with every picture and step (maps, counts, dials); traced into the graph, each change would
compile the network anew.
"""

from __future__ import annotations

import itertools
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from fam_ext.core.attention import attention
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import NATIVE

_steerings: WeakValueDictionary[int, Steering] = WeakValueDictionary()
_handles = itertools.count()


def handle_of(steering: Steering) -> int:
    """Return the number by which a graph knows `steering`, as long as that lives."""
    handle = next(_handles)
    _steerings[handle] = steering
    return handle


@torch.library.custom_op("fam_hires::attend", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def attend(q: Tensor, k: Tensor, v: Tensor, site: str, handle: int, height: int, width: int, scale: float) -> Tensor:
    """Return the attention output (rows, tokens, heads * d) at `site` with grid (height, width)."""
    steering = _steerings[handle]
    if steering.phase == NATIVE:
        q, k = q.clone(), k.clone()  # kept beyond this call, when the graph may have taken their memory for others
    out = steering.attend(site, q, k, v, size=(height, width), scale=scale)
    if out is None:
        out = attention(q, k, v, scale=scale)
    return out.to(q.dtype).transpose(1, 2).flatten(2).contiguous()


@attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, site: str, handle: int, height: int, width: int, scale: float) -> Tensor:
    return q.new_empty((q.shape[0], q.shape[2], q.shape[1] * q.shape[3]))
