"""The guide's own way: a cluster from examples/, a port-forward, one exported token, one command."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_inference.checkpoint import save
from ddpm_inference.job import ModelSpec, TrainedSchedule
from ddpm_inference.models import build
from tests.cluster.conftest import ROOT
from tests.cluster.kube import Namespace, has_condition
from tests.cluster.ray_api import RayApi

CLUSTER, SERVICE = "ddpm-inference", "ddpm-inference-service"
READY_WITHIN = 180.0

pytestmark = pytest.mark.no_operator


@pytest.fixture
def token(namespace: Namespace, worker_image: str) -> str:
    """That of the example's cluster, which is ready; its image is the one that `worker_image` brought."""
    example = ROOT / "examples/kuberay-config.yaml"
    subprocess.run(namespace.cluster.kubectl("-n", namespace.name, "apply", "-f", str(example)), check=True)
    provisioned = has_condition("RayClusterProvisioned")
    namespace.wait("ray.io/v1", "RayCluster", CLUSTER, provisioned, READY_WITHIN, "the example to be ready")
    return base64.b64decode(namespace.get("v1", "Secret", CLUSTER)["data"]["auth_token"]).decode()


@pytest.fixture
def forwarded(namespace: Namespace, token: str) -> Iterator[None]:
    """The guide's port-forward, of the guide's ports."""
    with namespace.port_forward(f"service/{SERVICE}", "10001", "8265"):
        yield


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of the guide's size with random weights: a sixth of the shipped one's time."""
    torch.manual_seed(0)
    spec = ModelSpec(name="Unet", downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="step")
    path = tmp_path / "Unet.safetensors"
    save(path, build(spec).state_dict(), spec, TrainedSchedule(name="linear", timesteps=1000))
    return path


def sample(token: str, model: Path, out: Path, *flags: str) -> str:
    """The guide's command, in the guide's folder, after `export RAY_AUTH_TOKEN=…`."""
    command = ["run_ray_inference.py", "--model_path", str(model), *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, *command, "--out_dir", str(out)],
        cwd=ROOT / "inference",
        env={**environment, "RAY_AUTH_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.usefixtures("forwarded")
def test_the_guides_command_samples_on_the_cluster(token: str, model: Path, tmp_path: Path) -> None:
    assert RayApi(8265, token).status_of("/") == 200
    assert RayApi(8265, token).status_of("/api/jobs/") == 200
    assert RayApi(8265, token=None).status_of("/api/jobs/") == 401

    said = sample(token, model, tmp_path / "auto", "--ray_address", "auto")
    assert "10001" in said, f"it did not say that it samples through the port-forward:\n{said}"
    samples = np.load(tmp_path / "auto" / "samples.npy")
    assert samples.shape == (100, 1, 28, 28)
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert (tmp_path / "auto" / "grid.png").read_bytes().startswith(b"\x89PNG")

    sample(token, model, tmp_path / "named", "--ray_address", "ray://localhost:10001", "--n_samples", "4")
    np.testing.assert_array_equal(np.load(tmp_path / "named" / "samples.npy"), samples[:4])
