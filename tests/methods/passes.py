"""FAM's own pass for tests that look at a host alone, and a pass that only notes."""

import weakref

from fam_ext.core.config import FamConfig
from fam_ext.methods.base import Pass, Pictures, Stage
from fam_ext.methods.fam import Fam


def fam_pass(config=None, *, native, target, noise, native_noise=None, steps=10, record=None, **more):
    """Return the pass that FAM begins with these latents, as the recipe does."""
    pictures = Pictures(native, target, noise, native_noise, steps=steps, record=record, **more)
    stage = Stage((8 * target.shape[-2], 8 * target.shape[-1]))
    return Fam(config or FamConfig()).begin(stage, pictures)


def watch_maps(steered, last):
    """Return two lists: FAM's native maps so far, and how many of them live whenever the module `last` runs."""
    kept, alive, keep = [], [], steered.guide.keep_map

    def keep_map(site, q, k, *, size):
        kept.extend(weakref.ref(tensor) for tensor in (q, k))
        keep(site, q, k, size=size)

    steered.guide.keep_map = keep_map
    last.register_forward_pre_hook(lambda module, args: alive.append(sum(ref() is not None for ref in kept)))
    return kept, alive


class Notes(Pass):
    """Notes each state's level, and puts `replace[k]` in the place of the k-th."""

    def __init__(self, pictures, replace=None):
        super().__init__(pictures)
        self.levels = []
        self.replace = replace or {}

    def before_step(self, state, level):
        self.levels.append(level)
        return self.replace.get(len(self.levels) - 1, state)
