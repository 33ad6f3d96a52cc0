"""A VAE whose colours do not depend on what else is in the picture, in code that normalises every picture by itself.

The WebUI's VAE and diffusers' have GroupNorm of 32 groups throughout: each layer subtracts the mean of a group over the
whole picture and divides by its spread, so a thing's colours shift with its ground (measured on version 4's VAE: 9 of
255 levels). `free` takes that out for training: a norm becomes a factor and an offset a channel, and the VAE a plain
convolutional network, which learns the colours of whole pictures from small crops. `bound` writes what was trained as
an ordinary AutoencoderKL that does the same:

- every convolution that writes what a norm reads has groups whose channels sum to 0, so the mean is 0 anyway;
- what a norm reads is so small that its variance is nothing beside GroupNorm's eps, so it divides by sqrt(eps).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from training import ENCODER, FREED, read_small, write_small

SMALL = 0.1
"""The largest spread of what a norm reads in the bound VAE, in sqrt(eps): its square is how far GroupNorm's factor can
move. In fp16 the convolutions' weights are then subnormal, with about three digits, as in bf16."""


class Affine(nn.Module):
    """What stands for a GroupNorm: a factor and an offset a channel. Remembers the spread of what it reads."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.bias = nn.Parameter(norm.bias.detach().clone())
        self.groups = norm.num_groups
        self.register_buffer("square", torch.zeros(norm.num_groups))
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


def writers(half: Any) -> Iterator[tuple[str, Any]]:
    """Yield (kind, convolution) of an encoder or decoder for all that a norm reads: "inner" between a resnet's two
    convolutions, "writes" into the stream from outside of it, "carries" from the stream into the stream."""
    yield "writes", half.conv_in
    for module in half.modules():
        kind = type(module).__name__
        if kind == "ResnetBlock2D":
            yield "inner", module.conv1
            yield "writes", module.conv2
            if module.conv_shortcut is not None:
                yield "carries", module.conv_shortcut
        elif kind in ("Downsample2D", "Upsample2D"):
            yield "carries", module.conv
        elif kind == "Attention":
            raise SystemExit("the VAE attends in its mid block; norms.py holds only VAEs that do not")


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
        for _, convolution in writers(half):
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
def bound(freed: Any, pictures: Tensor) -> Any:
    """Return an ordinary AutoencoderKL (eval) that does what the `freed` one does.

    `pictures` (B, 3, H, W) in [-1, 1] show how large the features get; they should be typical whole ones.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kind: Any = AutoencoderKL
    trained = freed.training
    freed.eval()
    norms = {name: module for name, module in freed.named_modules() if isinstance(module, Affine)}
    for norm in norms.values():
        norm.square.zero_()
    for picture in pictures:
        freed.decode(freed.encode(picture[None]).latent_dist.mode())
    freed.train(trained)
    plain = kind.from_config(freed.config).to(pictures.device).eval()
    for name, value in plain.named_parameters():
        owner, _, field = name.rpartition(".")
        value.copy_(getattr(freed.get_submodule(owner), field))  # a convolution's as its sums were taken out
    eps = {name: plain.get_submodule(name).eps for name in norms}

    for part in ("encoder", "decoder"):
        inner = {name: norm for name, norm in norms.items() if name.startswith(part) and name.endswith("norm2")}
        stream = {name: norm for name, norm in norms.items() if name.startswith(part) and name not in inner}
        scale = min(_small(norm.square, eps[name]) for name, norm in stream.items())
        for convolution_kind, convolution in writers(plain.get_submodule(part)):
            if convolution_kind == "inner":
                continue  # each has a scale of its own, below
            if convolution_kind == "writes":
                convolution.weight.mul_(scale)
            convolution.bias.mul_(scale)  # what carries reads small features and needs no smaller weights
        for name, norm in stream.items():
            plain.get_submodule(name).weight.mul_(_factor(scale, norm.square, eps[name], len(norm.weight)))
        for name, norm in inner.items():
            own = _small(norm.square, eps[name])
            convolution = plain.get_submodule(name.removesuffix("norm2") + "conv1")
            convolution.weight.mul_(own)
            convolution.bias.mul_(own)
            plain.get_submodule(name).weight.mul_(_factor(own, norm.square, eps[name], len(norm.weight)))
    return plain


def _small(square: Tensor, eps: float) -> float:
    """Return what to make features of these mean squares smaller by."""
    return SMALL * (eps / max(square.max().item(), 1e-12)) ** 0.5


def _factor(scale: float, square: Tensor, eps: float, channels: int) -> Tensor:
    """Return (channels,), what undoes GroupNorm's division of features that were made smaller by `scale`."""
    return ((scale**2 * square + eps).sqrt() / scale).repeat_interleave(channels // len(square))
