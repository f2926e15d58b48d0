"""Connects this process to a Ray cluster, or starts a local one, for the duration of a run."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray

import ddpm_inference
from ddpm_inference.errors import ResourcesUnavailable, shortened
from ddpm_inference.process import run_notes
from ddpm_inference.process.signals import signals_blocked
from ddpm_inference.ray_backend.address import CLIENT_SCHEME, RayTarget
from ddpm_inference.ray_backend.cluster import Cluster, is_one_image
from ddpm_inference.ray_backend.ray_private import (
    CLIENT_CONNECTION_TIMEOUT,
    CLIENT_SERVER_START_FAILED,
    VERSION_MISMATCH,
    clear_job_runtime_env,
    job_config_without_folders,
    session_logs,
)
from ddpm_inference.ray_backend.start_watch import watched_start

PACKAGE_FOLDER = Path(ddpm_inference.__file__).parent

MAX_CLIENT_TRIES = 4
"""Ray waits 30 s for the server process of a client; four times are as long as a local Ray gets to start."""

# Keeps the current folder off the import path of `python -c` and `python -m` too, which torch.compile uses in workers.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}


@contextmanager
def connected(target: RayTarget) -> Iterator[Cluster]:
    """Connects to a Ray cluster, or starts a local Ray, until the block ends; a local Ray is shut down then.

    Unless all nodes run one image, this package is uploaded to the cluster, which need not have it installed. Until the
    block ends stdout discards what is written to it, because Ray prints messages from its nodes there.

    Raises:
        ResourcesUnavailable: if the connection fails, with the cause.
    """
    with redirect_stdout(_NullOutput()):
        try:
            cluster = Cluster(target)
            run_notes.note(ray=cluster.description, rayLogs=_local_logs(cluster))
            with _sigterm_handler_restored(), signals_blocked(signal.SIGHUP), watched_start(target):
                _init(target)
            run_notes.note(rayLogs=_local_logs(cluster))
            yield cluster
        finally:
            ray.shutdown()


def runtime_env() -> dict[str, Any]:
    """Returns the runtime environment for the actors: this package as an upload, or nothing in one image.

    A runtime environment delays the start of workers, because Ray starts a Python process for it first. In one image
    the runtime environment that this process got as a Ray job is therefore cleared, too.
    """
    if not is_one_image():
        # The job that this driver may be part of must not set the same variable.
        variables = {} if SAFE_PATH.keys() & os.environ.keys() else {"env_vars": SAFE_PATH}
        return {"py_modules": [str(PACKAGE_FOLDER)], "excludes": ["builtin", "__pycache__"], **variables}
    clear_job_runtime_env()
    return {}


def _local_logs(cluster: Cluster) -> str | None:
    return str(session_logs()) if cluster.is_local else None


class _NullOutput:
    """A stdout that discards everything."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def _init(target: RayTarget, *, tries: int = MAX_CLIENT_TRIES) -> None:
    try:
        if target.address is None:
            os.environ.update(SAFE_PATH)
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                job_config=job_config_without_folders(),
            )
        else:
            # A client's server adds no folders, and could not unpickle the job configuration.
            is_member = not target.address.startswith(CLIENT_SCHEME)
            options: dict[str, Any] = {"job_config": job_config_without_folders()} if is_member else {}
            ray.init(
                address=target.address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=runtime_env(),
                **options,
            )
    except Exception as error:
        # Ray raises Exception itself, too, for example when its local processes do not start in time.
        # The head forks one server process per client while its own threads use gRPC; occasionally the fork hangs.
        # On a busy head the process may also take longer than Ray waits for it.
        if tries > 1 and CLIENT_SERVER_START_FAILED in _chained_messages(error):
            _init(target, tries=tries - 1)
            return
        raise _connection_error(target, error) from error


def _connection_error(target: RayTarget, error: Exception) -> ResourcesUnavailable:
    text = " ".join(_chained_messages(error).split())
    if target.address is None:
        return ResourcesUnavailable(
            f"a local Ray could not be started: {shortened(text)}",
            hint=f"see its log in {session_logs()}; a machine without free memory or processes can be the cause",
        )
    mismatch = re.search(VERSION_MISMATCH, text)
    if mismatch:
        return ResourcesUnavailable(
            f"{target.address} runs another Ray or Python than this program: {shortened(text[mismatch.start() :])}",
            hint="use the same versions of Ray and Python on both sides",
        )
    if CLIENT_CONNECTION_TIMEOUT in text:
        return ResourcesUnavailable(
            f"something listens at {target.address}, but it does not answer as Ray's client server",
            hint=f"{CLIENT_SCHEME} wants the client port of the head node (10001 unless changed)",
        )
    return ResourcesUnavailable(
        f"{target.address} cannot be used: {shortened(text)}",
        hint="see Ray's logs on its head node (ray_client_server*.err); run the same command again if it was busy",
    )


@contextmanager
def _sigterm_handler_restored() -> Iterator[None]:
    """Restores our SIGTERM handler after `ray.init`, which installs its own that exits the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGTERM, handler)


def _chained_messages(error: BaseException | None) -> str:
    """Returns the messages of an error and of its causes, one a line."""
    messages = []
    while error is not None:
        messages.append(str(error))
        error = error.__cause__
    return "\n".join(messages)
