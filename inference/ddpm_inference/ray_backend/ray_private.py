"""Everything this program uses of Ray that is not Ray's public API, in one place.

Read from the sources of Ray 2.60.0, the release of the worker image; the dependency allows 2.54 and later. Check this
file first when a new Ray release is taken. Importing it does not import Ray: `address` needs it before that.

`ray.nodes` is developer API, but exported by the `ray` package itself, so it is used where it is needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.job_config import JobConfig

# gRPC methods without side effects, each with an encoded request. A server answers them only if the token is right.
CLIENT_SERVER_PING = ("/ray.rpc.RayletDriver/ClusterInfo", b"\x08\x06")  # ray_client.proto: ClusterInfoType.PING
GCS_PING = ("/ray.rpc.NodeInfoGcsService/CheckAlive", b"")  # gcs_service.proto: an empty CheckAliveRequest

# Parts of error messages, where Ray raises no class of its own.
CLIENT_SERVER_START_FAILED = "Starting Ray client server failed"  # util/client/server/proxier.py
CLIENT_CONNECTION_TIMEOUT = "client connection timeout"  # util/client/worker.py
VERSION_MISMATCH = r"[Vv]ersion mismatch|mismatch between"  # a regular expression: client and GCS have different texts
LOW_MEMORY = "low on memory"  # from the memory monitor of the raylet
OOM_REPORT_START = " OOM kill reason"  # in the same message, before a report of many lines
# The processes of a local Ray without which it cannot start, by their names in the process table.
LOCAL_PROCESSES = ("gcs_server", "raylet")
# How long these, their agents and a worker may take to start; Ray's own values are 30 s, and 60 s for a worker.
# From ray_config_def.h, the first from ray._private.node.
START_TIMEOUTS = {
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_worker_register_timeout_seconds": "120",
}
# The raylet waits 15 s for the ports of its agents, then ends; no setting changes that. Part of its message.
START_LIMIT_EXCEEDED = "Timed out waiting for file"
SESSION_FOLDER = rb"/[^\0=:]*/session_[0-9][^/\0]*"  # a regular expression: in the arguments of Ray's processes
MAX_SOCKET_PATH = 107  # bytes, on Linux; ray._private.utils.validate_socket_filepath
WORKER_EXIT_DETAIL = "Worker exit detail: "  # an actor's death: the text before it names the actor, the rest the cause


def temp_folders() -> list[Path]:
    """Returns the folders in which Ray programs of this machine may keep their temporary folder ``ray``.

    The first is the one that Ray chooses in this environment (ray._common.utils.get_default_system_temp_dir). Another
    terminal may not have this TMPDIR, so the system's default is the second.
    """
    if chosen := os.environ.get("RAY_TMPDIR"):
        return [Path(chosen)]
    system = "/tmp"  # noqa: S108 - Ray's own choice
    return [Path(folder) for folder in dict.fromkeys([os.environ.get("TMPDIR") or system, system])]


def last_started_cluster_files() -> list[Path]:
    """Returns the files in which ``ray start`` leaves the address of the cluster it started on this machine.

    Source: ray._common.utils.get_ray_address_file.
    """
    return [folder / "ray" / "ray_current_cluster" for folder in temp_folders()]


def socket_path_length(folder: Path) -> int:
    """Returns the bytes of the longest path of a socket that a local Ray makes below a temporary folder.

    Ray refuses paths of more than `MAX_SOCKET_PATH` bytes, as the operating system does. Source: ray._private.node.
    """
    session = f"session_2026-01-31_23-59-59_123456_{os.getpid()}"
    return len(os.fsencode(folder.absolute() / "ray" / session / "sockets" / "plasma_store"))


def session_logs() -> Path:
    """Returns the folder of the logs of the local Ray that this process has started, or tried to start.

    Source: ray._private.node.Node, which makes the link when it begins to start.
    """
    from ray._private import worker

    node = worker._global_node
    return Path(node.get_logs_dir_path()) if node else temp_folders()[0] / "ray" / "session_latest" / "logs"


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


def job_config_without_folders() -> JobConfig:
    """Returns a job configuration that adds no folder to the import path of the workers.

    By default `ray.init` puts the current folder and that of the script first there, so that a file torch.py of the
    user would be imported as torch. Source: ray._private.worker.connect.
    """
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = _AlwaysEmpty()
    return config


class _AlwaysEmpty(list[str]):
    """A list that ignores what is added by `extend`."""

    def extend(self, _items: Iterable[str], /) -> None:
        pass
