"""The README's guide, typed as documented: a cluster from examples/, a port-forward, a token, one command."""

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


def example_commands() -> list[str]:
    """Returns the commands in the comment of the guide's manifest."""
    return [line[1:].strip() for line in EXAMPLE.read_text().splitlines() if line.startswith("#   ")]


def readme_commands() -> list[str]:
    """Returns the commands in the README's section."""
    section = (ROOT / "README.md").read_text().partition(f"### {HEADING}\n")[2].partition("\n#")[0]
    return [line.strip() for line in section.splitlines() if line.startswith("    ")]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small network of the guide's architecture with random weights, because the command takes all 1000 steps."""
    torch.manual_seed(0)
    spec = ModelSpec(name="Unet", downs=(4, 8), time_emb_dim=4, img_size=28, time_embedding="step")
    path = tmp_path / "Unet.safetensors"
    save(path, build(spec).state_dict(), spec, TrainedSchedule(name="linear", timesteps=1000))
    return path


@pytest.fixture
def user_shell(namespace: Namespace, worker_image: str) -> Iterator[Shell]:
    """A shell with the project on PATH. `worker_image` provides the image of the example."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    if namespace.cluster.kubeconfig:
        environment["KUBECONFIG"] = str(namespace.cluster.kubeconfig)
    with shell(ROOT, environment) as started:
        yield started


def test_readme_and_example_have_the_same_commands() -> None:
    assert len(example_commands()) == len(readme_commands()) == 5
    assert example_commands()[:-1] == readme_commands()[:-1]


def test_the_guides_commands_work(user_shell: Shell, namespace: Namespace, model: Path, tmp_path: Path) -> None:
    *prepare, sample = example_commands()
    user_shell.run(*(line.replace("kubectl ", f"kubectl --namespace {namespace.name} ") for line in prepare))
    user_shell.wait_for_output("Forwarding from 127.0.0.1:8265 -> 8265")
    token = base64.b64decode(namespace.get("v1", "Secret", CLUSTER)["data"]["auth_token"]).decode()
    user_shell.run(f"test $RAY_AUTH_TOKEN = {token}")
    for path in ("/api/jobs/", "/api/cluster_status", "/nodes?view=summary"):
        assert RayApi(8265, token).status_of(path) == 200
        assert RayApi(8265, token=None).status_of(path) == 401

    # The last occurrence of a flag wins.
    small = f"--model_path {model}"
    log = tmp_path / "log"
    user_shell.run(f"{sample} {small} --out_dir {tmp_path}/auto >{log} 2>&1 || {{ cat {log}; false; }}")
    assert "10001" in log.read_text(), "the log does not mention the port-forward"
    samples = np.load(tmp_path / "auto" / "samples.npy")
    assert samples.shape == (100, 1, 28, 28)
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert (tmp_path / "auto" / "grid.png").read_bytes().startswith(b"\x89PNG")

    user_shell.run(f"cd {ROOT}")
    few = "--ray_address ray://localhost:10001 --n_samples 4"
    user_shell.run(f"{readme_commands()[-1]} {small} {few} --out_dir {tmp_path}/named")
    np.testing.assert_array_equal(np.load(tmp_path / "named" / "samples.npy"), samples[:4])
