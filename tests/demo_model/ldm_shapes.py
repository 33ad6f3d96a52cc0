"""What ldm's and sgm's code build from a yaml, as names and shapes: written from their constructors, independent of the
export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def checkpoint_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return every weight that the UNet and the VAE of the yaml `config` have, under their checkpoint names."""
    params = config["model"]["params"]
    unet = params["unet_config" if "unet_config" in params else "network_config"]["params"]
    vae = params["first_stage_config"]["params"]
    pairs = [*_prefixed("model.diffusion_model", _unet(unet)), *_prefixed("first_stage_model", _vae(vae))]
    shapes = dict(pairs)
    assert len(shapes) == len(pairs)
    return shapes


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    for name, shape in shapes:
        yield f"{prefix}.{name}", shape


def _norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, width: int, out: int, *, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (out, width)
    if bias:
        yield f"{name}.bias", (out,)


def _conv(name: str, width: int, out: int, kernel: int = 3) -> Shapes:
    yield f"{name}.weight", (out, width, kernel, kernel)
    yield f"{name}.bias", (out,)


def _unet_resnet(name: str, width: int, out: int, time_width: int) -> Shapes:
    yield from _norm(f"{name}.in_layers.0", width)
    yield from _conv(f"{name}.in_layers.2", width, out)
    yield from _linear(f"{name}.emb_layers.1", time_width, out)
    yield from _norm(f"{name}.out_layers.0", out)
    yield from _conv(f"{name}.out_layers.3", out, out)
    if width != out:
        yield from _conv(f"{name}.skip_connection", width, out, 1)


def _transformer(name: str, width: int, context: int) -> Shapes:
    yield from _norm(f"{name}.norm", width)
    for projection in ("proj_in", "proj_out"):
        yield from _linear(f"{name}.{projection}", width, width)
    block = f"{name}.transformer_blocks.0"
    for attention, source in (("attn1", width), ("attn2", context)):
        yield from _linear(f"{block}.{attention}.to_q", width, width, bias=False)
        yield from _linear(f"{block}.{attention}.to_k", source, width, bias=False)
        yield from _linear(f"{block}.{attention}.to_v", source, width, bias=False)
        yield from _linear(f"{block}.{attention}.to_out.0", width, width)
    yield from _linear(f"{block}.ff.net.0.proj", width, 8 * width)  # a gated unit: twice the four-fold width
    yield from _linear(f"{block}.ff.net.2", 4 * width, width)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _norm(f"{block}.{norm}", width)


def _unet(params: Mapping[str, Any]) -> Shapes:
    first, context, layers = params["model_channels"], params["context_dim"], params["num_res_blocks"]
    time_width = 4 * first
    yield from _linear("time_embed.0", first, time_width)
    yield from _linear("time_embed.2", time_width, time_width)
    if params.get("num_classes") == "sequential":
        yield from _linear("label_emb.0.0", params["adm_in_channels"], time_width)
        yield from _linear("label_emb.0.2", time_width, time_width)
    yield from _conv("input_blocks.0.0", params["in_channels"], first)
    skips, width, index, scale = [first], first, 1, 1
    levels = list(enumerate(params["channel_mult"]))
    for level, multiple in levels:
        for _ in range(layers):
            yield from _unet_resnet(f"input_blocks.{index}.0", width, multiple * first, time_width)
            width = multiple * first
            if scale in params["attention_resolutions"]:
                yield from _transformer(f"input_blocks.{index}.1", width, context)
            skips.append(width)
            index += 1
        if level != len(levels) - 1:
            yield from _conv(f"input_blocks.{index}.0.op", width, width)
            skips.append(width)
            index, scale = index + 1, scale * 2
    yield from _unet_resnet("middle_block.0", width, width, time_width)
    yield from _transformer("middle_block.1", width, context)
    yield from _unet_resnet("middle_block.2", width, width, time_width)
    index = 0
    for level, multiple in reversed(levels):
        for layer in range(layers + 1):
            yield from _unet_resnet(f"output_blocks.{index}.0", width + skips.pop(), multiple * first, time_width)
            width, place = multiple * first, 1
            if scale in params["attention_resolutions"]:
                yield from _transformer(f"output_blocks.{index}.1", width, context)
                place = 2
            if level and layer == layers:
                yield from _conv(f"output_blocks.{index}.{place}.conv", width, width)
                scale //= 2
            index += 1
    yield from _norm("out.0", width)
    yield from _conv("out.2", first, params["out_channels"])


def _vae_resnet(name: str, width: int, out: int) -> Shapes:
    yield from _norm(f"{name}.norm1", width)
    yield from _conv(f"{name}.conv1", width, out)
    yield from _norm(f"{name}.norm2", out)
    yield from _conv(f"{name}.conv2", out, out)
    if width != out:
        yield from _conv(f"{name}.nin_shortcut", width, out, 1)


def _vae_middle(name: str, width: int, attn_type: str) -> Shapes:
    yield from _vae_resnet(f"{name}.mid.block_1", width, width)
    yield from _vae_resnet(f"{name}.mid.block_2", width, width)
    if attn_type == "vanilla":
        yield from _norm(f"{name}.mid.attn_1.norm", width)
        for projection in ("q", "k", "v", "proj_out"):
            yield from _conv(f"{name}.mid.attn_1.{projection}", width, width, 1)


def _vae(params: Mapping[str, Any]) -> Shapes:
    dd, embed = params["ddconfig"], params["embed_dim"]
    widths = [dd["ch"] * multiple for multiple in dd["ch_mult"]]
    yield from _conv("encoder.conv_in", dd["in_channels"], dd["ch"])
    width = dd["ch"]
    for level, out in enumerate(widths):
        for layer in range(dd["num_res_blocks"]):
            yield from _vae_resnet(f"encoder.down.{level}.block.{layer}", width, out)
            width = out
        if level != len(widths) - 1:
            yield from _conv(f"encoder.down.{level}.downsample.conv", width, width)
    yield from _vae_middle("encoder", width, dd["attn_type"])
    yield from _norm("encoder.norm_out", width)
    yield from _conv("encoder.conv_out", width, 2 * dd["z_channels"])
    yield from _conv("quant_conv", 2 * dd["z_channels"], 2 * embed, 1)
    yield from _conv("post_quant_conv", embed, dd["z_channels"], 1)
    yield from _conv("decoder.conv_in", dd["z_channels"], width)
    yield from _vae_middle("decoder", width, dd["attn_type"])
    for level, out in reversed(list(enumerate(widths))):
        for layer in range(dd["num_res_blocks"] + 1):
            yield from _vae_resnet(f"decoder.up.{level}.block.{layer}", width, out)
            width = out
        if level != 0:
            yield from _conv(f"decoder.up.{level}.upsample.conv", width, width)
    yield from _norm("decoder.norm_out", width)
    yield from _conv("decoder.conv_out", width, dd["out_ch"])
