"""Steers an ldm or sgm UNet and the samplers around it (A1111): a pass on the sampler's state and in the network.

Imports no host. What differs between hosts of this UNet comes in as `Traits`. Every hook is a small object on an
instance, there for one call of the sampler and put back in `finally`, last in first out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fam_ext.core.guide import NativeRecord
from fam_ext.core.schedule import NoiseLevel, Size
from fam_ext.errors import (
    AlreadyGuidedError,
    NonFiniteLatentError,
    UnsupportedModelError,
    UnsupportedSamplerError,
)
from fam_ext.hosts.base import LateChecks, replaced
from fam_ext.hosts.ldm_levels import NUM_TRAIN_TIMESTEPS, SigmaReader, level_at
from fam_ext.hosts.sites import Site, select_sites
from fam_ext.hosts.steering import Steering
from fam_ext.methods.base import NATIVE, OFF, TARGET, Condition, Pass

NOT_FINITE = "the hires latent has values that are not finite; use --no-half, --upcast-sampling or another VAE"

ONE_CALL = frozenset(
    (
        "sample_euler",
        "sample_euler_ancestral",
        "sample_lms",
        "sample_dpmpp_2m",
        "sample_dpmpp_2m_sde",
        "sample_dpmpp_3m_sde",
        "sample_lcm",
        "ddim",
        "ddim_cfgpp",
    )
)
"""Sampler functions that call the model with their state, once a step."""
TWO_CALLS = frozenset(
    (
        "sample_heun",
        "sample_dpm_2",
        "sample_dpm_2_ancestral",
        "sample_dpmpp_2s_ancestral",
        "sample_dpmpp_sde",
        "restart_sampler",
    )
)
"""Sampler functions that call it with the state, report the step, and call it again with an estimate."""
OTHERS = frozenset(("plms", "sample_dpm_fast", "sample_dpm_adaptive"))
FOLLOWING = (ONE_CALL | TWO_CALLS) - {"restart_sampler"}
"""Sampler functions whose states stand at the schedule's own levels, one after the other."""
_ADAPTIVE_CALLS = 3  # order 3: one call with the state and two with estimates, whether the step is taken or not


@dataclass(frozen=True)
class Traits:
    """What a host does around self-attention that a replacement must do too."""

    hypernetworks: Callable[[Tensor], tuple[Tensor, Tensor]] = field(default=lambda context: (context, context))
    """context -> (context of K, context of V)."""
    upcast: bool = False
    """Compute queries, keys and values in float32."""
    native_vector: Callable[[Tensor, Size], Tensor] = field(default=lambda vector, size: vector)
    """(y (rows, n), native latent size) -> y for the native pass: SDXL's size conditioning."""


# --- the network


def up_blocks(unet: nn.Module) -> list[list[Site]]:
    """Return the sites of each up-block, first to run first. An up-block ends with its Upsample.

    Raises `UnsupportedModelError` when `unet` has no output_blocks of the ldm kind.
    """
    output_blocks = getattr(unet, "output_blocks", None)
    if not isinstance(output_blocks, nn.ModuleList):
        raise UnsupportedModelError(
            f"the model's network is a {type(unet).__name__}; FAM steers the UNets of SD1.5, SD2.1 and SDXL"
        )
    blocks: list[list[Site]] = [[]]
    for index, block in enumerate(output_blocks):
        blocks[-1].extend(_sites_of(block, f"output_blocks.{index}"))
        if any(type(module).__name__ == "Upsample" for module in block.modules()):
            blocks.append([])
    return blocks


def _sites_of(block: nn.Module, prefix: str) -> Iterator[Site]:
    for name, transformer in block.named_modules():
        layers = getattr(transformer, "transformer_blocks", None)
        if not isinstance(layers, nn.ModuleList):
            continue
        for index, layer in enumerate(layers):
            attention = getattr(layer, "attn1", None)
            if isinstance(attention, nn.Module) and not getattr(layer, "disable_self_attn", False):
                yield Site(f"{prefix}.{name}.transformer_blocks.{index}.attn1", attention, transformer)


