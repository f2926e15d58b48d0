"""ddpm-sample of the worker image, on a RayCluster created without the operator."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from tests.cluster.kube import Namespace, has_condition
from tests.cluster.manifests import TOKEN_SECRET, claim, ray_cluster, secret
from tests.cluster.ray_api import RayApi
from tests.cluster.results import DIGESTS, MAKE_BUCKET, local_samples, run_python

N = 100
JOB = {"version": 1, "model": {"uri": "builtin://mnist"}, "n_samples": N, "sampler": {"name": "dpmpp"}}
READY_TIMEOUT = 180.0
SAMPLING_TIMEOUT = 180.0

pytestmark = [pytest.mark.no_operator, pytest.mark.long]


def job_writing_to(uri: str) -> dict[str, str]:
    return {"DDPM_JOB": json.dumps({**JOB, "output": {"uri": uri}})}


def test_samples_on_claim_and_bucket_equal_local_ones(
    namespace: Namespace, worker_image: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    token, bucket = secrets.token_hex(16), f"ddpm-test-{secrets.token_hex(4)}"
    uris = ("/out/digits", f"s3://{bucket}/digits")

    namespace.apply(
        secret(TOKEN_SECRET, {"auth_token": token}),
        secret("s3", s3_environment),
        claim("out"),
        ray_cluster("digits", worker_image, claim="out", env_from="s3"),
    )
    run_python(namespace, worker_image, MAKE_BUCKET, bucket, env_from="s3")
    provisioned = has_condition("RayClusterProvisioned")
    namespace.wait("ray.io/v1", "RayCluster", "digits", provisioned, READY_TIMEOUT, "the RayCluster to be ready")

    with namespace.port_forward("service/digits-head-svc", ":8265") as ports:
        assert RayApi(ports[8265], token=None).status_of("/api/jobs/") == 401
        ray = RayApi(ports[8265], token)
        for uri in uris:
            ray.run_job("ddpm-sample --quiet", job_writing_to(uri), SAMPLING_TIMEOUT)

    samples = [f"{uri}/samples.npy" for uri in uris]
    stored = run_python(namespace, worker_image, DIGESTS, *samples, claim="out", env_from="s3")
    assert stored == [local_samples(N, tmp_path, "--sampler", "dpmpp")] * len(uris)
