"""What this WebUI has, and FAM can steer: anything else is refused by its name before a picture begins."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from modules import sd_models, sd_samplers, sd_schedulers, shared

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, UnsupportedModelError
from fam_ext.hosts.ldm.sampler import StateCalls, function_name
from fam_ext.hosts.ldm.unet import up_blocks
from fam_ext.hosts.sites import select_sites
from fam_ext.methods.capabilities import ATTENTION, CONVOLUTION, FEATURE_SIZE, NATIVE_PASS, SAMPLER_STATE
from fam_ext.methods.catalog import Entry, entry_for

GIVES = frozenset((SAMPLER_STATE, NATIVE_PASS, ATTENTION, CONVOLUTION, FEATURE_SIZE))
"""What a method may need of this WebUI."""


def check_known(name: str, value: str, choices: Collection[str]) -> None:
    """Raise `ConfigError` where `value` is none of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose from {', '.join(choices)}")


def upscalers() -> list[str]:
    """Return the names of the WebUI's latent and pixel upscalers."""
    return [*shared.latent_upscale_modes, *(upscaler.name for upscaler in shared.sd_upscalers)]


def schedules() -> list[str]:
    """Return the names of the WebUI's schedules, as its page shows them."""
    return [schedule.label for schedule in sd_schedulers.schedulers]


def checkpoint(name: str, *, label: str = "model", in_part: bool = True) -> str:
    """Return the title of the checkpoint that `name` means, or, `in_part`, is a part of. Raises `ConfigError`."""
    found = sd_models.get_closet_checkpoint_match(name) if in_part else sd_models.checkpoint_aliases.get(name)
    if found is None:
        raise ConfigError(f"{label} is {name!r}; choose from {', '.join(sd_models.checkpoint_tiles(use_short=True))}")
    return found.title


def loaded() -> tuple[str, str]:
    """Return what draws where a picture names neither: the hash, else the name, of the settings' checkpoint; their
    VAE."""
    info = sd_models.checkpoint_aliases.get(shared.opts.sd_model_checkpoint)
    # as the WebUI does when it loads it, and keeps; None where it runs with --no-hashing
    found = "" if info is None else info.shorthash or info.calculate_shorthash() or info.name
    return found, shared.opts.sd_vae


def check_method(name: str, sampler: str, model: Any) -> Entry:  # noqa: ANN401
    """Return the method's entry. Raises a `FamError` where the WebUI has no such sampler, or does not give what the
    method needs, or the sampler does not."""
    check_known("sampler", sampler, sd_samplers.all_samplers_map)
    entry = entry_for(name, GIVES, where="the WebUI")
    if SAMPLER_STATE in entry.needs:
        StateCalls(function_name(sd_samplers.create_sampler(sampler, model)), steps=1, label=sampler)
    return entry


def check_model(model: Any, config: FamConfig, *, sampling: bool = False) -> None:  # noqa: ANN401
    """Raise a `FamError` where FAM cannot steer the loaded model as `config` asks.

    The WebUI puts the SD Unet of its settings in place as a generation begins: before `sampling` those count.
    """
    from modules import sd_unet

    name = getattr(getattr(model, "sd_checkpoint_info", None), "name_for_extra", type(model).__name__)
    if getattr(model, "is_sd3", False) or not hasattr(getattr(model, "model", None), "diffusion_model"):
        raise UnsupportedModelError(f"FAM cannot steer checkpoint {name}; choose an SD1.5, SD2.1 or SDXL checkpoint")
    unet = sd_unet.current_unet if sampling else sd_unet.get_unet_option()
    if config.am and config.attention > 0 and unet is not None:
        raise UnsupportedModelError(
            "Attention Modulation cannot reach into the SD Unet that is active; set SD Unet to None, or untick it"
        )
    if config.am and config.attention > 0:
        select_sites(up_blocks(model.model.diffusion_model), config.am_sites)  # raises where nothing matches