def rows_of(network_input: Tensor, latent: Tensor) -> Tensor:
    """Return for each row of the network's input the index of its picture in `latent` (B, C, H, W), int64 (rows,).

    By direction: a row is its picture's latent up to the sampler's scaling, whatever order and number of conditional,
    unconditional and AND rows the host chose.
    """
    if latent.shape[0] == 1:
        return torch.zeros(network_input.shape[0], dtype=torch.int64, device=network_input.device)
    rows = network_input[:, : latent.shape[1]].flatten(1).float()
    pictures = latent.flatten(1).float().to(rows.device)
    pictures = pictures / pictures.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return (rows @ pictures.T).argmax(dim=1)


@contextmanager
def steered_unet(
    unet: nn.Module, steering: Steering, *, traits: Traits | None = None
) -> Generator[list[Site], None, None]:
    """While open, each call of `unet` at the target's size goes through `steering`'s running pass.

    Gives the patched sites; a pass that leaves the network alone finds no hook in it. Raises `AlreadyGuidedError` on a
    second entry.
    """
    steered, traits = steering.active, traits or Traits()
    if steered is None or not touches_network(steered):
        yield []
        return
    if "_fam_guided" in unet.__dict__:
        raise AlreadyGuidedError("this model is being guided already; let that generation finish first")
    patches = steered.patches()
    sites = steering.place(patches, lambda pattern: select_sites(up_blocks(unet), pattern))
    sizes: dict[nn.Module, Size] = {}
    with ExitStack() as undo:
        unet.__dict__["_fam_guided"] = True
        undo.callback(unet.__dict__.pop, "_fam_guided", None)
        for transformer in dict.fromkeys(site.transformer for site in sites):
            handle = transformer.register_forward_pre_hook(_note_size(sizes), with_kwargs=True)
            undo.callback(handle.remove)
        hooks: list[SiteHook | UNetHook] = []
        undo.callback(lambda: [setattr(hook, "steering", Steering()) for hook in hooks])  # also one that is wrapped

        def installed(owner: nn.Module, make: Callable[[Callable[..., Tensor]], SiteHook | UNetHook]) -> None:
            def note(previous: Callable[..., Tensor]) -> SiteHook | UNetHook:
                hooks.append(make(previous))
                return hooks[-1]

            undo.enter_context(replaced(owner, "forward", note))

        for site in sites:
            installed(site.attention, functools.partial(SiteHook, site, steering, sizes, traits, site is sites[-1]))
        installed(unet, functools.partial(UNetHook, unet, steering, traits))
        yield sites


def touches_network(steered: Pass) -> bool:
    """Return whether a pass does anything to the network or around it."""
    return type(steered).around_model is not Pass.around_model or bool(steered.patches())


def _note_size(sizes: dict[nn.Module, Size]) -> Callable[..., None]:
    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        feature_map = args[0] if args else kwargs["x"]
        sizes[module] = (feature_map.shape[-2], feature_map.shape[-1])

    return note


class NativePassDone(Exception):  # noqa: N818  # a signal, not a fault
    """Raised by the last patched site in a native call, whose output nobody reads."""


class UNetHook:
    """The network's forward: a call with the sampler's state goes around the running pass."""

    def __init__(self, unet: nn.Module, steering: Steering, traits: Traits, previous: Callable[..., Tensor]) -> None:
        self.unet = unet
        self.steering = steering
        self.traits = traits
        self.previous = previous
        self._is_inside = False

    def __call__(self, x: Tensor, timesteps: Any = None, context: Any = None, y: Any = None, **kwargs: Any) -> Tensor:  # noqa: ANN401
        steering = self.steering
        steered, here, state = steering.active, steering.level, steering.latent
        if steered is None or here is None or state is None or self._is_inside or x.shape[-2:] != state.shape[-2:]:
            return self.previous(x, timesteps, context, y=y, **kwargs)

        def call(latent: Tensor, level: NoiseLevel, condition: Condition, *, phase: str = TARGET) -> Tensor:
            with steering.during(phase):
                if latent is x:
                    return self.previous(x, timesteps, context, y=y, **kwargs)
                return self._other(latent, level, x, condition.given, is_here=level is here)

        self._is_inside = True
        try:
            condition = Condition(lambda: rows_of(x, state), (timesteps, context, y))
            return steered.around_model(call, x, here, condition)
        finally:
            self._is_inside = False

    def _other(self, latent: Tensor, level: NoiseLevel, x: Tensor, given: Any, *, is_here: bool) -> Tensor:  # noqa: ANN401
        """Return the network's output for another latent than `x`, of any size, with `x`'s words."""
        timesteps, context, y = given
        size = (latent.shape[-2], latent.shape[-1])
        if x.shape[1] > latent.shape[1]:  # inpainting models carry mask and picture in further channels
            latent = torch.cat([latent, interpolate(x[:, latent.shape[1] :], size)], dim=1)
        if not is_here:
            timesteps = torch.full_like(timesteps, level.timestep)
        if y is not None:
            y = self.traits.native_vector(y, size)
        # the class's forward: what others put on the instance (ControlNet) is made for the target's size
        try:
            return type(self.unet).forward(self.unet, latent, timesteps, context, y=y)
        except NativePassDone:
            return latent


