"""Which process writes a shard to S3: the worker if it can reach the store of the run, else the driver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray

from ddpm_inference.checkpoint import Checkpoint, load
from ddpm_inference.job import Identity, ModelRequest, SamplerRequest, Shard, resolve_sampler
from ddpm_inference.ray_backend.actor_resources import ActorResources
from ddpm_inference.ray_backend.address import RayTarget
from ddpm_inference.ray_backend.connection import connected
from ddpm_inference.ray_backend.node_packages import torch_version
from ddpm_inference.ray_backend.worker import SamplingContext, ShardResult, actor_factory
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


def sample_on_a_worker(target: RayTarget, store: Store, loaded: Checkpoint, identity: Identity) -> ShardResult:
    with connected(target):
        worker = actor_factory(ActorResources(1, 0), store)()
        return ray.get(worker.sample.remote(SamplingContext(identity, [ray.put(loaded)]), SHARD))


def test_a_worker_that_reaches_the_store_writes_there(bucket: str, loaded: Checkpoint, identity: Identity) -> None:
    store = Store.open(f"s3://{bucket}/run")
    store.initialize(identity, overwrite=False)
    result = sample_on_a_worker(RayTarget(None, "for a test"), store, loaded, identity)
    assert result.samples is None
    assert result.record is not None
    assert store.read_shard(result.record).shape == (8, 1, 8, 8)


def test_a_worker_without_credentials_returns_its_samples(
    bucket: str, open_head: Head, loaded: Checkpoint, identity: Identity
) -> None:
    store = Store.open(f"s3://{bucket}/run")
    store.initialize(identity, overwrite=False)
    result = sample_on_a_worker(RayTarget(open_head.gcs, "for a test"), store, loaded, identity)
    assert result.record is None
    assert result.samples is not None
    assert result.samples.shape == (8, 1, 8, 8)
    assert store.scan(identity).records == []


def test_a_worker_that_finds_another_job_writes_nothing(bucket: str, loaded: Checkpoint, identity: Identity) -> None:
    store = Store.open(f"s3://{bucket}/run")
    store.initialize(identity.model_copy(update={"seed": 1}), overwrite=False)
    result = sample_on_a_worker(RayTarget(None, "for a test"), store, loaded, identity)
    assert result.record is None
    assert result.samples is not None


@pytest.mark.parametrize("cluster", ["local", "foreign"])
def test_the_command_stores_everything_on_s3(
    cluster: str, head: Head, bucket: str, s3_server: S3Server, checkpoint: Path, tmp_path: Path
) -> None:
    uri = f"s3://{bucket}/digits"
    address = "None" if cluster == "local" else head.client
    flags = ("--model_path", checkpoint, "--sampler", "ddim", "--steps", "2", "--n_samples", "40", "--json")
    environment = {**head.environment, **s3_server.environment} if cluster == "foreign" else s3_server.environment
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
        "verified.json",
    ]
    again = run_command(*command, cwd=tmp_path, environment=environment)
    assert json.loads(again.out.splitlines()[-1])["sampled"] == 0
    assert list(tmp_path.iterdir()) == []
