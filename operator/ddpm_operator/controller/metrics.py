"""What the operator tells Prometheus: counts and times, by closed lists only.

No label is a user's, neither a name nor a namespace, so that nobody can make the answer long, and nothing secret
can get into it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from functools import partial

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.aiohttp import make_aiohttp_handler

from ddpm_operator.api import ConditionType, FailureReason, Phase, Status
from ddpm_operator.controller.census import SamplingCounts
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.kube.responses import Method
from ddpm_operator.reconcile.status_builder import holds

PORT = 8081

_LOOK_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUEUED_SECONDS = (1, 10, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


class Result(StrEnum):
    """How a look at a sampling ended."""

    DONE = "done"
    OVERTAKEN = "overtaken"  # the resource had changed meanwhile, which is nobody's fault
    REFUSED = "refused"  # something could not be made, written or deleted
    UNREACHABLE = "unreachable"  # the API server did not let it be looked at
    STALLED = "stalled"  # the API server or the head kept it waiting, and it was broken off
    UNREADABLE = "unreadable"  # the CRD is of another version
    CRASHED = "crashed"  # an error of the operator


class Metrics:
    """One operator's, since it started.

    Args:
        owners: every sampling that a RayCluster is there of.

    Attributes:
        registry: all of them, to be served.
        census: of the samplings there are.
    """

    def __init__(self, owners: Callable[[], Collection[ObjectKey]]) -> None:
        self.registry = registry = CollectorRegistry()
        self._looks = Counter(
            "ddpm_operator_reconciles", "Looks at a sampling, by how they ended.", ["result"], registry=registry
        )
        self._seconds = Histogram(
            "ddpm_operator_reconcile_seconds",
            "How long a look at a sampling took.",
            buckets=_LOOK_SECONDS,
            registry=registry,
        )
        self._waits = Histogram(
            "ddpm_operator_reconcile_wait_seconds",
            "How long a look at a sampling that was due waited for its turn.",
            buckets=_LOOK_SECONDS,
            registry=registry,
        )
        self._requests = Counter(
            "ddpm_operator_api_requests",
            "Requests to the API server other than watches; status is that of HTTP, 0 without an answer.",
            ["method", "status"],
            registry=registry,
        )
        self._attempts = Counter("ddpm_attempts", "Attempts that began.", registry=registry)
        self._failed_attempts = Counter(
            "ddpm_attempts_failed", "Attempts that failed, by the reason.", ["reason"], registry=registry
        )
        self._ended = Counter(
            "ddpm_samplings_ended",
            "Samplings that ended: Complete, or the reason why they failed.",
            ["reason"],
            registry=registry,
        )
        queued = Histogram(
            "ddpm_sampling_queued_seconds",
            "How long a sampling was Queued.",
            buckets=_QUEUED_SECONDS,
            registry=registry,
        )
        self.census = SamplingCounts(queued.observe)
        samplings = Gauge("ddpm_samplings", "Samplings that are there, by phase.", ["phase"], registry=registry)
        for phase in Phase:
            samplings.labels(phase.value).set_function(partial(self.census.count, phase))
        Gauge(
            "ddpm_samplings_outlived_by_cluster",
            "Samplings that are gone, or have ended and keep nothing, whose RayCluster is still there.",
            registry=registry,
        ).set_function(lambda: self.census.outlived(owners()))
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A count that is not there before its first 1 would never be seen to rise."""
        for result in Result:
            self._looks.labels(result.value)
        for reason in FailureReason:
            self._failed_attempts.labels(reason.value)
        for end in (ConditionType.COMPLETE, *FailureReason):
            self._ended.labels(end.value)

    @contextmanager
    def look(self) -> Iterator[None]:
        """The time of a look; what it raises is an error of the operator."""
        with self._seconds.time(), self._looks.labels(Result.CRASHED.value).count_exceptions():
            yield

    def looked(self, result: Result) -> None:
        """A look has ended."""
        self._looks.labels(result.value).inc()

    def waited(self, seconds: float) -> None:
        """A look that was due has begun so much later."""
        self._waits.observe(seconds)

    def requested(self, method: Method, status: int) -> None:
        """The API server was asked; `status` is 0 if it did not answer."""
        self._requests.labels(method, str(status)).inc()

    def wrote(self, old: Status | None, new: Status) -> None:
        """A sampling's status was written: what has happened to it in between is counted."""
        if (new.attempt or 0) > ((old and old.attempt) or 0):
            self._attempts.inc()
        reason = new.failure.reason.value if new.failure else None
        if reason and (new.failed_attempts or 0) > ((old and old.failed_attempts) or 0):
            self._failed_attempts.labels(reason).inc()
        if holds(new, ConditionType.COMPLETE) and not holds(old, ConditionType.COMPLETE):
            self._ended.labels(ConditionType.COMPLETE.value).inc()
        if reason and holds(new, ConditionType.FAILED) and not holds(old, ConditionType.FAILED):
            self._ended.labels(reason).inc()

    @asynccontextmanager
    async def served(self, host: str) -> AsyncIterator[None]:
        """Answers `GET /metrics`, and nothing else, for the time of the block.

        Args:
            host: the address to listen at.
        """
        application = web.Application()
        application.router.add_get("/metrics", make_aiohttp_handler(self.registry))
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, PORT).start()
            yield
        finally:
            await runner.cleanup()
