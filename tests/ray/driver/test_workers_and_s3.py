"""Who writes a shard to S3: a worker that reaches the very store of the run; else the driver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray

from ddpm_inference.checkpoint import Checkpoint, load
from ddpm_inference.job import Identity, ModelRequest, SamplerRequest, Shard, resolve_sampler
from ddpm_inference.ray_backend.address import Target
from ddpm_inference.ray_backend.cluster import ActorResources, connected
from ddpm_inference.ray_backend.node_packages import torch_version
from ddpm_inference.ray_backend.worker import ShardResult, WorkItem, spawner
from ddpm_inference.store import Store
from tests.support.rays import Head, run_command
from tests.support.s3 import S3Server

pytestmark = pytest.mark.s3

SHARD = Shard(first=0, last=7)


@pytest.fixture
def loaded(checkpoint: Path) -> Checkpoint:
    return load(checkpoint, ModelRequest(uri=str(checkpoint)))


@pytest.fixture
def identity(loaded: Checkpoint) -> Identity:
    return Identity(
        model_sha256=loaded.sha256,
        model=loaded.spec,
        sampler=resolve_sampler(SamplerRequest(name="ddim", steps=2), loaded.trained),
        seed=0,
        precision="fp32",
        batch_size=8,
        execution="folded",
        device="cpu",
        torch=torch_version() or "",
    )


def receipt_of_a_worker(target: Target, store: Store, loaded: Checkpoint, identity: Identity) -> ShardResult:
    with connected(target):
        worker = spawner(ActorResources(1, 0), store)()
        return ray.get(worker.sample.remote(WorkItem(identity, [ray.put(loaded)]), SHARD))


def test_a_worker_that_reaches_the_store_writes_there(bucket: str, loaded: Checkpoint, identity: Identity) -> None:
    store = Store.open(f"s3://{bucket}/run")
    store.claim(identity, overwrite=False)
    receipt = receipt_of_a_worker(Target(None, "for a test"), store, loaded, identity)
    assert receipt.samples is None
    assert receipt.record is not None
    assert store.read_shard(receipt.record).shape == (8, 1, 8, 8)


def test_a_worker_without_the_credentials_hands_its_samples_over(
    bucket: str, open_head: Head, loaded: Checkpoint, identity: Identity
) -> None:
    store = Store.open(f"s3://{bucket}/run")
    store.claim(identity, overwrite=False)
    receipt = receipt_of_a_worker(Target(open_head.gcs, "for a test"), store, loaded, identity)
    assert receipt.record is None
    assert receipt.samples is not None
    assert receipt.samples.shape == (8, 1, 8, 8)
    assert store.scan(identity).records == []


def test_a_worker_that_finds_another_job_there_writes_nothing(
    bucket: str, loaded: Checkpoint, identity: Identity
) -> None:
    store = Store.open(f"s3://{bucket}/run")
    store.claim(identity.model_copy(update={"seed": 1}), overwrite=False)
    receipt = receipt_of_a_worker(Target(None, "for a test"), store, loaded, identity)
    assert receipt.record is None
    assert receipt.samples is not None


@pytest.mark.parametrize("whose", ["own", "foreign"])
def test_the_command_ends_with_all_of_it_on_s3(
    whose: str, head: Head, bucket: str, s3_server: S3Server, checkpoint: Path, tmp_path: Path
) -> None:
    uri = f"s3://{bucket}/digits"
    address = "None" if whose == "own" else head.client
    flags = ("--model_path", checkpoint, "--sampler", "ddim", "--steps", "2", "--n_samples", "40", "--json")
    environment = {**head.environment, **s3_server.environment} if whose == "foreign" else s3_server.environment
    command = (*flags, "--output_uri", uri, "--ray_address", address)
    ended = run_command(*command, cwd=tmp_path, environment=environment)
    assert ended.code == 0, ended.err
    manifest = Store.open(uri).read_manifest()
    assert manifest is not None
    assert manifest.n_samples == 40
    folder = s3_server.folder / bucket / "digits"
    assert sorted(path.name for path in folder.iterdir()) == [
        "grid.png",
        "job.json",
        "manifest.json",
        "samples.npy",
        "shards",
    ]
    again = run_command(*command, cwd=tmp_path, environment=environment)
    assert json.loads(again.out.splitlines()[-1])["sampled"] == 0
    assert list(tmp_path.iterdir()) == []
