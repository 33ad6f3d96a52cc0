"""A UNet's convolutions and feature maps by role, and the hooks through which a pass changes them, in every host.

Both are named in diffusers' words. Convolutions of more than one pixel: conv_in, down_blocks.1.resnets.0.conv1,
down_blocks.1.downsamplers.0.conv, mid_block.resnets.1.conv2, up_blocks.0.upsamplers.0.conv, conv_out. Feature maps by
the layer that they leave: down_blocks.1.layers.0 (a resnet and the transformer behind it),
down_blocks.1.downsamplers.0, up_blocks.0.layers.2, up_blocks.0.upsamplers.0.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad

from fam_ext.core.schedule import Size
from fam_ext.errors import ConfigError
from fam_ext.hosts.base import replaced
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import NATIVE, OFF


@dataclass(frozen=True)
class Layer:
    """A place in a UNet where a pass may act."""

    name: str
    module: nn.Module
    level: int
    """How often the latent has been halved in what leaves it."""


@dataclass(frozen=True)
class Layers:
    """What there is in one UNet, in running order."""

    conv_in: nn.Module
    finest: int = 0
    """The first down block that has attention, which is on the finest grid."""
    convolutions: list[Layer] = field(default_factory=list)
    maps: list[Layer] = field(default_factory=list)

    @property
    def roles(self) -> dict[str, str]:
        """The layers between which a network can run smaller, by what a pattern may call them in braces.

        From `strided`, the downsampler of the block `finest`, to `unstrided`, the upsampler back to its level; and from
        `pooled`, the first layer of that block (of the second, where it is the first), to `unpooled`, the layer that
        takes the skip of it.
        """
        deepest = max(layer.level for layer in self.maps)
        inner = max(self.finest, 1)
        up = [layer.name for layer in self.maps if layer.name.startswith(f"up_blocks.{deepest - inner}.layers.")]
        return {
            "strided": f"down_blocks.{self.finest}.downsamplers.0.conv",
            "unstrided": f"up_blocks.{deepest - self.finest - 1}.upsamplers.0.conv",
            "pooled": f"down_blocks.{inner}.layers.0",
            "unpooled": up[-2],
        }


def select_layers(layers: Sequence[Layer], pattern: str, *, roles: Mapping[str, str] | None = None) -> list[Layer]:
    """Return those that `pattern` (names with wildcards, between commas) means, in running order; {role} in it is the
    name that `roles` has for it. Raises `ConfigError` naming what there is when nothing matches."""
    wanted = [part.strip().format_map(roles or {}) for part in pattern.split(",")]
    chosen = [layer for layer in layers if any(fnmatchcase(layer.name, part) for part in wanted)]
    if not chosen:
        names = ", ".join(layer.name for layer in layers)
        raise ConfigError(f"no layer of the network is {pattern!r}; choose patterns of: {names}")
    return chosen


@contextmanager
def steered_layers(
    layers: Layers,
    steering: Steering,
    *,
    convolutions: Sequence[Layer],
    maps: Sequence[Layer],
    cut: Collection[nn.Module] = (),
) -> Generator[None, None, None]:
    """While open, those of `layers` ask `steering`'s running pass. `cut` are modules that the host leaves out of a
    native call.

    For one pass in every host: put in at its beginning, taken out last in first out.
    """
    hooks: list[ConvolutionHook | MapHook] = []
    with ExitStack() as undo:
        undo.callback(lambda: [setattr(hook, "steering", Steering()) for hook in hooks])  # also one that is wrapped
        grid = Grid()
        undo.callback(layers.conv_in.register_forward_pre_hook(grid.read).remove)
        for layer in layers.maps:
            if layer.name.startswith("down_blocks."):
                undo.callback(layer.module.register_forward_hook(partial(grid.note_skip, layer.level)).remove)
            elif ".upsamplers." in layer.name:
                undo.callback(layer.module.register_forward_hook(partial(grid.fitted, layer.level)).remove)

        def install(layer: Layer, name: str, make: Callable[[Callable[..., Any]], ConvolutionHook | MapHook]) -> None:
            def note(previous: Callable[..., Any]) -> ConvolutionHook | MapHook:
                hooks.append(make(previous))
                return hooks[-1]

            undo.enter_context(replaced(layer.module, name, note))

        for layer in convolutions:
            # behind `forward`, where LoRA and offloading have brought the weights
            install(layer, "_conv_forward", partial(ConvolutionHook, layer, steering, grid))
        for layer in maps:
            install(layer, "forward", partial(MapHook, layer, steering, grid, layer.module in cut))
        yield


class Grid:
    """The sizes in a call of the network: of its latent, and of the last skip on each level."""

    def __init__(self) -> None:
        self.size: Size = (0, 0)
        self._skips: dict[int, Size] = {}

    def read(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.size = _size(args[0])

    def note_skip(self, level: int, module: nn.Module, args: tuple[Tensor, ...], left: Any) -> None:  # noqa: ANN401
        self._skips[level] = _size(_feature_map(left))

    def fitted(self, level: int, module: nn.Module, args: tuple[Tensor, ...], left: Tensor) -> Tensor | None:
        """Return what leaves an upsampler in the size of the skip that it meets: a smaller map's halves were rounded
        otherwise than the latent's."""
        return None if _size(left) == self._skips[level] else interpolate(left, self._skips[level])

    def at(self, level: int) -> Size:
        """Return the size of a feature map that was halved `level` times, where no pass changes any: rounded up."""
        height, width = self.size
        for _ in range(level):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width


