"""After any failure of a run, the next run ends with a manifest of N distinct, correct samples."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ddpm_inference.job import shard_at
from ddpm_inference.store import Manifest, Store
from ddpm_inference.store.folder import Folder
from tests.support.leases import take
from tests.support.storing import an_identity, expected_samples, run, samples_of, stored_samples, write_shards

pytestmark = pytest.mark.slow

BATCH = 4
OURS = an_identity(batch_size=BATCH, img_size=2)


class PowerCutError(BaseException):
    """Simulates a power cut. A BaseException, so that no handler of the program catches it."""


@dataclass(frozen=True)
class InterruptedFolder(Folder):
    """A folder that fails at a given write or removal, leaving the partial file of a killed process."""

    steps: Iterator[int]

    @contextmanager
    def stream(self, name: str, length: int) -> Iterator[BinaryIO]:
        if next(self.steps, None) is None:
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.deadbeef.partial").write_bytes(b"half")
            raise PowerCutError
        with super().stream(name, length) as file:
            yield file

    def reserve(self, name: str, data: bytes) -> bool:
        if next(self.steps, None) is None:
            super().reserve(name, b"")
            raise PowerCutError
        return super().reserve(name, data)

    def remove(self, names: Iterator[str]) -> None:
        for name in names:
            if next(self.steps, None) is None:
                raise PowerCutError
            super().remove([name])


def run_until(path: Path, n_samples: int, steps: int) -> Manifest | None:
    """Runs until the given number of writes and removals. Returns the manifest, or None if interrupted.

    The run holds the lease, which an interrupted one leaves behind.
    """
    store = Store(InterruptedFolder(path, iter(range(steps))))
    try:
        lease = take(store.backend)
        manifest = run(store, OURS, n_samples)
        lease.verify()
        lease.release()
    except PowerCutError:
        return None
    return manifest


def check_complete(path: Path, manifest: Manifest) -> None:
    store = Store.open(str(path))
    assert store.read_manifest() == manifest
    assert store.intact_files(manifest) == {"samples.npy"}
    samples = stored_samples(store, manifest)
    np.testing.assert_array_equal(samples, expected_samples(manifest))
    np.testing.assert_array_equal(samples, np.load(path / "samples.npy"))
    assert len(np.unique(samples.reshape(len(samples), -1), axis=0)) == manifest.n_samples
    assert not list(path.rglob("*.partial"))


def test_growth_interrupted_at_any_write_loses_nothing(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "small"))
    small = run(store, OURS, 10)
    for steps in itertools.count():
        path = tmp_path / str(steps)
        shutil.copytree(tmp_path / "small", path)
        completed = run_until(path, 19, steps)
        stored = Store.open(str(path)).complete_manifest(OURS, 10)
        assert stored is not None
        assert stored.n_samples in {10, 19}
        np.testing.assert_array_equal(stored_samples(Store.open(str(path)), stored), expected_samples(stored))
        check_complete(path, run(Store.open(str(path)), OURS, 19))
        if completed:
            break
    assert small.n_samples == 10
    assert steps > 4


def test_an_interrupted_overwrite_can_be_repeated(tmp_path: Path) -> None:
    other = an_identity(batch_size=BATCH, img_size=2, seed=1)
    run(Store.open(str(tmp_path / "earlier")), other, 10)
    for steps in itertools.count():
        path = tmp_path / str(steps)
        shutil.copytree(tmp_path / "earlier", path)
        try:
            Store(InterruptedFolder(path, iter(range(steps)))).initialize(OURS, overwrite=True)
        except PowerCutError:
            store = Store.open(str(path))
            remaining = [file for file in path.rglob("[!.]*") if file.is_file()]
            assert store.read_identity() == other or remaining == []
            assert steps == 0 or store.read_manifest() is None
            store.initialize(OURS, overwrite=True)
            check_complete(path, run(Store.open(str(path)), OURS, 10))
        else:
            break
    assert steps > 4


class Resumes(RuleBasedStateMachine):
    """Interrupted runs, damaged shards, and growth of N, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "out"
        self.store = Store.open(str(self.path))
        self.complete_samples = 0
        self.maybe_damaged = False

    def teardown(self) -> None:
        self.folder.cleanup()

    def shard_files(self) -> list[Path]:
        return sorted((self.path / "shards").glob("[0-9]*.npz"))

    def grown(self, n_samples: int) -> int:
        # A complete job is checked by names and sizes only; an incomplete job reads every byte.
        return max(n_samples, self.complete_samples + 1) if self.maybe_damaged else n_samples

    @rule(index=st.integers(0, 6), n_samples=st.integers(1, 26))
    def sample_a_shard(self, index: int, n_samples: int) -> None:
        shard = shard_at(index, BATCH, max(n_samples, index * BATCH + 1))
        self.store.initialize(OURS, overwrite=False)
        write_shards(self.store, OURS, [shard])

    @rule(n_samples=st.integers(1, 26), steps=st.integers(0, 12))
    def interrupted_run(self, n_samples: int, steps: int) -> None:
        if run_until(self.path, self.grown(n_samples), steps):
            self.maybe_damaged = False
        # A run that is interrupted while it removes superseded shards is complete as well.
        manifest = self.store.read_manifest()
        self.complete_samples = manifest.n_samples if manifest else 0

    @rule(n_samples=st.integers(1, 26))
    def complete_run(self, n_samples: int) -> None:
        target = self.grown(n_samples)
        manifest = run(self.store, OURS, target)
        assert manifest.n_samples >= target
        check_complete(self.path, manifest)
        self.complete_samples, self.maybe_damaged = manifest.n_samples, False

    @precondition(lambda self: self.shard_files())
    @rule(data=st.data())
    def damage_a_shard(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(self.shard_files()))
        content = bytearray(path.read_bytes())
        damage = data.draw(st.sampled_from(["flip", "cut", "empty", "remove"]))
        if damage == "flip" and content:
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        elif damage == "cut":
            del content[data.draw(st.integers(0, len(content))) :]
        elif damage == "empty":
            content.clear()
        path.write_bytes(content)
        if damage == "remove":
            path.unlink()
        self.maybe_damaged = True

    @invariant()
    def intact_shards_are_correct(self) -> None:
        for record in self.store.scan(OURS).records:
            np.testing.assert_array_equal(self.store.read_shard(record), samples_of(record.shard, OURS))


TestResumes = Resumes.TestCase
TestResumes.settings = settings(max_examples=20, stateful_step_count=12, deadline=None)
