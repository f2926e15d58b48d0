"""The Ray actor: holds one network, samples the shards that `actor_pool` sends it, and stores them if it can.

The driver imports this module, so it must not import torch.
"""

from __future__ import annotations

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
from ddpm_inference.errors import OtherHardware, StorageFailed
from ddpm_inference.hardware import find_hardware
from ddpm_inference.job import Device, Hardware, Identity, Shard
from ddpm_inference.process.cgroup import oom_kills
from ddpm_inference.ray_backend import node_packages
from ddpm_inference.ray_backend.actor_resources import ActorResources
from ddpm_inference.ray_backend.node_packages import NodePackages
from ddpm_inference.store import ShardRecord, Store
from ddpm_inference.store.shard_file import Samples

PROGRESS_GROUP = "progress"
# Ray's own retries, the first two layers of those that `ray_backend` lists. Both are finite, so that a shard that kills
# its worker every time is reported and does not block the shards behind it.
MAX_RESTARTS = 3
MAX_TASK_RETRIES = 1


def node_ip() -> str:
    """Returns the address of this Ray node; in a pod, it is the address of the pod."""
    ip: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # not in its stubs
    return ip


class SupportsSample(Protocol):
    """What a worker samples with: `ShardSampler`, or a fake in tests."""

    def sample(self, shard: Shard, callback: Callable[[int, int], None]) -> Samples:
        """Returns the samples of a shard; calls back with (steps done, steps) after each step."""


MakeSampler = Callable[[Checkpoint, Identity, int], SupportsSample]
"""Builds the sampler on the worker, from checkpoint, identity and CPU threads."""

# Importing it imports torch, the slowest part of start-up.
SHARD_SAMPLER_MODULE = "ddpm_inference.shard_sampler"


def make_shard_sampler(
    checkpoint: Checkpoint, identity: Identity, threads: int, *, allow_mixed_hardware: bool = False
) -> SupportsSample:
    """Returns a `ShardSampler`. Imports it, and torch with it, only when called, which is on the worker."""
    from ddpm_inference.shard_sampler import ShardSampler

    return ShardSampler(checkpoint, identity, threads, allow_mixed_hardware=allow_mixed_hardware)


class Placement(NamedTuple):
    """The node that an actor runs on.

    Attributes:
        node: node ID.
        oom_kills: `cgroup.oom_kills` of the node when the actor was placed.
    """

    node: str
    oom_kills: int


class NodeHardware(NamedTuple):
    """The hardware of a Ray node.

    Attributes:
        hardware: None if it is unknown.
        ip: the node's address, which in a pod is the pod's; "" on a local Ray.
    """

    hardware: Hardware | None
    ip: str = ""


class ShardProgress(NamedTuple):
    """The shard that a worker is sampling, and the fraction (0 to 1) that is done."""

    shard: Shard
    fraction: float


class ShardResult(NamedTuple):
    """A sampled shard: its record if the worker stored it, else the samples for the driver to store.

    Attributes:
        hardware: the worker's, if it is not the identity's.
    """

    shard: Shard
    record: ShardRecord | None
    samples: Samples | None
    hardware: Hardware | None = None


class SamplingContext(NamedTuple):
    """Identity and weights: the same for every shard. Sent with every call, because an actor that Ray restarted has no
    state.

    Attributes:
        weights: a one-element list with a reference into Ray's object store, because Ray fetches top-level references
            for every call. This one is fetched only by a worker that builds its network.
    """

    identity: Identity
    weights: Sequence[ObjectRef[Checkpoint]]


