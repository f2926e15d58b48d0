"""The driver and the lease on its output: who is refused, what is kept, and which runs need no lease. Without Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from ddpm_inference import driver
from ddpm_inference.checkpoint import fetch, load
from ddpm_inference.cli import main
from ddpm_inference.errors import InvalidSpec, OutputInUse, ResourcesUnavailable, Superseded
from ddpm_inference.job import Identity, Job, ModelRequest, OutputRequest, Shard
from ddpm_inference.plan import MAX_SHARDS, resolve_identity
from ddpm_inference.progress import Progress, View
from ddpm_inference.store import Store, bucket, lease
from ddpm_inference.store.lease_holder import Holder
from tests.support.storing import run as store_run
from tests.support.storing import samples_of

MODEL = "builtin://mnist"
PARTIAL = "shards/.000000000-000000007.npz.00ff00ff.partial"


class SilentView(View):
    """Collects the messages of a run."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def show_message(self, message: str) -> None:
        self.messages.append(message)

    def show_progress(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "out"))


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that would connect to Ray ends there."""

    def refuse(_address: str) -> NoReturn:
        raise ResourcesUnavailable("this test has no Ray")

    monkeypatch.setattr(driver, "resolve_address", refuse)


@pytest.fixture
def other_driver(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another driver at work at the place, which cannot be looked up as a process of this host."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(Holder, "has_ended", lambda _: False)
    with lease.hold(store.backend):
        yield


def a_job(store: Store, *, n_samples: int = 20, batch_size: int | None = 8, overwrite: bool = False) -> Job:
    return Job(
        model=ModelRequest(uri=MODEL),
        n_samples=n_samples,
        batch_size=batch_size,
        device="cpu",
        output=OutputRequest(uri=store.uri, formats=("npy",), overwrite=overwrite),
    )


def identity_of(job: Job) -> Identity:
    checkpoint = load(fetch(MODEL), job.model)
    return resolve_identity(job, checkpoint, None, device="cpu", torch="2.0")


def run(job: Job) -> driver.Outcome:
    return driver.run(job, ray_address="auto", view=SilentView(), progress=Progress())


@pytest.mark.usefixtures("other_driver")
@pytest.mark.parametrize("overwrite", [False, True])
def test_another_driver_is_refused_before_it_changes_a_file(store: Store, overwrite: bool) -> None:
    job = a_job(store)
    identity, shard = identity_of(job), Shard(first=0, last=7)
    store.initialize(identity, overwrite=False)
    record = store.write_shard(shard, samples_of(shard, identity), identity.fingerprint)
    partial = Path(store.uri, PARTIAL)
    partial.write_bytes(b"half")
    with pytest.raises(OutputInUse, match="is in use by process"):
        run(a_job(store, overwrite=overwrite))
    assert partial.read_bytes() == b"half"
    assert store.scan(identity).records == [record]


@pytest.mark.usefixtures("other_driver")
def test_a_complete_run_needs_no_lease(store: Store) -> None:
    manifest = store_run(store, identity_of(a_job(store)), 20)
    outcome = run(a_job(store))
    assert (outcome.manifest, outcome.sampled) == (manifest, 0)


def test_a_job_may_ask_for_every_file_to_be_hashed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store_run(store, identity_of(a_job(store)), 20)
    run(a_job(store))
    damaged = Path(store.uri, "samples.npy")
    whole, times = damaged.read_bytes(), damaged.stat()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    run(a_job(store))
    assert damaged.read_bytes() != whole
    output = OutputRequest(uri=store.uri, formats=("npy",), verify=True)
    monkeypatch.setenv("DDPM_JOB", a_job(store).model_copy(update={"output": output}).model_dump_json())
    assert main([]) == 0
    assert damaged.read_bytes() == whole


def test_the_lease_is_released_when_the_run_fails(store: Store) -> None:
    with pytest.raises(ResourcesUnavailable):
        run(a_job(store))
    assert not Path(store.uri).exists()


def test_a_superseded_driver_writes_no_manifest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job(store)
    manifest = store_run(store, identity_of(job), 20)
    for name in ("manifest.json", "samples.npy"):
        Path(store.uri, name).unlink()
    write_npy = Store.write_npy

    def superseded_meanwhile(self: Store, *arguments: object) -> object:
        with suppress(FileExistsError):
            Path(store.uri, "lease/000000002.json").write_bytes(Holder.of_this_process(None).to_json())
        return write_npy(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "write_npy", superseded_meanwhile)
    with pytest.raises(Superseded, match="taken over by process") as error:
        run(job)
    assert error.value.exit_code == 4
    assert not Path(store.uri, "manifest.json").exists()
    assert store.scan(identity_of(job)).records == list(manifest.shards)


def test_a_removed_place_stops_the_run(store: Store) -> None:
    with lease.hold(store.backend) as held:
        for path in Path(store.uri, "lease").iterdir():
            path.unlink()
        with pytest.raises(Superseded, match="was removed"):
            held.verify()


@pytest.mark.parametrize("batch_size", [None, 1])
def test_more_shards_than_a_run_can_finish_are_refused(store: Store, batch_size: int | None) -> None:
    job = a_job(store, n_samples=1_000_000_000, batch_size=batch_size)
    with pytest.raises(InvalidSpec, match="shards, and a run may have at most 1,000,000") as error:
        run(job)
    assert "--batch_size 1000 or more" in error.value.hint
    assert not Path(store.uri).exists()


def test_the_largest_run_can_be_listed_in_a_bucket() -> None:
    assert bucket.MAX_LIST_PAGES * 1000 >= MAX_SHARDS * 1.1