class SiteHook:
    """A self-attention layer's forward that lets the running pass attend, and its predecessor where it does not."""

    def __init__(
        self,
        site: Site,
        steering: Steering,
        sizes: dict[nn.Module, Size],
        traits: Traits,
        is_last: bool,
        previous: Callable[..., Tensor],
    ) -> None:
        self.site = site
        self.steering = steering
        self.sizes = sizes
        self.traits = traits
        self.is_last = is_last
        self.previous = previous

    def __call__(self, x: Tensor, context: Any = None, mask: Any = None, **kwargs: Any) -> Tensor:  # noqa: ANN401
        size = self.sizes.get(self.site.transformer)
        # reference-style ControlNet passes x itself as context; banks and merged tokens change the lengths
        is_self = (context is None or context is x) and mask is None and kwargs.get("additional_tokens") is None
        if self.steering.phase == OFF or size is None or not is_self or x.shape[1] != size[0] * size[1]:
            return self.previous(x, context=context, mask=mask, **kwargs)
        attention: Any = self.site.attention
        context_k, context_v = self.traits.hypernetworks(x)
        q, k, v = (
            _split_heads(projection(source), attention.heads)
            for projection, source in ((attention.to_q, x), (attention.to_k, context_k), (attention.to_v, context_v))
        )
        dtype = q.dtype
        if self.traits.upcast:
            q, k, v = q.float(), k.float(), v.float()
        out = self.steering.attend(self.site.name, q, k, v, size=size, scale=attention.scale)
        if self.is_last and self.steering.phase == NATIVE:
            raise NativePassDone
        if out is None:
            return self.previous(x, context=context, mask=mask, **kwargs)
        return attention.to_out(out.to(dtype).transpose(1, 2).flatten(2))


def _split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


# --- the sampler


class StateCalls:
    """Tells a model call with the sampler's state from one with an intermediate estimate.

    FM belongs on the state only (Eq. 3): a second-order solver divides an estimate's difference by the step, so a pull
    on the estimate would push the state the other way.
    """

    def __init__(self, function: str, *, steps: int, label: str | None = None) -> None:
        if function not in ONE_CALL | TWO_CALLS | OTHERS:
            raise UnsupportedSamplerError(
                f"FAM cannot act exactly on the state of sampler {label or function}; choose DPM++ 2M, Euler, Heun, "
                "DDIM or another of the WebUI's own samplers except UniPC"
            )
        self.function = function
        self._calls = 0
        self._estimates = 0
        self._steps = 0
        self._orders = _fast_orders(steps) if function == "sample_dpm_fast" else []
        self._state: Tensor | None = None

    def is_state(self, latent: Tensor) -> bool:
        """Return whether this call's `latent` is a state not seen yet; to be asked once a call."""
        self._calls += 1
        if self.function == "sample_dpm_adaptive":
            if self._calls % _ADAPTIVE_CALLS != 1:
                return False
            # a rejected step is tried again from the very same tensor, which FM has changed already
            fresh, self._state = latent is not self._state, latent
            return fresh
        if self.function == "plms":
            return self._calls != 2
        if self._estimates:
            self._estimates -= 1
            return False
        return True

    def stepped(self) -> None:
        """Note the sampler's own report of a step, which comes between the state's call and the estimates'."""
        if self.function in TWO_CALLS:
            self._estimates = 1
        elif self.function == "sample_dpm_fast":
            self._estimates = self._orders[min(self._steps, len(self._orders) - 1)] - 1
        self._steps += 1


