"""Actions that the API server rejects, and specs that only the operator can reject."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ddpm_operator.api import ConditionType, EventReason, FailureReason, Phase
from ddpm_operator.reconcile.actions import Action, CreateCluster, CreateNetworkPolicy, CreateSecret, EnsureClaim
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind, OutputClaim
from tests.fakes.world import World


def refusing(kind: ActionErrorKind, action: type, message: str = "no") -> Callable[[Action], ActionError | None]:
    def refuse(tried: Action) -> ActionError | None:
        return ActionError(kind, "create the RayCluster digits-1", message) if isinstance(tried, action) else None

    return refuse


def run_rejecting(world: World, kind: ActionErrorKind, action: type = CreateCluster, message: str = "no") -> World:
    world.reject = refusing(kind, action, message)
    world.run(until=lambda it: it.settled)
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
def test_permanent_rejection_fails_at_once(kind: ActionErrorKind, reason: FailureReason) -> None:
    world = run_rejecting(World.of(), kind)
    accepted = world.condition(ConditionType.ACCEPTED)
    assert (accepted.status, accepted.reason) == ("False", reason)
    assert accepted.message == "The operator cannot create the RayCluster digits-1: no."
    assert world.status.phase == Phase.FAILED
    assert world.status.failure
    assert world.status.failure.hint
    assert world.status.failure.hint in world.condition(ConditionType.FAILED).message
    assert world.reasons[-3:] == [EventReason.REJECTED, EventReason.FAILED, EventReason.CLUSTER_DELETED]


def test_rejected_secret_leaves_no_cluster() -> None:
    world = run_rejecting(World.of(), ActionErrorKind.FORBIDDEN, CreateSecret)
    assert world.holds(ConditionType.FAILED)
    assert not world.clusters


@pytest.mark.parametrize("kind", [ActionErrorKind.FORBIDDEN, ActionErrorKind.QUOTA, ActionErrorKind.INVALID])
def test_restarted_operator_recreates_nothing_for_a_running_head(kind: ActionErrorKind) -> None:
    world = World.of(samples=640, backoffLimit=0)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.crash_at = len(world.executed)
    world.run(until=lambda it: it.crash_at is None)
    tried: list[Action] = []

    def refuse(action: Action) -> ActionError | None:
        made = isinstance(action, CreateSecret | CreateNetworkPolicy)
        tried.extend([action] if made else [])
        return ActionError(kind, "create the Secret digits-1", "exceeded quota: it is full") if made else None

    world.reject = refuse
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, tried) == (1, [])


def test_rejection_does_not_end_a_running_attempt() -> None:
    world = World.of(samples=640, backoffLimit=0)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.action_errors = (ActionError(ActionErrorKind.FORBIDDEN, "delete the RayCluster stray", "denied the request"),)
    world.reconcile()
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def test_missing_kuberay_fails_at_the_startup_deadline() -> None:
    world = World.of(startupDeadlineSeconds=60)
    world.reject = refusing(
        ActionErrorKind.KUBERAY_MISSING, CreateCluster, "the cluster knows no RayCluster of ray.io/v1"
    )
    world.run(until=lambda it: it.action_errors)
    world.reconcile()
    assert world.condition(ConditionType.CLUSTER_READY).reason == "KubeRayMissing"
    assert world.status.phase == Phase.STARTING
    world.run(until=lambda it: it.settled)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.KUBERAY_MISSING
    assert world.status.failure.message == (
        "The operator cannot create the RayCluster digits-1: the cluster knows no RayCluster of ray.io/v1. "
        "The RayCluster could not be created within 1m00s of its admission."
    )


MAY_PASS = [
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


@pytest.mark.parametrize(("kind", "text", "hint"), MAY_PASS)
def test_missing_webhook_or_permission_fails_at_the_deadline(kind: ActionErrorKind, text: str, hint: str) -> None:
    world = World.of(startupDeadlineSeconds=60, backoffLimit=0)
    world.reject = refusing(kind, CreateCluster, text)
    world.run(until=lambda it: it.action_errors)
    world.reconcile()
    assert world.condition(ConditionType.CLUSTER_READY).reason == "PodRejected"
    assert world.status.phase == Phase.STARTING
    world.run(until=lambda it: it.settled)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.POD_REJECTED
    assert f"{text}. The RayCluster could not be created" in world.status.failure.message
    assert world.status.failure.hint == hint


def test_kuberay_installed_in_time_is_used() -> None:
    world = World.of(startupDeadlineSeconds=60)
    world.reject = refusing(ActionErrorKind.KUBERAY_MISSING, CreateCluster)
    world.run(until=lambda it: it.action_errors)
    world.reconcile()
    world.reject = lambda _: None
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 1


def test_transient_error_is_retried() -> None:
    world = World.of()
    failures = iter([True, True, True])
    error = ActionError(ActionErrorKind.TRANSIENT, "create the RayCluster digits-1", "etcd leader changed")
    world.reject = lambda it: error if isinstance(it, CreateCluster) and next(failures, False) else None
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 1


def test_lasting_transient_error_is_in_the_status() -> None:
    world = World.of(startupDeadlineSeconds=60, backoffLimit=0)
    world.reject = refusing(ActionErrorKind.TRANSIENT, CreateCluster, "etcdserver: mvcc: database space exceeded")
    world.run(until=lambda it: it.action_errors)
    world.reconcile()
    message = "The operator cannot create the RayCluster digits-1: etcdserver: mvcc: database space exceeded."
    assert world.condition(ConditionType.CLUSTER_READY).message == message
    assert world.status.phase == Phase.STARTING
    world.run(until=lambda it: it.settled)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.STARTUP_DEADLINE_EXCEEDED
    assert world.status.failure.message == (
        f"The RayCluster could not be created within 1m00s of its admission. {message}"
    )


def test_missing_claim_is_rejected_after_grace() -> None:
    world = World.of(output={"uri": "pvc://results/digits"})
    world.reconcile()
    message = "spec.output.uri names the claim results, which does not exist in the namespace research."
    assert world.condition(ConditionType.ACCEPTED).message == message
    assert world.status.phase == Phase.PENDING
    begun = world.now
    world.run(until=lambda it: it.settled)
    assert 15 <= (world.now - begun).total_seconds() < 19
    assert world.status.failure
    assert (world.status.failure.reason, world.status.failure.message) == ("ReferenceNotFound", message)
    assert not world.created


def test_claim_created_a_moment_later_is_used() -> None:
    world = World.of(output={"uri": "pvc://results/digits"})
    world.reconcile()
    world.claim = OutputClaim("results", "Bound", ("ReadWriteMany",))
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.output
    assert world.status.output.uri == "pvc://results/digits"
    assert not any(isinstance(it, EnsureClaim) for it in world.executed)
    made = next(it for it in world.executed if isinstance(it, CreateCluster))
    assert made.attempt.shared_output


def test_lost_claim_fails() -> None:
    world = World.of()
    world.claim = OutputClaim("digits-output", "Lost", ("ReadWriteOnce",))
    world.run(until=lambda it: it.settled)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.STORAGE_FAILED


def test_impossible_plan_says_what_to_change() -> None:
    world = World.of(resources={"gpus": 1})
    world.run(until=lambda it: it.settled)
    world.edit(samples=200, resources={"gpus": 0})
    world.reconcile()
    world.run(until=lambda it: it.settled)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.INVALID_SPEC
    assert world.status.failure.message == "The first attempt ran on GPUs, but resources.gpus is now 0."
    assert world.status.failure.hint.startswith("Set resources.gpus to 1 or more")
    assert world.status.failure.hint.endswith("then run `kubectl ddpm retry`.")


def test_rejected_sampling_is_accepted_on_retry() -> None:
    world = run_rejecting(World.of(), ActionErrorKind.KUBERAY_TOO_OLD)
    world.reject = lambda _: None
    world.edit(backoffLimit=4)
    world.reconcile()
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.ACCEPTED)
    assert world.holds(ConditionType.COMPLETE)
    assert world.reasons.count(EventReason.ACCEPTED) == 2
