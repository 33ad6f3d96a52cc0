"""Ray actors as the driver sees them, on a cluster that is this process; `test_ray.py` asks a real one."""

import logging
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fam_ext.errors import Cancelled, LoadError, UsageError
from fam_ext.jobs.executors.ray import MAX_ACTORS, RaySlots, RenderActor
from fam_ext.jobs.executors.workers import START_SECONDS
from fam_ext.jobs.journal.rows import Item
from fam_ext.jobs.make import Packed
from fam_ext.options.job import Job
from fam_ext.options.parts import RunRule
from fam_ext.options.request import HiresRequest
from tests.jobs.fakes import SPEC, FakeSpec, make_picture


class RayError(Exception):
    pass


class Future:
    def __init__(self, value: object) -> None:
        self.value, self.done = value, True


class Handle:
    """An actor in this process; a call is answered at once, and read when the future is `done`."""

    def __init__(self, *arguments) -> None:
        self.actor, self.lost, self.asked = RenderActor(*arguments), False, []
        for name in ("load", "work", "cancel"):
            setattr(self, name, SimpleNamespace(remote=self._call(name)))

    def _call(self, name: str):
        def call(*arguments) -> Future:
            self.asked.append(name)
            return Future(getattr(self.actor, name)(*arguments))

        return call


class Cluster(ModuleType):
    def __init__(self, *, up: bool = False, refuses: bool = False, **resources: float) -> None:
        super().__init__("ray")
        self.up, self.refuses, self.resources = up, refuses, resources
        self.exceptions = SimpleNamespace(RayError=RayError)
        self.handles: list[Handle] = []
        self.killed: list[Handle] = []
        self.init_with: dict[str, object] | None = None
        self.actors_ask: dict[str, float] = {}

    def is_initialized(self) -> bool:
        return self.up

    def init(self, **words: object) -> None:
        if self.refuses:
            raise ConnectionError("nobody there\nand more")
        self.up, self.init_with = True, words

    def shutdown(self) -> None:
        self.up = False

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, **asks: float):
        self.actors_ask = asks

        def start(*arguments) -> Handle:
            self.handles.append(Handle(*arguments))
            return self.handles[-1]

        return lambda actor: SimpleNamespace(remote=start)

    def wait(self, futures: list[Future], *, num_returns: int, timeout: float):
        return [future for future in futures if future.done][:num_returns], []

    def get(self, future: Future) -> object:
        if any(handle.lost for handle in self.handles):
            raise RayError("the actor died")
        return future.value

    def kill(self, handle: Handle) -> None:
        self.killed.append(handle)


def cluster(monkeypatch, **words) -> Cluster:
    found = Cluster(**words)
    monkeypatch.setitem(sys.modules, "ray", found)
    return found


@pytest.fixture
def item(tmp_path: Path) -> Item:
    make_picture(tmp_path / "in" / "a.png")
    request = HiresRequest((64, 96))
    return Item(1, "a.png", str(tmp_path / "in" / "a.png"), request, (32, 48), "PNG", "a.png")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job.of((str(tmp_path / "in"),), str(tmp_path / "out"))


def local(**more) -> RunRule:
    return RunRule(**{"ray": "local", "workers": 1, "ray_gpus": 0, **more})


def test_an_actor_loads_draws_and_is_ended_with_the_cluster(monkeypatch, item: Item, job: Job) -> None:
    ray = cluster(monkeypatch)
    slots = RaySlots(SPEC, job, local(workers=2))
    assert ray.init_with is not None and ray.init_with["address"] is None
    assert (slots.idle(), slots.busy(), list(slots.poll(0))) == (2, [], [])
    slots.submit(item)
    assert slots.idle() == 1
    ((held, began),) = slots.busy()
    assert held == item and 0 < began - time.monotonic() <= START_SECONDS
    assert list(slots.poll(0)) == []  # the model is loaded, the work begins
    ((_, began),) = slots.busy()
    assert time.monotonic() - 5 < began <= time.monotonic()
    ((kind, made, packed),) = slots.poll(0)
    assert (kind, made) == ("made", item) and isinstance(packed, Packed)
    assert (slots.idle(), slots.busy()) == (2, [])
    slots.submit(item)  # now without loading
    assert [kind for kind, *_ in slots.poll(0)] == ["made"]
    assert ray.handles[0].asked == ["load", "work", "work"]
    slots.close()
    assert ray.killed == ray.handles and not ray.up


def test_an_actor_that_is_not_done_says_nothing(monkeypatch, item: Item, job: Job) -> None:
    cluster(monkeypatch)
    slots = RaySlots(SPEC, job, local())
    slots.submit(item)
    slots._actors[0].future.done = False
    assert list(slots.poll(0)) == [] and slots.idle() == 0


