"""One side of the golden comparison: python -m tests.golden.side OUT.npz, with the checkout to run first on PYTHONPATH.

Runs the embedded model at small sizes through `hires`, and ldm's own UNet through `hosts.ldm`, and keeps every latent
that a network was given and every one it gave back. Uses public names only, so that it can run old and new code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from tests.hosts import ldm_toys

STEPS = 4
NATIVE = (96, 128)
SAMPLERS = ("DDIM", "Euler", "Euler a", "LMS", "Heun", "DPM++ 2M", "DPM++ 2M SDE", "DPM++ SDE", "UniPC", "LCM")
CASES: dict[str, Callable[[], None]] = {}
trace: list[np.ndarray] = []


def case(name: str, run: Callable[[], None]) -> None:
    assert name not in CASES, name
    CASES[name] = run


@contextmanager
def traced(network_class: type) -> Iterator[None]:
    """While open, what goes into and comes out of every network of this class is kept, native passes too."""
    forward = network_class.forward

    def kept(self, latent, *args, **kwargs):
        trace.append(latent.detach().float().numpy().copy())
        out = forward(self, latent, *args, **kwargs)
        tensor = out if isinstance(out, torch.Tensor) else out[0]
        if tensor.shape != latent.shape:
            return out  # a native call that was cut short: nobody reads it
        trace.append(tensor.detach().float().numpy().copy())
        return out

    network_class.forward = kept
    try:
        yield
    finally:
        network_class.forward = forward


def standalone_cases() -> None:
    from fam_ext import hires, standalone
    from fam_ext.core.config import FamConfig

    host = standalone.load_pipeline(device="cpu")

    def generated(*, size=(192, 256), sampler="DDIM", schedule="Automatic", method="fam", cfg_scale=5.0, **dials):
        def run() -> None:
            sampling = hires.Sampling("a red apple", "blurry", 3, STEPS, sampler, schedule, cfg_scale)
            native = hires.generate_native(host, size=NATIVE, sampling=sampling)
            low_memory = dials.pop("low_memory", False)
            done = hires.upscale(
                host,
                native,
                size=size,
                sampling=sampling,
                method=method,
                config=FamConfig(**dials),
                low_memory=low_memory,
            )
            trace.append(np.asarray(done.image))

        return run

    def from_file(**dials):
        def run() -> None:
            sampling = hires.Sampling("a red apple", "", 3, STEPS, "DPM++ 2M", "Automatic", 5.0)
            native = hires.generate_native(host, size=NATIVE, sampling=sampling).image
            trace.clear()
            done = hires.upscale(host, native, size=(192, 256), sampling=sampling, config=FamConfig(**dials))
            trace.append(np.asarray(done.image))

        return run

    for method in ("fam", "direct", "direct-from-native", "skip-residual"):
        for sampler in ("DDIM", "Euler a", "UniPC"):
            case(f"method/{method}/{sampler}", generated(method=method, sampler=sampler))
    for sampler in SAMPLERS:
        case(f"sampler/{sampler}", generated(sampler=sampler))
        case(f"sampler/{sampler}/late", generated(sampler=sampler, start=0.6))
    for sampler in ("Euler", "DPM++ 2M", "DPM++ 2M SDE"):
        for schedule in ("Uniform", "Karras", "Exponential"):
            case(f"schedule/{sampler}/{schedule}", generated(sampler=sampler, schedule=schedule))
    for size in ((96, 128), (192, 128), (288, 384), (200, 264), (96, 256)):
        case(f"size/{size[1]}x{size[0]}", generated(size=size))
    for upsample in ("latent_bicubic", "latent_bilinear", "latent_nearest", "pixel_bicubic", "pixel_lanczos"):
        case(f"upsample/{upsample}", generated(upsample=upsample))
    dials = {
        "no-am": {"am": False},
        "no-fm": {"fm": False},
        "cycles": {"cutoff": 8, "cutoff_reference": "cycles"},
        "target": {"cutoff_reference": "target"},
        "constant": {"reference": "constant"},
        "nearest": {"am_interp": "nearest"},
        "replay": {"am_source": "replay"},
        "swap": {"attention": 1.0},
        "windows": {"fm_window": (1.0, 0.4), "am_window": (0.8, 0.2)},
        "invariant": {"step_invariant": True},
        "sites": {"am_sites": "up_blocks.1.*, up_blocks.2.*"},  # not what auto means, whatever the model's layout
        "unguided": {"cfg_scale": 1.0},
        "low-memory": {"low_memory": True},
    }
    for name, changes in dials.items():
        case(f"dial/{name}", generated(**changes))
    case("file/balanced-like", from_file(upsample="pixel_lanczos", start=0.7))
    case("file/paper", from_file(upsample="latent_bicubic"))


def ldm_cases() -> None:
    """A1111's network and samplers, under our hooks: two rows a picture, two pictures in one batch."""
    from fam_ext.core.config import FamConfig
    from fam_ext.core.guide import HiresGuide

    try:
        from fam_ext.hosts.ldm import sampler as ldm_sampler
        from fam_ext.hosts.ldm import schedule as ldm_schedule
        from fam_ext.hosts.ldm import unet as ldm_unet
    except ImportError:  # before the folder
        from fam_ext.hosts import ldm as ldm_unet

        ldm_sampler = ldm_schedule = ldm_unet

    def sampled(kind: str, function: str, **dials):
        def run() -> None:
            unet = ldm_toys.unet(kind)
            sampler = ldm_toys.Sampler(function, steps=STEPS)
            generator = torch.Generator().manual_seed(1)
            context = torch.randn(4, 5, ldm_toys.CONTEXT, generator=generator)

            def apply_model(x, t, **kwargs):
                out = unet(torch.cat([x, x]), torch.cat([t, t]), context=context)
                uncond, cond = out.chunk(2)
                return uncond + 3 * (cond - uncond)

            sampler.inner.inner_model.apply_model = apply_model
            native = torch.randn(2, 4, 8, 8, generator=generator)
            latents = {
                "native": native,
                "target": torch.nn.functional.interpolate(native, (16, 16), mode="bicubic"),
                "noise": torch.randn(2, 4, 16, 16, generator=generator),
            }
            level = ldm_schedule.level_at(sampler, float(sampler.sigmas[0]))
            x = level.signal * latents["target"] + level.noise * latents["noise"]
            with ExitStack() as hooks:
                if hasattr(ldm_unet, "guided_unet"):  # before passes
                    guide, position = HiresGuide(FamConfig(**dials), steps=STEPS, **latents), ldm_unet.Position()
                    hooks.enter_context(ldm_unet.guided_unet(unet, guide, position=position))
                    hooks.enter_context(ldm_sampler.guided_sampler(sampler, guide, position=position))
                else:
                    from fam_ext.hosts.steering import Steering
                    from tests.methods.passes import fam_pass

                    steering = Steering()
                    hooks.enter_context(steering.running(fam_pass(FamConfig(**dials), steps=STEPS, **latents)))
                    hooks.enter_context(ldm_unet.steered_unet(unet, steering))
                    hooks.enter_context(ldm_sampler.steered_sampler(sampler, steering))
                trace.append(sampler.run(x).numpy().copy())

        return run

    for kind in ("sd15", "sdxl"):
        for function in (
            "sample_euler",
            "sample_euler_ancestral",
            "sample_heun",
            "sample_dpmpp_2m",
            "sample_dpmpp_sde",
        ):
            case(f"ldm/{kind}/{function}", sampled(kind, function))
    case("ldm/sd15/no-am", sampled("sd15", "sample_euler", am=False))
    case("ldm/sd15/nearest", sampled("sd15", "sample_euler", am_interp="nearest"))


def main() -> None:
    import warnings

    from diffusers import UNet2DConditionModel

    warnings.simplefilter("ignore")
    classes = [UNet2DConditionModel]
    standalone_cases()
    if ldm_toys.HAS_LDM and ldm_toys.HAS_K_DIFFUSION:
        from ldm.modules.diffusionmodules.openaimodel import UNetModel

        classes.append(UNetModel)
        ldm_cases()
    found: dict[str, np.ndarray] = {}
    for name, run in CASES.items():
        trace.clear()
        with ExitStack() as open_traces:
            for network_class in classes:
                open_traces.enter_context(traced(network_class))
            with torch.inference_mode():
                run()
        found |= {f"{name}#{index:03d}": array for index, array in enumerate(trace)}
    np.savez(sys.argv[1], **found)


if __name__ == "__main__":
    main()
