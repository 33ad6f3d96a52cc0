"""The diffusers host's hooks: AM at the sites of a UNet2DConditionModel, restored on every exit."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from fam_ext.core.guide import HiresGuide, NativePassDone
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import AlreadyGuidedError, UnsupportedModelError
from fam_ext.hosts.sites import Site, select_sites

UNetCall = Callable[[Tensor, NoiseLevel, bool], Tensor]
"""(network input (rows, C, H, W), level, is the native pass) -> network output."""

REPLACEABLE = ("AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor", "SlicedAttnProcessor")


def unet_blocks(unet: nn.Module) -> list[list[Site]]:
    """Return the self-attention sites of each up-block of a diffusers UNet, in running order."""
    blocks: list[list[Site]] = []
    for block_index, block in enumerate(getattr(unet, "up_blocks", [])):
        sites: list[Site] = []
        for index, transformer in enumerate(getattr(block, "attentions", None) or []):
            for depth, layer in enumerate(transformer.transformer_blocks):
                name = f"up_blocks.{block_index}.attentions.{index}.transformer_blocks.{depth}.attn1"
                sites.append(Site(name, layer.attn1, transformer))
        blocks.append(sites)
    return blocks


@contextmanager
def guided(
    unet: nn.Module, guide: HiresGuide
) -> Generator[Callable[[UNetCall, Tensor, NoiseLevel], Tensor], None, None]:
    """While open, `unet`'s sites ask `guide`; yields `step(call, latent, level)`, one guided call of the network.

    `step` runs the truncated native pass where AM acts, with as many rows as `latent` (B pictures in blocks, as CFG
    lays them out), then the target pass. The processors are put back last in, first out, on every exit. A second entry
    raises `AlreadyGuidedError`; a site that another extension owns is refused with the owner's name.
    """
    sites = select_sites(unet_blocks(unet), guide.config.am_sites) if guide.config.am else []
    guide.last_site = sites[-1].name if sites else None
    with ExitStack() as undo:
        for site in sites:
            _steer(site, guide, undo)

        def step(call: UNetCall, latent: Tensor, level: NoiseLevel) -> Tensor:
            if not sites or not guide.steers_at(level):
                return call(latent, level, False)
            native, native_level = guide.native_input(level)
            blocks = latent.shape[0] // native.shape[0]
            with guide.native_pass(), suppress(NativePassDone):
                call(native.to(latent).repeat(blocks, 1, 1, 1), native_level, True)
            with guide.target_pass():
                return call(latent, level, False)

        yield step


def _steer(site: Site, guide: HiresGuide, undo: ExitStack) -> None:
    owner: Any = site.attention.processor
    if isinstance(owner, _SiteProcessor):
        raise AlreadyGuidedError(f"{site.name} is guided already; leave the first guided pass before the next")
    if type(owner).__name__ not in REPLACEABLE:
        raise UnsupportedModelError(
            f"{site.name} is steered by {type(owner).__name__} already; remove it, or turn AM off"
        )
    processor = _SiteProcessor(site.name, guide, owner)
    attention: Any = site.attention
    undo.callback(attention.set_processor, owner)
    attention.set_processor(processor)
    undo.callback(site.transformer.register_forward_pre_hook(processor.read_grid, with_kwargs=True).remove)


class _SiteProcessor:
    """A diffusers attention processor that lets the guide attend, and its predecessor where the guide does not."""

    def __init__(self, name: str, guide: HiresGuide, owner: Callable[..., Tensor]) -> None:
        self.name = name
        self.guide = guide
        self.owner = owner
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
        if not is_self or attention_mask is not None or hidden_states.shape[1] != self.grid[0] * self.grid[1]:
            return self.owner(attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)
        q, k, v = (
            projection(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projection in (attn.to_q, attn.to_k, attn.to_v)
        )
        out = self.guide.attend(self.name, q, k, v, size=self.grid, scale=attn.scale)
        if out is None:
            return self.owner(attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs)
        out = out.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        for layer in attn.to_out:
            out = layer(out)
        return out / attn.rescale_output_factor