def test_a_lost_actor_is_replaced_and_gives_its_item_back(monkeypatch, item: Item, job: Job) -> None:
    ray = cluster(monkeypatch)
    slots = RaySlots(SPEC, job, local())
    slots.submit(item)
    ray.handles[0].lost = True
    ((kind, held, error),) = slots.poll(0)  # while it loaded
    assert (kind, held) == ("failed", item) and isinstance(error, LoadError)
    assert slots.idle() == 1 and len(ray.handles) == 2 and ray.killed == ray.handles[:1]
    ray.handles[0].lost = False
    slots.submit(item)
    list(slots.poll(0))
    ray.handles[1].lost = True
    assert list(slots.poll(0)) == [("lost", item, "a Ray worker was lost (RayError)")]


def test_one_is_ended_and_all_are_asked_to_stop(monkeypatch, item: Item, job: Job) -> None:
    ray = cluster(monkeypatch)
    slots = RaySlots(SPEC, job, local(workers=3))
    slots.submit(item)
    slots.cancel()
    assert all("cancel" in handle.asked for handle in ray.handles)
    list(slots.poll(0))
    ((kind, _, error),) = slots.poll(0)
    assert kind == "failed" and isinstance(error, Cancelled)
    slots.submit(item)
    slots.kill(item)
    assert ray.killed == ray.handles[:1] and slots.idle() == 3 and len(ray.handles) == 4


def test_a_model_that_cannot_be_loaded_is_said(monkeypatch, item: Item, job: Job) -> None:
    cluster(monkeypatch)
    slots = RaySlots(FakeSpec("NoSuchRenderer"), job, local())
    slots.submit(item)
    ((kind, _, error),) = slots.poll(0)
    assert kind == "failed" and isinstance(error, LoadError) and slots.idle() == 1


def test_a_source_that_the_driver_cannot_read_is_the_actors_to_report(monkeypatch, item: Item, job: Job) -> None:
    cluster(monkeypatch)
    Path(item.source).unlink()
    slots = RaySlots(SPEC, job, local())
    slots.submit(item)
    list(slots.poll(0))
    ((kind, _, error),) = slots.poll(0)
    assert kind == "failed" and "No such file" in str(error)


@pytest.mark.parametrize(
    ("resources", "run", "count"),
    [
        ({"GPU": 4}, {"workers": 0, "ray_gpus": 1}, 4),
        ({"GPU": 4}, {"workers": 0, "ray_gpus": 0.5}, 8),
        ({"GPU": 4}, {"workers": 3, "ray_gpus": 1}, 3),
        ({"CPU": 5}, {"workers": 0, "ray_gpus": 0}, 5),
        ({}, {"workers": 0, "ray_gpus": 0}, 1),
        ({"CPU": 500}, {"workers": 0, "ray_gpus": 0}, MAX_ACTORS),
    ],
)
def test_as_many_actors_as_the_cluster_holds(monkeypatch, job: Job, resources, run, count: int) -> None:
    ray = cluster(monkeypatch, **resources)
    assert RaySlots(SPEC, job, local(**run)).idle() == count
    assert ray.actors_ask["num_gpus"] == run["ray_gpus"]


def test_a_cluster_without_gpus_is_refused(monkeypatch, job: Job) -> None:
    cluster(monkeypatch)
    with pytest.raises(UsageError, match="has 0 GPUs and each worker asks for 1;"):
        RaySlots(SPEC, job, local(workers=0, ray_gpus=1))


def test_a_cluster_that_was_there_stays(monkeypatch, job: Job) -> None:
    ray = cluster(monkeypatch, up=True)
    RaySlots(SPEC, job, local()).close()
    assert ray.up and ray.init_with is None


@pytest.mark.parametrize("threads", [None, "2"])
def test_an_address_is_asked_quietly(monkeypatch, job: Job, threads: str | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    ray = cluster(monkeypatch)
    RaySlots(SPEC, job, local(ray="10.0.0.1:6379"))
    more = {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "2"}}} if threads else {}
    assert ray.init_with == {
        "address": "10.0.0.1:6379",
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        **more,
    }


def test_no_cluster_and_no_ray_are_one_sentence_each(monkeypatch, job: Job) -> None:
    cluster(monkeypatch, refuses=True)
    with pytest.raises(UsageError, match=r"at '10\.0\.0\.1:6379' \(nobody there\); check"):
        RaySlots(SPEC, job, local(ray="10.0.0.1:6379"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="install"):
        RaySlots(SPEC, job, local())
