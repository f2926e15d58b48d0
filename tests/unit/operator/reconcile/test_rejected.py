"""What only the operator can know to be impossible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ddpm_operator.api import ConditionType, EventReason, FailureReason, Phase
from ddpm_operator.reconcile.actions import Action, CreateCluster, CreateNetworkPolicy, CreateSecret, EnsureClaim
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind, OutputClaim
from tests.fakes.world import World


def refusing(kind: ActionErrorKind, action: type, message: str = "no") -> Callable[[Action], ActionError | None]:
    def refuse(tried: Action) -> ActionError | None:
        return ActionError(kind, "create the RayCluster digits-1", message) if isinstance(tried, action) else None

    return refuse


def refused(world: World, kind: ActionErrorKind, action: type = CreateCluster, message: str = "no") -> World:
    world.refuse = refusing(kind, action, message)
    world.run(until=lambda it: it.at_rest)
    return world


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (ActionErrorKind.KUBERAY_TOO_OLD, FailureReason.KUBERAY_MISSING),
        (ActionErrorKind.FORBIDDEN, FailureReason.POD_REJECTED),
        (ActionErrorKind.INVALID, FailureReason.INVALID_SPEC),
        (ActionErrorKind.NOT_FOUND, FailureReason.REFERENCE_NOT_FOUND),
        (ActionErrorKind.TEMPLATE, FailureReason.INTERNAL_ERROR),
        (ActionErrorKind.NAME_TAKEN, FailureReason.INTERNAL_ERROR),
    ],
)
def test_a_refusal_that_will_not_pass_ends_the_sampling_at_once(kind: ActionErrorKind, reason: FailureReason) -> None:
    world = refused(World.of(), kind)
    accepted = world.condition(ConditionType.ACCEPTED)
    assert (accepted.status, accepted.reason) == ("False", reason)
    assert accepted.message == "The operator cannot create the RayCluster digits-1: no."
    assert world.status.phase == Phase.FAILED
    assert world.status.failure
    assert world.status.failure.hint
    assert world.status.failure.hint in world.condition(ConditionType.FAILED).message
    assert world.reasons[-3:] == [EventReason.REJECTED, EventReason.FAILED, EventReason.CLUSTER_DELETED]


def test_a_secret_that_is_refused_ends_it_too_and_leaves_no_cluster() -> None:
    world = refused(World.of(), ActionErrorKind.FORBIDDEN, CreateSecret)
    assert world.holds(ConditionType.FAILED)
    assert not world.clusters


@pytest.mark.parametrize("kind", [ActionErrorKind.FORBIDDEN, ActionErrorKind.QUOTA, ActionErrorKind.INVALID])
def test_an_operator_that_starts_again_asks_for_nothing_that_a_running_head_has(kind: ActionErrorKind) -> None:
    world = World.of(samples=640, backoffLimit=0)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.dies_at = len(world.carried)
    world.run(until=lambda it: it.dies_at is None)
    tried: list[Action] = []

    def refuse(action: Action) -> ActionError | None:
        made = isinstance(action, CreateSecret | CreateNetworkPolicy)
        tried.extend([action] if made else [])
        return ActionError(kind, "create the Secret digits-1", "exceeded quota: it is full") if made else None

    world.refuse = refuse
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, tried) == (1, [])


def test_a_refusal_ends_nothing_that_is_at_work() -> None:
    world = World.of(samples=640, backoffLimit=0)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.action_errors = (ActionError(ActionErrorKind.FORBIDDEN, "delete the RayCluster stray", "denied the request"),)
    world.look()
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)


def test_kuberay_is_waited_for_until_the_deadline_and_the_status_says_so() -> None:
    world = World.of(startupDeadlineSeconds=60)
    world.refuse = refusing(
        ActionErrorKind.KUBERAY_MISSING, CreateCluster, "the cluster knows no RayCluster of ray.io/v1"
    )
    world.run(until=lambda it: it.action_errors)
    world.look()
    assert world.condition(ConditionType.CLUSTER_READY).reason == "KubeRayMissing"
    assert world.status.phase == Phase.STARTING
    world.run(until=lambda it: it.at_rest)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.KUBERAY_MISSING
    assert world.status.failure.message == (
        "The operator cannot create the RayCluster digits-1: the cluster knows no RayCluster of ray.io/v1. "
        "The RayCluster could not be created within 1m00s of its admission."
    )


AWAY = [
    (
        ActionErrorKind.WEBHOOK_UNAVAILABLE,
        "failed calling webhook",
        "Ask the cluster's administrator: an admission webhook does not answer.",
    ),
    (
        ActionErrorKind.OPERATOR_FORBIDDEN,
        'User "ddpm-operator" cannot create resource',
        "Ask the cluster's administrator to install the operator's chart again: its "
        "service account lacks a permission that the chart grants.",
    ),
]


@pytest.mark.parametrize(("kind", "says", "hint"), AWAY)
def test_a_webhook_or_a_right_that_is_away_is_waited_for_until_the_deadline_and_the_status_says_so(
    kind: ActionErrorKind, says: str, hint: str
) -> None:
    world = World.of(startupDeadlineSeconds=60, backoffLimit=0)
    world.refuse = refusing(kind, CreateCluster, says)
    world.run(until=lambda it: it.action_errors)
    world.look()
    assert world.condition(ConditionType.CLUSTER_READY).reason == "PodRejected"
    assert world.status.phase == Phase.STARTING
    world.run(until=lambda it: it.at_rest)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.POD_REJECTED
    assert f"{says}. The RayCluster could not be created" in world.status.failure.message
    assert world.status.failure.hint == hint


def test_kuberay_that_comes_in_time_does_no_harm() -> None:
    world = World.of(startupDeadlineSeconds=60)
    world.refuse = refusing(ActionErrorKind.KUBERAY_MISSING, CreateCluster)
    world.run(until=lambda it: it.action_errors)
    world.look()
    world.refuse = lambda _: None
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 1


FULL = 'pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3'


def test_a_quota_that_others_fill_means_queued_and_no_deadline_runs() -> None:
    world = World.of(startupDeadlineSeconds=60)
    world.refuse = refusing(ActionErrorKind.QUOTA, CreateCluster, FULL)
    world.run(until=lambda it: it.action_errors)
    world.look()
    assert world.status.phase == Phase.QUEUED
    ready = world.condition(ConditionType.CLUSTER_READY)
    assert (ready.reason, FULL in ready.message) == ("QuotaExceeded", True)
    for _ in range(20):
        world.wait(10)
        world.look()
    assert world.status.phase == Phase.QUEUED
    assert world.reasons.count(EventReason.QUEUED) == 1
    world.refuse = lambda _: None
    world.look()
    world.look()
    assert world.status.phase == Phase.STARTING
    assert world.status.cluster
    assert world.status.cluster.start_time == world.now.replace(microsecond=0)
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 1


def test_pods_that_a_full_quota_keeps_out_are_queued_until_the_first_is_there() -> None:
    world = World.of(startupDeadlineSeconds=60)
    world.look()
    world.look()
    (cluster,) = world.clusters.values()
    world.clusters = {cluster.name: replace(cluster, replica_failure=FULL)}
    for _ in range(20):
        world.wait(10)
        world.look()
    assert world.status.phase == Phase.QUEUED
    assert all(it.has_secret and it.has_network_policy for it in world.clusters.values())
    world.clusters = {it.name: replace(it, replica_failure=None) for it in world.clusters.values()}
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 1


def test_a_head_that_goes_while_a_quota_is_full_is_lost_all_the_same() -> None:
    world = World.of()
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.pods.clear()
    world.clusters = {it.name: replace(it, replica_failure=FULL) for it in world.clusters.values()}
    world.look()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.HEAD_LOST


@pytest.mark.parametrize(
    ("says", "over"),
    [
        ("requested: pods=1, used: pods=0, limited: pods=0", "pods 3 of 0"),
        ("requested: pods=1, used: pods=2, limited: pods=2", "pods 3 of 2"),
        (
            "requested: limits.memory=4Gi,requests.cpu=1, used: limits.memory=0,requests.cpu=0, "
            "limited: limits.memory=2Gi,requests.cpu=8",
            "limits.memory 10Gi of 2Gi",
        ),
        (
            "requested: count/rayclusters.ray.io=1, used: count/rayclusters.ray.io=0, "
            "limited: count/rayclusters.ray.io=0",
            "count/rayclusters.ray.io 1 of 0",
        ),
    ],
)
def test_a_quota_that_is_smaller_than_the_plan_ends_it_at_once_with_the_figures(says: str, over: str) -> None:
    world = World.of(samples=10_000, resources={"maxWorkers": 2})
    world.refuse = refusing(ActionErrorKind.QUOTA, CreateCluster, f"exceeded quota: team, {says}")
    begun = world.now
    world.run(until=lambda it: it.at_rest)
    assert (world.now - begun).total_seconds() < 15
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.QUOTA_EXCEEDED
    assert world.status.failure.message.endswith(f"more than the whole quota: {over}.")


def test_a_quota_that_is_freed_in_time_does_no_harm() -> None:
    world = World.of()
    world.refuse = refusing(ActionErrorKind.QUOTA, EnsureClaim, "exceeded quota: team")
    world.run(until=lambda it: it.action_errors)
    world.look()
    world.refuse = lambda _: None
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)


def test_what_passes_by_itself_is_tried_again() -> None:
    world = World.of()
    failures = iter([True, True, True])
    fault = ActionError(ActionErrorKind.TRANSIENT, "create the RayCluster digits-1", "etcd leader changed")
    world.refuse = lambda it: fault if isinstance(it, CreateCluster) and next(failures, False) else None
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 1


def test_what_lasts_is_told_while_it_is_waited_for_and_in_the_end() -> None:
    world = World.of(startupDeadlineSeconds=60, backoffLimit=0)
    world.refuse = refusing(ActionErrorKind.TRANSIENT, CreateCluster, "etcdserver: mvcc: database space exceeded")
    world.run(until=lambda it: it.action_errors)
    world.look()
    words = "The operator cannot create the RayCluster digits-1: etcdserver: mvcc: database space exceeded."
    assert world.condition(ConditionType.CLUSTER_READY).message == words
    assert world.status.phase == Phase.STARTING
    world.run(until=lambda it: it.at_rest)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.STARTUP_DEADLINE_EXCEEDED
    assert world.status.failure.message == (
        f"The RayCluster could not be created within 1m00s of its admission. {words}"
    )


def test_a_claim_that_is_not_there_is_waited_for_and_then_named() -> None:
    world = World.of(output={"uri": "pvc://results/digits"})
    world.look()
    message = "spec.output.uri names the claim results, which does not exist in the namespace research."
    assert world.condition(ConditionType.ACCEPTED).message == message
    assert world.status.phase == Phase.PENDING
    begun = world.now
    world.run(until=lambda it: it.at_rest)
    assert 15 <= (world.now - begun).total_seconds() < 19
    assert world.status.failure
    assert (world.status.failure.reason, world.status.failure.message) == ("ReferenceNotFound", message)
    assert not world.made


def test_a_claim_that_comes_a_moment_later_is_found() -> None:
    world = World.of(output={"uri": "pvc://results/digits"})
    world.look()
    world.claim = OutputClaim("results", "Bound", ("ReadWriteMany",))
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.output
    assert world.status.output.uri == "pvc://results/digits"
    assert not any(isinstance(it, EnsureClaim) for it in world.carried)
    made = next(it for it in world.carried if isinstance(it, CreateCluster))
    assert made.attempt.shared_output


def test_a_claim_that_lost_its_volume_is_no_place_for_samples() -> None:
    world = World.of()
    world.claim = OutputClaim("digits-output", "Lost", ("ReadWriteOnce",))
    world.run(until=lambda it: it.at_rest)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.STORAGE_FAILED


def test_a_plan_that_cannot_follow_the_first_attempts_says_what_to_change() -> None:
    world = World.of(resources={"gpus": 1})
    world.run(until=lambda it: it.at_rest)
    world.edit(samples=200, resources={"gpus": 0})
    world.look()
    world.run(until=lambda it: it.at_rest)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.INVALID_SPEC
    assert world.status.failure.message == "The first attempt ran on GPUs, but resources.gpus is now 0."
    assert world.status.failure.hint.startswith("Set resources.gpus to 1 or more")
    assert world.status.failure.hint.endswith("then run `kubectl ddpm retry`.")


def test_what_was_rejected_is_accepted_once_it_is_put_right_and_tried_again() -> None:
    world = refused(World.of(), ActionErrorKind.KUBERAY_TOO_OLD)
    world.refuse = lambda _: None
    world.edit(backoffLimit=4)
    world.look()
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.ACCEPTED)
    assert world.holds(ConditionType.COMPLETE)
    assert world.reasons.count(EventReason.ACCEPTED) == 2
