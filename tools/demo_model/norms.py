"""A VAE whose colours do not depend on what else is in the picture, in code that normalises every picture by itself.

The WebUI's VAE and diffusers' have GroupNorm of 32 groups throughout: each layer subtracts the mean of a group over the
whole picture and divides by its spread, so a thing's colours shift with its ground (measured on version 4's VAE: 9 of
255 levels). `free` takes that out for training: a norm becomes a factor and an offset a channel, and the VAE a plain
convolutional network, which learns the colours of whole pictures from small crops. `bound` writes what was trained as
an ordinary AutoencoderKL that does the same:

- every convolution that writes what a norm reads has groups whose channels sum to 0, so the mean is 0 anyway;
- what a norm reads is so small that its variance is little beside GroupNorm's eps, so it divides by sqrt(eps).

Each group of each stretch of the stream, from one convolution that carries it on to the next, has a factor of its own:
with one factor for all, weights came to 1e-8, and fp16 has nothing below 6e-8.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from training import ENCODER, FREED, read_small, write_small

SMALL = 0.2
"""The largest spread of what a norm reads in the bound VAE, in sqrt(eps): half its square is how far GroupNorm's factor
can move. At 0.1 fp16 has too few digits for the weights, and its largest number is too small for some factors."""


class Affine(nn.Module):
    """What stands for a GroupNorm: a factor and an offset a channel. Remembers the spread of what it reads."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.bias = nn.Parameter(norm.bias.detach().clone())
        self.groups = norm.num_groups
        self.register_buffer("square", torch.zeros(norm.num_groups, device=norm.weight.device))
        self.square: Tensor  # of each group

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            with torch.no_grad():
                squares = features.float().square().unflatten(1, (self.groups, -1)).mean(dim=(0, 2, 3, 4))
                self.square.copy_(torch.maximum(self.square, squares))
        shape = (1, -1, 1, 1)
        return features * self.weight.view(shape).to(features) + self.bias.view(shape).to(features)


class ZeroSum(nn.Module):
    """Take from a weight (out, ...) or bias (out,) the mean of each of `groups` groups of outputs."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, weight: Tensor) -> Tensor:
        grouped = weight.unflatten(0, (self.groups, -1))
        return (grouped - grouped.mean(dim=1, keepdim=True)).flatten(0, 1)


@dataclass
class Stretch:
    """The stream from one convolution that carries it on to the next."""

    first: Any
    """The convolution that begins it, by reading the stretch before it, or what comes in."""
    writes: list[Any] = field(default_factory=list)
    """Convolutions that add to it."""
    norms: list[Any] = field(default_factory=list)
    """What reads it."""


def stretches(half: Any) -> list[Stretch]:
    """Return the stretches of an encoder or decoder, in order."""
    found = [Stretch(half.conv_in)]
    blocks = (*half.down_blocks, half.mid_block) if hasattr(half, "down_blocks") else (half.mid_block, *half.up_blocks)
    for block in blocks:
        if any(attention is not None for attention in getattr(block, "attentions", ())):
            raise SystemExit("the VAE attends in its mid block; norms.py holds only VAEs that do not")
        for resnet in block.resnets:
            found[-1].norms.append(resnet.norm1)
            if resnet.conv_shortcut is not None:
                found.append(Stretch(resnet.conv_shortcut))
            found[-1].writes.append(resnet.conv2)
        for sampler in getattr(block, "downsamplers", None) or getattr(block, "upsamplers", None) or ():
            found.append(Stretch(sampler.conv))
    found[-1].norms.append(half.conv_norm_out)
    return found


def resnets(half: Any) -> list[Any]:
    return [module for module in half.modules() if type(module).__name__ == "ResnetBlock2D"]


@torch.no_grad()
def free(vae: Any, pictures: Tensor | None = None) -> Any:
    """Return a copy of the AutoencoderKL `vae` without GroupNorm, to be trained.

    Each norm's factor and offset are what GroupNorm does on average on `pictures` (B, 3, H, W) in [-1, 1], if given.
    """
    if min(vae.config.block_out_channels) <= vae.config.norm_num_groups:
        raise SystemExit(
            f"the VAE has {min(vae.config.block_out_channels)} channels in {vae.config.norm_num_groups} groups, and a"
            " group of one channel that sums to 0 is nothing; give one with at least two channels a group"
        )
    vae = copy.deepcopy(vae).eval()
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, _: seen.setdefault(module, []).append(_moments(inputs[0], module))
        )
        for module in vae.modules()
        if isinstance(module, nn.GroupNorm)
    ]
    if pictures is not None:
        for picture in pictures:
            vae.decode(vae.encode(picture[None]).latent_dist.mode())
    for hook in hooks:
        hook.remove()
    for name, norm in list(vae.named_modules()):
        if not isinstance(norm, nn.GroupNorm):
            continue
        affine = Affine(norm)
        if norm in seen:
            each = norm.num_channels // norm.num_groups
            mean = torch.stack([mean for mean, _ in seen[norm]]).mean(0).repeat_interleave(each)
            variance = torch.stack([variance for _, variance in seen[norm]]).log().mean(0).exp().repeat_interleave(each)
            affine.weight.div_((variance + norm.eps).sqrt())
            affine.bias.sub_(affine.weight * mean)
        owner, _, field = name.rpartition(".")
        setattr(vae.get_submodule(owner), field, affine)
    for half in (vae.encoder, vae.decoder):
        inner = [resnet.conv1 for resnet in resnets(half)]
        for convolution in (*(each for part in stretches(half) for each in (part.first, *part.writes)), *inner):
            groups = ZeroSum(vae.config.norm_num_groups)
            parametrize.register_parametrization(convolution, "weight", groups)
            parametrize.register_parametrization(convolution, "bias", groups)
    return vae


def write_freed(freed: Any, folder: Path) -> None:
    """Write the weights of `freed` beside the VAE that `bound` made of it, whose own are too small to be trained."""
    write_small(
        {key: value for key, value in freed.state_dict().items() if not key.endswith(".square")}, folder / FREED
    )


def has_freed(folder: Path) -> bool:
    return (folder / FREED).is_file()


def read_freed(freed: Any, folder: Path) -> None:
    """Put the weights that `write_freed` wrote into `freed`, as `free` made it."""
    freed.load_state_dict({**freed.state_dict(), **read_small(folder / FREED)})


def keep_encoder(start: Path, folder: Path) -> None:
    """Put the encoder that lies in `start` into what `write_freed` wrote in `folder`, bit for bit: written again, an
    int8 row's scale may move by its last digit, and with it the tag of the latents."""
    old, new = load_file(start / FREED), load_file(folder / FREED)
    kept = {name: value for name, value in old.items() if name.startswith(ENCODER)}
    save_file({**new, **kept}, folder / FREED)


