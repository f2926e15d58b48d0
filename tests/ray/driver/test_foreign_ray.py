"""A foreign Ray: the Python, environment and working folder of its head know nothing of this project."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import ray

from tests.support.rays import (
    Head,
    check_alive,
    descendants,
    finish,
    python_without,
    ray_head,
    run_command,
    start_command,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("a head with a token")

FLAGS = ("--sampler", "ddim", "--steps", "3", "--n_samples", "40", "--json")

PLAIN_TASK = """
import sys, ray
ray.init(sys.argv[1], log_to_driver=False)

@ray.remote
def knows():
    try:
        import ddpm_inference
    except ImportError:
        return False
    return True

print(ray.get(knows.remote()))
"""


@pytest.fixture(scope="module")
def expected(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The samples that a local Ray draws."""
    folder = tmp_path_factory.mktemp("own")
    ended = run_command("--model_path", checkpoint, *FLAGS, "--ray_address", "None", cwd=folder)
    assert ended.code == 0, ended.err
    return (folder / "out" / "samples.npy").read_bytes()


def test_the_cluster_does_not_have_this_package(head: Head, tmp_path: Path) -> None:
    ended = subprocess.run(
        [head.python, "-c", PLAIN_TASK, head.gcs],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RAY_AUTH_MODE": "token", **head.environment},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == ["False"]


@pytest.mark.parametrize("way", ["client", "gcs", "auto"])
def test_it_draws_the_same_samples(head: Head, way: str, checkpoint: Path, tmp_path: Path, expected: bytes) -> None:
    address = {"client": head.client, "gcs": head.gcs, "auto": "auto"}[way]
    environment = head.environment | ({"RAY_TMPDIR": str(head.folder)} if way == "auto" else {})
    flags = ("--model_path", checkpoint, *FLAGS, "--ray_address", address, "--startup_timeout", "300")
    ended = run_command(*flags, cwd=tmp_path, environment=environment)
    assert ended.code == 0, ended.err
    assert (tmp_path / "out" / "samples.npy").read_bytes() == expected
    samples = np.load(tmp_path / "out" / "samples.npy")
    assert samples.shape == (40, 1, 8, 8)
    documents = [json.loads(line) for line in ended.out.splitlines()]
    messages = [document["message"] for document in documents if document["event"] == "message"]
    assert any(head.gcs.rpartition(":")[2] in message or head.client in message for message in messages)


@pytest.mark.parametrize("way", ["client", "gcs"])
def test_an_unneeded_token_does_no_harm(
    open_head: Head, way: str, checkpoint: Path, tmp_path: Path, expected: bytes
) -> None:
    address = {"client": open_head.client, "gcs": open_head.gcs}[way]
    flags = ("--model_path", checkpoint, *FLAGS, "--device", "cpu", "--ray_address", address)
    environment = {"RAY_AUTH_TOKEN": "the token of another cluster"}
    ended = run_command(*flags, "--startup_timeout", "300", cwd=tmp_path, environment=environment)
    assert ended.code == 0, ended.err
    assert (tmp_path / "out" / "samples.npy").read_bytes() == expected


@pytest.mark.parametrize("way", ["client", "gcs"])
@pytest.mark.parametrize(
    ("environment", "message"),
    [({}, "requires a token"), ({"RAY_AUTH_TOKEN": "not the token of this cluster"}, "rejects the token")],
)
def test_a_rejected_token_is_named(
    head: Head, way: str, environment: dict[str, str], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    address = {"client": head.client, "gcs": head.gcs}[way]
    # Another home folder, without this machine's token file.
    environment = {"HOME": str(tmp_path), **environment}
    ended = run_command("--model_path", checkpoint, "--ray_address", address, cwd=tmp_path, environment=environment)
    assert ended.code == 3
    assert f"error: the Ray at {address} {message}" in ended.err
    assert "export RAY_AUTH_TOKEN" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out").exists()


def test_workers_that_cannot_be_placed_are_exit_code_3(head: Head, checkpoint: Path, tmp_path: Path) -> None:
    flags = ("--model_path", checkpoint, "--ray_address", head.client, "--startup_timeout", "8")
    ended = run_command(*flags, "--device", "cuda", cwd=tmp_path, environment=head.environment)
    assert ended.code == 3, ended.err
    assert "no worker could be placed within 8 s: each needs 0.25 GPU and 1 CPU" in ended.err
    header, node = ended.err[ended.err.index("NODE") :].splitlines()[:2]
    assert header.split()[:7] == ["NODE", "CPU", "FREE", "OF", "GPU", "FREE", "OF"]
    assert node.split()[1:5] == ["4", "4", "0", "0"]
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_dies_ends_the_run(
    tmp_path_factory: pytest.TempPathFactory, foreign_python: Path, checkpoint: Path, tmp_path: Path
) -> None:
    flags = ("--sampler", "ddim", "--steps", "500", "--n_samples", "3200", "--startup_timeout", "300")
    shards = tmp_path / "out" / "shards"
    with ray_head(tmp_path_factory.mktemp("mortal"), foreign_python, "--num-cpus=2") as mortal:
        process = start_command("--model_path", checkpoint, *flags, "--ray_address", mortal.gcs, cwd=tmp_path)
        wait_until(lambda: len(list(shards.glob("*.npz"))) >= 2, check=lambda: check_alive(process))
        for pid in descendants(mortal.process.pid):
            os.kill(pid, signal.SIGKILL)
        ended = finish(process)
    assert ended.code == 4
    kept = len(list(shards.glob("*.npz")))
    assert f"{32 * kept} of 3200 samples are kept" in ended.err
    assert f"error: Ray at {mortal.gcs} (from --ray_address) does not answer any more" in ended.err
    assert "Traceback" not in ended.err


def test_missing_packages_are_named_with_the_install_command(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, tmp_path: Path
) -> None:
    python = python_without(tmp_path_factory.mktemp("python") / "poor", "safetensors", "s3fs", "torch")
    with ray_head(tmp_path_factory.mktemp("poor"), python, "--num-cpus=2") as poor:
        flags = ("--model_path", checkpoint, "--ray_address", poor.gcs, "--startup_timeout", "300")
        ended = run_command(*flags, cwd=tmp_path)
    assert ended.code == 3
    assert "lack s3fs, safetensors, torch (Python 3." in ended.err
    assert "hint: install on every node: pip install 's3fs>=" in ended.err
    assert not (tmp_path / "out").exists()


def test_in_one_image_the_package_is_not_uploaded(open_head: Head, checkpoint: Path, tmp_path: Path) -> None:
    flags = ("--model_path", checkpoint, "--ray_address", open_head.gcs, "--startup_timeout", "300")
    ended = run_command(*flags, cwd=tmp_path, environment={"DDPM_ONE_IMAGE": "1"})
    assert ended.code == 3
    assert "cannot run tasks" in ended.err
    assert "No module named 'ddpm_inference'" in ended.err
    assert not (tmp_path / "out").exists()


def test_another_ray_version_is_named(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, tmp_path: Path
) -> None:
    python = python_without(tmp_path_factory.mktemp("python") / "old", "ray")
    package = next(python.parents[1].glob("lib/python*/site-packages")) / "ray"
    package.mkdir()
    for entry in Path(ray.__file__).parent.iterdir():
        (package / entry.name).symlink_to(entry)
    version = package / "_version.py"
    source = version.read_text().replace(ray.__version__, "2.50.0")
    version.unlink()
    version.write_text(source)
    with ray_head(tmp_path_factory.mktemp("old"), python, "--num-cpus=2") as old:
        for address in (old.gcs, old.client):
            ended = run_command("--model_path", checkpoint, "--ray_address", address, cwd=tmp_path)
            assert ended.code == 3
            assert f"error: {address} runs another Ray or Python than this program" in ended.err
            assert "2.50.0" in ended.err
            assert "Traceback" not in ended.err
