"""What the WebUI's VAE makes of a FAM latent is looked at before anything is saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import devices, shared
from modules.processing import decode_latent_batch
from torch import Tensor

from fam_ext.hires import check_decoded


def check_pictures(decoded: Any, latents: Tensor | None) -> None:  # noqa: ANN401
    """Raise `NonFiniteLatentError` where one of `decoded`, a list of (3, H, W) in [-1, 1], is no picture of its latent.

    The WebUI itself looks at the first value alone.
    """
    if latents is None or not getattr(decoded, "already_decoded", False):
        return
    for picture, latent in zip(decoded, latents, strict=True):
        check_decoded((picture[None].float().cpu() + 1) / 2, latent[None].cpu())


def decoded_at_once(p: Any, latents_of: Callable[[], Tensor | None]) -> Callable[[Any], Any]:  # noqa: ANN401
    """Return a wrapper of p.sample that decodes as the WebUI does right after it, where an error can still end the
    generation, and checks."""

    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            samples = previous(*args, **kwargs)
            if getattr(samples, "already_decoded", False) or latents_of() is None or shared.state.interrupted:
                return samples
            if shared.opts.sd_vae_decode_method != "Full":
                p.extra_generation_params["VAE Decoder"] = shared.opts.sd_vae_decode_method
            decoded = decode_latent_batch(p.sd_model, samples, target_device=devices.cpu, check_for_nans=True)
            check_pictures(decoded, samples)
            return decoded

        return sample

    return make
