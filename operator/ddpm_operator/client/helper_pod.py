"""Short-lived pods that run with the user's rights: one reads a sampling's output, one receives a checkpoint.

`helper_pod` builds the manifest, `run_helper_pod` creates the pod, waits until it runs, and deletes it. The operator
ignores these pods: they carry none of the labels of its own pods.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ddpm_operator.api import DDPMSampling
from ddpm_operator.api.model import JsonValue
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import NotFound, Unreachable
from ddpm_operator.client.remote_command import RemoteCommand
from ddpm_operator.kube import paths
from ddpm_operator.kube.responses import Document
from ddpm_operator.manifests.naming import MANAGED_BY, SAMPLING, slug
from ddpm_operator.manifests.render import owned_by_sampling

START_TIMEOUT = 180.0
_MAX_LIFETIME = 3600
_CONTAINER = "main"

# The container idles until a command is run in it by exec, and exits at once on SIGTERM.
_IDLE = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"
# The pod overrides that decide on node, image and identity. All others are meant for Ray's pods.
_PLACEMENT_FIELDS = ("nodeSelector", "tolerations", "imagePullSecrets", "serviceAccountName", "schedulerName")
# Waiting reasons that the kubelet does not recover from by itself.
_PERMANENT_REASONS = ("InvalidImageName", "CreateContainerConfigError")


@dataclass(frozen=True)
class HelperPod:
    """A running helper pod."""

    connection: Connection
    namespace: str
    name: str

    @property
    def path(self) -> str:
        return f"{paths.pods(self.namespace)}/{self.name}"

    @contextmanager
    def running(
        self, command: Sequence[str], silence_timeout: float | None, *, takes_input: bool = False
    ) -> Iterator[RemoteCommand]:
        """Runs a command in the pod for the duration of the block; see `Connection.running`."""
        with self.connection.running(
            self.path, _CONTAINER, command, silence_timeout, takes_input=takes_input
        ) as remote:
            yield remote


def helper_pod(
    sampling: DDPMSampling,
    image: str,
    role: str,
    claim: str | None = None,
    mount: str = "",
    *,
    read_only: bool = True,
    credentials: str | None = None,
) -> dict[str, JsonValue]:
    """Returns the manifest of a pod that satisfies the restricted Pod Security Standard and is owned by the sampling.

    Args:
        image: an image with Python.
        role: part of the pod's name.
        claim: the PersistentVolumeClaim to mount at `mount`.
        credentials: a Secret to take environment variables from.
    """
    overrides = sampling.spec.pod_overrides.to_document() if sampling.spec.pod_overrides else {}
    container: dict[str, JsonValue] = {
        "name": _CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-P", "-c", _IDLE],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: dict[str, JsonValue] = {key: overrides[key] for key in _PLACEMENT_FIELDS if key in overrides}
    if claim:
        container["volumeMounts"] = [{"name": "claim", "mountPath": mount, "readOnly": read_only}]
        pod["volumes"] = [{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}]
    if credentials:
        container["envFrom"] = [{"secretRef": {"name": credentials}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{slug(sampling.metadata.name)}-{role}-",
            "namespace": sampling.metadata.namespace,
            "labels": {MANAGED_BY: "kubectl-ddpm", SAMPLING: sampling.metadata.name},
            "ownerReferences": [owned_by_sampling(sampling.metadata)],
        },
        "spec": {
            **pod,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _MAX_LIFETIME,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


@contextmanager
def run_helper_pod(connection: Connection, manifest: Document) -> Iterator[HelperPod]:
    """Creates a pod, waits until it runs, and deletes it when the block ends, even after an error.

    Raises:
        Unreachable: if it does not run within START_TIMEOUT seconds, with the reason.
    """
    namespace = str(_object(manifest, "metadata")["namespace"])
    created = connection.request("POST", paths.pods(namespace), {"fieldValidation": "Strict"}, manifest)
    pod = HelperPod(connection, namespace, str(_object(created, "metadata")["name"]))
    try:
        _wait_until_running(connection, pod)
        yield pod
    finally:
        with suppress(NotFound):
            connection.request("DELETE", pod.path)


def _wait_until_running(connection: Connection, pod: HelperPod) -> None:
    reason = "it is starting"
    for observed in connection.watch(paths.pods(pod.namespace), pod.name, START_TIMEOUT):
        if observed is None:
            raise Unreachable(f"the pod {pod.name} was deleted before it was running", "try again")
        waiting_reason = _not_running_reason(observed)
        if waiting_reason is None:
            return
        reason = waiting_reason
        if _cannot_start(observed):
            break
    raise Unreachable(
        f"the pod {pod.name}, which accesses the claim or bucket, is not running: {reason}",
        "fix the cause, then try again",
    )


def _not_running_reason(pod: Document) -> str | None:
    """Returns why a pod is not running, as Kubernetes reports it; None if it is running."""
    status = _object(pod, "status")
    if status.get("phase") in ("Failed", "Succeeded"):
        return str(status.get("message") or status.get("reason") or "it has ended")
    for container in _objects(status, "containerStatuses"):
        state = _object(container, "state")
        if "running" in state:
            return None
        waiting = _object(state, "waiting")
        if waiting.get("message"):
            return f"{waiting.get('reason')}: {waiting['message']}"
    for condition in _objects(status, "conditions"):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    return "it is starting"


def _cannot_start(pod: Document) -> bool:
    """Returns whether waiting longer cannot help."""
    status = _object(pod, "status")
    waiting = (_object(_object(it, "state"), "waiting") for it in _objects(status, "containerStatuses"))
    return status.get("phase") in ("Failed", "Succeeded") or any(
        it.get("reason") in _PERMANENT_REASONS for it in waiting
    )


def _object(document: Document, field: str) -> Document:
    value = document.get(field)
    return value if isinstance(value, dict) else {}


def _objects(document: Document, field: str) -> list[Document]:
    value: JsonValue = document.get(field)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
