"""Diagnoses an attempt's pods: maps what Kubernetes and KubeRay report about them to a `FailureReason`.

How the head of an attempt ends is diagnosed in `ddpm_operator.reconcile.head_failure`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from ddpm_operator.api import FailureReason
from ddpm_operator.reconcile.deadlines import GRACE
from ddpm_operator.reconcile.observed import Container, ObservedCluster, ObservedPod, Terminated, Waiting
from ddpm_operator.reconcile.problem import Problem
from ddpm_operator.reconcile.quota import OVER_QUOTA, rejected_by_quota
from ddpm_operator.text import as_sentence, clip

# Reasons and wordings of the kubelet, the API server and RBAC.
OOM_KILLED = "OOMKilled"
# A role or its binding may be missing for a moment, such as during an installation.
RBAC_DENIED = re.compile(r"(?i)user \"[^\"]*\" cannot \w+ resource")

_IMAGE_PULL_RETRIED = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"}
_IMAGE_PULL_IMPOSSIBLE = {"InvalidImageName", "ErrImageNeverPull"}
_CONTAINER_NOT_CREATED = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_REFERENCE_MISSING = re.compile(r"(?i)(persistentvolumeclaim|secret|configmap|serviceaccount) \"[^\"]*\" not found")
_DENIED = re.compile(r"(?i)is forbidden|denied the request|is invalid")

_MAX_TERMINATION_MESSAGE = 500


def pod_problem(
    cluster: ObservedCluster, pods: Sequence[ObservedPod], admitted: datetime | None, now: datetime
) -> Problem | None:
    """Returns the first problem that keeps a cluster's pods from starting, certain ones first; None if there is none.

    Args:
        admitted: when the attempt was admitted. Until `GRACE` has passed, a missing reference is not certain.
    """
    in_grace = admitted is None or now < admitted + GRACE
    problems = [
        *_creation_problems(cluster, in_grace),
        *(it for pod in pods for it in _problems_of_pod(cluster, pod, in_grace)),
    ]
    return min(problems, key=lambda it: not it.certain, default=None)


def worker_out_of_memory(pods: Sequence[ObservedPod]) -> str | None:
    """Returns the name of a worker pod with an OOM-killed container; None if there is none."""
    workers = (pod for pod in pods if pod.role == "worker")
    return next(
        (
            pod.name
            for pod in workers
            for container in pod.containers
            if (end := failed_termination(container)) and end.reason == OOM_KILLED
        ),
        None,
    )


def failed_termination(container: Container) -> Terminated | None:
    """Returns how a container failed, finally or before its last restart; None if it has not.

    An init container that exits with 0 has succeeded.
    """
    end = container.state if isinstance(container.state, Terminated) else container.last_termination
    return end if end and (end.exit_code or end.reason == OOM_KILLED or container.restarts) else None


def describe_termination(end: Terminated) -> str:
    """Returns the reason, the exit code and the last line of the message of a terminated container."""
    cause = f"{end.reason or 'its container ended'}, exit code {end.exit_code}"
    # If the message is the end of the log, its last line is the most informative one.
    last_line = end.message.strip().rpartition("\n")[2]
    return f"{cause}: {clip(last_line, _MAX_TERMINATION_MESSAGE)}" if last_line else cause


def _creation_problems(cluster: ObservedCluster, in_grace: bool) -> Iterator[Problem]:
    """Yields the reason why the API server did not let KubeRay create pods."""
    failure = cluster.replica_failure
    if not failure:
        return
    if OVER_QUOTA.search(failure):
        yield rejected_by_quota("KubeRay", "create the pods", failure)
        return
    message = as_sentence(f"KubeRay cannot create the pods: {failure}")
    if _REFERENCE_MISSING.search(failure):
        yield Problem(FailureReason.REFERENCE_NOT_FOUND, message, certain=not in_grace)
    else:
        denied = _DENIED.search(failure) and not RBAC_DENIED.search(failure)
        yield Problem(FailureReason.POD_REJECTED, message, certain=bool(denied))


def _problems_of_pod(cluster: ObservedCluster, pod: ObservedPod, in_grace: bool) -> Iterator[Problem]:
    subject = f"The {pod.role} pod {pod.name}"
    if pod.unschedulable and _REFERENCE_MISSING.search(pod.unschedulable):
        message = as_sentence(f"{subject} refers to an object that does not exist: {pod.unschedulable}")
        yield Problem(FailureReason.REFERENCE_NOT_FOUND, message, certain=not in_grace)
    elif pod.unschedulable:
        message = as_sentence(f"{subject} fits no node: {pod.unschedulable}")
        yield Problem(FailureReason.UNSCHEDULABLE, message, certain=False)
    for container in pod.containers:
        if isinstance(container.state, Waiting):
            yield from _problems_of_waiting(cluster, subject, container.state, in_grace)
            yield from _problems_of_restarting(subject, container)


def _problems_of_restarting(subject: str, container: Container) -> Iterator[Problem]:
    """Yields the problem of a container that waits for its restart; the back-off grows with each one."""
    end = container.last_termination
    if end:
        reason = FailureReason.OUT_OF_MEMORY if end.reason == OOM_KILLED else FailureReason.WORKER_LOST
        message = as_sentence(f"{subject} has terminated and waits for its restart: {describe_termination(end)}")
        yield Problem(reason, message, certain=False)


def _problems_of_waiting(cluster: ObservedCluster, subject: str, waiting: Waiting, in_grace: bool) -> Iterator[Problem]:
    cause = waiting.message or waiting.reason
    if waiting.reason in _IMAGE_PULL_RETRIED | _IMAGE_PULL_IMPOSSIBLE:
        message = as_sentence(f"{subject} cannot get its image: {cause}")
        certain = waiting.reason in _IMAGE_PULL_IMPOSSIBLE
        yield Problem(FailureReason.IMAGE_PULL_FAILED, message, certain)
    elif waiting.reason in _CONTAINER_NOT_CREATED and not _waits_for_token_secret(cluster, cause):
        message = as_sentence(f"{subject} cannot start its container: {cause}")
        if _REFERENCE_MISSING.search(cause):
            yield Problem(FailureReason.REFERENCE_NOT_FOUND, message, certain=not in_grace)
        else:
            # A kubelet under load reports such errors too, and then starts the container after all.
            yield Problem(FailureReason.POD_REJECTED, message, certain=False)


def _waits_for_token_secret(cluster: ObservedCluster, cause: str) -> bool:
    """Returns whether a container waits for the attempt's own Secret, which is created after the cluster that owns it.

    `Tokens.secret_name` gives the Secret its name.
    """
    return re.search(rf'secret "{re.escape(cluster.name)}-[0-9a-f]+" not found', cause) is not None
