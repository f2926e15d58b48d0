"""The Ray cluster as the driver meets it: connecting, what its nodes have to work with, what room they have."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import os
import re
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import ObjectRef
from ray._private import state
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray.exceptions import RayError, RayTaskError
from rich.console import Console
from rich.table import Table

import ddpm_inference
from ddpm_inference.errors import ResourcesUnavailable, in_short
from ddpm_inference.job import Device, ResourceRequest
from ddpm_inference.ray_backend.address import CLIENT, Target, answers
from ddpm_inference.ray_backend.node_packages import NodePackages, find_packages

# "1" where every node runs the image and the environment that this process runs in.
ONE_IMAGE = "DDPM_ONE_IMAGE"
PACKAGE = Path(ddpm_inference.__file__).parent
OWN = "ddpm-inference"
ON_WORKERS = ("fsspec", "numpy", "pydantic", "ray", "s3fs", "safetensors")
WITHOUT_KNOWN_HOLES = ("ray", "torch")
TABLE_WITHIN = 5.0
WORKER_ANSWERS_WITHIN = 3.0

Resources = Mapping[str, float]


class Node(NamedTuple):
    """A live node, and what it has in all."""

    name: str
    address: str
    resources: Resources


@dataclass(frozen=True)
class Cluster:
    """A connection to Ray; there is one in a process."""

    target: Target

    @property
    def own(self) -> bool:
        """Whether it was started here, for this run alone; such a cluster does not grow."""
        return self.target.address is None

    @property
    def words(self) -> str:
        """Which Ray it is, for the user."""
        if self.own:
            return f"a local Ray ({self.target.why})"
        return f"Ray at {self.target.address} ({self.target.why})"

    @property
    def has_gpus(self) -> bool:
        return any(node.resources.get("GPU", 0) > 0 for node in live_nodes())

    @property
    def here(self) -> str | None:
        """The node that this process is on; None if it is on none of them, as Ray's client."""
        if (self.target.address or "").startswith(CLIENT):
            return None
        return ray.get_runtime_context().get_node_id()

    def room(self, share: ActorResources) -> int:
        """How many actors of that share the nodes have room for, if nobody else is there."""
        return sum(share.fits(node.resources) for node in live_nodes())

    @property
    def needs(self) -> tuple[str, ...]:
        """The packages that a worker needs; one that is sent this one need not have it."""
        return (*ON_WORKERS, OWN) if is_one_image() else ON_WORKERS

    def torch_version(self, timeout: float, of_worker: ObjectRef[NodePackages] | None = None) -> str:
        """The torch of the nodes, by asking one of them, which must also have all else that a worker needs.

        Args:
            of_worker: what a worker that is starting will have found of `needs`. Where a package may be missing
                there may be no worker to tell of it.

        Raises:
            ResourcesUnavailable: if Ray runs no task within `timeout` seconds, or something is missing there,
                naming it.
        """
        return torch_of(find_packages(self.needs) if self.own else self._ask(timeout, of_worker))

    def _ask(self, timeout: float, of_worker: ObjectRef[NodePackages] | None) -> NodePackages:
        if of_worker and ray.wait([of_worker], timeout=min(timeout, WORKER_ANSWERS_WITHIN))[0]:
            with suppress(RayError):
                return ray.get(of_worker)
        # Another process to start, which needs no CPU of Ray's: a worker may wait for its own for long.
        task = ray.remote(num_cpus=0, max_retries=2)(find_packages).remote(self.needs)
        done, _ = ray.wait([task], timeout=timeout)
        if not done:
            raise ResourcesUnavailable(
                f"{self.words} ran not even an empty task within {timeout:g} s",
                hint="see whether its nodes are alive (ray status), or give a longer --startup_timeout",
            )
        try:
            return ray.get(task)
        except RayError as error:
            raise ResourcesUnavailable(f"{self.words} cannot run tasks: {_in_a_line(error)}") from error

    def answers(self) -> bool:
        """Whether the head still listens. Ray itself waits a minute for it, and then ends this process."""
        address = self.target.address or ""
        if not address.startswith(CLIENT):
            address = ray.get_runtime_context().gcs_address
        return answers(address.removeprefix(CLIENT))

    def table(self) -> str:
        """What each node has, free and in all, as a table for the user."""
        task = ray.remote(num_cpus=0)(_free_resources).remote()
        done, _ = ray.wait([task], timeout=TABLE_WITHIN)
        free = ray.get(task) if done else {}
        return node_table(live_nodes(), free)


@dataclass(frozen=True)
class ActorResources:
    """What one actor holds of a node."""

    cpus: float
    gpus: float

    @classmethod
    def of(cls, request: ResourceRequest, device: Device) -> ActorResources:
        """The share asked for; on device cpu it never holds a GPU."""
        return cls(request.num_cpus_per_task, request.num_gpus_per_task if device == "cuda" else 0.0)

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))

    @property
    def words(self) -> str:
        cpus = f"{self.cpus:g} CPU{'s' * (self.cpus != 1)}"
        return cpus if not self.gpus else f"{self.gpus:g} GPU{'s' * (self.gpus > 1)} and {cpus}"

    def fits(self, resources: Resources) -> int:
        """How many shares a node with these resources has room for. A fraction of a GPU lies on one GPU."""
        count = math.floor(resources.get("CPU", 0) / self.cpus + 1e-9)
        if not self.gpus:
            return count
        gpus = resources.get("GPU", 0)
        on_gpus = gpus * math.floor(1 / self.gpus + 1e-9) if self.gpus <= 1 else gpus // self.gpus
        return min(count, int(on_gpus))


