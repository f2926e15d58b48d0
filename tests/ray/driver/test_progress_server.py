"""The progress server of a real run: its progress while it samples, and its outcome at the end."""

from __future__ import annotations

import hashlib
import signal
import sys
import time
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ray import cloudpickle

from ddpm_inference.console import QuietView
from ddpm_inference.driver import run
from ddpm_inference.hardware import find_hardware
from ddpm_inference.image_grid import sheet
from ddpm_inference.job import Job, Shard
from ddpm_inference.progress import Progress
from ddpm_inference.progress_server.run_state import RunState, RunStateView
from ddpm_inference.progress_server.server import serve_progress
from ddpm_inference.progress_server.settings import Settings
from ddpm_inference.progress_server.thumbnail import MAX_PNG_BYTES, Thumbnail
from ddpm_inference.store.shard_file import Samples
from tests.support.progress_client import TOKEN, ProgressClient
from tests.support.rays import Head, check_alive, finish, start_command, wait_until

# The workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

BATCH = 32
# About a second per shard, so that the run can be queried half way.
SLOW = ("--sampler", "ddim", "--steps", "500", "--n_samples", "192", "--ray_address", "None", "--workers", "2")


@dataclass
class WaitingSampler:
    """Sample i is i / 255 in every pixel. A shard waits for a file named by its first sample."""

    releases: Path

    def sample(self, shard: Shard, callback: Callable[[int, int], None]) -> Samples:
        deadline = time.monotonic() + 120
        while not (self.releases / str(shard.first)).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"shard {shard.first} was not released")
            time.sleep(0.02)
        return greys(shard.first, shard.last)


def greys(first: int, last: int) -> Samples:
    index = np.arange(first, last + 1, dtype=np.float32).reshape(-1, 1, 1, 1)
    return np.broadcast_to(index / np.float32(255), (last - first + 1, 1, 8, 8)).copy()


def pixels(png: bytes) -> np.ndarray:
    assert len(png) <= MAX_PNG_BYTES
    return np.asarray(Image.open(BytesIO(png)))


def test_a_run_publishes_plan_progress_and_thumbnail(open_head: Head, checkpoint: Path, tmp_path: Path) -> None:
    def follow(client: ProgressClient) -> None:
        wait_until(lambda: client.progress()["phase"] == "sampling")
        assert client.request("/grid.png").status == 404
        release(0)
        wait_until(lambda: client.progress()["done"] == BATCH)
        np.testing.assert_array_equal(pixels(client.request("/grid.png").body), np.asarray(sheet(greys(0, 31))))
        document = client.progress()
        assert (document["phase"], document["total"], document["percent"]) == ("sampling", 80, 40.0)
        hardware = find_hardware("cpu")
        assert hardware is not None
        assert document["plan"] == {
            "device": "cpu",
            "batchSize": BATCH,
            "shards": 3,
            "hardware": hardware.model_dump(),
        }
        assert "3 shards to sample" in document["message"]

    def release(*firsts: int) -> None:
        for first in firsts:
            (tmp_path / str(first)).touch()

    job = Job.model_validate(
        {
            "model": {"uri": str(checkpoint)},
            "n_samples": 80,
            "batch_size": BATCH,
            "device": "cpu",
            "output": {"uri": str(tmp_path / "out")},
            "resources": {"workers": 2, "startup_timeout": 300},
        }
    )
    progress, thumbnail = Progress(), Thumbnail()
    run_state = RunState(thumbnail=thumbnail.png)
    with serve_progress(run_state, Settings(0, TOKEN)) as port, ThreadPoolExecutor(1) as pool:
        followed = pool.submit(follow, ProgressClient(port))
        followed.add_done_callback(lambda _: release(0, 32, 64))
        outcome = run(
            job,
            ray_address=open_head.gcs,
            view=RunStateView(QuietView(), progress, run_state),
            progress=progress,
            on_stored=thumbnail.add,
            make_sampler=lambda checkpoint, identity, threads: WaitingSampler(tmp_path),
        )
        followed.result()
    assert outcome.sampled == 80
    png = thumbnail.png(0.0)
    assert png is not None
    np.testing.assert_array_equal(pixels(png), np.asarray(sheet(greys(0, 79))))


def test_the_outcome_of_any_end_is_published(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def end(stop: bool) -> tuple[int, dict[str, Any]]:
        """Runs the command, or stops it after its first shard; returns exit code and last progress document."""
        client = ProgressClient.at_a_free_port()
        process = start_command("--model_path", checkpoint, *SLOW, cwd=tmp_path, environment=client.environment)
        documents: list[dict[str, Any]] = [{}]

        def ended() -> bool:
            documents.append(client.progress() or documents[-1])
            return "outcome" in documents[-1]

        if stop:
            wait_until(lambda: ended() or documents[-1].get("done", 0) >= BATCH, check=lambda: check_alive(process))
            process.send_signal(signal.SIGTERM)
        wait_until(ended, check=lambda: check_alive(process))
        done = [document["done"] for document in documents if document]
        assert done == sorted(done)
        return finish(process, timeout=60).code, documents[-1]

    code, document = end(stop=True)
    assert (code, document["phase"]) == (130, "interrupted")
    assert (document["outcome"]["reason"], document["outcome"]["exitCode"]) == ("DriverFailed", 130)
    kept = len(list((out / "shards").glob("*.npz"))) * BATCH
    assert (document["done"], document["total"]) == (kept, 192)
    assert f"{kept} of 192 samples are kept" in document["outcome"]["message"]

    for sampled in (192 - kept, 0):
        code, document = end(stop=False)
        assert (code, document["phase"], document["done"]) == (0, "complete", 192)
        grid = document["outcome"].pop("grid")
        assert document["outcome"] == {
            "manifestSha256": hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest(),
            "samples": 192,
            "sampled": sampled,
            "output": str(out),
        }
        expected = np.asarray(sheet(np.load(out / "samples.npy")[:100]))
        np.testing.assert_array_equal(pixels(b64decode(grid)), expected)
