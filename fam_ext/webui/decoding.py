"""What the WebUI's VAE makes of a FAM latent is looked at before anything is saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import processing, shared
from torch import Tensor

from fam_ext.hosts.base import replace_once
from fam_ext.recipe import check_decoded
from fam_ext.webui.answers import answering
from fam_ext.webui.session import Session


def check_pictures(decoded: Any, latents: Tensor | None) -> None:  # noqa: ANN401
    """Raise `NonFiniteLatentError` where one of `decoded`, a list of (3, H, W) in [-1, 1], is no picture of its latent.

    The WebUI itself looks at the first value alone.
    """
    if latents is None or not getattr(decoded, "already_decoded", False):
        return
    for picture, latent in zip(decoded, latents, strict=True):
        check_decoded((picture[None].float().cpu() + 1) / 2, latent[None].cpu())


def decoding_checked(session: Session) -> Callable[[Any], Any]:
    """Return a wrapper of p.sample after which the WebUI's own decoding is checked, where an error can still end the
    generation: what p.sample returns stays a latent, which other scripts look at."""
    p = session.p

    def checked(previous: Callable[..., Any]) -> Callable[..., Any]:
        def decode_latent_batch(model: Any, batch: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            decoded = previous(model, batch, *args, **kwargs)
            check_pictures(decoded, batch)
            return decoded

        return answering(p)(decode_latent_batch)

    def make(previous: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            samples = previous(*args, **kwargs)
            is_decoded = getattr(samples, "already_decoded", False)
            if not is_decoded and session.latents is not None and not shared.state.interrupted:
                session.undo.callback(replace_once(processing, "decode_latent_batch", checked))
            return samples

        return sample

    return make