@dataclass
class Worker:
    """One actor. Everything it needs is in its arguments, so that Ray may restart it at any time.

    Attributes:
        preload_modules: modules that take long to import.
        store: the store; written to directly if it is reachable from this node.
        threads: CPU threads.
    """

    make_sampler: MakeSampler
    preload_modules: Sequence[str]
    store: Store
    threads: int
    _shard_sampler: SupportsSample | None = None
    _progress: ShardProgress | None = None
    _can_reach_store: bool | None = None

    def placement(self) -> Placement:
        """Returns where the actor runs; answers as soon as the actor has its resources."""
        return Placement(ray.get_runtime_context().get_node_id(), oom_kills())

    def preload(self) -> None:
        """Imports the slow modules while the driver still works out what to sample."""
        # An import error comes again in `start`, whose result the driver waits for.
        with suppress(Exception):
            for name in self.preload_modules:
                import_module(name)

    def find_packages(self, packages: Iterable[str]) -> NodePackages:
        """Returns the packages that are installed on the actor's node."""
        return node_packages.find_packages(packages)

    @ray.method(concurrency_group=PROGRESS_GROUP)
    def find_hardware(self, device: Device) -> NodeHardware:
        """Returns the hardware of the actor's node; answers while `preload` runs."""
        return NodeHardware(find_hardware(device), node_ip())

    def start(self, context: SamplingContext) -> str:
        """Builds the network; returns the address of the node, whose hardware is that of the identity.

        Raises:
            OtherHardware: if it is not, with the address.
            DdpmError: if this worker cannot sample.
        """
        self._shard_sampler_for(context)
        return node_ip()

    def sample(self, context: SamplingContext, shard: Shard) -> ShardResult:
        """Samples one shard, and stores it if the store can be reached from here.

        Raises:
            DdpmError: if sampling or storing fails.
        """
        samples = self._shard_sampler_for(context).sample(shard, partial(self._set_progress, shard))
        hardware = self._other_hardware(context.identity)
        if not self._reaches_store(context.identity):
            return ShardResult(shard, None, samples, hardware)
        record = self.store.write_shard(shard, samples, context.identity.fingerprint, hardware)
        return ShardResult(shard, record, None, hardware)

    @ray.method(concurrency_group=PROGRESS_GROUP)
    def progress(self) -> ShardProgress | None:
        """Returns the current progress; answers while `sample` runs."""
        return self._progress

    def _set_progress(self, shard: Shard, done: int, steps: int) -> None:
        self._progress = ShardProgress(shard, done / steps)

    def _shard_sampler_for(self, context: SamplingContext) -> SupportsSample:
        if self._shard_sampler is None:
            try:
                self._shard_sampler = self.make_sampler(ray.get(context.weights[0]), context.identity, self.threads)
            except OtherHardware as error:
                # Ray may have restarted the actor on another node than it was placed on, so the driver cannot know.
                error.other_hardware_ips = (node_ip(),)
                raise
        return self._shard_sampler

    def _other_hardware(self, identity: Identity) -> Hardware | None:
        """Returns the hardware of this node if it is known and is not the identity's."""
        if identity.hardware is None:
            return None
        own = find_hardware(identity.device)
        return None if own == identity.hardware else own

    def _reaches_store(self, identity: Identity) -> bool:
        """Returns whether this worker reads the same job.json that the driver wrote."""
        if self._can_reach_store is None:
            self._can_reach_store = self.store.writable_by_workers and self._store_has(identity)
        return self._can_reach_store

    def _store_has(self, identity: Identity) -> bool:
        try:
            stored = self.store.read_identity()
        except StorageFailed:
            return False
        return stored is not None and stored.fingerprint == identity.fingerprint


def actor_factory(
    resources: ActorResources,
    store: Store,
    make_sampler: MakeSampler | None = None,
    *,
    allow_mixed_hardware: bool = False,
) -> Callable[[], ActorHandle[Worker]]:
    """Returns a function that creates one more actor at each call.

    Ray restarts an actor whose process died, up to `MAX_RESTARTS` times, and repeats a call `MAX_TASK_RETRIES` times.

    Args:
        make_sampler: replaces `make_shard_sampler`.
        allow_mixed_hardware: whether actors may run on other hardware than the identity's.
    """
    make_actor_class = ray.remote(concurrency_groups={PROGRESS_GROUP: 1})  # type: ignore[call-overload]  # not in its stubs
    actor_class: ActorClass[Worker] = make_actor_class(Worker)
    actor = actor_class.options(
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        max_restarts=MAX_RESTARTS,
        max_task_retries=MAX_TASK_RETRIES,
    )
    preload_modules = () if make_sampler else (SHARD_SAMPLER_MODULE,)
    make_own = partial(make_shard_sampler, allow_mixed_hardware=allow_mixed_hardware)
    return lambda: cast(
        ActorHandle[Worker],
        actor.remote(make_sampler or make_own, preload_modules, store, resources.threads),
    )
