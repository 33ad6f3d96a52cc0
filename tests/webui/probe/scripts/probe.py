"""A WebUI extension for the tests: says how the whole host is, so that before and after can be compared."""

import hashlib
import inspect
import pickle
import random
import sys

import numpy as np
import torch
from modules import script_callbacks, scripts, sd_samplers, sd_samplers_cfg_denoiser, sd_vae, shared


def _hash(value):
    return hashlib.sha256(pickle.dumps(value)).hexdigest()[:16]


def _hooks(model):
    """Every forward that stands on an instance, and every hook, by module."""
    found = {}
    for name, module in model.named_modules():
        hooks = [len(module._forward_hooks), len(module._forward_pre_hooks)]
        own = id(module.__dict__["forward"]) if "forward" in module.__dict__ else 0
        if any(hooks) or own:
            found[name] = [*hooks, own]
    return found


def _axes():
    """The X/Y/Z plot's axes: what adds to them once must not do so again when the page is built anew."""
    (plot,) = (entry.module for entry in scripts.scripts_data if entry.script_class.__module__ == "xyz_grid.py")
    return [option.label for option in plot.axis_options]


def _functions():
    """Every function and method of the WebUI's own modules by its place: one that stands in for another shows."""
    found = {}
    for name, module in list(sys.modules.items()):
        if not name.startswith("modules.") or module is None:
            continue
        for key, value in list(vars(module).items()):
            if inspect.isclass(value) and value.__module__ == name:
                found |= {f"{name}.{key}.{part}": id(inner) for part, inner in vars(value).items() if callable(inner)}
            elif inspect.isfunction(value):
                found[f"{name}.{key}"] = id(value)
    return _hash(sorted(found.items()))


def _weights(model):
    """What a LoRA, a hypernetwork, a refiner or a move to another precision would change."""
    parts = {name: (str(value.dtype), str(value.device)) for name, value in model.state_dict().items()}
    total = sum(float(value.double().sum()) for value in model.state_dict().values() if value.is_floating_point())
    return [_hash(parts), total, model.training]


def state():
    return {
        "functions": _functions(),
        "weights": _weights(shared.sd_model),
        "hypernetworks": len(shared.loaded_hypernetworks),
        "opts": {name: repr(value) for name, value in sorted(shared.opts.data.items())},
        "model": shared.sd_model.sd_checkpoint_info.title,
        "vae": str(sd_vae.loaded_vae_file),
        "hooks": _hooks(shared.sd_model),
        "denoiser": sd_samplers_cfg_denoiser.CFGDenoiser.forward.__qualname__,
        "samplers": [sampler.name for sampler in sd_samplers.all_samplers],
        "upscalers": [upscaler.name for upscaler in shared.sd_upscalers],
        "callbacks": {name: len(found) for name, found in script_callbacks.callback_map.items()},
        "scripts": [script.title() for script in scripts.scripts_txt2img.scripts + scripts.scripts_img2img.scripts],
        "axes": _axes(),
        "flags": [
            shared.state.interrupted,
            shared.state.skipped,
            shared.state.stopping_generation,
            shared.state.job_count,
            shared.state.job,
        ],
        "random": [_hash(torch.get_rng_state().tolist()), _hash(np.random.get_state()), _hash(random.getstate())],
    }


def _started(demo, app):
    app.add_api_route("/probe", state, methods=["GET"])
    # gradio 3.41 keeps the task of a page that left while its event waited, and Reload UI would wait for it forever
    demo.server.config.timeout_graceful_shutdown = 10


script_callbacks.on_app_started(_started)
