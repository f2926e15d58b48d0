"""The runtime environment that the actors get."""

from __future__ import annotations

import json
import os

import pytest
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from ddpm_inference.ray_backend.cluster import ONE_IMAGE_VARIABLE
from ddpm_inference.ray_backend.connection import runtime_env


def test_in_one_image_there_is_no_runtime_env(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"metadata": {"job_submission_id": "digits-1"}, "runtime_env": {"env_vars": {"DDPM_JOB": "{}"}}}
    monkeypatch.setenv(RAY_JOB_CONFIG_JSON_ENV_VAR, json.dumps(job))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert list(runtime_env()) == ["py_modules", "excludes", "env_vars"]
    assert json.loads(os.environ[RAY_JOB_CONFIG_JSON_ENV_VAR]) == job
    monkeypatch.setenv(ONE_IMAGE_VARIABLE, "1")
    assert runtime_env() == {}
    assert json.loads(os.environ[RAY_JOB_CONFIG_JSON_ENV_VAR]) == {**job, "runtime_env": {}}
