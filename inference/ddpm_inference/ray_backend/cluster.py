"""The Ray cluster that the driver is connected to: its nodes, their capacity, and the packages they have."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from ddpm_inference.errors import ResourcesUnavailable
from ddpm_inference.ray_backend.actor_resources import ActorResources
from ddpm_inference.ray_backend.address import CLIENT_SCHEME, RayTarget, is_listening
from ddpm_inference.ray_backend.node_packages import NodePackages, find_packages
from ddpm_inference.ray_backend.nodes import format_nodes, live_nodes
from ddpm_inference.ray_backend.package_check import THIS_PACKAGE, WORKER_PACKAGES, require_packages
from ddpm_inference.ray_backend.ray_private import free_resources_per_node, session_logs

# "1" where every node runs the same image, and the same environment, as this process.
ONE_IMAGE_VARIABLE = "DDPM_ONE_IMAGE"
FREE_RESOURCES_TIMEOUT = 5.0
WORKER_PACKAGES_TIMEOUT = 3.0


@dataclass(frozen=True)
class Cluster:
    """The connection to Ray, of which a process has at most one. `connection.connected` makes it."""

    target: RayTarget

    @property
    def is_local(self) -> bool:
        """Whether Ray was started here, for this run alone; such a cluster does not grow."""
        return self.target.address is None

    @property
    def description(self) -> str:
        """Which Ray it is and how it was found, for messages."""
        if self.is_local:
            return f"a local Ray ({self.target.source})"
        return f"Ray at {self.target.address} ({self.target.source})"

    @property
    def log_folder(self) -> Path:
        """Where Ray logs, on its nodes; for a local Ray the folder of this session."""
        return session_logs() if self.is_local else Path("/tmp/ray/session_latest/logs")  # noqa: S108 - Ray's own choice

    @property
    def has_gpus(self) -> bool:
        """Whether any live node has a GPU."""
        return any(node.resources.get("GPU", 0) > 0 for node in live_nodes())

    @property
    def own_node_id(self) -> str | None:
        """ID of the node this process runs on; None with Ray Client, which runs on none of them."""
        if (self.target.address or "").startswith(CLIENT_SCHEME):
            return None
        return ray.get_runtime_context().get_node_id()

    @property
    def required_packages(self) -> tuple[str, ...]:
        """The packages that a node must have. This package is one of them only where it is not uploaded."""
        return (*WORKER_PACKAGES, THIS_PACKAGE) if is_one_image() else WORKER_PACKAGES

    def capacity(self, resources: ActorResources) -> int:
        """Returns how many actors the live nodes can hold if nothing else runs there."""
        return sum(resources.capacity_of(node.resources) for node in live_nodes())

    def torch_version(self, timeout: float, worker_packages: ObjectRef[NodePackages] | None = None) -> str:
        """Returns the torch version of the nodes, after checking that one of them has what a worker needs.

        Args:
            timeout: seconds to wait for a task to run.
            worker_packages: the packages found by a worker that is starting. This saves a task, but is not enough:
                where a package is missing, the worker may never start.

        Raises:
            ResourcesUnavailable: if Ray runs no task within `timeout`, or packages are missing or too old.
        """
        return require_packages(
            find_packages(self.required_packages) if self.is_local else self._packages(timeout, worker_packages)
        )

    def _packages(self, timeout: float, worker_packages: ObjectRef[NodePackages] | None) -> NodePackages:
        if worker_packages and ray.wait([worker_packages], timeout=min(timeout, WORKER_PACKAGES_TIMEOUT))[0]:
            with suppress(RayError):
                return ray.get(worker_packages)
        # A task without CPUs: the worker may wait long for its own.
        task = ray.remote(num_cpus=0, max_retries=2)(find_packages).remote(self.required_packages)
        done, _ = ray.wait([task], timeout=timeout)
        if not done:
            raise ResourcesUnavailable(
                f"{self.description} did not run a task within {timeout:g} s",
                hint="see whether its nodes are alive (ray status), or give a longer --startup_timeout",
            )
        try:
            return ray.get(task)
        except RayError as error:
            raise ResourcesUnavailable(f"{self.description} cannot run tasks: {_one_line(error)}") from error

    def head_is_listening(self) -> bool:
        """Returns whether the head accepts connections. Ray itself waits a minute for it, then exits this process."""
        address = self.target.address or ""
        if not address.startswith(CLIENT_SCHEME):
            address = ray.get_runtime_context().gcs_address
        return is_listening(address.removeprefix(CLIENT_SCHEME))

    def table(self) -> str:
        """Returns a table of the nodes with their free and total resources, for messages."""
        task = ray.remote(num_cpus=0)(free_resources_per_node).remote()
        done, _ = ray.wait([task], timeout=FREE_RESOURCES_TIMEOUT)
        free = ray.get(task) if done else {}
        return format_nodes(live_nodes(), free)


def is_one_image() -> bool:
    """Returns whether every node runs the same image as this process."""
    return os.environ.get(ONE_IMAGE_VARIABLE) == "1"


def _one_line(error: RayError) -> str:
    """Returns the line of an error that names the cause: the last one of a task's traceback, else the first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if isinstance(error, RayTaskError) else 0]
