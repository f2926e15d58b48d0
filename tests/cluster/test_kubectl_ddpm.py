"""`kubectl ddpm` on a real cluster, by a user with the chart's editor role only."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from ddpm_inference.checkpoint import save
from ddpm_inference.job import ModelSpec, TrainedSchedule
from ddpm_inference.models import build
from tests.cluster.editor import editor_of
from tests.cluster.kube import Namespace
from tests.cluster.manifests import pod, secret
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import API, DELETION_TIMEOUT, KIND, LONG, SMALL, Sampling, assert_nothing_left
from tests.support.pipelines import INDEX, encoded, nested, write

PLUGIN = Path(sys.executable).with_name("kubectl-ddpm")
DIGITS = ("digits", "--model_path", "builtin://mnist", "--sampler", "dpmpp")
A_SMALL_POD = ("--worker_cpu", "1", "--worker_memory", "2Gi")
SAMPLER = ("--n_samples", "16", "--sampler", "dpmpp", "--steps", "5")
SEEN_TIMEOUT = 60.0

MAKE_BUCKET = "import s3fs, sys; s3fs.S3FileSystem().mkdir(sys.argv[1])"
WRITE = """
import fsspec, sys
with fsspec.open(sys.argv[1], "wb") as file:
    file.write(b"something else")
"""


@dataclass(frozen=True)
class User:
    """A user of the command."""

    environment: dict[str, str]

    def ddpm(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PLUGIN, *arguments], env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )

    def run(self, *arguments: str | Path) -> str:
        """Runs a command that must succeed; returns its stdout."""
        done = self.ddpm(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def user(operator: Operator, namespace: Namespace, tmp_path: Path) -> User:
    return User({**os.environ, "KUBECONFIG": str(editor_of(namespace, tmp_path))})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of 21 MiB, several times the upload's window."""
    spec = ModelSpec(name="Unet", downs=(8, 256), time_emb_dim=4, img_size=8, time_embedding="step")
    path = tmp_path / "mine.safetensors"
    torch.manual_seed(5)
    save(path, build(spec).state_dict(), spec, TrainedSchedule(name="linear", timesteps=100))
    return path


@pytest.mark.draws_nothing
def test_submit_is_idempotent_and_can_grow_samples(user: User) -> None:
    results = []
    for samples in ("16", "16", "32", "8"):
        done = user.ddpm("submit", *DIGITS, "--n_samples", samples, "--gpus", "1000", "--json")
        results.append(json.loads(done.stdout)["was"] if done.stdout else (done.returncode, done.stderr))
    assert results[:3] == ["created", "unchanged", "changed"]
    assert results[3][0] == 2
    assert "samples can only be increased" in results[3][1]
    assert json.loads(user.run("list", "--json"))["spec"]["samples"] == 32
    assert user.run("delete", "digits") == "digits deleted; its samples stay at pvc://digits-output\n"
    assert user.ddpm("status", "digits").returncode == 2


