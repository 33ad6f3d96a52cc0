"""Steers an ldm or sgm UNet (A1111): what a pass does around its calls and at its self-attention.

Imports no host. What differs between hosts of this UNet comes in as `Traits`. Every hook is a small object on an
instance, there for one call of the sampler and put back in `finally`, last in first out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fam_ext.core.precision import without_autocast
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import (
    AlreadyGuidedError,
    UnsupportedModelError,
)
from fam_ext.hosts.base import replaced
from fam_ext.hosts.layers import Layer, Layers, select_layers, steered_layers
from fam_ext.hosts.ldm.rows import NO_LAYOUT, rows_of
from fam_ext.hosts.sites import Site, select_sites
from fam_ext.hosts.steering import Reach, Row, Steering
from fam_ext.methods.base import NATIVE, OFF, TARGET, Condition, Pass
from fam_ext.methods.capabilities import ATTENTION, CONVOLUTION, FEATURE_SIZE


@dataclass(frozen=True)
class Traits:
    """What a host does around self-attention that a replacement must do too."""

    hypernetworks: Callable[[Tensor], tuple[Tensor, Tensor]] = field(default=lambda context: (context, context))
    """context -> (context of K, context of V)."""
    upcast: bool = False
    """Compute queries, keys and values in float32."""
    native_vector: Callable[[Tensor, Size], Tensor] = field(default=lambda vector, size: vector)
    """(y (rows, n), native latent size) -> y for the native pass: SDXL's size conditioning."""


def up_blocks(unet: nn.Module) -> list[list[Site]]:
    """Return the sites of each up-block, first to run first. An up-block ends with its Upsample.

    Raises `UnsupportedModelError` when `unet` has no output_blocks of the ldm kind.
    """
    output_blocks = getattr(unet, "output_blocks", None)
    if not isinstance(output_blocks, nn.ModuleList):
        raise UnsupportedModelError(
            f"the model's network is a {type(unet).__name__}; FAM steers the UNets of SD1.5, SD2.1 and SDXL"
        )
    blocks: list[list[Site]] = [[]]
    for index, block in enumerate(output_blocks):
        blocks[-1].extend(_sites_of(block, f"output_blocks.{index}"))
        if any(type(module).__name__ == "Upsample" for module in block.modules()):
            blocks.append([])
    return blocks


def _sites_of(block: nn.Module, prefix: str) -> Iterator[Site]:
    for name, transformer in block.named_modules():
        layers = getattr(transformer, "transformer_blocks", None)
        if not isinstance(layers, nn.ModuleList):
            continue
        for index, layer in enumerate(layers):
            attention = getattr(layer, "attn1", None)
            if isinstance(attention, nn.Module) and not getattr(layer, "disable_self_attn", False):
                yield Site(f"{prefix}.{name}.transformer_blocks.{index}.attn1", attention, transformer)


def unet_layers(unet: nn.Module) -> Layers:
    """Return the convolutions and feature maps of an ldm or sgm UNet, under diffusers' names."""
    network: Any = unet
    sides = [type(blocks[-1]).__name__ == "Downsample" for blocks in network.input_blocks]
    attends = [bool(list(_sites_of(blocks, ""))) for blocks in network.input_blocks]
    finest = sum(sides[: attends.index(True)]) if True in attends else 0
    layers = Layers(network.input_blocks[0][0], finest=finest)
    layers.convolutions.append(Layer("conv_in", network.input_blocks[0][0], 0))
    deepest = _add_side(layers, "down_blocks", network.input_blocks[1:], 0, step=1)
    _add_resnets(layers, "mid_block", network.middle_block, deepest)
    _add_side(layers, "up_blocks", network.output_blocks, deepest, step=-1)
    layers.convolutions.append(Layer("conv_out", network.out[-1], 0))
    return layers


def _add_side(layers: Layers, side: str, blocks: Any, level: int, *, step: int) -> int:  # noqa: ANN401
    """Add the blocks of one side, of which each ends with what changes the size, and return the level at its end."""
    block = number = 0
    for modules in blocks:
        name = f"{side}.{block}"
        sampler = next((module for module in modules if type(module).__name__ in ("Downsample", "Upsample")), None)
        steady = [module for module in modules if module is not sampler]
        if steady:
            _add_resnets(layers, name, steady, level, first=number)
            layers.maps.append(Layer(f"{name}.layers.{number}", steady[-1], level))
            number += 1
        if sampler is not None:
            name, level = f"{name}.{'downsamplers' if step > 0 else 'upsamplers'}.0", level + step
            layers.convolutions.append(Layer(f"{name}.conv", sampler.op if step > 0 else sampler.conv, level))
            layers.maps.append(Layer(name, sampler, level))
            block, number = block + 1, 0
    return level


