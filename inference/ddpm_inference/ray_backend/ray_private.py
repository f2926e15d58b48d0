"""Everything this program uses of Ray that is not Ray's public API, in one place.

Read from the sources of Ray 2.60.0, the release of the worker image; the dependency allows 2.54 and later. Check this
file first when a new Ray release is taken. Importing it does not import Ray: `address` needs it before that.

`ray.nodes` is developer API, but exported by the `ray` package itself, so it is used where it is needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

# gRPC methods without side effects, each with an encoded request. A server answers them only if the token is right.
CLIENT_SERVER_PING = ("/ray.rpc.RayletDriver/ClusterInfo", b"\x08\x06")  # ray_client.proto: ClusterInfoType.PING
GCS_PING = ("/ray.rpc.NodeInfoGcsService/CheckAlive", b"")  # gcs_service.proto: an empty CheckAliveRequest

# Parts of error messages, where Ray raises no class of its own.
CLIENT_SERVER_START_FAILED = "Starting Ray client server failed"  # util/client/server/proxier.py
CLIENT_CONNECTION_TIMEOUT = "client connection timeout"  # util/client/worker.py
VERSION_MISMATCH = r"[Vv]ersion mismatch|mismatch between"  # a regular expression: client and GCS have different texts
LOW_MEMORY = "low on memory"  # from the memory monitor of the raylet
OOM_REPORT_START = " OOM kill reason"  # in the same message, before a report of many lines
WORKER_EXIT_DETAIL = "Worker exit detail: "  # an actor's death: the text before it names the actor, the rest the cause


def last_started_cluster_file() -> Path:
    """Returns the file in which ``ray start`` leaves the address of the cluster it started on this machine.

    Source: ray._private.utils.write_ray_address.
    """
    return Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # noqa: S108 - Ray's own choice


def free_resources_per_node() -> dict[str, Mapping[str, float]]:
    """Returns the free resources of each live node by node ID. Run it as a task: Ray Client has no such call."""
    from ray._private import state

    free: dict[str, Mapping[str, float]] = state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return free


def clear_job_runtime_env() -> None:
    """Removes the runtime environment that a Ray job hands on to the driver it starts.

    `ray.init` reads it from a variable that the job manager sets (dashboard/modules/job/job_supervisor.py).
    """
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    config = os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR)
    if config:
        os.environ[RAY_JOB_CONFIG_JSON_ENV_VAR] = json.dumps({**json.loads(config), "runtime_env": {}})
