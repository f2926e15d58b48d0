"""The operator's own admission: many samplings of which only some may be active at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_operator.api import ConditionType, DDPMSampling, EventReason, Phase
from ddpm_operator.controller.admission import AdmissionQueue
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.planning.limits import Limits
from ddpm_operator.reconcile.actions import CreateCluster
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind
from tests.fakes.world import START, World

TIMEOUT = ActionError(ActionErrorKind.TRANSIENT, "create the RayCluster", "timeout")


@dataclass
class Samplings:
    """Samplings of one operator.

    Attributes:
        events: the watch events of each sampling, delivered or not, oldest first.
        began: the order in which the samplings became active.
    """

    limits: Limits
    worlds: list[World] = field(default_factory=list)
    events: dict[ObjectKey, list[dict[str, Any]]] = field(default_factory=dict)
    began: list[ObjectKey] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def add(self, namespace: str, name: str, **spec: Any) -> World:  # noqa: ANN401 - as YAML has them
        """Adds a sampling, one second younger than the last one."""
        world = World.of(**spec)
        named = {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}"}
        created = START + timedelta(seconds=len(self.worlds))
        metadata = world.sampling.metadata.model_copy(update=named | {"creation_timestamp": created})
        world.sampling, world.admission = world.sampling.model_copy(update={"metadata": metadata}), self.admission
        self.worlds.append(world)
        self.events[world.key] = []
        return world

    def restart(self) -> None:
        """Restarts the operator, which lists the samplings."""
        self.admission = AdmissionQueue(self.limits, lambda: [world.key for world in self.worlds if world.clusters])
        for world in self.worlds:
            world.admission = self.admission
            world.requeue_at = world.now
            self.admission.observe_document(document(world.sampling))

    def check(self) -> None:
        """Asserts that no more samplings are active than the limits allow."""
        active = [world for world in self.worlds if world.clusters or has_cluster(world)]
        assert len(active) <= (self.limits.at_once or 99)
        per_namespace = Counter(world.key.namespace for world in active)
        assert max(per_namespace.values(), default=0) <= (self.limits.at_once_per_namespace or 99)
        self.began += [world.key for world in active if world.key not in self.began]

    def wake_admissible(self) -> None:
        for key in self.admission.take_admissible():
            world = next(it for it in self.worlds if it.key == key)
            world.requeue_at = world.now

    def finish_all(self, max_steps: int = 4000) -> None:
        """Lets every sampling finish without further failures."""
        for _ in range(max_steps):
            awake = [world for world in self.worlds if not world.settled]
            if not awake:
                return
            now = max(world.now for world in self.worlds)
            for world in awake:
                world.now = now
                world.step()
                self.wake_admissible()
                self.check()
        raise AssertionError(f"not all finished: {[world.sampling.status for world in self.worlds]}")


def document(sampling: DDPMSampling) -> dict[str, Any]:
    return sampling.model_dump(mode="json", by_alias=True, exclude_none=True)


def has_cluster(world: World) -> bool:
    return world.sampling.status is not None and world.sampling.status.cluster is not None


def samplings(limits: Limits, names: str, **spec: Any) -> Samplings:  # noqa: ANN401 - as YAML has them
    found = Samplings(limits)
    for name in names.split():
        found.add(name[0], name, **spec)
    return found


def names(keys: list[ObjectKey]) -> str:
    return " ".join(key.name for key in keys)


def test_waiting_sampling_is_queued_without_a_cluster() -> None:
    here = samplings(Limits(at_once_per_namespace=1), "a1 a2 b3")
    for world in here.worlds:
        world.reconcile()
    first, second, other = here.worlds
    assert [first.status.phase, second.status.phase, other.status.phase] == [
        Phase.STARTING,
        Phase.QUEUED,
        Phase.STARTING,
    ]
    assert second.condition(ConditionType.CLUSTER_READY).message == (
        "Waiting for a free slot: the administrator allows 1 sampling at once in a namespace."
    )
    assert second.holds(ConditionType.ACCEPTED)
    assert second.reasons == [EventReason.ACCEPTED, EventReason.QUEUED]
    assert not second.clusters
    assert second.status.attempt is None
    assert second.status.start_time is None
    here.finish_all()
    assert second.holds(ConditionType.COMPLETE)
    assert second.status.attempt == 1


def test_message_names_the_global_limit() -> None:
    here = samplings(Limits(at_once=2, at_once_per_namespace=2), "a1 b2 c3")
    for world in here.worlds:
        world.reconcile()
    assert here.worlds[2].condition(ConditionType.CLUSTER_READY).message == (
        "Waiting for a free slot: the administrator allows 2 samplings at once."
    )


def test_namespaces_alternate_oldest_first() -> None:
    here = samplings(Limits(at_once=1), "a1 a2 a3 a4 b5 b6 c7")
    for world in here.worlds:
        world.reconcile()
        here.check()
    here.finish_all()
    assert names(here.began) == "a1 b5 c7 a2 b6 a3 a4"


def test_waiting_costs_no_attempt_and_no_deadline() -> None:
    here = samplings(Limits(at_once=1), "a1 a2", startupDeadlineSeconds=60, activeDeadlineSeconds=60)
    first, second = here.worlds
    first.reconcile()
    second.reconcile()
    second.wait(3600)
    second.reconcile()
    assert second.status.phase == Phase.QUEUED
    here.finish_all()
    assert second.holds(ConditionType.COMPLETE)
    assert (second.status.attempt, second.status.failed_attempts) == (1, 0)


def test_backoff_frees_the_slot() -> None:
    here = samplings(Limits(at_once=1), "a1 a2")
    first, second = here.worlds
    first.run(until=lambda it: it.holds(ConditionType.RUNNING))
    second.reconcile()
    first.driver_fails()
    here.finish_all()
    assert first.holds(ConditionType.COMPLETE)
    assert first.status.attempt == 2
    assert second.holds(ConditionType.COMPLETE)


def test_freed_slot_wakes_one_sampling_once() -> None:
    here = samplings(Limits(at_once=1), "a1 a2 a3")
    for world in here.worlds:
        world.reconcile()
    assert here.admission.take_admissible() == ()
    here.worlds[0].edit(suspend=True)
    here.worlds[0].run(until=lambda it: it.holds(ConditionType.CLEANED_UP))
    assert names([*here.admission.take_admissible()]) == "a2"
    assert here.admission.take_admissible() == ()


def test_deleted_waiting_sampling_does_not_block() -> None:
    here = samplings(Limits(at_once=1), "a1 a2 a3")
    for world in here.worlds:
        world.reconcile()
    first, second, third = here.worlds
    second.is_deleted = True
    first.edit(suspend=True)
    first.run(until=lambda it: it.holds(ConditionType.CLEANED_UP))
    assert here.admission.take_admissible() == (second.key,)
    here.admission.remove(second.key)
    assert here.admission.take_admissible() == (third.key,)


def test_concurrent_passes_do_not_share_a_slot() -> None:
    here = samplings(Limits(at_once=1), "a1 a2")
    first, second = here.worlds
    first.reconcile(between=second.reconcile)
    here.check()
    assert [first.status.phase, second.status.phase] == [Phase.STARTING, Phase.QUEUED]


def test_slot_is_freed_after_a_conflict() -> None:
    here = samplings(Limits(at_once=1), "a1 a2")
    first, second = here.worlds
    first.reconcile(between=lambda: first.edit(suspend=True))
    assert first.sampling.status is None
    first.reconcile()
    second.reconcile()
    assert [first.status.phase, second.status.phase] == [Phase.SUSPENDED, Phase.STARTING]


def test_stale_watch_event_does_not_free_a_slot() -> None:
    here = samplings(Limits(at_once=1), "a1 a2")
    first, second = here.worlds
    before = document(first.sampling)
    first.reject = lambda it: TIMEOUT if isinstance(it, CreateCluster) else None
    first.reconcile()
    assert not first.clusters
    here.admission.observe_document(before)
    second.reconcile()
    assert second.status.phase == Phase.QUEUED


def test_leftover_cluster_keeps_its_slot() -> None:
    here = samplings(Limits(at_once=1), "a1 a2")
    first, second = here.worlds
    first.reconcile()
    here.admission.remove(first.key)
    second.reconcile()
    assert second.status.phase == Phase.QUEUED
    first.request_cluster_deletion(next(iter(first.clusters)))
    first.collect_garbage()
    assert here.admission.take_admissible() == (second.key,)


def test_terminating_sampling_frees_its_slot_with_its_cluster() -> None:
    here = samplings(Limits(at_once=1), "a1 a2")
    first, second = here.worlds
    first.reconcile()
    first.delete_with_finalizer()
    first.reconcile()
    second.reconcile()
    assert second.status.phase == Phase.QUEUED
    first.collect_garbage()
    assert here.admission.take_admissible() == (second.key,)
    second.reconcile()
    assert second.status.phase == Phase.STARTING


def test_forged_labels_take_no_slot() -> None:
    here = samplings(Limits(at_once=1), "a1 a2")
    forged = here.add("b", "b1")
    forged.reconcile()
    here.worlds.remove(forged)
    here.restart()
    here.worlds.append(forged)
    first, second = here.worlds[:2]
    first.reconcile()
    second.reconcile()
    assert [first.status.phase, second.status.phase] == [Phase.STARTING, Phase.QUEUED]


LIMITS = st.builds(Limits, at_once=st.integers(1, 3)) | st.builds(Limits, at_once_per_namespace=st.integers(1, 2))


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.data(), LIMITS, st.lists(st.sampled_from("abc"), min_size=2, max_size=6), st.integers(0, 60))
def test_limit_holds_and_every_sampling_gets_a_slot(
    data: st.DataObject, limits: Limits, namespaces: list[str], steps: int
) -> None:
    here = samplings(limits, " ".join(f"{namespace}{number}" for number, namespace in enumerate(namespaces)))
    for _ in range(steps):
        _random_event(data, here, *data.draw(st.tuples(*[st.sampled_from(here.worlds)] * 2)))
        here.check()
    for world in here.worlds:
        if world.sampling.spec.suspend:
            world.edit(suspend=False)
        world.requeue_at = world.now
    here.finish_all()
    for world in here.worlds:
        assert world.holds(ConditionType.COMPLETE) != world.holds(ConditionType.FAILED)


def _random_event(data: st.DataObject, here: Samplings, world: World, other: World) -> None:
    here.events[world.key].append(document(world.sampling))
    match data.draw(st.sampled_from(["steps", "reconcile", "both", "both", "event", "restart", "user", "failure"])):
        case "steps":
            for _ in range(data.draw(st.integers(1, 12))):
                world.step()
        case "reconcile":
            world.reconcile()
        case "both":
            # The other pass runs after this one has decided and before it acts.
            if other is not world:
                world.reconcile(between=other.reconcile)
        case "event":
            delivered = here.events[world.key]
            here.admission.observe_document(delivered[data.draw(st.integers(0, len(delivered) - 1))])
        case "restart":
            here.restart()
        case "user":
            world.reconcile(between=lambda: world.edit(suspend=not world.sampling.spec.suspend))
            here.admission.observe_document(document(world.sampling))
        case "failure":
            _ = data.draw(st.sampled_from([world.driver_fails, world.head_dies, world.delete_cluster]))()