@contextmanager
def connected(target: Target) -> Iterator[Cluster]:
    """Connects to Ray, or starts it, for the time of the block; a Ray started here is gone afterwards.

    Another's Ray gets this package to run, unless all is one image: it need not know it. stdout is kept from Ray,
    which prints messages of its nodes there.

    Raises:
        ResourcesUnavailable: if that cannot be, saying why.
    """
    with redirect_stdout(_Nowhere()):
        try:
            with _sigterm_kept():
                _init(target)
            yield Cluster(target)
        finally:
            ray.shutdown()


def torch_of(findings: NodePackages) -> str:
    """The torch version that was found.

    Raises:
        ResourcesUnavailable: if it or another package is missing, naming each and how to install it; or if Ray or
            torch is of a version with known holes, or this package of another one than here.
    """
    found = {**findings.packages, "torch": findings.torch}
    for name in WITHOUT_KNOWN_HOLES:
        version = found.get(name)
        if version is not None and _release(version) < _oldest(name):
            raise ResourcesUnavailable(
                f"the nodes of the Ray cluster have {name} {version}, which has known holes",
                hint=f"install there, on every node: pip install {_requirement(name)}",
            )
    there, here = findings.packages.get(OWN), importlib.metadata.version(OWN)
    if there is not None and there != here:
        raise ResourcesUnavailable(
            f"the nodes of the Ray cluster have {OWN} {there}, and this is {here}",
            hint="let all of them run one image",
        )
    missing = [name for name, version in findings.packages.items() if version is None]
    if findings.torch is not None and not missing:
        return findings.torch
    if findings.torch is None:
        missing.append("torch")
    raise ResourcesUnavailable(
        f"the nodes of the Ray cluster lack {', '.join(missing)} (Python {findings.python})",
        hint=f"install there, on every node: pip install {' '.join(map(_requirement, missing))}",
    )


def is_one_image() -> bool:
    """Whether every node runs the image that this process runs in."""
    return os.environ.get(ONE_IMAGE) == "1"


def set_up_on_nodes() -> dict[str, Any]:
    """What Ray sets up on a node before it runs anything of ours.

    In one image that is nothing, and what it has set up for this process as a job is not handed on: for whatever
    it sets up it starts Python, and then once more for the process itself.
    """
    if not is_one_image():
        return {"py_modules": [str(PACKAGE)], "excludes": ["builtin", "__pycache__"]}
    job = os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR)
    if job:
        os.environ[RAY_JOB_CONFIG_JSON_ENV_VAR] = json.dumps({**json.loads(job), "runtime_env": {}})
    return {}


def live_nodes() -> list[Node]:
    """The nodes of the cluster that this process is connected to."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]) for node in nodes if node["Alive"]]


def node_table(nodes: Iterable[Node], free: Mapping[str, Resources]) -> str:
    """A table of nodes: CPUs, GPUs and memory, free and in all.

    Args:
        free: what is free on a node, by its name.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    table.add_column("NODE", no_wrap=True)
    for column in ("CPU FREE", "OF", "GPU FREE", "OF", "GIB FREE", "OF"):
        table.add_column(column, justify="right", no_wrap=True)
    for node in nodes:
        cells = [
            f"{resources.get(kind, 0) / unit:.4g}"
            for kind, unit in (("CPU", 1), ("GPU", 1), ("memory", 2**30))
            for resources in (free.get(node.name, {}), node.resources)
        ]
        table.add_row(node.address, *cells)
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


class _Nowhere:
    """A stdout that keeps nothing."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def _init(target: Target, *, again: bool = True) -> None:
    try:
        if target.address is None:
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address=target.address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=set_up_on_nodes(),
            )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        # A head forks a server for each client, while its threads use gRPC; now and then that one hangs.
        if again and "Starting Ray client server failed" in _chain(error):
            _init(target, again=False)
            return
        raise _explained(target, error) from error


def _explained(target: Target, error: Exception) -> ResourcesUnavailable:
    said = " ".join(_chain(error).split())
    if target.address is None:
        return ResourcesUnavailable(f"a local Ray could not be started: {in_short(said)}")
    mismatch = re.search(r"[Vv]ersion mismatch|mismatch between", said)
    if mismatch:
        return ResourcesUnavailable(
            f"{target.address} runs another Ray or Python than this program: {in_short(said[mismatch.start() :])}",
            hint="use the same versions of Ray and Python here and there",
        )
    if "client connection timeout" in said:
        return ResourcesUnavailable(
            f"something listens at {target.address}, but it does not answer as Ray's client server",
            hint=f"{CLIENT} wants the client port of the head node (10001 unless changed)",
        )
    return ResourcesUnavailable(
        f"{target.address} cannot be used: {in_short(said)}",
        hint="see Ray's logs on its head node (ray_client_server*.err); run the same command again if it was busy",
    )


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """ray.init puts its own handler for SIGTERM in place, which ends the process; ours comes back after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _free_resources() -> dict[str, Resources]:
    """By node. A task, since Ray's client cannot ask for it."""
    free: dict[str, Resources] = state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return free


def _requirement(name: str) -> str:
    """The package with the versions this program needs, as pip wants it."""
    for requirement in importlib.metadata.requires("ddpm-inference") or ():
        if re.match(rf"{re.escape(name)}\b", requirement):
            return f"'{requirement}'"
    return name


def _oldest(name: str) -> tuple[int, ...]:
    """The oldest release of a package that is allowed."""
    return _release(_requirement(name).partition(">=")[2])


def _release(version: str) -> tuple[int, ...]:
    """Its numbers: (2, 10) of ``2.10.0+cpu`` as of ``2.10rc1``."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else ()


def _chain(error: BaseException | None) -> str:
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__
    return "\n".join(said)


def _in_a_line(error: RayError) -> str:
    """What went wrong; a task's error is its traceback, which says so last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if isinstance(error, RayTaskError) else 0]
