"""Reads the driver's log: from the head pod while it runs, and afterwards the copy stored with the samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from ddpm_operator.api import DDPMSampling
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import Damaged, NotFound
from ddpm_operator.client.remote_command import CommandFailed
from ddpm_operator.client.stored_files import stored_files
from ddpm_operator.kube import paths
from ddpm_operator.manifests.naming import ATTEMPT, SAMPLING_UID, cluster_name, job_id

_HEAD_CONTAINER = "ray-head"
# A driver that was submitted a second time has a second log.
_NEWEST_LOG = "ls -t /tmp/ray/session_latest/logs/job-driver-*.log | head -n 1"


def head_log(connection: Connection, sampling: DDPMSampling, *, follow: bool) -> Iterator[bytes]:
    """Implements `Client.log`."""
    name, namespace, status = sampling.metadata.name, sampling.metadata.namespace, sampling.status
    selector = (
        f"{SAMPLING_UID}={sampling.metadata.uid},{ATTEMPT}={status.attempt if status else 0},ray.io/node-type=head"
    )
    query = {"labelSelector": selector, "fieldSelector": "status.phase=Running"}
    items = connection.request("GET", paths.pods(namespace), query)["items"]
    heads = [item["metadata"] for item in (items if isinstance(items, list) else ()) if isinstance(item, dict)]
    if not heads or not isinstance(heads[0], dict):
        raise NotFound(f"{name} has no running head pod", f"`kubectl ddpm status {name}` shows its state")
    pod_path = f"{paths.pods(namespace)}/{heads[0]['name']}"
    command = ["sh", "-c", f'exec tail -n +1 {"-F" if follow else ""} "$({_NEWEST_LOG})"']
    return _tail(connection, pod_path, command, name, follow=follow)


def stored_log(connection: Connection, sampling: DDPMSampling) -> Iterator[bytes]:
    """Implements `Client.kept_log`. If the driver was submitted more than once, the logs follow one another."""
    name, status = sampling.metadata.name, sampling.status
    driver_ran = status is not None and status.cost is not None and status.cost.cpu_seconds > 0
    if status is None or status.attempt is None or status.image is None or not driver_ran:
        raise NotFound(f"no driver has run for {name}", f"`kubectl ddpm status {name}` shows its state")
    cluster, submission = cluster_name(sampling.metadata, status.attempt), 1
    with stored_files(connection, sampling, status.image) as stored:
        while True:
            try:
                with closing(stored.read([f"logs/{job_id(cluster, submission)}.log"])) as files:
                    _, content = next(files)
                    yield from content
            except Damaged as error:
                if submission == 1:
                    raise NotFound(
                        f"the output of {name} has no log", "the head may have died before the log was stored"
                    ) from error
                return
            submission += 1


def _tail(connection: Connection, pod_path: str, command: list[str], name: str, *, follow: bool) -> Iterator[bytes]:
    has_output = False
    try:
        with connection.running(pod_path, _HEAD_CONTAINER, command, None) as tail:
            for chunk in tail.output():
                has_output = True
                yield chunk
    except CommandFailed as error:
        if not has_output:
            raise NotFound(
                f"the driver of {name} has not logged anything yet", f"watch it with `kubectl ddpm watch {name}`"
            ) from error
        # With `follow`, the stream ends when the head is deleted, which is no error.
        if not follow:
            raise
