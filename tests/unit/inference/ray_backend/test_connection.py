"""The runtime environment that the actors get, and what a local Ray that does not start is reported as."""

from __future__ import annotations

import json
import os
import signal

import pytest
import ray
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from ddpm_inference.errors import ResourcesUnavailable
from ddpm_inference.ray_backend.address import FROM_FLAG, RayTarget
from ddpm_inference.ray_backend.cluster import ONE_IMAGE_VARIABLE
from ddpm_inference.ray_backend.connection import connected, runtime_env


def test_in_one_image_there_is_no_runtime_env(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"metadata": {"job_submission_id": "digits-1"}, "runtime_env": {"env_vars": {"DDPM_JOB": "{}"}}}
    monkeypatch.setenv(RAY_JOB_CONFIG_JSON_ENV_VAR, json.dumps(job))
    assert list(runtime_env()) == ["py_modules", "excludes"]
    assert json.loads(os.environ[RAY_JOB_CONFIG_JSON_ENV_VAR]) == job
    monkeypatch.setenv(ONE_IMAGE_VARIABLE, "1")
    assert runtime_env() == {}
    assert json.loads(os.environ[RAY_JOB_CONFIG_JSON_ENV_VAR]) == {**job, "runtime_env": {}}


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
