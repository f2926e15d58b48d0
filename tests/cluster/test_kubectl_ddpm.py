"""`kubectl ddpm` on a real cluster, by a person who has the chart's editor role and nothing else."""

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
from tests.cluster.samplings import API, GONE_WITHIN, KIND, LONG, SMALL, Sampling, nothing_is_left

PLUGIN = Path(sys.executable).with_name("kubectl-ddpm")
DIGITS = ("digits", "--model_path", "builtin://mnist", "--sampler", "dpmpp")
A_SMALL_POD = ("--worker_cpu", "1", "--worker_memory", "2Gi")
SAMPLER = ("--n_samples", "16", "--sampler", "dpmpp", "--steps", "5")
SEEN_WITHIN = 60.0

MAKE_BUCKET = "import s3fs, sys; s3fs.S3FileSystem().mkdir(sys.argv[1])"
WRITE = """
import fsspec, sys
with fsspec.open(sys.argv[1], "wb") as file:
    file.write(b"something else")
"""


@dataclass(frozen=True)
class Person:
    """Who types."""

    environment: dict[str, str]

    def ddpm(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PLUGIN, *arguments], env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )

    def does(self, *arguments: str | Path) -> str:
        """What a command prints that ends well."""
        done = self.ddpm(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def person(operator: Operator, namespace: Namespace, tmp_path: Path) -> Person:
    return Person({**os.environ, "KUBECONFIG": str(editor_of(namespace, tmp_path))})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A network that is in no image, of 21 MiB: several times what may be on its way at once."""
    spec = ModelSpec(name="Unet", downs=(8, 256), time_emb_dim=4, img_size=8, time_embedding="step")
    path = tmp_path / "mine.safetensors"
    torch.manual_seed(5)
    save(path, build(spec).state_dict(), spec, TrainedSchedule(name="linear", timesteps=100))
    return path


@pytest.mark.draws_nothing
def test_the_same_command_again_changes_nothing_and_with_more_samples_it_grows(person: Person) -> None:
    was = []
    for samples in ("16", "16", "32", "8"):
        done = person.ddpm("submit", *DIGITS, "--n_samples", samples, "--gpus", "1000", "--json")
        was.append(json.loads(done.stdout)["was"] if done.stdout else (done.returncode, done.stderr))
    assert was[:3] == ["created", "unchanged", "changed"]
    assert was[3][0] == 2
    assert "samples can only grow" in was[3][1]
    assert json.loads(person.does("list", "--json"))["spec"]["samples"] == 32
    assert person.does("delete", "digits") == "digits deleted; its samples stay at pvc://digits-output\n"
    assert person.ddpm("status", "digits").returncode == 2


@pytest.mark.draws_nothing
def test_what_kubectl_has_applied_grows_and_whatever_else_it_has_set_is_left_to_it(
    person: Person, namespace: Namespace, operator: Operator, tmp_path: Path
) -> None:
    file = tmp_path / "digits.yaml"

    def write(**fields: object) -> None:
        spec = SMALL | {"suspend": True, "seed": 1} | fields
        file.write_text(yaml.safe_dump({"apiVersion": API, "kind": KIND, "metadata": {"name": "digits"}, "spec": spec}))

    write()
    operator.kubectl_says("apply", "--namespace", namespace.name, "--filename", str(file))
    write(samples=32)
    assert json.loads(person.does("submit", "-f", file, "--json"))["was"] == "changed"
    assert json.loads(person.does("submit", "-f", file, "--json"))["was"] == "unchanged"
    assert namespace.get(API, KIND, "digits")["spec"]["samples"] == 32
    write(samples=64, seed=2)
    done = person.ddpm("submit", "-f", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert "spec.seed has a different value, set by kubectl-client-side-apply" in done.stderr


@pytest.mark.draws_nothing
def test_what_is_not_there_is_named(person: Person, namespace: Namespace) -> None:
    for command in (("status", "no"), ("watch", "no"), ("logs", "no"), ("fetch", "no", "."), ("delete", "no")):
        done = person.ddpm(*command)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"there is no DDPMSampling no in the namespace {namespace.name}" in done.stderr


@pytest.mark.draws_nothing
def test_what_is_not_allowed_says_which_right_is_lacking(person: Person) -> None:
    done = person.ddpm("list", "--namespace", "kube-system")
    assert (done.returncode, done.stdout) == (3, "")
    assert 'cannot list resource "ddpmsamplings"' in done.stderr
    assert "ask the administrator" in done.stderr


def test_a_checkpoint_of_this_machine_is_sampled_as_on_this_machine(
    person: Person, namespace: Namespace, checkpoint: Path, tmp_path: Path
) -> None:
    command = ("submit", "mine", "--model_path", checkpoint, *SAMPLER, *A_SMALL_POD, "--json")
    assert json.loads(person.does(*command))["was"] == "created"
    assert json.loads(person.does(*command))["was"] == "unchanged"
    taken = Sampling(namespace, "mine").wait(lambda it: bool(it.get("status", {}).get("plan")), "a plan")
    assert (taken["spec"]["model"]["imgSize"], taken["spec"]["model"]["channels"]) == (8, 1)
    assert taken["status"]["plan"]["shards"] == 1
    assert "Succeeded  16 of 16" in person.does("watch", "mine")
    Sampling(namespace, "mine").wait_until_complete(16)  # and its cluster gone
    printed = person.does("fetch", "mine", tmp_path / "there").splitlines()
    assert printed == [str(tmp_path / "there" / name) for name in ("grid.png", "samples.npy")]

    here = [Path(sys.executable).with_name("ddpm-sample"), "--ray_address", "None", "--quiet"]
    subprocess.run([*here, "--model_path", checkpoint, *SAMPLER, "--out_dir", tmp_path / "here"], check=True)
    samples = [(tmp_path / where / "samples.npy").read_bytes() for where in ("there", "here")]
    assert samples[0] == samples[1]

    nothing_is_left(namespace)
    person.does("delete", "mine")
    namespace.wait("v1", "PersistentVolumeClaim", "mine-model", lambda seen: not seen, GONE_WITHIN, "it to go")


@pytest.mark.draws_nothing
def test_an_upload_that_is_interrupted_leaves_nothing(person: Person, namespace: Namespace, checkpoint: Path) -> None:
    # With an image that nobody has the upload is sure to be under way still. A shell's background job, as this run
    # may be one, ignores SIGINT.
    submit_it = [PLUGIN, "submit", "mine", "--model_path", checkpoint, *SAMPLER]
    command = ["env", "--default-signal=INT", *submit_it, "--image", "registry.invalid/none:1"]
    with subprocess.Popen(command, env=person.environment, stderr=subprocess.PIPE, text=True) as submit:
        namespace.wait_for_all("v1", "Pod", bool, SEEN_WITHIN, "the pod that takes the file")
        assert namespace.list("v1", "PersistentVolumeClaim")
        submit.send_signal(signal.SIGINT)
        assert submit.wait(SEEN_WITHIN) == 130
    assert not namespace.list("ddpm-ray.io/v1alpha1", "DDPMSampling")
    for kind in ("Pod", "PersistentVolumeClaim"):
        namespace.wait_for_none("v1", kind, GONE_WITHIN)


def test_samples_come_from_a_bucket_and_damaged_ones_do_not(
    person: Person, namespace: Namespace, worker_image: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    bucket = f"ddpm-test-{secrets.token_hex(4)}"
    place = f"s3://{bucket}/digits"

    def run_python(name: str, code: str, argument: str) -> None:
        namespace.run_pod(pod(name, worker_image, ["python", "-c", code, argument], env_from="s3"), SEEN_WITHIN)

    namespace.apply(secret("s3", s3_environment))
    run_python("make-bucket", MAKE_BUCKET, bucket)
    spec = {**SMALL, "output": {"uri": place}, "credentialsSecretRef": {"name": "s3"}}
    Sampling.apply(namespace, "digits", spec).wait_until_complete(16)
    assert "1 shards to sample" in person.does("logs", "digits")

    folder = tmp_path / "there"
    person.does("fetch", "digits", folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(files) == ["grid.png", "manifest.json", "samples.npy"]
    assert files["samples.npy"].startswith(b"\x93NUMPY")

    run_python("damage", WRITE, f"{place}/grid.png")
    (folder / "grid.png").unlink()
    for where in (folder, tmp_path / "new"):
        done = person.ddpm("fetch", "digits", where)
        assert (done.returncode, done.stdout) == (2, "")
        assert "grid.png in the output is damaged: it has 14 bytes" in done.stderr
        assert not (where / "grid.png").exists()
    assert (folder / "samples.npy").read_bytes() == files["samples.npy"]


def test_while_it_runs_its_row_its_picture_and_its_log_are_read_and_the_log_to_its_end(
    person: Person, namespace: Namespace, operator: Operator
) -> None:
    # In shards of about a second.
    quick = {"samples": 2000, "batchSize": 4, "sampler": {"name": "ddpm", "steps": 100}}
    sampling = Sampling.apply(namespace, "long", LONG | quick)
    sampling.wait(lambda it: it.get("status", {}).get("progress", {}).get("done", 0) > 0, "the first samples")
    seen = sampling.wait(lambda it: bool(it["status"]["output"].get("grid")), "a picture", 60)
    assert seen["status"]["phase"] == "Running"
    picture = namespace.get("v1", "ConfigMap", seen["status"]["output"]["grid"])["binaryData"]["grid.png"]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    shown = operator.kubectl_says("get", "ddpm", "long", "--namespace", namespace.name, "--output", "wide")
    assert " ".join(shown.splitlines()[0].split()) == "NAME PHASE DONE TOTAL ETA AGE RATE WORKERS GPUS CLUSTER"
    assert "ddpmsampling.ddpm-ray.io/long" in operator.kubectl_says("get", "all", "--namespace", namespace.name)
    assert "The number of images to draw. It can be increased" in operator.kubectl_says("explain", "ddpm.spec")
    assert "500 shards to sample" in person.does("logs", "long")
    early = person.ddpm("fetch", "long", ".")
    assert (early.returncode, early.stderr.splitlines()[0]) == (2, "error: long is not complete yet")
    retried = person.ddpm("retry", "long")
    assert retried.returncode == 2
    assert retried.stderr.startswith("error: long has not failed: it is Running.")
    with subprocess.Popen(
        [PLUGIN, "logs", "--follow", "--json", "long"], env=person.environment, stdout=subprocess.PIPE, text=True
    ) as follow:
        assert follow.stdout
        assert "line" in json.loads(follow.stdout.readline())
        person.does("delete", "long")
        assert follow.wait(GONE_WITHIN) == 0
