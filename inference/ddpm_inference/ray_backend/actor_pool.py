"""Runs shards on Ray actors: creates the actors, keeps each busy, replaces those that die, and retries shards.

One thread drives it all: `ActorPool` waits for whichever call of an actor completes next and handles the result.
`shard_queue` decides which shard goes where, `worker` is the actor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from typing import Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayActorError, RayError

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.errors import (
    DdpmError,
    OutOfMemory,
    ResourcesUnavailable,
    StorageFailed,
    WorkerLost,
)
from ddpm_inference.hardware import find_hardware
from ddpm_inference.job import Device, Identity, ResourceRequest, Shard
from ddpm_inference.process.cgroup import oom_kills
from ddpm_inference.progress import Progress, View
from ddpm_inference.ray_backend.actor_resources import ActorResources
from ddpm_inference.ray_backend.cluster import Cluster, is_one_image
from ddpm_inference.ray_backend.condition_timer import ConditionTimer
from ddpm_inference.ray_backend.node_packages import NodePackages
from ddpm_inference.ray_backend.ray_errors import ddpm_error_from, oom_kills_on
from ddpm_inference.ray_backend.run_clock import RunClock
from ddpm_inference.ray_backend.shard_queue import ShardQueue
from ddpm_inference.ray_backend.shard_times import RunningShard, ShardTimes
from ddpm_inference.ray_backend.worker import (
    NodeHardware,
    Placement,
    SamplingContext,
    ShardProgress,
    ShardResult,
    Worker,
)

# Two, so that an actor has its next shard while the driver handles the result of the last one.
MAX_IN_FLIGHT_PER_ACTOR = 2
WAIT_SECONDS = 0.5
PROGRESS_POLL_SECONDS = 1.0
SCALE_UP_SECONDS = 5.0
MAX_DEATHS_WITHOUT_RESULT = 3
HEAD_UNREACHABLE_TIMEOUT = 20.0
SHUTDOWN_TIMEOUT = 2.0
# A worker that has its resources gets longer than one that may never get any.
BUILD_TIMEOUT_FACTOR = 2.0
COMPILE_SECONDS = 1800.0

Ref = ObjectRef[Any]  # ray.wait does not keep the type of a reference


@dataclass(eq=False)
class ActorState:
    """The driver's view of one actor. A reference is None when no such call is pending.

    Attributes:
        number: counts the actors of a run from 1.
        placement_ref: pending until the actor has its resources.
        placement: None until then.
        start_ref: pending until its network is built.
        placed_at: when it was placed, in seconds of the run's clock.
        is_late: whether the user was told that its network takes long.
        in_flight: the calls of `sample` and their shards; the actor works on the first.
        progress_ref: pending poll of its progress.
        progress: the last answer.
        running: the first of the calls in flight; None if there is none.
        has_result: whether it has sampled a shard.
    """

    number: int
    actor: ActorHandle[Worker]
    placement_ref: Ref | None
    placement: Placement | None = None
    start_ref: Ref | None = None
    placed_at: float = 0.0
    is_late: bool = False
    in_flight: dict[Ref, Shard] = field(default_factory=dict)
    progress_ref: Ref | None = None
    progress: ShardProgress | None = None
    running: RunningShard | None = None
    has_result: bool = False

    @property
    def is_placed(self) -> bool:
        """Whether the actor has its resources."""
        return self.placement_ref is None

    @property
    def is_ready(self) -> bool:
        """Whether the actor can sample."""
        return self.is_placed and self.start_ref is None

    @property
    def refs(self) -> list[Ref]:
        """All pending calls."""
        refs = (self.placement_ref, self.start_ref, self.progress_ref, *self.in_flight)
        return [ref for ref in refs if ref is not None]


@dataclass
class ActorPool:
    """The actors of one run. Call `create_first_actor`, `start` and `run`, in this order.

    Args:
        actor_resources: what each actor reserves.
        create_actor: creates one more actor.
        checkpoint: the weights; put into Ray's object store once.
        progress: kept up to date, and shown in `view` about once a second.
        resources: the maximum number of actors, how long to wait for the first one, and how long a shard may take.
    """

    cluster: Cluster
    actor_resources: ActorResources
    create_actor: Callable[[], ActorHandle[Worker]]
    checkpoint: InitVar[Checkpoint]
    progress: Progress
    view: View
    resources: ResourceRequest
    queue: ShardQueue = field(default_factory=lambda: ShardQueue(()))
    _work: SamplingContext = field(init=False)
    _store_result: Callable[[ShardResult], None] = field(init=False)
    _actors: list[ActorState] = field(default_factory=list)
    _created: int = 0
    _was_any_placed: bool = False
    _start_errors: list[DdpmError] = field(default_factory=list)
    _deaths_since_result: int = 0
    _replaced_as_slow: int = 0
    _was_stalled: bool = False
    _clock: RunClock = field(default_factory=RunClock)
    _times: ShardTimes = field(default_factory=ShardTimes)
    _next_scale_up: float = 0.0
    _next_progress_poll: float = 0.0
    _none_placed: ConditionTimer = field(default_factory=ConditionTimer)
    _no_capacity: ConditionTimer = field(default_factory=ConditionTimer)
    _head_unreachable: ConditionTimer = field(default_factory=ConditionTimer)

    def __post_init__(self, checkpoint: Checkpoint) -> None:
        self._weights = [ray.put(checkpoint)]

    def create_first_actor(self) -> ObjectRef[NodePackages] | None:
        """Creates one actor early, so that it starts and imports torch while the driver works out the identity.

        Returns:
            The packages that the actor will find on its node; None where the nodes may differ.
        """
        actor = self._create_actor()
        packages = actor.find_packages.remote(self.cluster.required_packages) if is_one_image() else None
        actor.preload.remote()
        return packages

    def find_hardware(self, device: Device) -> NodeHardware:
        """Returns the hardware of the first actor's node. Waits until that actor has its resources.

        Returns:
            with None if it is unknown; where the actor failed, `start` reports why.

        Raises:
            ResourcesUnavailable: if the actor does not have its resources within `startup_timeout`, or has them and
                does not answer for `BUILD_TIMEOUT_FACTOR` times as long.
            WorkerLost: if the head does not answer.
        """
        if self.cluster.is_local and device == "cpu":
            return NodeHardware(find_hardware(device))
        if self.cluster.is_local and not self.cluster.capacity(self.actor_resources):
            return NodeHardware(None)
        first = self._actors[0]
        ref: ObjectRef[NodeHardware] = first.actor.find_hardware.remote(device)
        limit = BUILD_TIMEOUT_FACTOR * self.resources.startup_timeout
        silent = ConditionTimer()
        while not ray.wait([ref], num_returns=1, timeout=WAIT_SECONDS)[0]:
            self._scale_up(1)
            placed = bool(ray.wait([first.placement_ref], num_returns=1, timeout=0)[0])
            if not placed:
                self._check_placement()
            if silent.update(placed, time.monotonic()) > limit:
                raise ResourcesUnavailable(
                    f"a worker did not report its hardware within {limit:g} s",
                    hint="give a longer --startup_timeout if the machine is busy",
                )
        with suppress(RayError):
            return ray.get(ref)
        return NodeHardware(None)

    def start(self, identity: Identity, shards: int) -> None:
        """Creates the actors for that many shards; returns when the first of them can sample.

        Raises:
            ResourcesUnavailable: if no actor has its resources within `startup_timeout`.
            WorkerLost: if actors were placed, and then for `startup_timeout` no node had room for a replacement.
            DdpmError: if every actor failed to start: the error of one of them. An actor whose network is not built
                within `BUILD_TIMEOUT_FACTOR` times `startup_timeout` after its placement has failed to start, too.
        """
        self._work = SamplingContext(identity, self._weights)
        first_grace = COMPILE_SECONDS if identity.execution == "compiled" else 0.0
        self._times = ShardTimes(self.resources.shard_timeout, first_grace)
        capacity = self.cluster.capacity(self.actor_resources)
        wanted = min(self.resources.workers or shards, shards)
        if not capacity and self.cluster.is_local:
            raise self._not_placed("no node has room for a worker")
        if self.resources.workers and capacity < wanted:
            later = "" if self.cluster.is_local else "; more join when the cluster grows"
            self.view.show_message(f"the cluster has room for {capacity} of {wanted} workers{later}")
        while not any(state.is_ready for state in self._actors):
            self._scale_up(shards)
            self._handle_results()

    def run(
        self,
        missing: Iterable[Shard],
        store_result: Callable[[ShardResult], None],
        record_stored: Callable[[], None] = lambda: None,
    ) -> ShardQueue:
        """Samples the shards; returns their queue, which knows those that failed permanently.

        Args:
            store_result: stores the samples of a result, or records that the worker stored them. It may return before
                they are stored.
            record_stored: called about twice a second, to count the samples that are stored by then.

        Raises:
            WorkerLost: if workers keep dying before any finishes a shard, or no node has room for one for
                `startup_timeout`.
            StorageFailed: if results cannot be stored.
        """
        self.queue, self._store_result = ShardQueue(missing), store_result
        while self.queue.unfinished and not self.queue.is_hopeless:
            self._scale_up(self.queue.unfinished)
            self._assign_shards()
            self._move_queued_shards()
            self._replace_slow_workers()
            record_stored()
            self._update_progress()
            self._handle_results()
        self._shut_down()
        return self.queue

    def store_completed(self) -> None:
        """Stores the shards that are sampled by now, without waiting for more."""
        for state, ref in list(self._completed(0.0)):
            if ref in state.in_flight:
                self._on_shard_result(state, ref)

    def _shut_down(self) -> None:
        """Kills all actors and waits for their pending calls: otherwise Ray prints an error for each at exit."""
        refs: list[Ref] = [ref for state in self._actors for ref in state.refs]
        for state in list(self._actors):
            self._remove(state)
        if refs:
            ray.wait(refs, num_returns=len(refs), timeout=SHUTDOWN_TIMEOUT)

    def _scale_up(self, shards: int) -> None:
        """Creates as many actors as there are shards and room for: initially, when nodes join, and after actors die."""
        now = time.monotonic()
        if now < self._next_scale_up:
            return
        self._next_scale_up = now + SCALE_UP_SECONDS
        reachable = self.cluster.head_is_listening()
        if self._head_unreachable.update(not reachable, now) > HEAD_UNREACHABLE_TIMEOUT:
            raise WorkerLost(
                f"{self.cluster.description} does not answer any more",
                hint="check its head node, then run the same command again",
            )
        if not reachable:
            return
        capacity = self.cluster.capacity(self.actor_resources)
        self._check_capacity(capacity, now)
        limit = min(self.resources.workers or max(1, capacity), shards)
        # Counts the start errors, because an actor that failed to start is not replaced.
        for _ in range(len(self._actors) + len(self._start_errors), limit):
            self._create_actor().preload.remote()
        if not self._actors:
            raise _error_to_report(self._start_errors)

    def _create_actor(self) -> ActorHandle[Worker]:
        actor = self.create_actor()
        self._created += 1
        self._actors.append(ActorState(self._created, actor, actor.placement.remote()))
        return actor

    def _check_capacity(self, capacity: int, now: float) -> None:
        """Ends the run if the nodes of placed actors are gone and no other node has room for `startup_timeout`.

        A local Ray has no other node, so that its end is the run's.

        Calls to an actor on a lost node stay pending until Ray can place the actor again, so they never fail.
        """
        if not capacity and self.cluster.is_local:
            # Its only node is gone, and no other will come.
            kind = WorkerLost if self._was_any_placed else ResourcesUnavailable
            raise kind(
                "the local Ray has died: its processes were killed or have failed",
                hint=f"see its log in {self.cluster.log_folder}, then run the same command again",
            )
        was_known = self._no_capacity.holds
        lost = not capacity and any(state.is_placed for state in self._actors)
        if self._no_capacity.update(lost, now) > self.resources.startup_timeout:
            raise self._no_room_again()
        if lost and not was_known:
            self.view.show_message("no node has room for a worker any more; the run continues when one does")

    def _assign_shards(self) -> None:
        if self._head_unreachable.holds:
            # Calls would fail now, and each failure would count as an attempt of the shard.
            return
        ready = {state.number: state for state in self._actors if state.is_ready}
        # A retry may wait for a placed worker that is still building its network, not for one Ray may never place.
        placed = {state.number for state in self._actors if state.is_placed}
        load = {number: len(state.in_flight) for number, state in ready.items()}
        for number, shard in self.queue.assign(load, placed, MAX_IN_FLIGHT_PER_ACTOR):
            self._send(ready[number], shard)

    def _send(self, state: ActorState, shard: Shard) -> None:
        state.in_flight[state.actor.sample.remote(self._work, shard)] = shard

    def _move_queued_shards(self) -> None:
        """Gives idle workers the shards that are queued behind a running one, if there is nothing else for them.

        A shard whose worker begins it at this moment is sampled twice, with the same result.
        """
        if self._head_unreachable.holds:
            return
        placed = {state.number for state in self._actors if state.is_placed}
        for idle in [state for state in self._actors if state.is_ready and not state.in_flight]:
            queued = [
                (state, ref, shard)
                for state in self._actors
                for ref, shard in [*state.in_flight.items()][1:]
                if self.queue.may_take(shard, idle.number, placed)
            ]
            if queued:
                # The worker that has been at its first shard for longest has the longest way to go, if it hangs.
                state, ref, shard = min(queued, key=lambda each: each[0].running.since if each[0].running else 0.0)
                del state.in_flight[ref]
                ray.cancel(ref)
                self._send(idle, shard)

    def _replace_slow_workers(self) -> None:
        """Gives shards that take too long to other workers, and replaces the workers that had them."""
        now = self._clock.seconds
        for state in list(self._actors):
            shard = next(iter(state.in_flight.values()), None)
            if shard is None:
                state.running = None
                continue
            if state.running is None or state.running.shard != shard:
                state.running = self._times.begin(shard, now)
            if state.progress and state.progress.shard == shard:
                state.running.observe(state.progress.fraction, now)
            excess = self._times.excess(state.running, now, is_first=not state.has_result)
            if excess is not None:
                self._replace_slow_worker(state, f"{now - state.running.since:.0f} s, {excess}")

    def _replace_slow_worker(self, state: ActorState, excess: str) -> None:
        shard, *others = state.in_flight.values()
        state.in_flight.clear()
        for other in others:
            self.queue.requeue(other)
        self._remove(state)
        self._replaced_as_slow += 1
        taken = f"samples {shard.first} to {shard.last} have taken {excess}"
        self.view.show_message(f"{taken}; their worker is replaced ({self._replaced_as_slow} so far)")
        if not self.queue.mark_slow(shard):
            hint = "give a longer --shard_timeout if shards take that long, else see the log of the worker on its node"
            self._on_shard_failure(state, shard, WorkerLost(f"no worker finished it: {taken}", hint=hint))

    def _handle_results(self) -> None:
        """Waits until a call completes, `WAIT_SECONDS` at most, and handles all that have completed."""
        paused = self._head_unreachable.holds or self._no_capacity.holds
        self._clock.tick(time.monotonic(), paused=paused)
        for state, ref in self._completed(WAIT_SECONDS):
            if ref is state.progress_ref:
                self._on_progress(state, ref)
            elif ref is state.placement_ref or ref is state.start_ref:
                self._on_start_result(state, ref)
            elif ref in state.in_flight:
                self._on_shard_result(state, ref)
        self._check_placement()
        self._check_starts()

    def _completed(self, timeout: float) -> Iterator[tuple[ActorState, Ref]]:
        owners = {ref: state for state in self._actors for ref in state.refs}
        if not owners:
            # For example while the head is unreachable and nothing is in flight.
            time.sleep(timeout)
            return
        done, pending = ray.wait(list(owners), num_returns=1, timeout=timeout)
        if done and pending:
            done += ray.wait(pending, num_returns=len(pending), timeout=0)[0]
        completed = set(done)
        yield from ((state, ref) for ref, state in owners.items() if ref in completed)

    def _check_placement(self) -> None:
        """Ends the run if no actor is placed for `startup_timeout`."""
        none_placed = not any(state.is_placed for state in self._actors)
        if self._none_placed.update(none_placed, time.monotonic()) > self.resources.startup_timeout:
            if self._was_any_placed:
                raise self._no_room_again()
            raise self._not_placed(f"no worker could be placed within {self.resources.startup_timeout:g} s")

    def _check_starts(self) -> None:
        """Gives up on actors whose network takes too long to build."""
        notice = self.resources.startup_timeout
        limit = BUILD_TIMEOUT_FACTOR * notice
        for state in [state for state in self._actors if state.is_placed and not state.is_ready]:
            seconds = self._clock.seconds - state.placed_at
            if seconds > limit:
                hint = "give a longer --startup_timeout, or fewer --workers if the machine is busy"
                error = f"a worker did not build its network within {limit:g} s"
                self._on_start_failure(state, ResourcesUnavailable(error, hint=hint))
            elif seconds > notice and not state.is_late:
                state.is_late = True
                self.view.show_message(
                    f"a worker has not built its network after {notice:g} s; it is given up after {limit:g} s"
                )

    def _no_room_again(self) -> WorkerLost:
        return WorkerLost(
            f"no node has had room for a worker for {self.resources.startup_timeout:g} s, since the last one "
            f"was lost; each needs {self.actor_resources.description}",
            hint="check the nodes, then run the same command again",
        )

    def _not_placed(self, cause: str) -> ResourcesUnavailable:
        hint = (
            "give a smaller --num_cpus_per_task, or a longer --startup_timeout if the cluster is busy for a short time"
        )
        if self.actor_resources.gpus:
            hint = "give --device cpu or a smaller --num_gpus_per_task, or use a cluster that has free GPUs"
        return ResourcesUnavailable(
            f"{cause}: each needs {self.actor_resources.description}, and there is\n{self.cluster.table()}", hint=hint
        )

    def _on_start_result(self, state: ActorState, ref: Ref) -> None:
        try:
            result = ray.get(ref)
        except RayError as error:
            self._on_start_failure(state, self._cause_of(error, state))
            return
        if ref is state.placement_ref:
            state.placement, self._was_any_placed, state.placed_at = result, True, self._clock.seconds
            state.placement_ref, state.start_ref = None, state.actor.start.remote(self._work)
        else:
            state.start_ref = None
            if not (self.cluster.is_local or self.resources.allow_mixed_hardware):
                self.progress.node_ready(result)

    def _on_start_failure(self, state: ActorState, cause: DdpmError) -> None:
        self._remove(state)
        self._start_errors.append(cause)
        for ip in cause.other_hardware_ips:
            self.progress.node_with_other_hardware(ip)
        if self._actors:
            self.view.show_message(f"a worker could not start: {cause.message}")

    def _on_progress(self, state: ActorState, ref: Ref) -> None:
        state.progress_ref = None
        try:
            state.progress = ray.get(ref)
        except RayError:
            # If the actor died, the calls for its shards fail and report it.
            state.progress = None

    def _on_shard_result(self, state: ActorState, ref: Ref) -> None:
        try:
            result: ShardResult = ray.get(ref)
        except RayActorError as error:
            self._on_death(state, error)
        except RayError as error:
            self._on_shard_failure(state, state.in_flight.pop(ref), ddpm_error_from(error))
        else:
            shard = state.in_flight.pop(ref)
            self._store_result(result)
            self.queue.mark_stored(shard)
            self._deaths_since_result = 0
            state.has_result = True
            if state.running is not None and state.running.shard == shard:
                self._times.end(state.running, self._clock.seconds)

    def _on_shard_failure(self, state: ActorState, shard: Shard, cause: DdpmError) -> None:
        if not self.queue.mark_failed(shard, state.number, cause):
            return
        if isinstance(cause, StorageFailed):
            raise cause
        self.progress.shard_failed(shard)
        self.view.show_message(f"giving up on samples {shard.first} to {shard.last}: {cause.message}")

    def _on_death(self, state: ActorState, error: RayActorError) -> None:
        """Handles the death of an actor's process, after Ray's own retry; see `ray_backend` for all retries.

        The shard that it was sampling, the first in flight, may be the cause. The others were only queued.
        """
        first, *others = state.in_flight.values()
        state.in_flight.clear()
        for shard in others:
            self.queue.requeue(shard)
        cause = self._cause_of(error, state)
        self._on_shard_failure(state, first, cause)
        if isinstance(error, ActorDiedError):  # Ray will not restart it again
            self._remove(state)
            self._deaths_since_result += 1
            if self._deaths_since_result > MAX_DEATHS_WITHOUT_RESULT:
                raise cause
            self.view.show_message("a worker died and is not restarted; a new one is created if there is room")

    def _cause_of(self, error: RayError, state: ActorState) -> DdpmError:
        """Returns why a worker failed. If it just died, its node may know that the kernel killed it."""
        cause = ddpm_error_from(error)
        if not isinstance(cause, WorkerLost) or state.placement is None:
            return cause
        kills = self._oom_kills_on(state.placement.node)
        if kills is None or kills <= state.placement.oom_kills:
            return cause
        return OutOfMemory(
            "the kernel killed a worker: its node or pod is out of memory",
            hint="give a smaller --batch_size, fewer workers per node, or nodes and pods with more memory",
        )

    def _oom_kills_on(self, node: str) -> int | None:
        """Returns `cgroup.oom_kills` of a node; None if the node does not answer, for example because it is gone."""
        if node == self.cluster.own_node_id:
            # Read our own cgroup: a remote task might itself run out of memory.
            return oom_kills()
        # Without its head, Ray would hold the task for a minute and then exit this process.
        return oom_kills_on(node) if self.cluster.head_is_listening() else None

    def _remove(self, state: ActorState) -> None:
        ray.kill(state.actor)
        self._actors.remove(state)
        self._next_scale_up = 0.0

    def _update_progress(self) -> None:
        now = time.monotonic()
        if now < self._next_progress_poll:
            return
        self._next_progress_poll = now + PROGRESS_POLL_SECONDS
        ready = [state for state in self._actors if state.is_ready]
        running = {}
        for state in ready:
            if state.progress_ref is None and state.in_flight:
                state.progress_ref = state.actor.progress.remote()
            if state.progress and state.progress.shard in state.in_flight.values():
                running[state.progress.shard] = state.progress.fraction
        busy = sum(bool(state.in_flight) for state in ready)
        self.progress.observe(now, running, len(ready), busy)
        stalled = self.progress.stalled_seconds is not None
        if stalled and not self._was_stalled:
            self.view.show_message(f"no worker has made a step for {self.progress.stalled_seconds:.0f} s")
        self._was_stalled = stalled
        self.view.show_progress(self.progress)


def _error_to_report(errors: list[DdpmError]) -> DdpmError:
    """Returns the start error to raise, preferring out-of-memory, which the user can act on.

    An error about the hardware of one node names all nodes that have other hardware.
    """
    error = min(errors, key=lambda error: not isinstance(error, OutOfMemory))
    if error.other_hardware_ips:
        error.other_hardware_ips = tuple(dict.fromkeys(ip for each in errors for ip in each.other_hardware_ips))
    return error
