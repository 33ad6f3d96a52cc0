"""What each pass over an upsampled latent cost: time, network calls by size, operations. For the tests and bench/."""

import time
from collections import Counter

from modules import script_callbacks, sd_samplers_kdiffusion, shared
from torch.utils._python_dispatch import TorchDispatchMode

passes = []
counting = [False]


class Operations(TorchDispatchMode):
    """Counts every operation by its name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def watched(sample_img2img):
    def sample(self, *args, **kwargs):
        calls, operations = Counter(), Operations()
        unet = shared.sd_model.model.diffusion_model

        def note(module, given):  # the inputs' blocks run in each call, also in one that is cut short
            calls["{2} x {3}".format(*given[0].shape)] += 1

        hook = unet.input_blocks[0].register_forward_pre_hook(note)
        began = time.perf_counter(), time.thread_time()
        try:
            if counting[0]:
                with operations:
                    return sample_img2img(self, *args, **kwargs)
            return sample_img2img(self, *args, **kwargs)
        finally:
            seconds = time.perf_counter() - began[0], time.thread_time() - began[1]
            hook.remove()
            passes.append(
                {"wall": seconds[0], "cpu": seconds[1], "calls": dict(calls), "operations": dict(operations.counts)}
            )

    return sample


def last_pass(count: bool = False):
    """The last pass; `count` says whether the next one counts its operations, which makes it slow."""
    counting[0] = count
    return passes[-1] if passes else None


sd_samplers_kdiffusion.KDiffusionSampler.sample_img2img = watched(
    sd_samplers_kdiffusion.KDiffusionSampler.sample_img2img
)
script_callbacks.on_app_started(lambda demo, app: app.add_api_route("/probe/pass", last_pass, methods=["GET"]))