def _add_resnets(layers: Layers, name: str, modules: Any, level: int, *, first: int = 0) -> None:  # noqa: ANN401
    resnets = [module for module in modules if hasattr(module, "in_layers")]
    for number, resnet in enumerate(resnets, first):
        layers.convolutions.append(Layer(f"{name}.resnets.{number}.conv1", resnet.in_layers[-1], level))
        layers.convolutions.append(Layer(f"{name}.resnets.{number}.conv2", resnet.out_layers[-1], level))


@contextmanager
def steered_unet(
    unet: nn.Module, steering: Steering, *, traits: Traits | None = None
) -> Generator[list[Site], None, None]:
    """While open, each call of `unet` at the target's size goes through `steering`'s running pass.

    Gives the patched sites; a pass that leaves the network alone finds no hook in it. Raises `AlreadyGuidedError` on a
    second entry.
    """
    steered, traits = steering.active, traits or Traits()
    if steered is None or not touches_network(steered):
        yield []
        return
    if "_fam_guided" in unet.__dict__:
        raise AlreadyGuidedError("this model is being guided already; let that generation finish first")
    layers = functools.cache(lambda: unet_layers(unet))
    reach: Reach = {
        ATTENTION: lambda pattern: select_sites(up_blocks(unet), pattern),
        CONVOLUTION: lambda pattern: select_layers(layers().convolutions, pattern, roles=layers().roles),
        FEATURE_SIZE: lambda pattern: select_layers(layers().maps, pattern, roles=layers().roles),
    }
    placed = steering.place(steered.patches(), reach)
    sites, convolutions, maps = placed[ATTENTION], placed[CONVOLUTION], placed[FEATURE_SIZE]
    sizes: dict[nn.Module, Size] = {}
    with ExitStack() as undo:
        unet.__dict__["_fam_guided"] = True
        undo.callback(unet.__dict__.pop, "_fam_guided", None)
        for transformer in dict.fromkeys(site.transformer for site in sites):
            handle = transformer.register_forward_pre_hook(_note_size(sizes), with_kwargs=True)
            undo.callback(handle.remove)
        hooks: list[SiteHook | UNetHook] = []
        undo.callback(lambda: [setattr(hook, "steering", Steering()) for hook in hooks])  # also one that is wrapped

        def installed(owner: nn.Module, make: Callable[[Callable[..., Tensor]], SiteHook | UNetHook]) -> None:
            def note(previous: Callable[..., Tensor]) -> SiteHook | UNetHook:
                hooks.append(make(previous))
                return hooks[-1]

            undo.enter_context(replaced(owner, "forward", note))

        for site in sites:
            installed(site.attention, functools.partial(SiteHook, site, steering, sizes, traits, site is sites[-1]))
        if convolutions or maps:
            undo.enter_context(steered_layers(layers(), steering, convolutions=convolutions, maps=maps))
        is_wrapped = "forward" in vars(unet)  # by an extension (ControlNet), which may run other latents through it
        installed(unet, functools.partial(UNetHook, unet, steering, traits))
        if sites and is_wrapped:
            network: Any = unet
            around: Any = hooks[-1]
            handle = network.input_blocks[0].register_forward_pre_hook(around.note_input)
            undo.callback(handle.remove)
        yield sites


def touches_network(steered: Pass) -> bool:
    """Return whether a pass does anything to the network or around it."""
    return type(steered).around_model is not Pass.around_model or bool(steered.patches())


def _note_size(sizes: dict[nn.Module, Size]) -> Callable[..., None]:
    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        feature_map = args[0] if args else kwargs["x"]
        sizes[module] = (feature_map.shape[-2], feature_map.shape[-1])

    return note


class NativePassDone(Exception):  # noqa: N818  # a signal, not a fault
    """Raised by the last patched site in a native call, whose output nobody reads."""


