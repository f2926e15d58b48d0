"""A run that is asked over HTTP, while it goes on and at its end, how far it is."""

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

from ddpm_inference.console import Quiet
from ddpm_inference.driver import run
from ddpm_inference.image_grid import sheet
from ddpm_inference.job import Job, Shard
from ddpm_inference.progress import Progress
from ddpm_inference.progress_server.run_state import RunState, RunStateView
from ddpm_inference.progress_server.server import served
from ddpm_inference.progress_server.settings import Settings
from ddpm_inference.progress_server.thumbnail import MOST_BYTES, Thumbnail
from ddpm_inference.store.shard_file import Samples
from tests.support.asking import TOKEN, Client
from tests.support.rays import Head, alive, end_of, start_command, wait_until

# The workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

BATCH = 32
# About a second a shard: long enough to be asked on the way.
SLOW = ("--sampler", "ddim", "--steps", "500", "--n_samples", "192", "--ray_address", "None", "--workers", "2")


@dataclass
class Paced:
    """Sample i is i / 255 in every pixel. A shard waits for its leave: a file of its first sample's number."""

    leave: Path

    def sample(self, shard: Shard, callback: Callable[[int, int], None]) -> Samples:
        deadline = time.monotonic() + 120
        while not (self.leave / str(shard.first)).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"shard {shard.first} got no leave")
            time.sleep(0.02)
        return greys(shard.first, shard.last)


def greys(first: int, last: int) -> Samples:
    index = np.arange(first, last + 1, dtype=np.float32).reshape(-1, 1, 1, 1)
    return np.broadcast_to(index / np.float32(255), (last - first + 1, 1, 8, 8)).copy()


def pixels(png: bytes) -> np.ndarray:
    assert len(png) <= MOST_BYTES
    return np.asarray(Image.open(BytesIO(png)))


def test_a_run_tells_its_plan_its_progress_and_its_first_samples_while_it_goes_on(
    open_head: Head, checkpoint: Path, tmp_path: Path
) -> None:
    def follow(client: Client) -> None:
        wait_until(lambda: client.progress()["phase"] == "sampling")
        assert client.ask("/grid.png").status == 404
        leave(0)
        wait_until(lambda: client.progress()["done"] == BATCH)
        np.testing.assert_array_equal(pixels(client.ask("/grid.png").body), np.asarray(sheet(greys(0, 31))))
        document = client.progress()
        assert (document["phase"], document["total"], document["percent"]) == ("sampling", 80, 40.0)
        assert document["plan"] == {"device": "cpu", "batchSize": BATCH, "shards": 3}
        assert "3 shards to sample" in document["message"]

    def leave(*firsts: int) -> None:
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
    progress, gallery = Progress(), Thumbnail()
    board = RunState(picture=gallery.png)
    with served(board, Settings(0, TOKEN)) as port, ThreadPoolExecutor(1) as pool:
        followed = pool.submit(follow, Client(port))
        followed.add_done_callback(lambda _: leave(0, 32, 64))
        outcome = run(
            job,
            ray_address=open_head.gcs,
            view=RunStateView(Quiet(), progress, board),
            progress=progress,
            on_stored=gallery.add,
            make_sampler=lambda checkpoint, identity, threads: Paced(tmp_path),
        )
        followed.result()
    assert outcome.sampled == 80
    png = gallery.png(0.0)
    assert png is not None
    np.testing.assert_array_equal(pixels(png), np.asarray(sheet(greys(0, 79))))


def test_the_end_is_told_whether_it_was_stopped_finished_or_found(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def end(stop: bool) -> tuple[int, dict[str, Any]]:
        """Runs the command, with a signal once it has stored something: its exit code, and what it told last."""
        client = Client.at_a_free_port()
        process = start_command("--model_path", checkpoint, *SLOW, cwd=tmp_path, environment=client.environment)
        told: list[dict[str, Any]] = [{}]

        def ended() -> bool:
            told.append(client.progress() or told[-1])
            return "outcome" in told[-1]

        if stop:
            wait_until(lambda: ended() or told[-1].get("done", 0) >= BATCH, meanwhile=lambda: alive(process))
            process.send_signal(signal.SIGTERM)
        wait_until(ended, meanwhile=lambda: alive(process))
        done = [document["done"] for document in told if document]
        assert done == sorted(done)
        return end_of(process, within=60).code, told[-1]

    code, told = end(stop=True)
    assert (code, told["phase"]) == (130, "interrupted")
    assert (told["outcome"]["reason"], told["outcome"]["exitCode"]) == ("DriverFailed", 130)
    kept = len(list((out / "shards").glob("*.npz"))) * BATCH
    assert (told["done"], told["total"]) == (kept, 192)
    assert f"{kept} of 192 samples are kept" in told["outcome"]["message"]

    for sampled in (192 - kept, 0):
        code, told = end(stop=False)
        assert (code, told["phase"], told["done"]) == (0, "complete", 192)
        grid = told["outcome"].pop("grid")
        assert told["outcome"] == {
            "manifestSha256": hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest(),
            "samples": 192,
            "sampled": sampled,
            "output": str(out),
        }
        expected = np.asarray(sheet(np.load(out / "samples.npy")[:100]))
        np.testing.assert_array_equal(pixels(b64decode(grid)), expected)
