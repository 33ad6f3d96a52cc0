"""AccDiffusion (Lin et al., ECCV 2024, arXiv 2407.10738): DemoFusion whose windows have words of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from fam_ext.core.config import FamConfig
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.base import NATIVE, Call, Condition, Pass, Patch, Pictures, Stage
from fam_ext.methods.capabilities import CROSS_ATTENTION
from fam_ext.methods.demofusion import DemoFusion, DemoFusionPass
from fam_ext.methods.views import View, WindowStage, averaged, dilated


class AccDiffusion(DemoFusion):
    """DemoFusion's phases, skip residual, windows and dilated samples, and two things of its own.

    Patch-content-aware prompts: a word is where the cross-attention to it, the mean over the native run's steps, is
    more than its mean over the picture, opened (eroded, then grown again by 1/16 of the map's side) against specks; a
    window's prompt has those words that cover more than `share` of its area. Window interaction: before the dilated
    samples are denoised, at each place their values change places among the s^2 of them, and back afterwards.

    Where ours departs: the maps are those of the first up-block that has any (theirs: of the down-block on that grid,
    too); where the native run was not ours they are of the step's own level, from a native call of the picture before,
    diffused to it; a window that no word is left for keeps the one that covers most of it (theirs: no words); channels
    change places together (theirs: each for itself); and what is said of DemoFusion. A word is what stands between
    spaces, with its commas.
    """

    wants_record = True

    def __init__(self, config: FamConfig, *, share: float = 0.3, dilation: float = 1.0, stride: float = 1 / 2) -> None:
        super().__init__(config, dilation=dilation, stride=stride)
        self.share = share

    def begin(self, stage: Stage, pictures: Pictures) -> Pass:
        assert isinstance(stage, WindowStage)
        return AccDiffusionPass(pictures, stage.latent_window(pictures), self)


class AccDiffusionPass(DemoFusionPass):
    """See `AccDiffusion`; `window` in latent pixels."""

    def __init__(self, pictures: Pictures, window: Size, method: AccDiffusion) -> None:
        super().__init__(pictures, window, method)
        self.share = method.share
        self._found: dict[int, Tensor] = {}
        """For each picture where its words are, by the native run's own steps."""
        self._seen: list[Tensor] = []
        """Of the native call that runs: each layer's attention to each token, (rows, tokens, h, w) on its own grid."""

    def patches(self) -> Sequence[Patch]:
        return [Patch(CROSS_ATTENTION, "auto", self.watch)]

    def watch(self, site: str, q: Tensor, k: Tensor, *, size: Size, scale: float | None, phase: str) -> None:
        """See `methods.base.Watch`: keep the map of a native call, the mean over its heads."""
        if phase == NATIVE:
            logits = q.float() @ k.float().mT * (q.shape[-1] ** -0.5 if scale is None else scale)
            self._seen.append(logits.softmax(-1).mean(1).mT.unflatten(-1, size))

    def in_windows(
        self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition, views: Sequence[View]
    ) -> Tensor:
        words = condition.words
        if words is None:
            return super().in_windows(call, latent, level, condition, views)
        covers = self._covers(call, level, condition, latent)
        conditions = [words.only(kept) for kept in self._kept(covers, views)]
        return averaged(call, latent, level, condition, views, conditions=conditions)

    def in_samples(self, call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        order = shuffle(self.size, self.factor, level).to(latent.device)
        mixed = permuted(latent, order, self.factor)
        return permuted(dilated(call, mixed, level, condition, self.factor), order.argsort(-1), self.factor)

    @cached_property
    def _native(self) -> tuple[Tensor, Tensor]:
        """The picture before and the noise, at the size that the network was trained for: of a later phase they are
        larger."""
        clean = interpolate(self.pictures.native, self.window, mode="bilinear", antialias=True)
        return clean, interpolate(self.pictures.noise, self.window)

    def _covers(self, call: Call, level: NoiseLevel, condition: Condition, latent: Tensor) -> dict[int, Tensor]:
        """Return for each picture where its words are, bool (words, H, W)."""
        words, record = condition.words, self.pictures.record
        assert words is not None
        rows = torch.stack([condition.rows, condition.uncond.long()], dim=1).tolist()  # one wait for both
        with_words = {picture: row for row, (picture, is_uncond) in enumerate(rows) if not is_uncond}
        if with_words.keys() <= self._found.keys():
            return {picture: self._found[picture] for picture in with_words}
        steps = record.steps() if record else [(level, level.diffused(*self._native))]
        maps = torch.stack([self._map(call, state.to(latent), own, condition) for own, state in steps]).mean(0)
        found: dict[int, Tensor] = {}
        for picture, row in with_words.items():
            places = [place or [0] for place in words.of(picture)]  # one without a token: the begin mark's
            attention = torch.stack([maps[row, place].mean(0) for place in places] or [maps[row, 0]])
            found[picture] = interpolate(covered(attention)[None].float(), self.size)[0] > 0.5
        if record:
            self._found |= found
        return found

    def _map(self, call: Call, state: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
        """Return the attention to each token in a native call at `state` (B, C, h, w): (rows, tokens, h, w)."""
        try:
            call(state[condition.rows] / level.scale, level, condition, phase=NATIVE)
            return torch.stack(self._seen).mean(0)
        finally:
            self._seen.clear()

    def _kept(self, covers: dict[int, Tensor], views: Sequence[View]) -> list[dict[int, set[int]]]:
        """Return for each view the words that each picture keeps there."""
        every = torch.cat([*covers.values()]).float()
        # read back together: one wait for all
        shares = torch.stack([every[:, rows, columns].mean((-2, -1)) for rows, columns in views]).cpu()
        parts = shares.split([len(each) for each in covers.values()], dim=1)
        return [
            {
                picture: {int(index) for index in (own > self.share).nonzero()} or {int(own.argmax())}
                for picture, own in zip(covers, owns, strict=True)
            }
            for owns in zip(*parts, strict=True)
        ]


def covered(maps: Tensor) -> Tensor:
    """Return where each of `maps` (n, h, w) is more than its mean, without what is thinner than 3 of 16: (n, h, w)."""
    reach = max(1, maps.shape[-2] // 16)
    inside = (maps > maps.mean((-2, -1), keepdim=True)).float()
    eroded = -max_pool2d(-inside, 2 * reach + 1, stride=1, padding=reach)
    return max_pool2d(eroded, 2 * reach + 1, stride=1, padding=reach) > 0.5


def shuffle(size: Size, factor: int, level: NoiseLevel) -> Tensor:
    """Return for each whole cell of factor x factor pixels of `size` an order of them, int64 (cells, factor^2).

    `level` alone decides it: a step that is called again has the same.
    """
    cells = (size[0] // factor) * (size[1] // factor)
    generator = torch.Generator().manual_seed(round(level.timestep * 1000) + 1)
    return torch.rand((cells, factor**2), generator=generator).argsort(-1)


def permuted(latent: Tensor, order: Tensor, factor: int) -> Tensor:
    """Return `latent` (rows, C, H, W) with the pixels of each whole cell in `order`; what is left at the borders stays.

    A dilated sample has one pixel of each cell, so the samples change values among them.
    """
    rows, channels, height, width = latent.shape
    down, across = height // factor, width // factor
    inside = latent[..., : down * factor, : across * factor]
    cells = inside.reshape(rows, channels, down, factor, across, factor).transpose(3, 4).flatten(4).flatten(2, 3)
    mixed = cells.gather(-1, order.to(latent.device).expand(rows, channels, -1, -1))
    out = latent.clone()
    out[..., : down * factor, : across * factor] = (
        mixed.reshape(rows, channels, down, across, factor, factor).transpose(3, 4).reshape(inside.shape)
    )
    return out
