"""The Ray actor: holds one network, samples the shards it is given, and stores them where it can.

Nothing here imports torch into the process that makes the actors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import NamedTuple, Protocol, cast

import ray
from ray import ObjectRef
from ray.actor import ActorClass, ActorHandle

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.errors import StorageFailed
from ddpm_inference.job import Identity, Shard
from ddpm_inference.process.cgroup import oom_kills
from ddpm_inference.ray_backend import node_packages
from ddpm_inference.ray_backend.cluster import ActorResources
from ddpm_inference.ray_backend.node_packages import NodePackages
from ddpm_inference.store import ShardRecord, Store
from ddpm_inference.store.shard_file import Samples


class SamplesShards(Protocol):
    """What a worker holds; `ShardSampler` is the one there is."""

    def sample(self, shard: Shard, callback: Callable[[int, int], None]) -> Samples: ...


MakeSampler = Callable[[Checkpoint, Identity, int], SamplesShards]
# With torch, whose import takes longer than all else until the first step.
SHARD_SAMPLER = "ddpm_inference.shard_sampler"


def make_shard_sampler(checkpoint: Checkpoint, identity: Identity, threads: int) -> SamplesShards:
    """The sampler of torch, which is imported where it is made: on the worker."""
    from ddpm_inference.shard_sampler import ShardSampler

    return ShardSampler(checkpoint, identity, threads)


class Placement(NamedTuple):
    """The node an actor is on, and how many processes the kernel has ended there for their memory."""

    node: str
    oom_kills: int


class ShardProgress(NamedTuple):
    """What a worker is doing: the shard, and how much of it is done, 0 to 1."""

    shard: Shard
    part: float


class ShardResult(NamedTuple):
    """A sampled shard: its record if the worker stored it, else its samples for the driver to store."""

    shard: Shard
    seconds: float
    record: ShardRecord | None
    samples: Samples | None


class WorkItem(NamedTuple):
    """What there is to sample; handed over with every call, since a worker that Ray started anew has none.

    Attributes:
        weights: in Ray's object store. Wrapped, so that only a worker that builds its network fetches them.
    """

    identity: Identity
    weights: Sequence[ObjectRef[Checkpoint]]


@dataclass
class Worker:
    """One actor. Whatever it needs comes with its arguments, so that Ray may start it anew at any time.

    Attributes:
        imports: modules that take long to import.
        store: where it writes its shards, if it can reach it.
        threads: CPU threads.
    """

    make_sampler: MakeSampler
    imports: Sequence[str]
    store: Store
    threads: int
    _sampler: SamplesShards | None = None
    _glance: ShardProgress | None = None
    _reaches: bool | None = None

    def place(self) -> Placement:
        """Answers as soon as the actor has its resources."""
        return Placement(ray.get_runtime_context().get_node_id(), oom_kills())

    def prepare(self) -> None:
        """Imports what takes long, while it is not known yet what there is to sample."""
        # What cannot be imported is told by `start`, which somebody waits for.
        with suppress(Exception):
            for name in self.imports:
                import_module(name)

    def find(self, packages: Iterable[str]) -> NodePackages:
        """What there is here to work with."""
        return node_packages.find_packages(packages)

    def start(self, work: WorkItem) -> None:
        """Builds the network.

        Raises:
            DdpmError: whatever speaks against sampling here.
        """
        self._built(work)

    def sample(self, work: WorkItem, shard: Shard) -> ShardResult:
        """Samples one shard; stores it where the store is reached from here.

        Raises:
            DdpmError: for a reason that is the shard's, this worker's or the store's own.
        """
        sampler = self._built(work)
        started = time.monotonic()
        samples = sampler.sample(shard, partial(self._note, shard))
        seconds = time.monotonic() - started
        if not self._reaches_store(work.identity):
            return ShardResult(shard, seconds, None, samples)
        record = self.store.write_shard(shard, samples, work.identity.fingerprint)
        return ShardResult(shard, seconds, record, None)

    @ray.method(concurrency_group="look")
    def look(self) -> ShardProgress | None:
        """What the actor is doing; answers while it samples."""
        return self._glance

    def _note(self, shard: Shard, done: int, steps: int) -> None:
        self._glance = ShardProgress(shard, done / steps)

    def _built(self, work: WorkItem) -> SamplesShards:
        if self._sampler is None:
            self._sampler = self.make_sampler(ray.get(work.weights[0]), work.identity, self.threads)
        return self._sampler

    def _reaches_store(self, identity: Identity) -> bool:
        """Whether what is read from here is the very job.json that the driver wrote."""
        if self._reaches is None:
            self._reaches = self.store.reached_by_workers and self._is_there(identity)
        return self._reaches

    def _is_there(self, identity: Identity) -> bool:
        try:
            there = self.store.read_identity()
        except StorageFailed:
            return False
        return there is not None and there.fingerprint == identity.fingerprint


def spawner(
    share: ActorResources, store: Store, make_sampler: MakeSampler | None = None
) -> Callable[[], ActorHandle[Worker]]:
    """Makes one more actor at each call.

    Ray restarts an actor where its process dies, and tries a task again once: a shard that kills its worker each
    time must come back, so that others are not kept waiting for ever.

    Args:
        make_sampler: another sampler than the one of torch.
    """
    make_actor_class = ray.remote(concurrency_groups={"look": 1})  # type: ignore[call-overload]  # not in its stubs
    actor_class: ActorClass[Worker] = make_actor_class(Worker)
    actor = actor_class.options(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=3, max_task_retries=1)
    imports = () if make_sampler else (SHARD_SAMPLER,)
    return lambda: cast(
        ActorHandle[Worker], actor.remote(make_sampler or make_shard_sampler, imports, store, share.threads)
    )