class UNetHook:
    """The network's forward: a call with the sampler's state goes around the running pass."""

    def __init__(self, unet: nn.Module, steering: Steering, traits: Traits, previous: Callable[..., Tensor]) -> None:
        self.unet = unet
        self.steering = steering
        self.traits = traits
        self.previous = previous
        self._is_inside = False
        self._given: Tensor | None = None
        """What the network is being called with."""
        self._orders: dict[tuple[Row, ...], tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, timesteps: Any = None, context: Any = None, y: Any = None, **kwargs: Any) -> Tensor:  # noqa: ANN401
        steering = self.steering
        steered, here, state = steering.active, steering.level, steering.latent
        if steered is None or here is None or state is None or self._is_inside or x.shape[-2:] != state.shape[-2:]:
            return self.previous(x, timesteps, context, y=y, **kwargs)

        def call(latent: Tensor, level: NoiseLevel, condition: Condition, *, phase: str = TARGET) -> Tensor:
            with steering.during(phase):
                if latent is x:
                    self._given = x
                    return self.previous(x, timesteps, context, y=y, **kwargs)
                return self._other(latent, level, x, condition.given, is_here=level is here)

        order, uncond = self._order(x)
        self._is_inside = True

        def find_uncond() -> Tensor:
            if uncond is None:
                raise UnsupportedModelError(NO_LAYOUT)
            return uncond

        try:
            find_rows = functools.partial(rows_of, x, state, order=order, checks=steering.checks)
            condition = Condition(find_rows, (timesteps, context, y), find_uncond)
            return steered.around_model(call, x, here, condition)
        finally:
            self._is_inside, self._given = False, None

    def note_input(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Tell the sites, before the first layer runs, whose latent this is: extensions run others (a reference)."""
        given, first = self._given, args[0]
        is_own = given is None or first is given or torch.equal(first, given.to(first))  # a copy where it was cast
        self.steering.is_other = not is_own

    def _order(self, x: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return the pictures of these rows as the host orders them, and which are unconditional, on their device: sent
        there once."""
        rows = self.steering.next_rows(x.shape[0])
        if rows is None:
            return None, None
        if rows not in self._orders:
            pictures, uncond = zip(*rows, strict=True)
            self._orders[rows] = torch.tensor(pictures, device=x.device), torch.tensor(uncond, device=x.device)
        return self._orders[rows]

    def _other(self, latent: Tensor, level: NoiseLevel, x: Tensor, given: Any, *, is_here: bool) -> Tensor:  # noqa: ANN401
        """Return the network's output for another latent than `x`, of any size, with `x`'s words."""
        timesteps, context, y = given
        size = (latent.shape[-2], latent.shape[-1])
        if x.shape[1] > latent.shape[1]:  # inpainting models carry mask and picture in further channels
            latent = torch.cat([latent, interpolate(x[:, latent.shape[1] :], size)], dim=1)
        if not is_here:
            timesteps = torch.full_like(timesteps, level.timestep)
        if y is not None:
            y = self.traits.native_vector(y, size)
        # the class's forward: what others put on the instance (ControlNet) is made for the target's size
        self._given = latent
        merged: Any = getattr(self.unet, "_tome_info", {})  # token merging notes it where the module itself is called
        before = merged.get("size")
        merged["size"] = size
        try:
            return type(self.unet).forward(self.unet, latent, timesteps, context, y=y)
        except NativePassDone:
            return latent
        finally:
            merged["size"] = before


class SiteHook:
    """A self-attention layer's forward that lets the running pass attend, and its predecessor where it does not."""

    def __init__(
        self,
        site: Site,
        steering: Steering,
        sizes: dict[nn.Module, Size],
        traits: Traits,
        is_last: bool,
        previous: Callable[..., Tensor],
    ) -> None:
        self.site = site
        self.steering = steering
        self.sizes = sizes
        self.traits = traits
        self.is_last = is_last
        self.previous = previous

    def __call__(self, x: Tensor, context: Any = None, mask: Any = None, **kwargs: Any) -> Tensor:  # noqa: ANN401
        size = self.sizes.get(self.site.transformer)
        # reference-style ControlNet passes x itself as context; banks and merged tokens change the lengths
        is_self = (context is None or context is x) and mask is None and kwargs.get("additional_tokens") is None
        if (
            self.steering.phase == OFF
            or self.steering.is_other
            or size is None
            or not is_self
            or x.shape[1] != size[0] * size[1]
        ):
            return self.previous(x, context=context, mask=mask, **kwargs)
        attention: Any = self.site.attention
        context_k, context_v = self.traits.hypernetworks(x)
        q, k, v = (
            _split_heads(projection(source), attention.heads)
            for projection, source in ((attention.to_q, x), (attention.to_k, context_k), (attention.to_v, context_v))
        )
        dtype = q.dtype
        if self.traits.upcast:
            q, k, v = q.float(), k.float(), v.float()
        with without_autocast(q):
            out = self.steering.attend(self.site.name, q, k, v, size=size, scale=attention.scale)
        if self.is_last and self.steering.phase == NATIVE:
            raise NativePassDone
        if out is None:
            return self.previous(x, context=context, mask=mask, **kwargs)
        return attention.to_out(out.to(dtype).transpose(1, 2).flatten(2))


def _split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
