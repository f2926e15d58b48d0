"""The connection to a Ray cluster, and the runtime environment that the actors get."""

from __future__ import annotations

import json
import os

import pytest
import ray
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from ddpm_inference.errors import ResourcesUnavailable
from ddpm_inference.ray_backend.address import RayTarget
from ddpm_inference.ray_backend.cluster import ONE_IMAGE_VARIABLE
from ddpm_inference.ray_backend.connection import MAX_CLIENT_TRIES, connected, runtime_env
from ddpm_inference.ray_backend.ray_private import CLIENT_SERVER_START_FAILED


def test_in_one_image_there_is_no_runtime_env(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"metadata": {"job_submission_id": "digits-1"}, "runtime_env": {"env_vars": {"DDPM_JOB": "{}"}}}
    monkeypatch.setenv(RAY_JOB_CONFIG_JSON_ENV_VAR, json.dumps(job))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert list(runtime_env()) == ["py_modules", "excludes", "env_vars"]
    assert json.loads(os.environ[RAY_JOB_CONFIG_JSON_ENV_VAR]) == job
    monkeypatch.setenv(ONE_IMAGE_VARIABLE, "1")
    assert runtime_env() == {}
    assert json.loads(os.environ[RAY_JOB_CONFIG_JSON_ENV_VAR]) == {**job, "runtime_env": {}}


@pytest.mark.parametrize("failures", [0, MAX_CLIENT_TRIES - 1, MAX_CLIENT_TRIES])
def test_a_busy_head_gets_several_tries(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    def init(**options: object) -> None:
        nonlocal tries
        tries += 1
        if tries <= failures:
            raise ConnectionAbortedError(f"Initialization failure from server: {CLIENT_SERVER_START_FAILED}.")

    def connect() -> None:
        with connected(RayTarget("ray://127.0.0.1:1", "--ray_address")):
            pass

    monkeypatch.setattr(ray, "init", init)
    if failures < MAX_CLIENT_TRIES:
        connect()
        assert tries == failures + 1
    else:
        with pytest.raises(ResourcesUnavailable, match="cannot be used: Initialization failure"):
            connect()
        assert tries == MAX_CLIENT_TRIES
