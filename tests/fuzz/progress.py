"""A driver's progress document and log, up to the status that the operator derives from them."""

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

__all__ = ["fuzz_one", "mutate", "seeds"]

MAX_STATUS_BYTES = 64 * 1024

WORLD = World.of()
WORLD.run(until=lambda it: it.sampling.status is not None and it.status.phase == Phase.RUNNING)
OBSERVED = WORLD.observe()
assert isinstance(OBSERVED.head_poll, HeadResponse)
JOBS = OBSERVED.head_poll.jobs


def seeds() -> Iterator[bytes]:
    required = {"version": 1, "phase": "sampling", "done": 1, "total": 2, "percent": 50.0, "message": "batch 1"}
    optional = {"samplesPerSecond": 0.5, "etaSeconds": 2.0, "plan": {"device": "cpu", "batchSize": 64, "shards": 2}}
    failed = {"reason": "OutOfMemory", "exitCode": 4, "message": "a worker died", "hint": "more"}
    finished = {"manifestSha256": "ab" * 32, "samples": 100, "sampled": 64, "output": "/output", "grid": "cG5n"}
    for outcome in (None, failed, finished):
        yield json.dumps(required | optional | {"outcome": outcome}).encode()
    yield json.dumps({"event": "error"} | failed).encode()


def fuzz_one(data: bytes) -> None:
    try:
        _check_status(replace(OBSERVED, head_poll=HeadResponse(JOBS, read_progress(data))))
    except ValidationError as error:
        assert error.title == "ProgressDocument"  # noqa: PT017 - the operator's own documents are valid
    log = data.decode(errors="replace")
    for job in (replace(JOBS[-1], state="FAILED", message=log), replace(JOBS[-1], state="FAILED", log=log)):
        _check_status(replace(OBSERVED, head_poll=HeadResponse((*JOBS[:-1], job), None)))


def _check_status(observed: Observed) -> None:
    """Reconciles, and checks that every written status is one that the API server accepts."""
    decision = reconcile(observed, WORLD.now)
    for status in [it.status for it in decision.actions if isinstance(it, WriteStatus)]:
        document = status.to_document()
        assert len(json.dumps(document)) < MAX_STATUS_BYTES
        assert all(abs(number) < 2**63 for number in _integers(document))
        assert Status.from_document(document) == status


def _integers(value: object) -> Iterator[int]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _integers(inner)
    elif isinstance(value, int):
        yield value
