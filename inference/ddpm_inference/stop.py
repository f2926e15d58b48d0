"""Stops the driver of a pod before the pod ends: ``python -m ddpm_inference.stop``, the preStop hook of the head.

When Kubernetes ends a pod, Ray ends first and takes the driver with it, whatever it is doing. The hook signals the
driver before that, so that it can store the shards its workers have finished, and its log.

The supervising process (see `process.supervisor`) registers itself in a PID file. The module stays at this path: the
manifests of pods that run older images name it.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

WAIT_SECONDS = 4.0  # of the pod's grace period of five
POLL_SECONDS = 0.05


def register_driver() -> None:
    """Writes the PID of this process, so that the hook signals it."""
    # Without the file the driver is killed with its pod; the shards stored by then are whole.
    with suppress(OSError):
        _pid_file().write_text(str(os.getpid()))


def unregister_driver() -> None:
    """Removes the PID file: everything is stored, and the hook need not wait any longer."""
    with suppress(OSError):
        _pid_file().unlink()


def main() -> int:
    """Sends SIGTERM to the driver, if one is registered, and waits until it unregisters or the time is up."""
    deadline = time.monotonic() + WAIT_SECONDS
    with suppress(OSError, ValueError):
        driver = int(_pid_file().read_text())
        os.kill(driver, signal.SIGTERM)
        while _pid_file().exists() and time.monotonic() < deadline:
            os.kill(driver, 0)
            time.sleep(POLL_SECONDS)
    return 0


def _pid_file() -> Path:
    # `tempfile` gives the same folder, but importing it takes three times as long as the rest of this program.
    return Path(os.environ.get("TMPDIR", "/tmp"), "ddpm-driver.pid")  # noqa: S108


if __name__ == "__main__":
    raise SystemExit(main())
