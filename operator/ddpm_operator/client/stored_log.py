"""The driver's log as it was kept beside the samples, for when its cluster is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from ddpm_operator.api import DDPMSampling
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import Damaged, NotFound
from ddpm_operator.client.stored_files import stored_files
from ddpm_operator.manifests.naming import cluster_name, job_id


def read(connection: Connection, sampling: DDPMSampling) -> Iterator[bytes]:
    """See `Client.kept_log`. What a driver said that was asked a second time follows what it said at first."""
    name, status = sampling.metadata.name, sampling.status
    ran = status is not None and status.cost is not None and status.cost.cpu_seconds > 0
    if status is None or status.attempt is None or status.image is None or not ran:
        raise NotFound(f"no driver of {name} has run", f"`kubectl ddpm status {name}` says where it stands")
    cluster, run = cluster_name(sampling.metadata, status.attempt), 1
    with stored_files(connection, sampling, status.image) as stored:
        while True:
            try:
                with closing(stored.read([f"logs/{job_id(cluster, run)}.log"])) as files:
                    _, content = next(files)
                    yield from content
            except Damaged as fault:
                if run == 1:
                    raise NotFound(
                        f"the log of {name} is not at its output", "its head may have gone before it could be kept"
                    ) from fault
                return
            run += 1