@pytest.mark.draws_nothing
def test_submit_grows_an_applied_sampling_and_keeps_other_fields(
    user: User, namespace: Namespace, operator: Operator, tmp_path: Path
) -> None:
    file = tmp_path / "digits.yaml"

    def write(**fields: object) -> None:
        spec = SMALL | {"suspend": True, "seed": 1} | fields
        file.write_text(yaml.safe_dump({"apiVersion": API, "kind": KIND, "metadata": {"name": "digits"}, "spec": spec}))

    write()
    operator.run_kubectl("apply", "--namespace", namespace.name, "--filename", str(file))
    write(samples=32)
    assert json.loads(user.run("submit", "-f", file, "--json"))["was"] == "changed"
    assert json.loads(user.run("submit", "-f", file, "--json"))["was"] == "unchanged"
    assert namespace.get(API, KIND, "digits")["spec"]["samples"] == 32
    write(samples=64, seed=2)
    done = user.ddpm("submit", "-f", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert "spec.seed has a different value, set by kubectl-client-side-apply" in done.stderr


@pytest.mark.draws_nothing
def test_a_missing_sampling_is_named(user: User, namespace: Namespace) -> None:
    for command in (("status", "no"), ("watch", "no"), ("logs", "no"), ("fetch", "no", "."), ("delete", "no")):
        done = user.ddpm(*command)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"there is no DDPMSampling no in the namespace {namespace.name}" in done.stderr


@pytest.mark.draws_nothing
def test_a_missing_permission_is_named(user: User) -> None:
    done = user.ddpm("list", "--namespace", "kube-system")
    assert (done.returncode, done.stdout) == (3, "")
    assert 'cannot list resource "ddpmsamplings"' in done.stderr
    assert "ask the administrator" in done.stderr


def test_an_uploaded_checkpoint_gives_the_local_samples(
    user: User, namespace: Namespace, checkpoint: Path, tmp_path: Path
) -> None:
    command = ("submit", "mine", "--model_path", checkpoint, *SAMPLER, *A_SMALL_POD, "--json")
    assert json.loads(user.run(*command))["was"] == "created"
    assert json.loads(user.run(*command))["was"] == "unchanged"
    planned = Sampling(namespace, "mine").wait(lambda it: bool(it.get("status", {}).get("plan")), "a plan")
    assert (planned["spec"]["model"]["imgSize"], planned["spec"]["model"]["channels"]) == (8, 1)
    assert planned["status"]["plan"]["shards"] == 1
    assert "Succeeded  16 of 16" in user.run("watch", "mine")
    Sampling(namespace, "mine").wait_until_complete(16)  # and its cluster is deleted
    printed = user.run("fetch", "mine", tmp_path / "there").splitlines()
    assert printed == [str(tmp_path / "there" / name) for name in ("grid.png", "samples.npy")]

    here = [Path(sys.executable).with_name("ddpm-sample"), "--ray_address", "None", "--quiet"]
    subprocess.run([*here, "--model_path", checkpoint, *SAMPLER, "--out_dir", tmp_path / "here"], check=True)
    samples = [(tmp_path / where / "samples.npy").read_bytes() for where in ("there", "here")]
    assert samples[0] == samples[1]

    assert_nothing_left(namespace)
    user.run("delete", "mine")
    namespace.wait("v1", "PersistentVolumeClaim", "mine-model", lambda seen: not seen, DELETION_TIMEOUT, "it to go")


def test_an_uploaded_pipeline_gives_the_local_samples(user: User, namespace: Namespace, tmp_path: Path) -> None:
    folder = write(tmp_path / "pipeline", nested() | {"README.md": b"# not uploaded"})
    sampler = ("--n_samples", "16", "--sampler", "ddim", "--steps", "4")
    command = ("submit", "mine", "--model_path", folder, *sampler, *A_SMALL_POD, "--json")
    assert json.loads(user.run(*command))["was"] == "created"
    assert json.loads(user.run(*command))["was"] == "unchanged"
    planned = Sampling(namespace, "mine").wait(lambda it: bool(it.get("status", {}).get("plan")), "a plan")
    assert planned["spec"]["model"]["uri"] == "pvc://mine-model/pipeline"
    assert "chosen for 8x8 pixels and" in planned["status"]["plan"]["why"][0]
    assert "Succeeded  16 of 16" in user.run("watch", "mine")
    user.run("fetch", "mine", tmp_path / "there")
    here = [Path(sys.executable).with_name("ddpm-sample"), "--ray_address", "None", "--quiet"]
    subprocess.run([*here, "--model_path", folder, *sampler, "--out_dir", tmp_path / "here"], check=True)
    samples = [(tmp_path / where / "samples.npy").read_bytes() for where in ("there", "here")]
    assert samples[0] == samples[1]
    user.run("delete", "mine")


@pytest.mark.draws_nothing
def test_a_pipeline_that_is_not_drawn_is_refused_before_the_upload(
    user: User, namespace: Namespace, tmp_path: Path
) -> None:
    latent = encoded(INDEX | {"vqvae": ["diffusers", "VQModel"]})
    folder = write(tmp_path, nested() | {"model_index.json": latent})
    done = user.ddpm("submit", "mine", "--model_path", folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "it is a latent model (vqvae)" in done.stderr
    assert not namespace.list(API, KIND)


@pytest.mark.draws_nothing
def test_an_interrupted_upload_leaves_nothing(user: User, namespace: Namespace, checkpoint: Path) -> None:
    # With a missing image the upload is certainly still waiting. Background jobs of a shell, such as this run, may
    # ignore SIGINT.
    submit_command = [PLUGIN, "submit", "mine", "--model_path", checkpoint, *SAMPLER]
    command = ["env", "--default-signal=INT", *submit_command, "--image", "registry.invalid/none:1"]
    with subprocess.Popen(command, env=user.environment, stderr=subprocess.PIPE, text=True) as submit:
        namespace.wait_for_all("v1", "Pod", bool, SEEN_TIMEOUT, "the pod that receives the file")
        assert namespace.list("v1", "PersistentVolumeClaim")
        submit.send_signal(signal.SIGINT)
        assert submit.wait(SEEN_TIMEOUT) == 130
    assert not namespace.list("ddpm-ray.io/v1alpha1", "DDPMSampling")
    for kind in ("Pod", "PersistentVolumeClaim"):
        namespace.wait_for_none("v1", kind, DELETION_TIMEOUT)


def test_fetch_reads_a_bucket_and_refuses_damaged_files(
    user: User, namespace: Namespace, worker_image: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    bucket = f"ddpm-test-{secrets.token_hex(4)}"
    uri = f"s3://{bucket}/digits"

    def run_python(name: str, code: str, argument: str) -> None:
        namespace.run_pod(pod(name, worker_image, ["python", "-c", code, argument], env_from="s3"), SEEN_TIMEOUT)

    namespace.apply(secret("s3", s3_environment))
    run_python("make-bucket", MAKE_BUCKET, bucket)
    spec = {**SMALL, "output": {"uri": uri}, "credentialsSecretRef": {"name": "s3"}}
    Sampling.apply(namespace, "digits", spec).wait_until_complete(16)
    assert "1 shard to sample" in user.run("logs", "digits")

    folder = tmp_path / "there"
    user.run("fetch", "digits", folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(files) == ["grid.png", "manifest.json", "samples.npy"]
    assert files["samples.npy"].startswith(b"\x93NUMPY")

    run_python("damage", WRITE, f"{uri}/grid.png")
    (folder / "grid.png").unlink()
    for where in (folder, tmp_path / "new"):
        done = user.ddpm("fetch", "digits", where)
        assert (done.returncode, done.stdout) == (2, "")
        assert "grid.png in the output is damaged: it has 14 bytes" in done.stderr
        assert not (where / "grid.png").exists()
    assert (folder / "samples.npy").read_bytes() == files["samples.npy"]


def test_a_running_sampling_shows_its_row_grid_and_log(user: User, namespace: Namespace, operator: Operator) -> None:
    # Shards of about a second.
    quick = {"samples": 2000, "batchSize": 4, "sampler": {"name": "ddpm", "steps": 100}}
    sampling = Sampling.apply(namespace, "long", LONG | quick)
    sampling.wait(lambda it: it.get("status", {}).get("progress", {}).get("done", 0) > 0, "the first samples")
    seen = sampling.wait(lambda it: bool(it["status"]["output"].get("grid")), "a picture", 60)
    assert seen["status"]["phase"] == "Running"
    picture = namespace.get("v1", "ConfigMap", seen["status"]["output"]["grid"])["binaryData"]["grid.png"]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    shown = operator.run_kubectl("get", "ddpm", "long", "--namespace", namespace.name, "--output", "wide")
    assert " ".join(shown.splitlines()[0].split()) == "NAME PHASE DONE TOTAL ETA AGE RATE WORKERS GPUS CLUSTER"
    assert "ddpmsampling.ddpm-ray.io/long" in operator.run_kubectl("get", "all", "--namespace", namespace.name)
    assert "The number of images to draw. It can be increased" in operator.run_kubectl("explain", "ddpm.spec")
    assert "500 shards to sample" in user.run("logs", "long")
    early = user.ddpm("fetch", "long", ".")
    assert (early.returncode, early.stderr.splitlines()[0]) == (2, "error: long is not complete yet")
    retried = user.ddpm("retry", "long")
    assert retried.returncode == 2
    assert retried.stderr.startswith("error: long has not failed: it is Running.")
    with subprocess.Popen(
        [PLUGIN, "logs", "--follow", "--json", "long"], env=user.environment, stdout=subprocess.PIPE, text=True
    ) as follow:
        assert follow.stdout
        assert "line" in json.loads(follow.stdout.readline())
        user.run("delete", "long")
        assert follow.wait(DELETION_TIMEOUT) == 0
