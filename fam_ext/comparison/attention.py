"""What a point of the picture attends to: the paper's Fig. 4, recorded at one layer and one step of a real pass.

A `Watch` looks on at a method's pass; what the network is given does not change by it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from fam_ext.core.resize import matrices_on, resize_grid
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.methods.base import NATIVE, TARGET, Attend, Call, Condition, Method, Pass, Patch, Pictures, Stage
from fam_ext.methods.capabilities import ATTENTION

QUERIES = 8
"""Points a side that can be asked."""
RHO = 0.5
"""Recorded is the first step at or below it, or the last one above where AM has ended by then."""
MOST_SIDE = 32
"""Cells a side of a map that is kept; of a finer one means over some."""


@dataclass(frozen=True)
class Maps:
    """Attention of QUERIES x QUERIES points, row by row, mean of all heads, in times the mean of all keys."""

    site: str
    step: int
    """Of the pass, counted from 1."""
    rho: float
    native: Tensor
    """float32 (points, h, w) on the CPU."""
    target: Tensor
    """(points, H, W), before AM."""
    modulated: Tensor
    """(points, H, W): what AM made of both (Eq. 7)."""


@dataclass(frozen=True)
class _Seen:
    """A layer's queries (heads, tokens, d) and keys of the last row: with guidance that is the prompt's own."""

    q: Tensor
    k: Tensor
    size: Size
    scale: float | None

    @classmethod
    def of(cls, q: Tensor, k: Tensor, size: Size, scale: float | None) -> _Seen:
        return cls(q[-1].clone(), k[-1].clone(), size, scale)

    def map(self, points: Tensor) -> Tensor:
        """Return the attention (points, tokens) of these tokens, mean of all heads, float32."""
        groups = self.q.shape[0] // self.k.shape[0]
        total = torch.zeros(len(points), self.k.shape[1], device=self.q.device)
        for head, q in enumerate(self.q):  # one by one: all at once would be the largest tensor of the pass
            k = self.k[head // groups].float()
            total += (q[points].float() @ k.T * (self.scale or k.shape[-1] ** -0.5)).softmax(-1)
        return total / self.q.shape[0]


class Watch:
    """Looks on at one pass of one method; see `maps`."""

    def __init__(self) -> None:
        self.step = 0
        self.rho = 1.0
        self._site: str | None = None
        self._native: _Seen | None = None
        self._kept: tuple[_Seen, _Seen, int, float] | None = None
        self._strength, self._interp = 0.0, "bilinear"

    def around(self, method: Method) -> Method:
        """Return `method`, looked on at: its passes answer as before."""
        self._strength, self._interp = method.config.attention, method.config.am_interp
        begin = method.begin

        def watched(stage: Stage, pictures: Pictures) -> Pass:
            return self._attached(begin(stage, pictures))

        method.begin = watched
        return method

    def _attached(self, steered: Pass) -> Pass:
        before_step, around_model, patches = steered.before_step, steered.around_model, steered.patches

        def count(state: Tensor, level: NoiseLevel) -> Tensor:
            self.step += 1
            return before_step(state, level)

        def note(call: Call, latent: Tensor, level: NoiseLevel, condition: Condition) -> Tensor:
            self.begin_call(steered.pictures.rho(level))
            return around_model(call, latent, level, condition)

        def seen() -> Sequence[Patch]:
            return [
                replace(patch, act=functools.partial(self._attend, patch.act)) if patch.place == ATTENTION else patch
                for patch in patches()
            ]

        steered.before_step, steered.around_model, steered.patches = count, note, seen
        return steered

    def _attend(
        self,
        attend: Attend,
        site: str,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        size: Size,
        scale: float | None,
        phase: str,
    ) -> Tensor | None:
        self.look(site, q, k, size=size, scale=scale, phase=phase)
        return attend(site, q, k, v, size=size, scale=scale, phase=phase)

    def begin_call(self, rho: float) -> None:
        """Note that the network is called at `rho`."""
        self.rho, self._native = rho, None

    def look(self, site: str, q: Tensor, k: Tensor, *, size: Size, scale: float | None, phase: str) -> None:
        """Keep the first layer's queries and keys, where this is the step for it."""
        if phase == NATIVE and self._site in (None, site):
            self._site, self._native = site, _Seen.of(q, k, size, scale)
        elif phase == TARGET and site == self._site and self._native is not None:
            first_below = self._kept is not None and self._kept[3] <= RHO and self._kept[2] != self.step
            if not first_below:
                self._kept = self._native, _Seen.of(q, k, size, scale), self.step, self.rho

    def maps(self) -> Maps | None:
        """Return what was seen; None where no layer attended to a native map too."""
        if self._kept is None or self._site is None:
            return None
        native, target, step, rho = self._kept
        if any(one < other for one, other in zip(target.size, native.size, strict=True)):
            return None  # a method that thins its feature maps: no native map is enlarged there
        points = [_points(seen.size, target.q.device) for seen in (native, target)]
        whole = native.map(torch.arange(native.k.shape[1], device=native.q.device))
        there = target.map(points[1])
        blended = modulated_map(
            whole, there, points[1], native.size, target.size, strength=self._strength, interp=self._interp
        )
        return Maps(
            self._site,
            step,
            rho,
            _density(whole[points[0]], native.size),
            _density(there, target.size),
            _density(blended, target.size),
        )


