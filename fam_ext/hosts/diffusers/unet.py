"""The standalone host's hooks in a UNet2DConditionModel: small objects that stay, and sleep between passes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fam_ext.core.schedule import Size
from fam_ext.errors import AlreadyGuidedError, UnsupportedModelError
from fam_ext.hosts.base import replaced
from fam_ext.hosts.diffusers.compiled import attend, handle_of
from fam_ext.hosts.diffusers.words import watched
from fam_ext.hosts.layers import Layer, Layers, select_layers, steered_layers
from fam_ext.hosts.sites import Site, select_sites
from fam_ext.hosts.steering import Reach, Steering
from fam_ext.methods.base import NATIVE, OFF, Pass
from fam_ext.methods.capabilities import ATTENTION, CONVOLUTION, CROSS_ATTENTION, FEATURE_SIZE

REPLACEABLE = ("AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor", "SlicedAttnProcessor")


def unet_blocks(unet: nn.Module, layer: str = "attn1") -> list[list[Site]]:
    """Return the self-attention sites (cross-attention: `layer` attn2) of each up-block, in running order."""
    blocks: list[list[Site]] = []
    for block_index, up_block in enumerate(getattr(unet, "up_blocks", [])):
        sites: list[Site] = []
        for index, transformer in enumerate(getattr(up_block, "attentions", None) or []):
            for depth, block in enumerate(transformer.transformer_blocks):
                name = f"up_blocks.{block_index}.attentions.{index}.transformer_blocks.{depth}.{layer}"
                sites.append(Site(name, getattr(block, layer), transformer))
        blocks.append(sites)
    return blocks


def unet_layers(unet: nn.Module) -> Layers:
    """Return the convolutions and feature maps of a diffusers UNet."""
    network: Any = unet
    attend = [bool(getattr(block, "attentions", None)) for block in network.down_blocks]
    layers = Layers(network.conv_in, finest=attend.index(True) if True in attend else 0)
    layers.convolutions.append(Layer("conv_in", network.conv_in, 0))
    deepest = len(network.down_blocks) - 1
    for level, block in enumerate(network.down_blocks):
        _add_block(layers, f"down_blocks.{level}", block, level)
        for number, sampler in enumerate(block.downsamplers or []):
            name = f"down_blocks.{level}.downsamplers.{number}"
            layers.convolutions.append(Layer(f"{name}.conv", sampler.conv, level + 1))
            layers.maps.append(Layer(name, sampler, level + 1))
    # distilled networks (BK-SDM, KOALA) have no middle
    _add_resnets(layers, "mid_block", getattr(network.mid_block, "resnets", ()), deepest)
    for index, block in enumerate(network.up_blocks):
        level = deepest - index
        _add_block(layers, f"up_blocks.{index}", block, level)
        for number, sampler in enumerate(block.upsamplers or []):
            name = f"up_blocks.{index}.upsamplers.{number}"
            layers.convolutions.append(Layer(f"{name}.conv", sampler.conv, level - 1))
            layers.maps.append(Layer(name, sampler, level - 1))
    layers.convolutions.append(Layer("conv_out", network.conv_out, 0))
    return layers


def _add_block(layers: Layers, name: str, block: Any, level: int) -> None:  # noqa: ANN401
    _add_resnets(layers, name, block.resnets, level)
    last = getattr(block, "attentions", None) or block.resnets
    for number, module in enumerate(last):
        layers.maps.append(Layer(f"{name}.layers.{number}", module, level))


def _add_resnets(layers: Layers, name: str, resnets: Any, level: int) -> None:  # noqa: ANN401
    for number, resnet in enumerate(resnets):
        layers.convolutions.append(Layer(f"{name}.resnets.{number}.conv1", resnet.conv1, level))
        layers.convolutions.append(Layer(f"{name}.resnets.{number}.conv2", resnet.conv2, level))


def modules_after(unet: nn.Module, site: Site) -> list[nn.Module]:
    """Return the modules that a UNet runs after `site`: what a native call, whose output nobody reads, can leave out.
    What lies beside them (norms, sums, activations) is not worth a hook."""
    found: list[Any] = []
    reached = False
    network: Any = unet
    for block in network.up_blocks:
        if reached:
            found.append(block)
            continue
        transformers = getattr(block, "attentions", None) or []
        for resnet, transformer in zip(block.resnets, transformers, strict=False):
            if reached:
                found += [resnet, transformer]
            for layer in transformer.transformer_blocks:
                if reached and transformer is site.transformer:
                    found.append(layer)
                elif layer.attn1 is site.attention:
                    found += [layer.attn2, layer.ff]
                    reached = True
        if reached:
            found += block.upsamplers or []
    found += [network.conv_norm_out, network.conv_out]
    return [module for module in found if module is not None]


class UNetHooks:
    """The hooks in one UNet: put there when a pass first needs them, asleep while none runs, gone with `close`."""

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet
        self.steering = Steering()
        self._undo = ExitStack()
        self._sites: dict[str, SiteHook] = {}
        self._cuts: dict[nn.Module, Cut] = {}

    def close(self) -> None:
        """Take the hooks out, last in first out."""
        self._sites.clear()
        self._cuts.clear()
        self._undo.close()

    @contextmanager
    def running(self, steered: Pass) -> Generator[None, None, None]:
        """While open, the sites that `steered` patches ask it. Raises `AlreadyGuidedError` on a second entry; a site
        that another extension owns is refused with the owner's name."""
        with self.steering.running(steered):
            layers = functools.cache(lambda: unet_layers(self.unet))
            reach: Reach = {
                ATTENTION: lambda pattern: select_sites(unet_blocks(self.unet), pattern),
                CROSS_ATTENTION: lambda pattern: select_sites(unet_blocks(self.unet, "attn2"), pattern),
                CONVOLUTION: lambda pattern: select_layers(layers().convolutions, pattern, roles=layers().roles),
                FEATURE_SIZE: lambda pattern: select_layers(layers().maps, pattern, roles=layers().roles),
            }
            placed = self.steering.place(steered.patches(), reach)
            sites, convolutions, maps = placed[ATTENTION], placed[CONVOLUTION], placed[FEATURE_SIZE]
            owners = [_owner(site) for site in sites]  # all, before the first is changed
            awake: list[SiteHook | Cut] = [self._hook(*each) for each in zip(sites, owners, strict=True)]
            cut = modules_after(self.unet, sites[-1]) if sites else []
            awake += [self._cut(module) for module in cut]
            with self._layers(convolutions, maps, cut), self._watched(placed[CROSS_ATTENTION]):
                try:
                    for hook in awake:
                        hook.is_awake = True
                    yield
                finally:
                    for hook in awake:
                        hook.is_awake = False

    @contextmanager
    def _layers(
        self, convolutions: list[Layer], maps: list[Layer], cut: list[nn.Module]
    ) -> Generator[None, None, None]:
        if not convolutions and not maps:
            yield
            return
        layers = unet_layers(self.unet)
        with _eager(), steered_layers(layers, self.steering, convolutions=convolutions, maps=maps, cut=cut):
            yield

    @contextmanager
    def _watched(self, sites: list[Site]) -> Generator[None, None, None]:
        if not sites:
            yield
            return
        with _eager(), watched(sites, self.steering):
            yield

    def _hook(self, site: Site, owner: Callable[..., Tensor]) -> SiteHook:
        attention: Any = site.attention
        known = self._sites.get(site.name)
        if known is not None and attention.processor is known:
            return known
        hook = SiteHook(site.name, self.steering, owner)
        self._undo.callback(attention.set_processor, owner)
        attention.set_processor(hook)
        self._undo.callback(site.transformer.register_forward_pre_hook(hook.read_grid, with_kwargs=True).remove)
        self._sites[site.name] = hook
        return hook

    def _cut(self, module: nn.Module) -> Cut:
        if module not in self._cuts:

            def make(forward: Callable[..., Tensor]) -> Cut:
                self._cuts[module] = Cut(self.steering, forward)
                return self._cuts[module]

            self._undo.enter_context(replaced(module, "forward", make))
        return self._cuts[module]


