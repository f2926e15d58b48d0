"""What a driver says over HTTP and in its log, up to the status that the operator writes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from pydantic import ValidationError

from ddpm_operator.api import Phase, Status
from ddpm_operator.reconcile.actions import WriteStatus
from ddpm_operator.reconcile.observed import HeadResponse, Observed
from ddpm_operator.reconcile.progress_document import read_progress
from ddpm_operator.reconcile.reconcile import reconcile
from tests.fakes.world import World
from tests.fuzz.documents import mutate

__all__ = ["mutate", "one", "seeds"]

LARGEST_STATUS = 64 * 1024

WORLD = World.of()
WORLD.run(until=lambda it: it.sampling.status is not None and it.status.phase == Phase.RUNNING)
OBSERVED = WORLD.observe()
assert isinstance(OBSERVED.driver, HeadResponse)
JOBS = OBSERVED.driver.jobs


def seeds() -> Iterator[bytes]:
    known = {"version": 1, "phase": "sampling", "done": 1, "total": 2, "percent": 50.0, "message": "batch 1"}
    figures = {"samplesPerSecond": 0.5, "etaSeconds": 2.0, "plan": {"device": "cpu", "batchSize": 64, "shards": 2}}
    broken = {"reason": "OutOfMemory", "exitCode": 4, "message": "a worker died", "hint": "more"}
    finished = {"manifestSha256": "ab" * 32, "samples": 100, "sampled": 64, "output": "/output", "grid": "cG5n"}
    for outcome in (None, broken, finished):
        yield json.dumps(known | figures | {"outcome": outcome}).encode()
    yield json.dumps({"event": "error"} | broken).encode()


def one(data: bytes) -> None:
    try:
        _believed(replace(OBSERVED, driver=HeadResponse(JOBS, read_progress(data))))
    except ValidationError as error:
        assert error.title == "ProgressDocument"  # noqa: PT017 - the operator's own documents must stay sound
    log = data.decode(errors="replace")
    for job in (replace(JOBS[-1], state="FAILED", message=log), replace(JOBS[-1], state="FAILED", log=log)):
        _believed(replace(OBSERVED, driver=HeadResponse((*JOBS[:-1], job), None)))


def _believed(observed: Observed) -> None:
    """What is written after it is a status that the API server takes."""
    decision = reconcile(observed, WORLD.now)
    for status in [it.status for it in decision.actions if isinstance(it, WriteStatus)]:
        written = status.to_document()
        assert len(json.dumps(written)) < LARGEST_STATUS
        assert all(abs(figure) < 2**63 for figure in _integers(written))
        assert Status.from_document(written) == status


def _integers(value: object) -> Iterator[int]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _integers(inner)
    elif isinstance(value, int):
        yield value
