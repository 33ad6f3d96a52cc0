"""What FM and AM add to one step of a hires pass, on a UNet of SDXL's layout with few channels. By a WebUI's Python:

    venv/bin/python bench/webui_hires_step.py WEBUI [--channels 32] [--native 128] [--scales 2 4] [--repeats 5]

Plain and guided steps alternate in one run; the ratio is of their minima. The guided step holds all that FAM does in
it: FM on the state, the truncated native pass, the blend in every site.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))


def network(webui, channels):
    sys.path.insert(0, str(Path(webui) / "repositories" / "generative-models"))
    from sgm.modules.diffusionmodules.openaimodel import UNetModel

    torch.manual_seed(0)
    unet = UNetModel(
        in_channels=4,
        out_channels=4,
        model_channels=channels,
        attention_resolutions=[4, 2],
        num_res_blocks=2,
        channel_mult=[1, 2, 4],
        num_head_channels=max(8, channels // 5),
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        transformer_depth=[1, 2, 10],
        context_dim=[64] * 10,
        num_classes="sequential",
        adm_in_channels=1536,
        spatial_transformer_attn_type="softmax",
        use_checkpoint=False,
        legacy=False,
    )
    for module in unet.modules():  # the WebUI's own attention: nothing holds a matrix of all tokens
        if type(module).__name__ == "CrossAttention":
            module.forward = _sdpa(module)
    return unet.eval().requires_grad_(False)


def _sdpa(module):
    def forward(x, context=None, mask=None, **kwargs):
        context = x if context is None else context
        q, k, v = (
            projection(source).unflatten(2, (module.heads, -1)).transpose(1, 2)
            for projection, source in ((module.to_q, x), (module.to_k, context), (module.to_v, context))
        )
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return module.to_out(out.transpose(1, 2).flatten(2))

    return forward


@torch.no_grad()
def measure(unet, native, scale, repeats):
    from fam_ext.core.config import FamConfig
    from fam_ext.core.schedule import NoiseLevel
    from fam_ext.hosts.ldm.unet import steered_unet
    from fam_ext.hosts.steering import Steering
    from fam_ext.methods.base import Pictures, Stage
    from fam_ext.methods.fam import Fam

    level = NoiseLevel(500.0, 1.0, 2.0)
    small, large = torch.randn(1, 4, native, native), torch.randn(1, 4, scale * native, scale * native)
    pictures = Pictures(small, large, torch.randn_like(large), None, steps=50)
    steered, steering = Fam(FamConfig()).begin(Stage((8 * scale * native,) * 2), pictures), Steering()
    state = steered.initial(level)
    context, vector, timesteps = torch.randn(2, 77, 64), torch.randn(2, 1536), torch.full((2,), 500.0)

    def step(latent):
        return unet((latent / level.scale).repeat(2, 1, 1, 1), timesteps, context, y=vector)

    times = {"plain": [], "guided": []}
    for _ in range(repeats):
        began = time.perf_counter()
        step(state)
        times["plain"].append(time.perf_counter() - began)
        with steering.running(steered), steered_unet(unet, steering):
            steering.latent, steering.level = state, level
            began = time.perf_counter()
            step(steered.before_step(state, level))
            times["guided"].append(time.perf_counter() - began)
    return min(times["plain"]), min(times["guided"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("webui")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--native", type=int, default=128, help="side of the native latent")
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    unet = network(options.webui, options.channels)
    for scale in options.scales:
        plain, guided = measure(unet, options.native, scale, options.repeats)
        print(f"{scale}x: plain {plain:.2f} s, guided {guided:.2f} s, +{100 * (guided / plain - 1):.1f} %", flush=True)
