"""Renderers as Ray actors: many machines, one driver. Ray is imported here, inside functions, and nowhere else."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fam_ext.errors import Cancelled, PictureError, UsageError
from fam_ext.jobs import make
from fam_ext.jobs.contract import Progress, Renderer
from fam_ext.jobs.executors.workers import START_SECONDS, died_loading, portable, work_on
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.renderers import RendererSpec
from fam_ext.metadata.files import read_file
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule

log = logging.getLogger(__name__)

MAX_ACTORS = 64


def _ray() -> Any:  # noqa: ANN401  # an optional package without types for us
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a CPU actor leaves CUDA_VISIBLE_DEVICES alone
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports, reportMissingTypeStubs, reportUnknownVariableType]
    except ImportError:
        raise UsageError("--ray needs the ray package; install fam-hires[ray]") from None
    return ray  # pyright: ignore[reportUnknownVariableType]


class RenderActor:
    """One renderer in one Ray worker. Loads its model before the first item and keeps it."""

    def __init__(self, spec: RendererSpec, options: Job) -> None:
        self._spec = spec
        self._options = options
        self._renderer: Renderer | None = None
        self._cancelled = False

    def _ready(self) -> Renderer:
        if self._renderer is None:
            self._renderer = make.ready(self._spec.build)
        return self._renderer

    def load(self) -> tuple[str, Any]:
        """Return ("ready", None) or ("failed", error)."""
        try:
            self._ready()
            return "ready", None
        except Exception as error:
            return "failed", portable(error)

    def work(self, item: Item, data: bytes | None) -> tuple[str, Any]:
        """Return ("made", Packed) or ("failed", error). `data` is the source's bytes; None = read it from a shared
        file system."""
        try:
            if self._cancelled:
                raise Cancelled("the job was cancelled")
            progress = Progress(cancelled=lambda: self._cancelled)
            return "made", work_on(self._ready(), item, self._options, progress, data=data)
        except Exception as error:
            return "failed", portable(error)

    def cancel(self) -> None:
        """Drop the item under way between two steps."""
        self._cancelled = True


@dataclass
class _Actor:
    handle: Any
    item: Item | None = None
    future: Any = None
    began: float = 0.0
    warm: bool = False
    """Whether its model is loaded."""


class RaySlots:
    """`Slots` over Ray actors. The driver alone writes the journal and the files; an actor that is lost gives its
    item back."""

    def __init__(self, spec: RendererSpec, options: Job, run: RunRule) -> None:
        ray = self._ray = _ray()
        self._spec = spec
        self._options = options
        self._gpus = run.ray_gpus
        self._started_here = False
        address = None if run.ray == "local" else run.ray
        if not ray.is_initialized():
            quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
            if address is None:
                quiet |= {"include_dashboard": False, "num_cpus": max(2, run.workers, os.cpu_count() or 1)}
            else:
                quiet["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "")}}
                if "OMP_NUM_THREADS" not in os.environ:
                    del quiet["runtime_env"]
            try:
                ray.init(address=address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UsageError(
                    f"no Ray cluster answers at {run.ray!r} ({str(error).split(chr(10))[0][:120]}); "
                    "check the address, or choose --ray local"
                ) from None
            self._started_here = True
        self._actors = [self._start() for _ in range(self._count(run))]

    def _count(self, run: RunRule) -> int:
        if run.workers:
            return run.workers
        resources = self._ray.cluster_resources()
        if self._gpus > 0:
            count = int(resources.get("GPU", 0) / self._gpus)
            if count < 1:
                raise UsageError(
                    f"the Ray cluster has {resources.get('GPU', 0):g} GPUs and each worker asks for {self._gpus:g}; "
                    "add GPUs or set --ray-gpus 0"
                )
        else:
            count = int(resources.get("CPU", 1))
        return min(count, MAX_ACTORS)

    def _start(self) -> _Actor:
        remote = self._ray.remote(num_gpus=self._gpus, num_cpus=1, max_concurrency=2)(RenderActor)
        return _Actor(remote.remote(self._spec, self._options))

    def idle(self) -> int:
        """Return how many actors wait for an item."""
        return sum(actor.item is None for actor in self._actors)

    def busy(self) -> list[tuple[Item, float]]:
        """Return the items under way with the time (monotonic) they began."""
        return [(actor.item, actor.began) for actor in self._actors if actor.item is not None]

    def submit(self, item: Item) -> None:
        """Give an item to a waiting actor, which loads its model first."""
        actor = next(actor for actor in self._actors if actor.item is None)
        actor.item = item
        if actor.warm:
            self._work(actor, item)
        else:
            actor.began, actor.future = time.monotonic() + START_SECONDS, actor.handle.load.remote()

    @staticmethod
    def _work(actor: _Actor, item: Item) -> None:
        """Let a loaded actor draw. The source travels through the object store, so that actors elsewhere need no
        shared file system; a file that the driver cannot read is left to the actor to report."""
        try:
            data: bytes | None = read_file(item.source)
        except PictureError:
            data = None
        actor.began, actor.future = time.monotonic(), actor.handle.work.remote(item, data)

    def poll(self, seconds: float) -> Iterator[tuple[str, Item, Any]]:
        """Yield what is finished or lost within `seconds`. Steps are not reported over Ray."""
        by_future = {actor.future: actor for actor in self._actors if actor.item is not None}
        if not by_future:
            return
        ready, _ = self._ray.wait(list(by_future), num_returns=1, timeout=seconds)
        for future in ready:
            actor = by_future[future]
            item = actor.item
            if item is None:
                continue
            try:
                kind, value = self._ray.get(future)
            except self._ray.exceptions.RayError as error:
                log.info("an actor was lost: %s", error)
                self._replace(actor)
                reason = f"a Ray worker was lost ({type(error).__name__})"
                yield ("lost", item, reason) if actor.warm else ("failed", item, died_loading(reason))
                continue
            if kind == "ready":
                actor.warm = True
                self._work(actor, item)
                continue
            actor.item = actor.future = None
            yield kind, item, value

    def cancel(self) -> None:
        """Ask every actor to drop its item."""
        for actor in self._actors:
            actor.handle.cancel.remote()

    def kill(self, item: Item) -> None:
        """End the actor that holds an item, and replace it."""
        for actor in list(self._actors):
            if actor.item is not None and actor.item.id == item.id:
                self._replace(actor)

    def _replace(self, actor: _Actor) -> None:
        self._ray.kill(actor.handle)
        self._actors[self._actors.index(actor)] = self._start()

    def close(self) -> None:
        """End all actors, and the local cluster if we started it."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors = []
        if self._started_here:
            self._ray.shutdown()
