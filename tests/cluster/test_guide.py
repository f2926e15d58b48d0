"""The guide's own way, typed as documented: a cluster from examples/, a port-forward, a token, one command."""

from __future__ import annotations

import base64
import os
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
from tests.cluster.kube import Namespace
from tests.cluster.ray_api import RayApi
from tests.cluster.shell import Shell, shell

CLUSTER = "ddpm-inference"
EXAMPLE = ROOT / "examples/kuberay-config.yaml"
HEADING = "Your own RayCluster"

pytestmark = pytest.mark.no_operator


def of_the_example() -> list[str]:
    """The commands in the comment of the guide's manifest."""
    return [line[1:].strip() for line in EXAMPLE.read_text().splitlines() if line.startswith("#   ")]


def of_the_readme() -> list[str]:
    """Those under README's heading of a cluster of one's own."""
    section = (ROOT / "README.md").read_text().partition(f"### {HEADING}\n")[2].partition("\n#")[0]
    return [line.strip() for line in section.splitlines() if line.startswith("    ")]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of the guide's kind with random weights, and small: its command draws with all of 1000 steps."""
    torch.manual_seed(0)
    spec = ModelSpec(name="Unet", downs=(4, 8), time_emb_dim=4, img_size=28, time_embedding="step")
    path = tmp_path / "Unet.safetensors"
    save(path, build(spec).state_dict(), spec, TrainedSchedule(name="linear", timesteps=1000))
    return path


@pytest.fixture
def at_a_shell(namespace: Namespace, worker_image: str) -> Iterator[Shell]:
    """A person's, who has the project set up; the example's image is the one that `worker_image` brought."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    if namespace.cluster.kubeconfig:
        environment["KUBECONFIG"] = str(namespace.cluster.kubeconfig)
    with shell(ROOT, environment) as typing:
        yield typing


def test_readme_and_the_example_say_the_same() -> None:
    assert len(of_the_example()) == len(of_the_readme()) == 5
    assert of_the_example()[:-1] == of_the_readme()[:-1]


def test_the_guides_commands_sample_on_the_cluster(
    at_a_shell: Shell, namespace: Namespace, model: Path, tmp_path: Path
) -> None:
    *prepare, sample = of_the_example()
    at_a_shell.types(*(line.replace("kubectl ", f"kubectl --namespace {namespace.name} ") for line in prepare))
    at_a_shell.until("Forwarding from 127.0.0.1:8265 -> 8265")
    token = base64.b64decode(namespace.get("v1", "Secret", CLUSTER)["data"]["auth_token"]).decode()
    at_a_shell.types(f"test $RAY_AUTH_TOKEN = {token}")
    for path in ("/api/jobs/", "/api/cluster_status", "/nodes?view=summary"):
        assert RayApi(8265, token).status_of(path) == 200
        assert RayApi(8265, token=None).status_of(path) == 401

    # The last flag of a kind holds.
    small = f"--model_path {model}"
    said = tmp_path / "said"
    at_a_shell.types(f"{sample} {small} --out_dir {tmp_path}/auto >{said} 2>&1 || {{ cat {said}; false; }}")
    assert "10001" in said.read_text(), "it did not say that it samples through the port-forward"
    samples = np.load(tmp_path / "auto" / "samples.npy")
    assert samples.shape == (100, 1, 28, 28)
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert (tmp_path / "auto" / "grid.png").read_bytes().startswith(b"\x89PNG")

    at_a_shell.types(f"cd {ROOT}")
    few = "--ray_address ray://localhost:10001 --n_samples 4"
    at_a_shell.types(f"{of_the_readme()[-1]} {small} {few} --out_dir {tmp_path}/named")
    np.testing.assert_array_equal(np.load(tmp_path / "named" / "samples.npy"), samples[:4])