def _fast_orders(calls: int) -> list[int]:
    """Return the order of each step of DPM fast, as k-diffusion divides `calls` among them."""
    whole = math.floor(calls / 3)
    return [3] * (whole - 1) + [2, 1] if calls % 3 == 0 else [3] * whole + [calls % 3]


def function_name(sampler: Any) -> str:  # noqa: ANN401
    """Return the name of the sampling function inside the host's sampler object."""
    return getattr(sampler.func, "__name__", str(sampler.funcname))


@contextmanager
def steered_sampler(sampler: Any, steering: Steering) -> Generator[None, None, None]:  # noqa: ANN401
    """While open, the running pass acts on the sampler's own latent before each step, and `steering` follows it."""
    steered = steering.active
    if steered is None:
        raise AssertionError("open the steering's pass before its sampler")
    calls = StateCalls(function_name(sampler), steps=steered.pictures.steps, label=_label(sampler))
    checks = LateChecks()

    def before_call(latent: Tensor, level: NoiseLevel, is_state: bool) -> None:
        checks.expect(torch.isfinite(latent).all(), NonFiniteLatentError(NOT_FINITE))
        checks.send()
        if is_state:
            changed = steered.before_step(latent, level)
            if changed is not latent:
                latent.copy_(changed)
        steering.latent, steering.level = latent, level

    height, width = steered.pictures.noise.shape[-2:]
    with _watched(sampler, before_call, calls, checks, size=(height, width)):
        yield
        checks.finish()


@contextmanager
def recorded_sampler(sampler: Any, record: NativeRecord) -> Generator[None, None, None]:  # noqa: ANN401
    """While open, `record` takes the sampler's state at each level: the native run that AM attends to."""
    function = function_name(sampler)
    if function not in ONE_CALL | TWO_CALLS | OTHERS:
        yield  # no record: the hires pass falls back on replay
        return
    calls, checks = StateCalls(function, steps=NUM_TRAIN_TIMESTEPS), LateChecks()
    if function == "sample_dpm_fast":  # without its number of calls, every call counts
        calls.function = "every call"

    def before_call(latent: Tensor, level: NoiseLevel, is_state: bool) -> None:
        checks.send()
        if is_state:
            record.add(latent, level)

    with _watched(sampler, before_call, calls, checks):
        yield
        checks.finish()


@contextmanager
def _watched(
    sampler: Any,  # noqa: ANN401
    before_call: Callable[[Tensor, NoiseLevel, bool], None],
    calls: StateCalls,
    checks: LateChecks,
    *,
    size: Size | None = None,
) -> Generator[None, None, None]:
    """While open, `before_call(latent, level, is_state)` precedes each model call at latent `size` (None: at any)."""
    reader = SigmaReader(sampler, checks if calls.function in FOLLOWING else None)

    def watch_forward(previous: Callable[..., Any]) -> Callable[..., Any]:
        def forward(x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if size is None or tuple(x.shape[-2:]) == size:
                is_state = calls.is_state(x)
                before_call(x, level_at(sampler, reader.read(sigma, is_state=is_state)), is_state)
            return previous(x, sigma, *args, **kwargs)

        return forward

    def watch_step(previous: Callable[..., Any]) -> Callable[..., Any]:
        def callback_state(info: Any) -> Any:  # noqa: ANN401
            calls.stepped()
            return previous(info)

        return callback_state

    with (
        reader.listening(),
        replaced(sampler.model_wrap_cfg, "forward", watch_forward),
        replaced(sampler, "callback_state", watch_step),
    ):
        yield


def _label(sampler: Any) -> str | None:  # noqa: ANN401
    return getattr(getattr(sampler, "config", None), "name", None)


def check_finite(latent: Tensor) -> None:
    """Raise `NonFiniteLatentError` when `latent` holds a value that is not finite."""
    if not bool(torch.isfinite(latent).all()):
        raise NonFiniteLatentError(NOT_FINITE)
