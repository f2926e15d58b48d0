"""Ends a pod's driver in order before the pod goes: ``python -m ddpm_inference.stop``, the head's preStop hook.

What ends a pod ends its Ray first, and with that the driver, in the middle of what it does. Asked before, it
stores what its workers have finished, and its log.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

WITHIN_SECONDS = 4.0  # of the five that the pod has
LOOK_SECONDS = 0.05


def begun() -> None:
    """Notes this process as the one that is to be asked."""
    # Without a note the driver goes with its pod, and what is stored by then is whole.
    with suppress(OSError):
        _note().write_text(str(os.getpid()))


def stored() -> None:
    """Takes the note away: there is nothing left to be saved."""
    with suppress(OSError):
        _note().unlink()


def main() -> int:
    """Asks the driver to end, if there is one, and waits until it has stored all, or the time is up."""
    until = time.monotonic() + WITHIN_SECONDS
    with suppress(OSError, ValueError):
        driver = int(_note().read_text())
        os.kill(driver, signal.SIGTERM)
        while _note().exists() and time.monotonic() < until:
            os.kill(driver, 0)
            time.sleep(LOOK_SECONDS)
    return 0


def _note() -> Path:
    # `tempfile` would say the same, and take three times as long to import as all of this to run.
    return Path(os.environ.get("TMPDIR", "/tmp"), "ddpm-driver.pid")  # noqa: S108


if __name__ == "__main__":
    raise SystemExit(main())
