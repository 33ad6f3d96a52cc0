"""A device that is elsewhere: its tensors say so, compute on the CPU, refuse the CPU's, and count what crosses over."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")  # a type that torch knows and never tries to start; these tensors have values
aten = torch.ops.aten


class Elsewhere(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=DEVICE
        )
        made.inner = inner
        return made

    def __repr__(self):
        return f"Elsewhere({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, function, kinds, args=(), kwargs=None):
        raise RuntimeError(f"{function} on the fake device outside `with FakeDevice()`")


def no_grad(mode):
    mode.before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def grad_as_before(mode, *error):
    torch.set_grad_enabled(mode.before)


class Factories(TorchFunctionMode):
    """What never reaches a dispatch mode: torch.tensor(..., device=there) is made here and copied, as a GPU does, and
    `tolist` is a copy back."""

    def __torch_function__(self, function, kinds, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = torch.device(kwargs.pop("device"))
            return function(*args, **kwargs).to(device)
        if function is torch.Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].cpu().tolist()
        return function(*args, **kwargs)


class FakeDevice(TorchDispatchMode):
    """While open, `.to(DEVICE)` goes there. `counts`: to_device, to_host, sync, ops (views are not counted)."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()
        self.factories = Factories()
        self.depth = 0

    def __enter__(self):
        if not self.depth:  # it opens itself again to take an operation apart
            self.factories.__enter__()
            # a wrapper's views cannot be inference tensors
            self.plain = mock.patch.multiple(torch.inference_mode, __enter__=no_grad, __exit__=grad_as_before)
            self.plain.start()
        self.depth += 1
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.depth -= 1
        if not self.depth:
            self.plain.stop()
            self.factories.__exit__(*error)

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function._can_decompose():
            with self:
                result = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        flat = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        far = [value for value in flat if isinstance(value, Elsewhere)]
        wanted = kwargs.get("device")
        there = bool(far) if wanted is None else torch.device(wanted).type == DEVICE.type
        if not far and not there:
            return function(*args, **kwargs)
        near = [value for value in flat if not isinstance(value, Elsewhere)]
        if function in (aten._to_copy.default, aten.copy_.default):
            if far and (near or not there):
                into = isinstance(args[0], Elsewhere) and function is aten.copy_.default
                self.counts["to_device" if into else "to_host"] += 1
                waits = not (kwargs.get("non_blocking") or (function is aten.copy_.default and args[2:] == (True,)))
                if not into and waits:
                    self.counts["sync"] += 1
            elif near:
                self.counts["to_device"] += 1
        elif function in (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default):
            self.counts["sync"] += 1
        elif function in (aten.index.Tensor, aten.index_put_.default):
            self.counts["to_device"] += sum(value.dim() > 0 for value in near)
        elif any(value.dim() for value in near):
            raise RuntimeError(f"{function}: tensors on cpu and {DEVICE} at once")
        if not is_view(function):
            self.counts["ops"] += 1
        owners = {id(value.inner): value for value in far}
        inner_args, inner_kwargs = tree_map(lambda v: v.inner if isinstance(v, Elsewhere) else v, (args, kwargs))
        if "device" in inner_kwargs:
            inner_kwargs["device"] = torch.device("cpu")
        result = function(*inner_args, **inner_kwargs)
        if function is aten._to_copy.default and result is inner_args[0]:
            result = result.clone()
        back = not there or function is aten._local_scalar_dense.default

        def wrapped(value):
            if not isinstance(value, torch.Tensor) or back:
                return value
            owner = owners.get(id(value))
            return Elsewhere(value) if owner is None else owner

        if function is aten.copy_.default:
            return args[0]
        return tree_map(wrapped, result)


def is_view(function):
    return any(value.alias_info is not None and not value.alias_info.is_write for value in function._schema.returns)


def move(module):
    """Put a module's parameters and buffers on the fake device, in place."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, value in held.items():
                if value is not None and not isinstance(value, Elsewhere):
                    held[name] = Elsewhere(value.detach())
    return module


def moved(pipe):
    """Put every network of a diffusers pipeline on the fake device."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            move(part)
    return pipe
