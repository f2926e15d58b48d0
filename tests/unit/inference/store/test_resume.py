"""Whatever happens to a run, the next one ends with a manifest that accounts for N distinct, right samples."""

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
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ddpm_inference.job import shard_at
from ddpm_inference.store import Manifest, Store
from ddpm_inference.store.folder import Folder
from tests.support.storing import an_identity, expected_samples, run, samples_of, stored_samples, write_shards

BATCH = 4
OURS = an_identity(batch_size=BATCH, img_size=2)


class PowerCutError(BaseException):
    """Ends a run where it stands; no handler of the program may see it as an error of its own."""


@dataclass(frozen=True)
class DyingFolder(Folder):
    """A folder whose process dies at a write or removal, leaving what a dying process leaves."""

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

    def remove(self, names: Iterator[str]) -> None:
        for name in names:
            if next(self.steps, None) is None:
                raise PowerCutError
            super().remove([name])


def run_until(path: Path, n_samples: int, steps: int) -> Manifest | None:
    """A run that dies after so many writes and removals, or the manifest if it lives."""
    try:
        return run(Store(DyingFolder(path, iter(range(steps)))), OURS, n_samples)
    except PowerCutError:
        return None


def check_whole(path: Path, manifest: Manifest) -> None:
    store = Store.open(str(path))
    assert store.read_manifest() == manifest
    assert store.intact_files(manifest) == {"samples.npy"}
    samples = stored_samples(store, manifest)
    np.testing.assert_array_equal(samples, expected_samples(manifest))
    np.testing.assert_array_equal(samples, np.load(path / "samples.npy"))
    assert len(np.unique(samples.reshape(len(samples), -1), axis=0)) == manifest.n_samples
    assert not list(path.rglob("*.partial"))


def test_growth_broken_off_at_any_write_loses_nothing(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "small"))
    small = run(store, OURS, 10)
    for steps in itertools.count():
        path = tmp_path / str(steps)
        shutil.copytree(tmp_path / "small", path)
        lived = run_until(path, 19, steps)
        at_hand = Store.open(str(path)).finished(OURS, 10)
        assert at_hand is not None
        assert at_hand.n_samples in {10, 19}
        np.testing.assert_array_equal(stored_samples(Store.open(str(path)), at_hand), expected_samples(at_hand))
        check_whole(path, run(Store.open(str(path)), OURS, 19))
        if lived:
            break
    assert small.n_samples == 10
    assert steps > 4


def test_overwriting_broken_off_at_any_removal_can_be_done_again(tmp_path: Path) -> None:
    theirs = an_identity(batch_size=BATCH, img_size=2, seed=1)
    run(Store.open(str(tmp_path / "former")), theirs, 10)
    for steps in itertools.count():
        path = tmp_path / str(steps)
        shutil.copytree(tmp_path / "former", path)
        try:
            Store(DyingFolder(path, iter(range(steps)))).claim(OURS, overwrite=True)
        except PowerCutError:
            store = Store.open(str(path))
            left = [file for file in path.rglob("[!.]*") if file.is_file()]
            assert store.read_identity() == theirs or left == []
            assert steps == 0 or store.read_manifest() is None
            store.claim(OURS, overwrite=True)
            check_whole(path, run(Store.open(str(path)), OURS, 10))
        else:
            break
    assert steps > 4


class Resumes(RuleBasedStateMachine):
    """Runs that die, shards that are damaged, and N that grows, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "out"
        self.store = Store.open(str(self.path))
        self.finished = 0
        self.doubtful = False

    def teardown(self) -> None:
        self.folder.cleanup()

    def shard_files(self) -> list[Path]:
        return sorted((self.path / "shards").glob("[0-9]*.npz"))

    def grown(self, n_samples: int) -> int:
        # A finished job is looked at by names and lengths alone; only a job with work left reads every byte.
        return max(n_samples, self.finished + 1) if self.doubtful else n_samples

    @rule(index=st.integers(0, 6), n_samples=st.integers(1, 26))
    def sample_a_shard(self, index: int, n_samples: int) -> None:
        shard = shard_at(index, BATCH, max(n_samples, index * BATCH + 1))
        self.store.claim(OURS, overwrite=False)
        write_shards(self.store, OURS, [shard])

    @rule(n_samples=st.integers(1, 26), steps=st.integers(0, 12))
    def run_that_dies(self, n_samples: int, steps: int) -> None:
        if run_until(self.path, self.grown(n_samples), steps):
            self.doubtful = False
        # One that dies in tidying up has finished, too.
        manifest = self.store.read_manifest()
        self.finished = manifest.n_samples if manifest else 0

    @rule(n_samples=st.integers(1, 26))
    def run_that_lives(self, n_samples: int) -> None:
        wanted = self.grown(n_samples)
        manifest = run(self.store, OURS, wanted)
        assert manifest.n_samples >= wanted
        check_whole(self.path, manifest)
        self.finished, self.doubtful = manifest.n_samples, False

    @precondition(lambda self: self.shard_files())
    @rule(data=st.data())
    def damage_a_shard(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(self.shard_files()))
        content = bytearray(path.read_bytes())
        harm = data.draw(st.sampled_from(["flip", "cut", "empty", "remove"]))
        if harm == "flip" and content:
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        elif harm == "cut":
            del content[data.draw(st.integers(0, len(content))) :]
        elif harm == "empty":
            content.clear()
        path.write_bytes(content)
        if harm == "remove":
            path.unlink()
        self.doubtful = True

    @invariant()
    def whole_shards_are_right(self) -> None:
        for record in self.store.scan(OURS).records:
            np.testing.assert_array_equal(self.store.read_shard(record), samples_of(record.shard, OURS))


TestResumes = Resumes.TestCase
TestResumes.settings = settings(max_examples=20, stateful_step_count=12, deadline=None)