def _size(feature_map: Tensor) -> Size:
    return feature_map.shape[-2], feature_map.shape[-1]


def _feature_map(left: Any) -> Tensor:  # noqa: ANN401
    return left[0] if isinstance(left, tuple) else left  # diffusers' transformers give a tuple


class Kernel:
    """See `methods.base.Kernel`: a Conv2d with the weights it has just now."""

    def __init__(self, layer: Any, weight: Tensor, bias: Tensor | None) -> None:  # noqa: ANN401
        self.layer = layer
        self.weight = weight
        self.bias = bias
        self.stride: Size = layer.stride

    def __call__(
        self, feature_map: Tensor, *, weight: Tensor | None = None, dilation: Size = (1, 1), stride: Size | None = None
    ) -> Tensor:
        weight, stride = self.weight if weight is None else weight, stride or self.stride
        height, width = (side // 2 * apart for side, apart in zip(weight.shape[-2:], dilation, strict=True))
        groups = self.layer.groups
        if self.layer.padding_mode == "zeros":
            return conv2d(feature_map, weight, self.bias, stride, (height, width), dilation, groups)
        feature_map = pad(feature_map, (width, width, height, height), mode=self.layer.padding_mode)
        return conv2d(feature_map, weight, self.bias, stride, 0, dilation, groups)


class ConvolutionHook:
    """A Conv2d's inner forward that lets the running pass convolve, and its predecessor where it does not."""

    def __init__(self, layer: Layer, steering: Steering, grid: Grid, previous: Callable[..., Tensor]) -> None:
        self.layer = layer
        self.steering = steering
        self.grid = grid
        self.previous = previous

    def __call__(self, feature_map: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.steering.phase != OFF:
            kernel = Kernel(self.layer.module, weight, bias)
            out = self.steering.ask(self.layer.name, feature_map, kernel, size=self.grid.at(self.layer.level))
            if out is not None:
                return out
        return self.previous(feature_map, weight, bias)


class MapHook:
    """A layer's forward whose feature map the running pass may make smaller or larger."""

    def __init__(
        self, layer: Layer, steering: Steering, grid: Grid, is_cut: bool, previous: Callable[..., Any]
    ) -> None:
        self.layer = layer
        self.steering = steering
        self.grid = grid
        self.is_cut = is_cut
        self.previous = previous

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        left = self.previous(*args, **kwargs)
        phase = self.steering.phase
        if phase == OFF or (phase == NATIVE and self.is_cut):
            return left
        out = self.steering.ask(self.layer.name, _feature_map(left), size=self.grid.at(self.layer.level))
        if out is None:
            return left
        return (out,) if isinstance(left, tuple) else out