def _moments(features: Tensor, norm: Any) -> tuple[Tensor, Tensor]:
    grouped = features.reshape(norm.num_groups, -1).float()
    return grouped.mean(1), grouped.var(1, unbiased=False)


@torch.no_grad()
def bound(freed: Any, pictures: Tensor, *, decoder_only: bool = False) -> Any:
    """Return an ordinary AutoencoderKL (eval) that does what the `freed` one does.

    `pictures` (B, 3, H, W) in [-1, 1] show how large the features get; they should be typical whole ones. Exits when
    fp16, in which it is stored, cannot hold it; with `decoder_only` the encoder is not judged: it was when it was made.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kind: Any = AutoencoderKL
    trained = freed.training
    freed.eval()
    norms = {name: module for name, module in freed.named_modules() if isinstance(module, Affine)}
    for norm in norms.values():
        norm.square.zero_()
    wanted = [_coded(freed, picture) for picture in pictures]
    freed.train(trained)
    plain = kind.from_config(freed.config).to(pictures.device).eval()
    for name, value in plain.named_parameters():
        owner, _, field = name.rpartition(".")
        value.copy_(getattr(freed.get_submodule(owner), field))  # a convolution's as its sums were taken out
    for half, read in ((plain.encoder, freed.encoder), (plain.decoder, freed.decoder)):
        before = None
        for stretch, seen in zip(stretches(half), stretches(read), strict=True):
            if before is not None:
                stretch.first.weight.div_(before.view(1, -1, 1, 1))
            before = _shrunk((stretch.first, *stretch.writes), stretch.norms, seen.norms)
        for resnet, seen in zip(resnets(half), resnets(read), strict=True):
            _shrunk((resnet.conv1,), (resnet.norm2,), (seen.norm2,))
    half = copy.deepcopy(plain).half().float()  # as it is stored
    for picture, outputs in zip(pictures, wanted, strict=True):
        latent, decoded = outputs
        found = {"picture": (half.decode(latent).sample, decoded)}
        if not decoder_only:
            found["latent"] = (half.encode(picture[None]).latent_dist.mode(), latent)
        for name, (given, right) in found.items():
            if not (given - right).abs().mean() < 0.1 * right.std():
                raise SystemExit(f"in fp16 the bound VAE gives another {name} than the freed one; change norms.SMALL")
    return plain


def _coded(vae: Any, picture: Tensor) -> tuple[Tensor, Tensor]:
    latent = vae.encode(picture[None]).latent_dist.mode()
    return latent, vae.decode(latent).sample


def _shrunk(writes: Sequence[Any], norms: Sequence[Any], seen: Sequence[Affine]) -> Tensor:
    """Make what the convolutions `writes` give small, and let `norms` undo that, which read it; `seen` know how large
    it was. Return the factor of each channel, 1 where no norm reads it."""
    channels = len(writes[0].weight)
    if not norms:
        return torch.ones(channels, device=writes[0].weight.device)
    eps = norms[0].eps
    scale = SMALL * (eps / torch.stack([each.square for each in seen]).amax(0).clamp(min=1e-12)).sqrt()
    for norm, each in zip(norms, seen, strict=True):
        norm.weight.mul_(((scale**2 * each.square + eps).sqrt() / scale).repeat_interleave(channels // len(scale)))
    scale = scale.repeat_interleave(channels // len(scale))
    for convolution in writes:
        convolution.weight.mul_(scale.view(-1, 1, 1, 1))
        convolution.bias.mul_(scale)
    return scale
