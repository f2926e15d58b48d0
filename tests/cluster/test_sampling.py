"""The inference half from the worker image, on a RayCluster made by hand, as the operator will use both."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import s3fs

from tests.cluster.kube import Namespace, has_condition
from tests.cluster.manifests import TOKEN_SECRET, claim, pod, ray_cluster, secret
from tests.cluster.ray_api import RayApi

N = 100
JOB = {"version": 1, "model": {"uri": "builtin://mnist"}, "n_samples": N, "sampler": {"name": "dpmpp"}}
READY_WITHIN = 180.0
SAMPLED_WITHIN = 180.0


@pytest.fixture(scope="module")
def local_samples(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """samples.npy of the same job on a Ray of this machine's own."""
    folder = tmp_path_factory.mktemp("local")
    command = [str(Path(sys.executable).with_name("ddpm-sample")), "--ray_address", "None", "--quiet"]
    subprocess.run([*command, *flags(), "--out_dir", str(folder)], check=True)
    samples = folder / "samples.npy"
    assert np.load(samples).shape == (N, 1, 28, 28)
    return samples.read_bytes()


def flags() -> list[str]:
    return ["--model_path", "builtin://mnist", "--n_samples", str(N), "--sampler", "dpmpp"]


def job_writing_to(uri: str) -> dict[str, str]:
    return {"DDPM_JOB": json.dumps({**JOB, "output": {"uri": uri}})}


@pytest.fixture
def bucket(s3_environment: dict[str, str]) -> Iterator[tuple[s3fs.S3FileSystem, str]]:
    """A client of the S3 server, and a bucket of the test's own."""
    client = s3fs.S3FileSystem(
        key=s3_environment["AWS_ACCESS_KEY_ID"],
        secret=s3_environment["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=s3_environment["AWS_ENDPOINT_URL"],
    )
    name = f"ddpm-test-{secrets.token_hex(4)}"
    client.mkdir(name)
    yield client, name
    client.rm(name, recursive=True)


def test_samples_on_a_claim_and_in_a_bucket_are_the_local_ones(
    namespace: Namespace,
    worker_image: str,
    local_samples: bytes,
    s3_environment: dict[str, str],
    bucket: tuple[s3fs.S3FileSystem, str],
) -> None:
    token = secrets.token_hex(16)
    namespace.apply(
        secret(TOKEN_SECRET, {"auth_token": token}),
        secret("s3", s3_environment),
        claim("out"),
        ray_cluster("digits", worker_image, claim="out", env_from="s3"),
    )
    provisioned = has_condition("RayClusterProvisioned")
    namespace.wait("ray.io/v1", "RayCluster", "digits", provisioned, READY_WITHIN, "the RayCluster to be ready")
    client, bucket_name = bucket

    with namespace.port_forward("service/digits-head-svc", ":8265") as ports:
        assert RayApi(ports[8265], token=None).status_of("/api/jobs/") == 401
        ray = RayApi(ports[8265], token)
        for uri in ("/out/digits", f"s3://{bucket_name}/digits"):
            ray.run_job("ddpm-sample --quiet", job_writing_to(uri), SAMPLED_WITHIN)

    assert client.cat(f"{bucket_name}/digits/samples.npy") == local_samples
    on_claim = namespace.run_pod(
        pod("reader", worker_image, ["sha256sum", "/out/digits/samples.npy"], claim="out"), seconds=60
    )
    assert on_claim.split()[0] == hashlib.sha256(local_samples).hexdigest()
