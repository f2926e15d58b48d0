"""Random events in random order, with an operator that crashes at any point and observes stale caches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_operator.api import ConditionType, EventReason, Phase
from ddpm_operator.api.status import Placement
from ddpm_operator.reconcile.actions import Action, WritePreview, WriteStatus
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind, ObservedCluster, ObservedPod
from tests.fakes.world import World

pytestmark = pytest.mark.slow

TRANSIENT = ActionError(ActionErrorKind.TRANSIENT, "reach the API server", "timeout")
FULL = "exceeded quota: team, requested: pods=1, used: pods=9, limited: pods=9"
FOR_A_WHILE = [
    TRANSIENT,
    ActionError(ActionErrorKind.QUOTA, "create the RayCluster digits-1", FULL),
    ActionError(ActionErrorKind.KUBERAY_MISSING, "create the RayCluster digits-1", "the cluster knows no RayCluster"),
]
NO_PREVIEW = ActionError(ActionErrorKind.PREVIEW, "write the preview digits-preview", "timeout")

# What happens without failures.
COURSE: list[Callable[[World], object]] = [
    World.kuberay,
    World.collect_garbage,
    World.kubelet,
    World.kubelet,
    World.driver,
    World.driver,
]


def keep_workers_out(world: World) -> None:
    """Fills the quota, so that pending workers are not created."""
    quota(world, full=True)
    for pod in [it for it in world.pods.values() if it.role == "worker" and it.phase == "Pending"]:
        del world.pods[pod.uid]


FAILURES: list[Callable[[World], object]] = [
    World.driver_fails,
    World.driver_exits,
    World.head_dies,
    lambda it: it.head_dies("OOMKilled", 137),
    World.delete_pod,
    World.delete_cluster,
    lambda it: it.driver_fails("ModelNotFound"),
    lambda it: quota(it, full=True),
    lambda it: quota(it, full=False),
    keep_workers_out,
    lambda it: set_blocked_by(it, "elder"),
    lambda it: set_blocked_by(it, None),
    lambda it: prefer(it, "node-a"),
    lambda it: prefer(it, "node-b"),
    lambda it: it.full_nodes.add("node-a"),
    lambda it: it.full_nodes.clear(),
]


def quota(world: World, *, full: bool) -> None:
    """Fills or frees the quota for pods."""
    failure = FULL if full else None
    world.clusters = {name: replace(it, replica_failure=failure) for name, it in world.clusters.items()}


def set_blocked_by(world: World, name: str | None) -> None:
    """Sets or clears an older sampling that waits for its workers."""
    world.blocked_by = name


def prefer(world: World, name: str) -> None:
    """Lets the scheduler take this node first."""
    world.nodes = dict(sorted(world.nodes.items(), key=lambda it: it[0] != name))


@st.composite
def specs(draw: st.DrawFn) -> dict[str, object]:
    return {
        "samples": draw(st.integers(1, 300)),
        "backoffLimit": draw(st.integers(0, 3)),
        "keepClusterSeconds": draw(st.sampled_from([0, 0, 60])),
        "startupDeadlineSeconds": draw(st.sampled_from([30, 600])),
        "resources": {"maxWorkers": draw(st.integers(0, 2))},
    } | draw(st.sampled_from([{}, {}, {"activeDeadlineSeconds": 60}, {"suspend": True}]))


class Chaos:
    """Draws random events."""

    def __init__(self, draw: st.DataObject, spec: dict[str, object]) -> None:
        self._draw = draw
        self.world = World.of(**spec)
        self.world.nodes = {"node-a": "AVX512", "node-b": "AVX2"}
        self.world.node_labels = {name: {"kubernetes.io/arch": "amd64"} for name in self.world.nodes}
        self._late_pods: list[dict[str, ObservedPod]] = [{}]
        self._late_clusters: list[dict[str, ObservedCluster]] = [{}]

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._step()

    def _step(self) -> None:
        world = self.world
        match self._draw.draw(
            st.sampled_from(["steps", "steps", "course", "reconcile", "reconcile", "time", "failure", "user"])
        ):
            case "steps":
                for _ in range(self._draw.draw(st.integers(1, 15))):
                    world.step()
                self._late_pods.clear()  # the caches are up to date
                self._late_clusters.clear()
            case "course":
                self._move(COURSE)
            case "failure":
                self._move(FAILURES)
            case "time":
                world.wait(self._draw.draw(st.sampled_from([1, 1, 5, 20, 120])))
            case "user":
                self._user()
            case "reconcile":
                self._reconcile()
        self._late_pods.append(dict(world.pods))
        self._late_clusters.append(dict(world.clusters))

    def _move(self, moves: list[Callable[[World], object]]) -> None:
        self._draw.draw(st.sampled_from(moves))(self.world)

    def _user(self) -> None:
        spec = self.world.sampling.spec
        match self._draw.draw(st.sampled_from(["grow", "suspend", "retry", "repair", "mix"])):
            case "grow":
                self.world.edit(samples=spec.samples + self._draw.draw(st.integers(1, 100)))
            case "suspend":
                self.world.edit(suspend=not spec.suspend)
            case "retry":
                self.world.edit(backoffLimit=min(100, spec.backoff_limit + 1))
            case "repair":
                self.world.damaged = min(self.world.stored, 1)
                self.world.edit(repair=spec.repair + 1)
            case "mix":
                mixed = not spec.resources.allow_mixed_hardware
                self.world.edit(resources=spec.resources.to_document() | {"allowMixedHardware": mixed})

    def _reconcile(self) -> None:
        # Each cache is stale by a random amount, but never goes back to an older state than it has shown.
        self._late_pods = self._late_pods[self._draw.draw(st.integers(0, len(self._late_pods) - 1)) :]
        self._late_clusters = self._late_clusters[self._draw.draw(st.integers(0, len(self._late_clusters) - 1)) :]
        world = self.world
        crash_after = self._draw.draw(st.none() | st.none() | st.integers(0, 6))
        world.crash_at = None if crash_after is None else len(world.executed) + crash_after
        between = self._draw.draw(st.sampled_from([None, None, None, *COURSE, *FAILURES, lambda _: self._user()]))
        refused = self._draw.draw(st.none() | st.none() | st.integers(0, 4))
        world.reject = refusing(refused, self._draw.draw(st.sampled_from(FOR_A_WHILE)))
        doubled = self._draw.draw(st.sampled_from([False, False, False, True]))
        meanwhile = (lambda: between(world)) if between else None
        world.reconcile(self._late_pods[0], self._late_clusters[0], meanwhile, doubled)
        world.reject = lambda _: None
        if crash_after is not None:
            world.crash_at = None
            self._late_pods, self._late_clusters = [dict(world.pods)], [dict(world.clusters)]


def refusing(number: int | None, error: ActionError) -> Callable[[Action], ActionError | None]:
    """Rejects every action from the n-th on, except the status."""
    left = iter(range(number or 0))

    def refuse(action: Action) -> ActionError | None:
        if number is None or isinstance(action, WriteStatus):
            return None
        if next(left, None) is not None:
            return None
        return NO_PREVIEW if isinstance(action, WritePreview) else error

    return refuse


@settings(deadline=None, max_examples=100)
@given(st.data(), specs(), st.integers(0, 60))
def test_random_runs_end_complete_or_failed_and_clean(data: st.DataObject, spec: dict[str, object], steps: int) -> None:
    chaos = Chaos(data, spec)
    chaos.run(steps)
    world = chaos.world
    # From here on nothing fails, and the operator reconciles when it is requeued.
    if world.sampling.spec.suspend:
        world.edit(suspend=False)
    quota(world, full=False)
    set_blocked_by(world, None)
    world.full_nodes.clear()
    world.reconcile()
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE) != world.holds(ConditionType.FAILED)
    assert not world.clusters
    assert not world.pods
    if world.holds(ConditionType.FAILED):
        assert world.status.failure
        assert world.status.failure.hint
    assert_no_duplicate_events(world)
    if world.status.phase is Phase.SUCCEEDED:
        assert world.sampling.spec.repair == (world.status.repaired or 0)
    assert_uncounted_attempts_are_few(world)
    world.reconcile()
    world.reconcile()
    assert world.settled


def assert_uncounted_attempts_are_few(world: World) -> None:
    """Asserts that an attempt that does not count excludes a node, or waits longer than the one before."""
    for before, after in pairwise(world.history):
        if before.cluster and not after.cluster:
            ready = next(it for it in after.conditions if it.type == ConditionType.CLUSTER_READY)
            was, now = before.placement or Placement(), after.placement or Placement()
            if ready.reason == "OtherHardware":
                assert len(now.excluded_nodes) > (before.cluster.excluded_nodes or 0)
            if ready.reason == "WaitingForHardware":
                assert now.unscheduled_attempts == (was.unscheduled_attempts or 0) + 1


def assert_no_duplicate_events(world: World) -> None:
    """Asserts that there are no more events than changes."""
    changes: Counter[EventReason] = Counter()
    kinds = {
        EventReason.ACCEPTED: ConditionType.ACCEPTED,
        EventReason.STARTED: ConditionType.RUNNING,
        EventReason.COMPLETED: ConditionType.COMPLETE,
        EventReason.FAILED: ConditionType.FAILED,
        EventReason.SUSPENDED: ConditionType.SUSPENDED,
        EventReason.CLUSTER_DELETED: ConditionType.CLEANED_UP,
    }
    held: dict[EventReason, bool] = {}
    attempts, failures = set(), set()
    for status in world.history:
        holding = {it.type for it in status.conditions if it.status == "True"}
        for reason, kind in kinds.items():
            changes[reason] += kind in holding and not held.get(reason, False)
            held[reason] = kind in holding
        attempts.add(status.attempt)
        failures.add((status.attempt, status.failure.time if status.failure else None))
    counts = Counter(world.reasons)
    for reason in kinds:
        assert counts[reason] <= changes[reason], f"{reason} was created {counts[reason]} times"
    assert counts[EventReason.CLUSTER_CREATED] <= len(attempts)
    assert counts[EventReason.RETRYING] <= len(attempts)
    assert counts[EventReason.ATTEMPT_FAILED] <= len(failures)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 40))
def test_crash_after_any_action_loses_nothing(number: int) -> None:
    world = World.of(samples=200, resources={"maxWorkers": 1})
    world.crash_at = number
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.created == 3
    assert world.status.attempt == 1
