"""Connects this process to a Ray cluster, or starts a local one, for the duration of a run."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

import ddpm_inference
from ddpm_inference.errors import ResourcesUnavailable, shortened
from ddpm_inference.ray_backend.address import CLIENT_SCHEME, RayTarget
from ddpm_inference.ray_backend.cluster import Cluster, is_one_image
from ddpm_inference.ray_backend.ray_private import (
    CLIENT_CONNECTION_TIMEOUT,
    CLIENT_SERVER_START_FAILED,
    VERSION_MISMATCH,
    clear_job_runtime_env,
)

PACKAGE_FOLDER = Path(ddpm_inference.__file__).parent


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
            with _sigterm_handler_restored():
                _init(target)
            yield Cluster(target)
        finally:
            ray.shutdown()


def runtime_env() -> dict[str, Any]:
    """Returns the runtime environment for the actors: this package as an upload, or nothing in one image.

    A runtime environment delays the start of workers, because Ray starts a Python process for it first. In one image
    the runtime environment that this process got as a Ray job is therefore cleared, too.
    """
    if not is_one_image():
        return {"py_modules": [str(PACKAGE_FOLDER)], "excludes": ["builtin", "__pycache__"]}
    clear_job_runtime_env()
    return {}


class _NullOutput:
    """A stdout that discards everything."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def _init(target: RayTarget, *, retry: bool = True) -> None:
    try:
        if target.address is None:
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address=target.address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=runtime_env(),
            )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        # The head forks one server process per client while its own threads use gRPC; occasionally the fork hangs.
        if retry and CLIENT_SERVER_START_FAILED in _chained_messages(error):
            _init(target, retry=False)
            return
        raise _connection_error(target, error) from error


def _connection_error(target: RayTarget, error: Exception) -> ResourcesUnavailable:
    text = " ".join(_chained_messages(error).split())
    if target.address is None:
        return ResourcesUnavailable(f"a local Ray could not be started: {shortened(text)}")
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
