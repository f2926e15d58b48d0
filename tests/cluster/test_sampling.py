"""The inference half from the worker image, on a RayCluster made by hand, as the operator will use both."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.kube import Namespace, has_condition
from tests.cluster.manifests import TOKEN_SECRET, claim, pod, ray_cluster, secret
from tests.cluster.ray_api import RayApi

pytestmark = pytest.mark.xdist_group("sampling")

N = 100
JOB = {"version": 1, "model": {"uri": "builtin://mnist"}, "n_samples": N, "sampler": {"name": "dpmpp"}}
MAKE_BUCKET = "import s3fs, sys; s3fs.S3FileSystem().mkdir(sys.argv[1])"
DIGESTS = """
import fsspec, hashlib, sys
for uri in sys.argv[1:]:
    with fsspec.open(uri) as file:
        print(hashlib.sha256(file.read()).hexdigest())
"""
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


def test_samples_on_a_claim_and_in_a_bucket_are_the_local_ones(
    namespace: Namespace, worker_image: str, local_samples: bytes, s3_environment: dict[str, str]
) -> None:
    token, bucket = secrets.token_hex(16), f"ddpm-test-{secrets.token_hex(4)}"
    uris = ("/out/digits", f"s3://{bucket}/digits")

    def run_python(name: str, code: str, *arguments: str) -> str:
        command = ["python", "-c", code, *arguments]
        return namespace.run_pod(pod(name, worker_image, command, claim="out", env_from="s3"), READY_WITHIN)

    namespace.apply(
        secret(TOKEN_SECRET, {"auth_token": token}),
        secret("s3", s3_environment),
        claim("out"),
        ray_cluster("digits", worker_image, claim="out", env_from="s3"),
    )
    run_python("make-bucket", MAKE_BUCKET, bucket)
    provisioned = has_condition("RayClusterProvisioned")
    namespace.wait("ray.io/v1", "RayCluster", "digits", provisioned, READY_WITHIN, "the RayCluster to be ready")

    with namespace.port_forward("service/digits-head-svc", ":8265") as ports:
        assert RayApi(ports[8265], token=None).status_of("/api/jobs/") == 401
        ray = RayApi(ports[8265], token)
        for uri in uris:
            ray.run_job("ddpm-sample --quiet", job_writing_to(uri), SAMPLED_WITHIN)

    stored = run_python("read-back", DIGESTS, *(f"{uri}/samples.npy" for uri in uris))
    assert stored.split() == [hashlib.sha256(local_samples).hexdigest()] * len(uris)
