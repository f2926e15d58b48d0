"""The driver's log, read in the head pod itself, as long as there is one."""

from __future__ import annotations

from collections.abc import Iterator

from ddpm_operator.api import DDPMSampling
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import NotFound
from ddpm_operator.client.pods import Pod, pods
from ddpm_operator.client.remote_command import CommandFailed
from ddpm_operator.manifests.naming import ATTEMPT, SAMPLING_UID

CONTAINER = "ray-head"
# A job that had to be asked a second time has a second log.
_NEWEST = "ls -t /tmp/ray/session_latest/logs/job-driver-*.log | head -n 1"


def read(connection: Connection, sampling: DDPMSampling, *, follow: bool) -> Iterator[bytes]:
    """See `Client.log`."""
    name, status = sampling.metadata.name, sampling.status
    selector = (
        f"{SAMPLING_UID}={sampling.metadata.uid},{ATTEMPT}={status.attempt if status else 0},ray.io/node-type=head"
    )
    wanted = {"labelSelector": selector, "fieldSelector": "status.phase=Running"}
    found = connection.request("GET", pods(sampling.metadata.namespace), wanted)["items"]
    heads = [item["metadata"] for item in (found if isinstance(found, list) else ()) if isinstance(item, dict)]
    if not heads or not isinstance(heads[0], dict):
        raise NotFound(f"{name} has no head pod that runs now", f"`kubectl ddpm status {name}` says where it stands")
    pod = Pod(connection, sampling.metadata.namespace, str(heads[0]["name"]))
    command = ["sh", "-c", f'exec tail -n +1 {"-F" if follow else ""} "$({_NEWEST})"']
    return _lines(connection, pod, command, name, follow=follow)


def _lines(connection: Connection, pod: Pod, command: list[str], name: str, *, follow: bool) -> Iterator[bytes]:
    something = False
    try:
        with connection.running(pod.path, CONTAINER, command, None) as tail:
            for chunk in tail.output():
                something = True
                yield chunk
    except CommandFailed as fault:
        if not something:
            raise NotFound(
                f"the driver of {name} has said nothing yet", f"watch it with `kubectl ddpm watch {name}`"
            ) from fault
        if not follow:
            raise