def modulated_map(
    native: Tensor, target: Tensor, points: Tensor, native_size: Size, size: Size, *, strength: float, interp: str
) -> Tensor:
    """Return lambda U(M_n) + (1 - lambda) M (Eq. 7) of some points, (points, H W): the rows of the map that
    `core.attention` never builds. `native` is the whole M_n (h w, h w), `target` M's rows at `points`."""
    spread, pool = matrices_on(native_size, size, interp, device=native.device, dtype=torch.float32)
    rows, columns = points // size[1], points % size[1]
    # a point's own place on the native grid, then every native key spread over the target's
    place = (spread[0][rows, :, None] * spread[1][columns, None, :]).flatten(1)
    keys = (place @ native).reshape(len(points), *native_size, 1)
    spread_keys = resize_grid(keys, (pool[0].T, pool[1].T)).flatten(1)
    return strength * spread_keys + (1 - strength) * target


def _points(size: Size, device: torch.device) -> Tensor:
    """Return the tokens in the middle of QUERIES x QUERIES equal parts of a grid, row by row."""
    rows, columns = (
        torch.tensor([int((number + 0.5) * side / QUERIES) for number in range(QUERIES)], device=device)
        for side in size
    )
    return (rows[:, None] * size[1] + columns[None, :]).flatten()


def _density(maps: Tensor, size: Size) -> Tensor:
    """Return maps (points, tokens) as grids of at most MOST_SIDE a side, in times the mean, on the CPU."""
    grids = (maps * maps.shape[1]).reshape(-1, 1, *size)
    fewer = [min(side, MOST_SIDE) for side in size]
    return interpolate(grids, fewer, mode="area")[:, 0].cpu()


def atlas(maps: Maps) -> tuple[Image.Image, list[float]]:
    """Return all maps as one grey picture, and the brightest value of each point's three in times the mean.

    A point's native, target and modulated map stand beside each other; points as they lie in the picture. Grey is the
    square root of the share of the brightest, so that what is weak can be seen.
    """
    three = (maps.native, maps.target, maps.modulated)
    peaks = torch.stack([each.flatten(1).amax(1) for each in three]).amax(0).clamp(min=1e-6)
    height = max(each.shape[1] for each in three)
    width = sum(each.shape[2] for each in three)
    sheet = Image.new("L", (QUERIES * width, QUERIES * height))
    for point, peak in enumerate(peaks.tolist()):
        left, top = point % QUERIES * width, point // QUERIES * height
        for each in three:
            grey = (each[point] / peak).clamp(0, 1).sqrt() * 255
            sheet.paste(Image.fromarray(grey.round().to(torch.uint8).numpy()), (left, top))
            left += each.shape[2]
    return sheet, [float(f"{peak:.4g}") for peak in peaks.tolist()]
