"""Shards onto Ray actors: a bounded number in flight, what dies replaced, what fails tried elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
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
from ddpm_inference.job import Identity, ResourceRequest, Shard
from ddpm_inference.process.cgroup import oom_kills
from ddpm_inference.progress import Progress, View
from ddpm_inference.ray_backend.cluster import ActorResources, Cluster, is_one_image
from ddpm_inference.ray_backend.node_packages import NodePackages
from ddpm_inference.ray_backend.ray_errors import ask_oom_kills, cause_of
from ddpm_inference.ray_backend.shard_queue import ShardQueue
from ddpm_inference.ray_backend.worker import Placement, ShardProgress, ShardResult, Worker, WorkItem

IN_FLIGHT = 2
TICK_SECONDS = 0.5
LOOK_SECONDS = 1.0
GROW_SECONDS = 5.0
BARREN_LOSSES = 3
LOST_SECONDS = 20.0
DISMISS_SECONDS = 2.0

Ref = ObjectRef[Any]  # ray.wait tells nothing of what a reference is of


@dataclass(eq=False)
class ActorState:
    """One actor of the pool.

    Attributes:
        placing: answered when the actor has its resources; None from then on.
        home: where that is; None until it is known.
        starting: answered when its network is built; None from then on.
        in_flight: the shards it was given, the one it works on first.
    """

    number: int
    actor: ActorHandle[Worker]
    placing: Ref | None
    home: Placement | None = None
    starting: Ref | None = None
    in_flight: dict[Ref, Shard] = field(default_factory=dict)
    looking: Ref | None = None
    glance: ShardProgress | None = None

    @property
    def ready(self) -> bool:
        return self.placing is None and self.starting is None

    @property
    def refs(self) -> list[Ref]:
        return [ref for ref in (self.placing, self.starting, self.looking, *self.in_flight) if ref is not None]


@dataclass
class ActorPool:
    """The actors of one run, and the shards they are given.

    Args:
        share: what each actor holds.
        spawn: makes one more actor.
        checkpoint: the weights; they are put into Ray's object store once.
        progress: kept up to date, and shown in `view` about once a second.
        resources: how many actors there may be, and how long to wait for the first.
    """

    cluster: Cluster
    share: ActorResources
    spawn: Callable[[], ActorHandle[Worker]]
    checkpoint: InitVar[Checkpoint]
    progress: Progress
    view: View
    resources: ResourceRequest
    ledger: ShardQueue = field(default_factory=lambda: ShardQueue(()))
    _work: WorkItem = field(init=False)
    _keep: Callable[[ShardResult], None] = field(init=False)
    _members: list[ActorState] = field(default_factory=list)
    _made: int = 0
    _placed: bool = False
    _unfit: list[DdpmError] = field(default_factory=list)
    _barren_losses: int = 0
    _next_growth: float = 0.0
    _next_look: float = 0.0
    _none_since: float | None = None
    _no_room_since: float | None = None
    _unanswered_since: float | None = None

    def __post_init__(self, checkpoint: Checkpoint) -> None:
        self._weights = [ray.put(checkpoint)]

    def prepare(self) -> ObjectRef[NodePackages] | None:
        """Makes the first actor, which gets ready for whatever it will be: there is always something to sample.

        Returns:
            What it will have found of the packages that it needs, where all nodes are alike.
        """
        actor = self._make()
        found = actor.find.remote(self.cluster.needs) if is_one_image() else None
        actor.prepare.remote()
        return found

    def start(self, identity: Identity, shards: int) -> None:
        """Makes actors for that many shards and returns when the first of them is ready to sample.

        Raises:
            ResourcesUnavailable: if none has its resources within `startup_timeout`.
            WorkerLost: if they had them, and for as long there is no node any more that has.
            DdpmError: what each of them found to speak against it.
        """
        self._work = WorkItem(identity, self._weights)
        room, wanted = self.cluster.room(self.share), min(self.resources.workers or shards, shards)
        if not room and self.cluster.own:
            raise self._unplaced("no node has room for a worker")
        if self.resources.workers and room < wanted:
            more = "" if self.cluster.own else "; others join when there is more"
            self.view.say(f"the cluster has room for {room} of {wanted} workers{more}")
        while not any(member.ready for member in self._members):
            self._grow(shards)
            self._wait()

    def run(self, missing: Iterable[Shard], keep: Callable[[ShardResult], None]) -> ShardQueue:
        """Samples the shards; returns the book of it, with those that were given up.

        Args:
            keep: takes what a receipt brings to where it is stored.

        Raises:
            WorkerLost: if workers die again and again and none finishes anything, or for `startup_timeout` there
                is no node for them.
            StorageFailed: if results cannot be stored.
        """
        self.ledger, self._keep = ShardQueue(missing), keep
        while self.ledger.open and not self.ledger.hopeless:
            self._grow(self.ledger.open)
            self._hand_out()
            self._observe()
            self._wait()
        self._dismiss()
        return self.ledger

    def store_arrived(self) -> None:
        """Stores what has been sampled by now, without waiting for more."""
        for member, ref in list(self._answers(0.0)):
            if ref in member.in_flight:
                self._note_shard(member, ref)

    def _dismiss(self) -> None:
        """Ends the actors, those that never came to work as well: what Ray still waits for when this process
        leaves it, it reports on stderr."""
        left = [ref for member in self._members for ref in member.refs]
        for member in list(self._members):
            self._drop(member)
        if left:
            ray.wait(left, num_returns=len(left), timeout=DISMISS_SECONDS)

    def _grow(self, shards: int) -> None:
        """Makes as many actors as there is work and room for: at first, when nodes come, and when actors died."""
        now = time.monotonic()
        if now < self._next_growth:
            return
        self._next_growth = now + GROW_SECONDS
        if not self.cluster.answers():
            self._refuse_lost_cluster(now)
            return
        self._unanswered_since = None
        room = self.cluster.room(self.share)
        self._refuse_lost_nodes(room, now)
        most = self.resources.workers or max(1, room)
        for _ in range(len(self._members) + len(self._unfit), min(most, shards)):
            self._make().prepare.remote()
        if not self._members:
            # Memory is what can be done something about.
            raise min(self._unfit, key=lambda cause: not isinstance(cause, OutOfMemory))

    def _make(self) -> ActorHandle[Worker]:
        actor = self.spawn()
        self._made += 1
        self._members.append(ActorState(self._made, actor, actor.place.remote()))
        return actor

    def _refuse_lost_cluster(self, now: float) -> None:
        self._unanswered_since = self._unanswered_since or now
        if now > self._unanswered_since + LOST_SECONDS:
            raise WorkerLost(
                f"{self.cluster.words} does not answer any more",
                hint="see what became of its head node, then run the same command again",
            )

    def _refuse_lost_nodes(self, room: int, now: float) -> None:
        """Ray keeps an actor whose node is gone, and what it was given, until there is a place for it again: no
        answer ever says that there is none."""
        if room or not any(member.placing is None for member in self._members):
            self._no_room_since = None
            return
        if self._no_room_since is None:
            self._no_room_since = now
            self.view.say("no node has room for a worker any more; the run goes on when one comes")
        if now > self._no_room_since + self.resources.startup_timeout:
            raise self._lost()

    def _hand_out(self) -> None:
        if self._unanswered_since is not None:
            # It would only fail, and shards are not to blame.
            return
        ready = {member.number: member for member in self._members if member.ready}
        # A shard that failed waits for a worker that is still starting; one without a place may never come.
        coming = {member.number for member in self._members if member.placing is None}
        for depth in range(IN_FLIGHT):
            for number, member in ready.items():
                if len(member.in_flight) > depth:
                    continue
                shard = self.ledger.take(number, coming)
                if shard is not None:
                    member.in_flight[member.actor.sample.remote(self._work, shard)] = shard

    def _wait(self) -> None:
        """Waits until something happens, or a moment, and takes note of it."""
        for member, ref in self._answers(TICK_SECONDS):
            if ref is member.looking:
                self._note_glance(member, ref)
            elif ref is member.placing or ref is member.starting:
                self._note_start(member, ref)
            elif ref in member.in_flight:
                self._note_shard(member, ref)
        self._refuse_to_wait_for_ever()

    def _answers(self, timeout: float) -> Iterator[tuple[ActorState, Ref]]:
        owners = {ref: member for member in self._members for ref in member.refs}
        if not owners:
            return
        done, rest = ray.wait(list(owners), num_returns=1, timeout=timeout)
        if done and rest:
            done += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        arrived = set(done)
        yield from ((member, ref) for ref, member in owners.items() if ref in arrived)

    def _refuse_to_wait_for_ever(self) -> None:
        now = time.monotonic()
        if any(member.placing is None for member in self._members):
            self._none_since = None
        elif self._none_since is None:
            self._none_since = now
        elif now > self._none_since + self.resources.startup_timeout:
            if self._placed:
                raise self._lost()
            raise self._unplaced(f"no worker could be placed within {self.resources.startup_timeout:g} s")

    def _lost(self) -> WorkerLost:
        return WorkerLost(
            f"no node has had room for a worker for {self.resources.startup_timeout:g} s, since the last one "
            f"was lost; each needs {self.share.words}",
            hint="see what became of the nodes, then run the same command again",
        )

    def _unplaced(self, what: str) -> ResourcesUnavailable:
        hint = "give a smaller --num_cpus_per_task, or a longer --startup_timeout if others will be done soon"
        if self.share.gpus:
            hint = "give --device cpu or a smaller --num_gpus_per_task, or use a cluster that has GPUs free"
        return ResourcesUnavailable(
            f"{what}: each needs {self.share.words}, and there is\n{self.cluster.table()}", hint=hint
        )

    def _note_start(self, member: ActorState, ref: Ref) -> None:
        try:
            answer = ray.get(ref)
        except RayError as error:
            self._drop(member)
            cause = self._cause_of(error, member)
            self._unfit.append(cause)
            if self._members:
                self.view.say(f"a worker could not start: {cause.message}")
            return
        if ref is member.placing:
            member.home, self._placed = answer, True
            member.placing, member.starting = None, member.actor.start.remote(self._work)
        else:
            member.starting = None

    def _note_glance(self, member: ActorState, ref: Ref) -> None:
        member.looking = None
        try:
            member.glance = ray.get(ref)
        except RayError:
            # What became of the actor is told by its shards.
            member.glance = None

    def _note_shard(self, member: ActorState, ref: Ref) -> None:
        try:
            receipt: ShardResult = ray.get(ref)
        except RayActorError as error:
            self._note_loss(member, error)
        except RayError as error:
            self._note_failure(member, member.in_flight.pop(ref), cause_of(error))
        else:
            shard = member.in_flight.pop(ref)
            self._keep(receipt)
            self.ledger.stored(shard)
            self.progress.finished(shard)
            self._barren_losses = 0

    def _note_failure(self, member: ActorState, shard: Shard, cause: DdpmError) -> None:
        if not self.ledger.failure(shard, member.number, cause):
            return
        if isinstance(cause, StorageFailed):
            raise cause
        self.progress.given_up(shard)
        self.view.say(f"samples {shard.first} to {shard.last} are given up: {cause.message}")

    def _note_loss(self, member: ActorState, error: RayActorError) -> None:
        """The process of an actor died, also when Ray tried again. The shard it worked on may be the cause."""
        first, *others = member.in_flight.values()
        member.in_flight.clear()
        for shard in others:
            self.ledger.lost(shard)
        cause = self._cause_of(error, member)
        self._note_failure(member, first, cause)
        if isinstance(error, ActorDiedError):
            self._drop(member)
            self._barren_losses += 1
            if self._barren_losses > BARREN_LOSSES:
                raise cause
            self.view.say("a worker is lost for good; another takes its place if there is room")

    def _cause_of(self, error: RayError, member: ActorState) -> DdpmError:
        """What went wrong on a worker; its node may know that it was for its memory."""
        cause = cause_of(error)
        if not isinstance(cause, WorkerLost) or member.home is None:
            return cause
        kills = self._oom_kills_on(member.home.node)
        if kills is None or kills <= member.home.oom_kills:
            return cause
        return OutOfMemory(
            "the kernel ended a worker, as its machine or pod has no more memory for it",
            hint="give a smaller --batch_size, fewer workers a machine, or machines and pods with more memory",
        )

    def _oom_kills_on(self, node: str) -> int | None:
        """See `cgroup.oom_kills`; None if the node does not answer, as one that is gone."""
        if node == self.cluster.here:
            # Nobody need be asked, who might find no memory to answer with.
            return oom_kills()
        # Without its head, Ray would keep the question for a minute, and then end this process.
        return ask_oom_kills(node) if self.cluster.answers() else None

    def _drop(self, member: ActorState) -> None:
        ray.kill(member.actor)
        self._members.remove(member)
        self._next_growth = 0.0

    def _observe(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        ready = [member for member in self._members if member.ready]
        running = {}
        for member in ready:
            if member.looking is None and member.in_flight:
                member.looking = member.actor.look.remote()
            if member.glance and member.glance.shard in member.in_flight.values():
                running[member.glance.shard] = member.glance.part
        busy = sum(bool(member.in_flight) for member in ready)
        self.progress.observe(now, running, len(ready), busy)
        self.view.show(self.progress)
