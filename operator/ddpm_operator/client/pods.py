"""A pod of the user's own for the time of a block, and commands in pods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ddpm_operator.api.model import JsonValue
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import NotFound, Unreachable
from ddpm_operator.client.helper_pod import CONTAINER
from ddpm_operator.client.remote_command import RemoteCommand
from ddpm_operator.kube.responses import Document

STARTS_WITHIN = 180.0
_HOPELESS = ("InvalidImageName", "CreateContainerConfigError")


@dataclass(frozen=True)
class Pod:
    """A pod that runs."""

    connection: Connection
    namespace: str
    name: str

    @property
    def path(self) -> str:
        return f"{pods(self.namespace)}/{self.name}"

    @contextmanager
    def running(
        self, command: Sequence[str], longest_silence: float | None, *, takes_input: bool = False
    ) -> Iterator[RemoteCommand]:
        """See `Connection.running`."""
        with self.connection.running(self.path, CONTAINER, command, longest_silence, takes_input=takes_input) as remote:
            yield remote


def pods(namespace: str) -> str:
    """Where the API server keeps a namespace's pods."""
    return f"/api/v1/namespaces/{namespace}/pods"


@contextmanager
def running(connection: Connection, manifest: Document) -> Iterator[Pod]:
    """Creates a pod, waits until it runs, and deletes it after the block, however that ends.

    Raises:
        Unreachable: if it does not run within STARTS_WITHIN seconds, with the reason.
    """
    metadata = _object(manifest, "metadata")
    namespace = str(metadata["namespace"])
    made = connection.request("POST", pods(namespace), {"fieldValidation": "Strict"}, manifest)
    pod = Pod(connection, namespace, str(_object(made, "metadata")["name"]))
    try:
        _wait(connection, pod)
        yield pod
    finally:
        with suppress(NotFound):
            connection.request("DELETE", pod.path)


def waits_for(pod: Document) -> str | None:
    """Why a pod does not run, in Kubernetes' own words; None if it runs."""
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
    return "it is being started"


def is_hopeless(pod: Document) -> bool:
    """Whether waiting cannot help."""
    status = _object(pod, "status")
    waiting = (_object(_object(one, "state"), "waiting") for one in _objects(status, "containerStatuses"))
    return status.get("phase") in ("Failed", "Succeeded") or any(one.get("reason") in _HOPELESS for one in waiting)


def _wait(connection: Connection, pod: Pod) -> None:
    why = "it is being started"
    for seen in connection.watch(pods(pod.namespace), pod.name, STARTS_WITHIN):
        if seen is None:
            raise Unreachable(f"the pod {pod.name} was deleted before it ran", "try again")
        waits = waits_for(seen)
        if waits is None:
            return
        why = waits
        if is_hopeless(seen):
            break
    raise Unreachable(
        f"the pod {pod.name}, made to reach the claim or bucket, does not run: {why}",
        "correct what it names, then try again",
    )


def _object(document: Document, field: str) -> Document:
    value = document.get(field)
    return value if isinstance(value, dict) else {}


def _objects(document: Document, field: str) -> list[Document]:
    value: JsonValue = document.get(field)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
