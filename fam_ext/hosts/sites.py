"""Sites by role: which self-attention layers AM steers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from fam_ext.errors import UnknownSitesError, UnsupportedModelError


@dataclass(frozen=True)
class Site:
    """One self-attention layer that we may steer."""

    name: str
    attention: nn.Module
    transformer: nn.Module
    """The module around it that receives (B, C, H, W): the source of the grid's size."""


def select_sites(blocks: Sequence[Sequence[Site]], pattern: str) -> list[Site]:
    """Return the sites that `pattern` (FamConfig.am_sites) means, in the order in which the network runs them.

    `blocks` are the up-blocks in order, each with its sites. "auto" is the first block that has any (SDXL up_blocks.0,
    SD1.5 and SD2.1 up_blocks.1), "last" the last one, on the finest grid (up_blocks.1, up_blocks.3). Raises
    `UnknownSitesError` naming what there is when nothing matches.
    """
    everything = [site for block in blocks for site in block]
    if not everything:
        raise UnsupportedModelError("the model has no self-attention in its up-blocks; use SD1.5, SD2.1 or SDXL")
    if pattern == "auto":
        return list(next(block for block in blocks if block))
    if pattern == "last":
        return list(next(block for block in reversed(blocks) if block))
    wanted = [part.strip() for part in pattern.split(",") if part.strip()]
    chosen = [site for site in everything if any(fnmatchcase(site.name, part) for part in wanted)]
    if not chosen:
        names = ", ".join(site.name for site in everything)
        raise UnknownSitesError(f'am_sites is {pattern!r}; choose "auto" or patterns of: {names}')
    return chosen
