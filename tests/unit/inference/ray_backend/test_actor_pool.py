"""The actor pool: how many actors it creates, and what it does when shards fail, actors die or nodes are lost.

Ray is replaced by fakes of the four functions that the pool calls, with Ray's own exceptions and a fake clock. That
Ray itself behaves like the fakes is tested in tests/ray/driver/test_faults.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.errors import (
    DdpmError,
    Incomplete,
    OtherHardware,
    OutOfMemory,
    ResourcesUnavailable,
    StorageFailed,
    WorkerLost,
)
from ddpm_inference.job import (
    Hardware,
    Identity,
    ModelSpec,
    ResourceRequest,
    SamplerRequest,
    Shard,
    resolve_sampler,
    shards_of,
)
from ddpm_inference.progress import Progress
from ddpm_inference.ray_backend import actor_pool
from ddpm_inference.ray_backend.actor_pool import (
    BUILD_TIMEOUT_FACTOR,
    HEAD_UNREACHABLE_TIMEOUT,
    MAX_DEATHS_WITHOUT_RESULT,
    ActorPool,
)
from ddpm_inference.ray_backend.actor_resources import ActorResources
from ddpm_inference.ray_backend.worker import NodeHardware, Placement, ShardResult

SPEC = ModelSpec(name="Unet", downs=(4, 8), time_emb_dim=4, img_size=8, time_embedding="step")
IDENTITY = Identity(
    model_sha256="0" * 64,
    model=SPEC,
    sampler=resolve_sampler(SamplerRequest(), None),
    seed=0,
    precision="fp32",
    batch_size=32,
    execution="folded",
    device="cpu",
    torch="2.15.0",
)
STARTUP_TIMEOUT = 60.0
MAX_CALLS_AT_ONCE = 50_000


@dataclass(eq=False)
class Ref:
    """The result of a call; there at once unless `is_done` says otherwise."""

    value: Any = None
    error: Exception | None = None
    is_done: Callable[[], bool] = lambda: True


def pending() -> Ref:
    return Ref(is_done=lambda: False)


Sample = Callable[["FakeActor", Shard], Ref]


class FakeActor:
    """Answers each call with what the cluster says."""

    def __init__(self, cluster: FakeCluster, number: int) -> None:
        self.number, self.killed = number, False
        self.sampled: list[Shard] = []
        for name, call in {
            "placement": lambda: cluster.placement(self),
            "preload": lambda: Ref(),
            "find_hardware": lambda device: cluster.hardware(self),
            "start": lambda work: cluster.start(self),
            "progress": lambda: cluster.progress(self),
            "sample": lambda work, shard: self._sample(cluster, shard),
        }.items():
            setattr(self, name, SimpleNamespace(remote=call))

    def _sample(self, cluster: FakeCluster, shard: Shard) -> Ref:
        self.sampled.append(shard)
        return cluster.sample(self, shard)


def sampled(_actor: FakeActor, shard: Shard) -> Ref:
    return Ref(ShardResult(shard, None, None))


def failed(error: Exception) -> Ref:
    """The result of a call that raised on the worker."""
    return Ref(error=RayTaskError("sample", "", error))


@dataclass
class FakeCluster:
    """A cluster with room for so many actors; stands for `Cluster`, and for what happens to the actors on it."""

    room: int = 2
    listening: bool = True
    is_local: bool = False
    description: str = "Ray at head:6379 (from --ray_address)"
    own_node_id: str | None = None
    log_folder: Path = Path("/tmp/ray/session_1/logs")
    required_packages: tuple[str, ...] = ()
    placement: Callable[[FakeActor], Ref] = lambda actor: Ref(Placement("node", 0))
    start: Callable[[FakeActor], Ref] = lambda actor: Ref(f"10.0.0.{actor.number}")
    hardware: Callable[[FakeActor], Ref] = lambda actor: Ref(NodeHardware(Hardware(aten="AVX2"), "10.0.0.1"))
    sample: Sample = sampled
    progress: Callable[[FakeActor], Ref] = lambda actor: Ref(None)
    actors: list[FakeActor] = field(default_factory=list)

    def capacity(self, _resources: ActorResources) -> int:
        return self.room

    def head_is_listening(self) -> bool:
        return self.listening

    def table(self) -> str:
        return "NODE"

    def create_actor(self) -> FakeActor:
        self.actors.append(FakeActor(self, len(self.actors) + 1))
        return self.actors[-1]


@dataclass
class FakeRay:
    """`ray.wait` lets the time pass that it would wait."""

    now: float = 1000.0
    cancelled: list[Ref] = field(default_factory=list)
    _calls: int = 0
    _last: float = 0.0

    def put(self, value: object) -> object:
        return value

    def wait(self, refs: list[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        done = [ref for ref in refs if ref.is_done()][:num_returns]
        if not done:
            self.now += timeout
        return done, [ref for ref in refs if ref not in done]

    def get(self, ref: Ref) -> object:
        if ref.error is not None:
            raise ref.error
        return ref.value

    def kill(self, actor: FakeActor) -> None:
        actor.killed = True

    def cancel(self, ref: Ref) -> None:
        self.cancelled.append(ref)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        self._calls = self._calls + 1 if self.now == self._last else 0
        self._last = self.now
        assert self._calls < MAX_CALLS_AT_ONCE, "the pool spins: it does not wait for anything"
        return self.now


@dataclass
class Run:
    """One run of the pool on a fake cluster."""

    cluster: FakeCluster
    shards: list[Shard]
    workers: int | None = None
    shard_timeout: float | None = None
    allow_mixed_hardware: bool = False
    messages: list[str] = field(default_factory=list)
    stored: list[Shard] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.progress.begin(sum(shard.size for shard in self.shards), 0, len(self.shards))

    def show_message(self, message: str) -> None:
        self.messages.append(message)

    def show_progress(self, progress: Progress) -> None:
        pass

    def run(self) -> dict[Shard, DdpmError]:
        """Samples all shards; returns those that failed permanently."""
        pool = self.pool()
        pool.create_first_actor()
        pool.start(IDENTITY, len(self.shards))
        return pool.run(self.shards, lambda result: self.stored.append(result.shard)).failed

    def pool(self) -> ActorPool:
        checkpoint: Checkpoint = SimpleNamespace()  # type: ignore[assignment]
        return ActorPool(
            self.cluster,  # type: ignore[arg-type]
            ActorResources(1, 0),
            self.cluster.create_actor,  # type: ignore[arg-type]
            checkpoint,
            self.progress,
            self,
            ResourceRequest(
                workers=self.workers,
                startup_timeout=STARTUP_TIMEOUT,
                shard_timeout=self.shard_timeout,
                allow_mixed_hardware=self.allow_mixed_hardware,
            ),
        )


@pytest.fixture(autouse=True)
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(actor_pool, "ray", fake)
    monkeypatch.setattr(actor_pool, "time", SimpleNamespace(monotonic=fake.monotonic, sleep=fake.sleep))
    monkeypatch.setattr(actor_pool, "oom_kills_on", lambda node: None)
    return fake


def shards(count: int) -> list[Shard]:
    return list(shards_of(32 * count, 32))


def test_every_shard_is_sampled_and_all_actors_end() -> None:
    run = Run(FakeCluster(), shards(8))
    assert run.run() == {}
    assert sorted(run.stored, key=lambda shard: shard.first) == run.shards
    assert len(run.cluster.actors) == 2
    assert all(actor.sampled and actor.killed for actor in run.cluster.actors)


@pytest.mark.parametrize(
    ("room", "workers", "count", "created"), [(8, None, 3, 3), (8, 2, 8, 2), (2, None, 8, 2), (2, 4, 8, 4)]
)
def test_actors_are_limited_by_shards_room_and_workers(
    room: int, workers: int | None, count: int, created: int
) -> None:
    run = Run(FakeCluster(room), shards(count), workers)
    run.run()
    assert len(run.cluster.actors) == created
    assert any(f"room for {room} of 4 workers" in message for message in run.messages) == (workers == 4)


def test_actors_join_when_the_cluster_grows(fake_ray: FakeRay) -> None:
    cluster = FakeCluster(room=1)

    def sample(actor: FakeActor, shard: Shard) -> Ref:
        cluster.room = 3
        fake_ray.now += 1.0
        return sampled(actor, shard)

    cluster.sample = sample
    Run(cluster, shards(20)).run()
    assert len(cluster.actors) == 3


def test_a_failed_shard_is_retried_on_another_worker() -> None:
    bad = shards(4)[1]
    attempts: list[int] = []

    def sample(actor: FakeActor, shard: Shard) -> Ref:
        if shard != bad:
            return sampled(actor, shard)
        attempts.append(actor.number)
        return failed(ValueError("once")) if len(attempts) == 1 else sampled(actor, shard)

    run = Run(FakeCluster(sample=sample), shards(4))
    assert run.run() == {}
    assert len(set(attempts)) == len(attempts) == 2


def test_a_shard_that_always_fails_costs_no_other() -> None:
    bad, cause = shards(6)[2], Incomplete("samples 64 to 95 came out as NaN")
    run = Run(
        FakeCluster(sample=lambda actor, shard: failed(cause) if shard == bad else sampled(actor, shard)), shards(6)
    )
    assert run.run() == {bad: cause}
    assert len(run.stored) == 5
    assert f"giving up on samples 64 to 95: {cause.message}" in run.messages


def test_a_run_in_which_everything_fails_ends_early() -> None:
    run = Run(FakeCluster(sample=lambda actor, shard: failed(Incomplete("bad"))), shards(10_000))
    assert 0 < len(run.run()) < 10


def test_a_storage_error_ends_the_run() -> None:
    run = Run(FakeCluster(sample=lambda actor, shard: failed(StorageFailed("the disk is full"))), shards(8))
    with pytest.raises(StorageFailed, match="the disk is full"):
        run.run()


def test_a_dead_actor_is_replaced_and_its_shards_are_sampled() -> None:
    def sample(actor: FakeActor, shard: Shard) -> Ref:
        return Ref(error=ActorDiedError()) if actor.number == 1 else sampled(actor, shard)

    run = Run(FakeCluster(sample=sample), shards(8))
    assert run.run() == {}
    assert run.cluster.actors[0].killed
    assert len(run.cluster.actors) == 3
    assert any("a new one is created" in message for message in run.messages)


def test_an_actor_that_ray_restarts_is_kept() -> None:
    attempts: list[int] = []

    def sample(actor: FakeActor, shard: Shard) -> Ref:
        attempts.append(actor.number)
        return Ref(error=ActorUnavailableError("restarting", None)) if len(attempts) == 1 else sampled(actor, shard)

    run = Run(FakeCluster(room=1, sample=sample), shards(3))
    assert run.run() == {}
    assert len(run.cluster.actors) == 1


def test_deaths_without_any_result_end_the_run() -> None:
    run = Run(FakeCluster(sample=lambda actor, shard: Ref(error=ActorDiedError())), shards(100))
    with pytest.raises(WorkerLost, match="a worker died"):
        run.run()
    assert sum(bool(actor.sampled) for actor in run.cluster.actors) >= MAX_DEATHS_WITHOUT_RESULT


def test_a_death_after_an_oom_kill_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_pool, "oom_kills_on", lambda node: 1)
    run = Run(FakeCluster(sample=lambda actor, shard: Ref(error=ActorDiedError())), shards(100))
    with pytest.raises(OutOfMemory, match="the kernel killed a worker"):
        run.run()


def test_a_local_ray_without_room_is_rejected_at_once(fake_ray: FakeRay) -> None:
    with pytest.raises(ResourcesUnavailable, match="no node has room for a worker: each needs 1 CPU"):
        Run(FakeCluster(room=0, is_local=True), shards(1)).run()
    assert fake_ray.now == 1000.0


def test_actors_that_are_never_placed_are_an_error_after_the_timeout(fake_ray: FakeRay) -> None:
    cluster = FakeCluster(room=0, placement=lambda actor: pending())
    with pytest.raises(ResourcesUnavailable, match="no worker could be placed within 60 s"):
        Run(cluster, shards(1)).run()
    assert STARTUP_TIMEOUT < fake_ray.now - 1000.0 < STARTUP_TIMEOUT + 5


def test_nodes_that_do_not_come_back_are_an_error_after_the_timeout(fake_ray: FakeRay) -> None:
    cluster = FakeCluster()

    def sample(actor: FakeActor, shard: Shard) -> Ref:
        cluster.room = 0
        return pending()

    cluster.sample = sample
    run = Run(cluster, shards(8))
    with pytest.raises(WorkerLost, match="no node has had room for a worker for 60 s"):
        run.run()
    assert fake_ray.now - 1000.0 > STARTUP_TIMEOUT
    assert sum("no node has room for a worker any more" in message for message in run.messages) == 1


def test_a_head_that_is_gone_is_an_error_and_costs_no_attempt() -> None:
    cluster = FakeCluster()

    def sample(actor: FakeActor, shard: Shard) -> Ref:
        cluster.listening = False
        return pending()

    cluster.sample = sample
    run = Run(cluster, shards(8))
    with pytest.raises(WorkerLost, match="does not answer any more"):
        run.run()
    assert sum(len(actor.sampled) for actor in cluster.actors) <= 4


def test_a_head_that_comes_back_in_time_is_no_error(fake_ray: FakeRay) -> None:
    cluster = FakeCluster()
    back_at = 1000.0 + HEAD_UNREACHABLE_TIMEOUT / 2

    def head_is_listening() -> bool:
        return not 1003.0 < fake_ray.now < back_at

    def sample(actor: FakeActor, shard: Shard) -> Ref:
        fake_ray.now += 1.0
        return Ref(ShardResult(shard, None, None), is_done=head_is_listening)

    cluster.head_is_listening, cluster.sample = head_is_listening, sample  # type: ignore[method-assign]
    run = Run(cluster, shards(20))
    assert run.run() == {}
    assert fake_ray.now > back_at


def test_an_actor_that_cannot_start_does_not_stop_the_others() -> None:
    cluster = FakeCluster(start=lambda actor: failed(OutOfMemory("no memory")) if actor.number == 1 else Ref())
    run = Run(cluster, shards(4))
    assert run.run() == {}
    assert not cluster.actors[0].sampled
    assert "a worker could not start: no memory" in run.messages


def test_if_no_actor_can_start_an_error_about_memory_is_reported() -> None:
    def start(actor: FakeActor) -> Ref:
        return failed(OutOfMemory("no memory") if actor.number == 2 else ResourcesUnavailable("no torch"))

    with pytest.raises(OutOfMemory, match="no memory"):
        Run(FakeCluster(start=start), shards(4)).run()


def test_a_build_that_never_returns_ends_the_run(fake_ray: FakeRay) -> None:
    run = Run(FakeCluster(start=lambda actor: pending()), shards(4))
    with pytest.raises(ResourcesUnavailable, match="did not build its network within 120 s") as failed:
        run.run()
    assert "--startup_timeout" in failed.value.hint
    assert any("has not built its network after 60 s" in message for message in run.messages)
    assert all(actor.killed for actor in run.cluster.actors)
    assert fake_ray.now - 1000.0 < BUILD_TIMEOUT_FACTOR * STARTUP_TIMEOUT + 10


def test_a_build_that_never_returns_does_not_stop_the_others(fake_ray: FakeRay) -> None:
    def sample(actor: FakeActor, shard: Shard) -> Ref:
        fake_ray.now += 4.0
        return sampled(actor, shard)

    cluster = FakeCluster(start=lambda actor: pending() if actor.number == 1 else Ref(), sample=sample)
    run = Run(cluster, shards(60))
    assert run.run() == {}
    assert cluster.actors[0].killed
    assert any("a worker could not start: a worker did not build its network" in message for message in run.messages)


def test_the_time_to_build_counts_from_the_placement(fake_ray: FakeRay) -> None:
    placed_at = 1000.0 + STARTUP_TIMEOUT - 5
    built_at = placed_at + BUILD_TIMEOUT_FACTOR * STARTUP_TIMEOUT - 10
    cluster = FakeCluster(
        placement=lambda actor: Ref(Placement("node", 0), is_done=lambda: fake_ray.now >= placed_at),
        start=lambda actor: Ref(is_done=lambda: fake_ray.now >= built_at),
    )
    assert Run(cluster, shards(4)).run() == {}


def hanging_on(hangs: Shard, times: int, fake_ray: FakeRay) -> tuple[FakeCluster, list[int]]:
    """A cluster on which a shard takes 2 s, except one that hangs so many times; and the workers it hung on."""
    hung: list[int] = []

    def sample(actor: FakeActor, shard: Shard) -> Ref:
        if shard == hangs and len(hung) < times:
            hung.append(actor.number)
            return pending()
        done_at = fake_ray.now + 2.0
        return Ref(ShardResult(shard, None, None), is_done=lambda: fake_ray.now >= done_at)

    return FakeCluster(sample=sample), hung


def test_a_shard_that_hangs_goes_to_another_worker(fake_ray: FakeRay) -> None:
    cluster, hung = hanging_on(shards(120)[10], 1, fake_ray)
    run = Run(cluster, shards(120))
    assert run.run() == {}
    assert len(run.stored) == 120
    assert cluster.actors[hung[0] - 1].killed
    assert len(cluster.actors) == 3
    (message,) = [message for message in run.messages if "have taken" in message]
    assert message.startswith("samples 320 to 351 have taken 6")
    assert "where others take 2.0 s; their worker is replaced (1 so far)" in message


def test_a_shard_that_hangs_everywhere_is_given_up(fake_ray: FakeRay) -> None:
    cluster, hung = hanging_on(shards(50)[10], 100, fake_ray)
    run = Run(cluster, shards(50))
    ((shard, cause),) = run.run().items()
    assert shard == shards(50)[10]
    assert isinstance(cause, WorkerLost)
    assert "no worker finished it" in cause.message
    assert len(hung) == len(set(hung)) == 4
    assert len(run.stored) == 49


def test_the_shard_timeout_replaces_the_comparison(fake_ray: FakeRay) -> None:
    cluster, hung = hanging_on(shards(1)[0], 1, fake_ray)
    run = Run(cluster, shards(1), shard_timeout=20)
    assert run.run() == {}
    assert len(hung) == 1
    assert any("longer than --shard_timeout 20; their worker is replaced" in message for message in run.messages)
    assert fake_ray.now - 1000.0 < 40


def test_shards_queued_behind_a_slow_one_move_to_idle_workers(fake_ray: FakeRay) -> None:
    slow = shards(6)[0]
    began: dict[Shard, int] = {}

    def sample(actor: FakeActor, shard: Shard) -> Ref:
        began[shard] = actor.number
        # Worker 1 finishes its other shards only after the slow one.
        done_at = fake_ray.now + (50.0 if actor.number == 1 else 2.0)
        return Ref(ShardResult(shard, None, None), is_done=lambda: fake_ray.now >= done_at)

    run = Run(FakeCluster(sample=sample), shards(6))
    assert run.run() == {}
    assert began[slow] == 1
    assert [shard for shard, number in began.items() if number == 1] == [slow]
    assert len(run.stored) == len(set(run.stored)) == 6
    assert len(fake_ray.cancelled) == 1


def test_time_without_the_head_does_not_make_a_shard_slow(fake_ray: FakeRay) -> None:
    cluster = FakeCluster(room=1)
    gone_until = 1000.0

    def sample(actor: FakeActor, shard: Shard) -> Ref:
        nonlocal gone_until
        if shard.first == 0:
            gone_until = fake_ray.now + HEAD_UNREACHABLE_TIMEOUT - 5
        done_at = max(gone_until, fake_ray.now) + 2.0
        return Ref(ShardResult(shard, None, None), is_done=lambda: fake_ray.now >= done_at)

    cluster.sample, cluster.head_is_listening = sample, lambda: fake_ray.now >= gone_until  # type: ignore[method-assign]
    run = Run(cluster, shards(3), shard_timeout=HEAD_UNREACHABLE_TIMEOUT - 7)
    assert run.run() == {}
    assert not any("have taken" in message for message in run.messages)


def test_a_driver_that_was_stopped_does_not_blame_its_workers(fake_ray: FakeRay) -> None:
    def sample(actor: FakeActor, shard: Shard) -> Ref:
        fake_ray.now += 3600.0 if shard.first == 64 else 1.0
        return Ref(ShardResult(shard, None, None))

    run = Run(FakeCluster(sample=sample), shards(8), shard_timeout=60)
    assert run.run() == {}
    assert not any("have taken" in message for message in run.messages)


def test_the_pool_waits_while_nothing_is_in_flight(fake_ray: FakeRay) -> None:
    cluster = FakeCluster()
    looks: list[float] = []

    def head_is_listening() -> bool:
        looks.append(fake_ray.now)
        return len(looks) == 1

    cluster.head_is_listening = head_is_listening  # type: ignore[method-assign]
    cluster.sample = lambda actor, shard: Ref(error=ActorDiedError())
    with pytest.raises(WorkerLost, match="does not answer any more"):
        Run(cluster, shards(2)).run()
    assert len(looks) < 20


def test_a_stalled_run_says_so_once(fake_ray: FakeRay) -> None:
    cluster, _ = hanging_on(shards(20)[19], 1, fake_ray)
    run = Run(cluster, shards(20))
    assert run.run() == {}
    assert sum("no worker has made a step for" in message for message in run.messages) == 1


def first_hardware(cluster: FakeCluster) -> NodeHardware:
    pool = Run(cluster, []).pool()
    pool.create_first_actor()
    return pool.find_hardware("cpu")


def test_hardware_is_that_of_the_first_actor() -> None:
    cluster = FakeCluster()
    assert first_hardware(cluster) == (Hardware(aten="AVX2"), "10.0.0.1")
    assert len(cluster.actors) == 1


def test_hardware_of_an_actor_that_died_is_unknown() -> None:
    assert first_hardware(FakeCluster(hardware=lambda actor: Ref(error=ActorDiedError()))).hardware is None


def refused(actor: FakeActor) -> Ref:
    """The start of an actor on a node with other hardware."""
    return failed(OtherHardware("a worker has aten AVX2", other_hardware_ips=[f"10.0.0.{actor.number}"]))


def test_nodes_that_draw_and_nodes_that_cannot_are_published() -> None:
    cluster = FakeCluster(start=lambda actor: refused(actor) if actor.number == 1 else Ref("10.0.0.2"))
    run = Run(cluster, shards(4))
    assert run.run() == {}
    assert run.progress.snapshot()["nodeIps"] == {"ready": ["10.0.0.2"], "otherHardware": ["10.0.0.1"]}


def test_a_local_ray_publishes_no_nodes() -> None:
    run = Run(FakeCluster(is_local=True), shards(4))
    run.run()
    assert "nodeIps" not in run.progress.snapshot()


def test_where_hardware_may_be_mixed_no_nodes_are_published() -> None:
    run = Run(FakeCluster(), shards(4), allow_mixed_hardware=True)
    run.run()
    assert "nodeIps" not in run.progress.snapshot()


def test_if_no_actor_has_the_hardware_all_their_nodes_are_named() -> None:
    with pytest.raises(OtherHardware) as error:
        Run(FakeCluster(start=refused), shards(4)).run()
    assert error.value.other_hardware_ips == ("10.0.0.1", "10.0.0.2")


def test_no_hardware_without_a_placed_actor(fake_ray: FakeRay) -> None:
    cluster = FakeCluster(placement=lambda actor: pending(), hardware=lambda actor: pending())
    started = fake_ray.now
    with pytest.raises(ResourcesUnavailable, match="no worker could be placed within 60 s"):
        first_hardware(cluster)
    assert fake_ray.now - started < 2 * STARTUP_TIMEOUT


def test_an_actor_that_does_not_report_its_hardware_ends_the_run() -> None:
    with pytest.raises(ResourcesUnavailable, match="did not report its hardware within 120 s"):
        first_hardware(FakeCluster(hardware=lambda actor: pending()))


def test_a_local_ray_that_dies_ends_the_run_at_once(fake_ray: FakeRay) -> None:
    cluster = FakeCluster(is_local=True)

    def sample(actor: FakeActor, shard: Shard) -> Ref:
        cluster.room = 0
        return pending()

    cluster.sample = sample
    with pytest.raises(WorkerLost, match="the local Ray has died") as failed:
        Run(cluster, shards(8)).run()
    assert "/tmp/ray/session_1/logs" in failed.value.hint
    assert fake_ray.now - 1000.0 < STARTUP_TIMEOUT / 2


def test_a_local_ray_that_dies_before_any_worker_is_placed_is_exit_code_3() -> None:
    cluster = FakeCluster(is_local=True)

    def placement(actor: FakeActor) -> Ref:
        return Ref(is_done=lambda: bool(setattr(cluster, "room", 0)))

    cluster.placement = placement
    with pytest.raises(ResourcesUnavailable, match="the local Ray has died"):
        Run(cluster, shards(8)).run()
