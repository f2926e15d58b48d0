"""What a local Ray that does not start is reported as."""

from __future__ import annotations

import signal

import pytest
import ray

from ddpm_inference.errors import ResourcesUnavailable
from ddpm_inference.ray_backend.address import FROM_FLAG, RayTarget
from ddpm_inference.ray_backend.connection import connected


@pytest.mark.parametrize("kind", [Exception, RuntimeError, TimeoutError])
def test_a_local_ray_that_does_not_start_is_unavailable(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_options: object) -> None:
        raise kind("The current node timed out during startup.")

    monkeypatch.setenv("RAY_TMPDIR", "/var/ray-of-the-test")
    monkeypatch.setenv("PYTHONSAFEPATH", "to be restored")
    monkeypatch.setattr(ray, "init", init)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ResourcesUnavailable, match="could not be started: The current node timed out") as failed:
        connected(RayTarget(None, FROM_FLAG)).__enter__()
    assert failed.value.exit_code == 3
    assert "/var/ray-of-the-test/ray/session_latest/logs" in failed.value.hint
    assert signal.getsignal(signal.SIGTERM) is handler