def _eager() -> AbstractContextManager[Any]:
    # a graph that was compiled without these hooks does not look for them (torch 2.4 and 2.5 cannot set it aside)
    return getattr(torch.compiler, "set_stance", nullcontext)("force_eager")


def _owner(site: Site) -> Callable[..., Tensor]:
    """Return what attends at a site without us. A sleeping hook of a copied network, or of another host, gives way."""
    attention: Any = site.attention
    owner = attention.processor
    while isinstance(owner, SiteHook):
        if owner.is_awake:
            raise AlreadyGuidedError(f"{site.name} is guided already; let that generation finish first")
        owner = owner.owner
    if type(owner).__name__ not in REPLACEABLE:
        raise UnsupportedModelError(
            f"{site.name} is steered by {type(owner).__name__} already; remove it, or turn AM off"
        )
    return owner


class SiteHook:
    """A diffusers attention processor that lets the running pass attend, and its predecessor where it does not."""

    def __init__(self, name: str, steering: Steering, owner: Callable[..., Tensor]) -> None:
        self.name = name
        self.steering = steering
        self.handle = handle_of(steering)
        self.owner = owner
        self.is_awake = False
        self.grid: Size = (0, 0)

    def read_grid(self, module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        # from the feature map itself: sizes that are not multiples of 64 are rounded up on the way down
        hidden_states = args[0] if args else kwargs["hidden_states"]
        self.grid = (hidden_states.shape[-2], hidden_states.shape[-1])

    def __call__(
        self,
        attn: Any,  # noqa: ANN401  # diffusers' Attention; no import at module level
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Tensor:
        is_self = encoder_hidden_states is None or encoder_hidden_states is hidden_states
        is_asleep = not self.is_awake or self.steering.phase == OFF
        if is_asleep or not is_self or attention_mask is not None:
            return self.owner(attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)
        if hidden_states.shape[1] != self.grid[0] * self.grid[1]:
            return self.owner(attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)
        q, k, v = (
            projection(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )
        if torch.compiler.is_compiling():
            out = attend(q, k, v, self.name, self.handle, *self.grid, attn.scale)
        else:
            heads = self.steering.attend(self.name, q, k, v, size=self.grid, scale=attn.scale)
            if heads is None:
                return self.owner(attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)
            out = heads.transpose(1, 2).flatten(2)
        out = out.to(hidden_states.dtype)
        for layer in attn.to_out:
            out = layer(out)
        return out / attn.rescale_output_factor


class Cut:
    """A module's forward that gives back what it was given in a native call: nobody reads on from there."""

    def __init__(self, steering: Steering, forward: Callable[..., Tensor]) -> None:
        self.steering = steering
        self.forward = forward
        self.is_awake = False

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        if self.is_awake and self.steering.phase == NATIVE:
            return args[0] if args else kwargs["hidden_states"]
        return self.forward(*args, **kwargs)
