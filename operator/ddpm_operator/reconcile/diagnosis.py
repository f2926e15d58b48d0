"""What is wrong with an attempt's pods, from what Kubernetes says of them, in the words of the closed list."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ddpm_operator.api import FailureReason
from ddpm_operator.reconcile.deadlines import GRACE
from ddpm_operator.reconcile.observed import Container, ObservedCluster, ObservedPod, Terminated, Waiting
from ddpm_operator.text import as_sentence, clip

OUT_OF_MEMORY = "OOMKilled"
_LONGEST_LAST_WORDS = 500

# The second is said of a quota that has just been created.
OVER_QUOTA = re.compile(r"(?i)exceeded quota|status unknown for quota")

# RBAC's own words: a role or its binding may be away for a moment.
NO_RIGHT = re.compile(r"(?i)user \"[^\"]*\" cannot \w+ resource")

_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"}
_NEVER_AN_IMAGE = {"InvalidImageName", "ErrImageNeverPull"}
_NO_CONTAINER = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_MISSING = re.compile(r"(?i)(persistentvolumeclaim|secret|configmap|serviceaccount) \"[^\"]*\" not found")
_REFUSED = re.compile(r"(?i)is forbidden|denied the request|is invalid")


@dataclass(frozen=True)
class Problem:
    """Something that keeps an attempt from going on.

    Attributes:
        message: a sentence.
        certain: it does not go away by waiting.
    """

    reason: FailureReason
    message: str
    certain: bool


def head_end(cluster: str, heads: Sequence[ObservedPod], uid: str, memory: str) -> Problem | None:
    """How the head of an attempt has come to its end; None if it runs on.

    Args:
        cluster: name of the attempt's.
        heads: its head pods, and after those one that is gone, as it was in the end.
        uid: of the one that the attempt began with.
        memory: its limit.
    """
    head = next((pod for pod in heads if pod.uid == uid), None)
    if head is None:
        message = f"The head pod of the RayCluster {cluster} is gone."
        return Problem(FailureReason.HEAD_LOST, message, certain=True)
    ends = [end for container in head.containers if (end := _end(container))]
    if not head.disruption and any(end.reason == OUT_OF_MEMORY for end in ends):
        message = f"The head pod {head.name} needed more memory than its limit of {memory}."
        return Problem(FailureReason.OUT_OF_MEMORY, message, certain=True)
    if head.over or head.deleted or ends or any(container.restarts for container in head.containers):
        return Problem(FailureReason.HEAD_LOST, _last_words(head, ends), certain=True)
    return None


def pod_problem(
    cluster: ObservedCluster, pods: Sequence[ObservedPod], admitted: datetime | None, now: datetime
) -> Problem | None:
    """The first thing that keeps a cluster's pods from starting, what is certain before what may pass; else None.

    Args:
        admitted: when the attempt was.
    """
    patient = admitted is None or now < admitted + GRACE
    troubles = [*_refusals(cluster, patient), *(it for pod in pods for it in _of_pod(cluster, pod, patient))]
    return min(troubles, key=lambda it: not it.certain, default=None)


def worker_out_of_memory(pods: Sequence[ObservedPod]) -> str | None:
    """The name of a worker that was ended for its memory; None if none was."""
    workers = (pod for pod in pods if pod.role == "worker")
    return next(
        (
            pod.name
            for pod in workers
            for container in pod.containers
            if (end := _end(container)) and end.reason == OUT_OF_MEMORY
        ),
        None,
    )


def _end(container: Container) -> Terminated | None:
    """How a container ended, be it for good or before a restart; init containers end well."""
    end = container.state if isinstance(container.state, Terminated) else container.last_end
    return end if end and (end.exit_code or end.reason == OUT_OF_MEMORY or container.restarts) else None


def _last_words(head: ObservedPod, ends: Sequence[Terminated]) -> str:
    why = f"{head.reason}: {head.message}" if head.reason else head.disruption
    if not why and ends:
        why = _how(ends[-1])
    if not why and head.deleted:
        why = "it was deleted"
    return as_sentence(f"The head pod {head.name} is lost: {why or 'it has ended'}")


def _how(end: Terminated) -> str:
    why = f"{end.reason or 'its container ended'}, exit code {end.exit_code}"
    # Where it is the end of the log, its last line tells the most.
    last = end.message.strip().rpartition("\n")[2]
    return f"{why}: {clip(last, _LONGEST_LAST_WORDS)}" if last else why


def _refusals(cluster: ObservedCluster, patient: bool) -> Iterator[Problem]:
    """Pods that the API server did not let KubeRay create."""
    message = cluster.replica_failure
    if not message:
        return
    words = as_sentence(f"KubeRay cannot create the pods: {message}")
    if OVER_QUOTA.search(message):
        yield Problem(FailureReason.QUOTA_EXCEEDED, words, certain=False)
    elif _MISSING.search(message):
        yield Problem(FailureReason.REFERENCE_NOT_FOUND, words, certain=not patient)
    else:
        refused = _REFUSED.search(message) and not NO_RIGHT.search(message)
        yield Problem(FailureReason.POD_REJECTED, words, certain=bool(refused))


def _of_pod(cluster: ObservedCluster, pod: ObservedPod, patient: bool) -> Iterator[Problem]:
    who = f"The {pod.role} pod {pod.name}"
    if pod.unschedulable and _MISSING.search(pod.unschedulable):
        words = as_sentence(f"{who} refers to what is not there: {pod.unschedulable}")
        yield Problem(FailureReason.REFERENCE_NOT_FOUND, words, certain=not patient)
    elif pod.unschedulable:
        words = as_sentence(f"{who} fits no node: {pod.unschedulable}")
        yield Problem(FailureReason.UNSCHEDULABLE, words, certain=False)
    for container in pod.containers:
        if isinstance(container.state, Waiting):
            yield from _of_waiting(cluster, who, container.state, patient)
            yield from _of_restarts(who, container)


def _of_restarts(who: str, container: Container) -> Iterator[Problem]:
    """A worker's container that has ended; the more often, the longer it waits until it is started again."""
    if container.last_end:
        memory = container.last_end.reason == OUT_OF_MEMORY
        reason = FailureReason.OUT_OF_MEMORY if memory else FailureReason.WORKER_LOST
        words = as_sentence(f"{who} has ended and waits to be started again: {_how(container.last_end)}")
        yield Problem(reason, words, certain=False)


def _waits_for_its_tokens(cluster: ObservedCluster, why: str) -> bool:
    """The attempt's own Secret, named as `Tokens.secret_name` does, comes after the cluster that owns it."""
    return re.search(rf'secret "{re.escape(cluster.name)}-[0-9a-f]+" not found', why) is not None


def _of_waiting(cluster: ObservedCluster, who: str, waiting: Waiting, patient: bool) -> Iterator[Problem]:
    why = waiting.message or waiting.reason
    if waiting.reason in _NO_IMAGE | _NEVER_AN_IMAGE:
        words = as_sentence(f"{who} cannot get its image: {why}")
        yield Problem(FailureReason.IMAGE_PULL_FAILED, words, certain=waiting.reason in _NEVER_AN_IMAGE)
    elif waiting.reason in _NO_CONTAINER and not _waits_for_its_tokens(cluster, why):
        words = as_sentence(f"{who} cannot start its container: {why}")
        if _MISSING.search(why):
            yield Problem(FailureReason.REFERENCE_NOT_FOUND, words, certain=not patient)
        else:
            # A kubelet that is busy says such things as well, and then starts the container after all.
            yield Problem(FailureReason.POD_REJECTED, words, certain=False)
