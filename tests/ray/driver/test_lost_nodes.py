"""Nodes that do not come back: the run ends after its startup timeout."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.rays import check_alive, descendants, finish, ray_head, ray_node, start_command, wait_until

STARTUP_TIMEOUT = 30


def test_a_run_whose_nodes_are_lost_ends_after_the_timeout(
    tmp_path_factory: pytest.TempPathFactory, foreign_python: Path, checkpoint: Path, tmp_path: Path
) -> None:
    flags = (
        "--sampler",
        "ddim",
        "--steps",
        "500",
        "--n_samples",
        "3200",
        "--startup_timeout",
        STARTUP_TIMEOUT,
        "--json",
    )
    shards = tmp_path / "out" / "shards"
    with (
        ray_head(tmp_path_factory.mktemp("bare"), foreign_python, "--num-cpus=0") as head,
        ray_node(head, "--num-cpus=2") as node,
    ):
        process = start_command("--model_path", checkpoint, *flags, "--ray_address", head.gcs, cwd=tmp_path)
        wait_until(lambda: len(list(shards.glob("*.npz"))) >= 2, check=lambda: check_alive(process))
        for pid in (node.pid, *descendants(node.pid)):
            os.kill(pid, signal.SIGKILL)
        ended = finish(process)
    assert ended.code == 4
    kept = len(list(shards.glob("*.npz")))
    assert f"error: no node has had room for a worker for {STARTUP_TIMEOUT} s" in ended.err
    assert "each needs 1 CPU" in ended.err
    assert f"{32 * kept} of 3200 samples are kept" in ended.err
    assert "no node has room for a worker any more" in ended.out
    assert "Traceback" not in ended.err
