"""The operator's Prometheus metrics.

Every label has a closed set of values. Names and namespaces of users are never labels: they would make the number of
series unbounded, and could leak secrets.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.aiohttp import make_aiohttp_handler

from ddpm_operator.api import ConditionType, FailureReason, Phase, Status
from ddpm_operator.api.conditions import holds
from ddpm_operator.kube.objects import ObjectKey, Sampling
from ddpm_operator.kube.responses import Method

PORT = 8081

_RECONCILE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUEUED_BUCKETS = (1, 10, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_ENDED = frozenset({Phase.SUCCEEDED, Phase.FAILED})


class ReconcileResult(StrEnum):
    """How a reconcile ended: the label `result`.

    The values are public and older than the names of the members, so some differ.
    """

    DONE = "done"
    STALE = "overtaken"  # the resource had changed in the meantime, which is normal
    REJECTED = "refused"  # an object could not be created, written or deleted
    UNREACHABLE = "unreachable"  # the API server could not be read
    TIMED_OUT = "stalled"  # the API server or the head was too slow, and the reconcile was cancelled
    SCHEMA_MISMATCH = "unreadable"  # the CRD and the operator are of different releases
    CRASHED = "crashed"  # a bug in the operator


@dataclass(frozen=True)
class _CountedSampling:
    phase: Phase
    since: float
    needs_cluster: bool


class SamplingCounts:
    """Counts the existing samplings by phase, from watch events. For metrics only, never for decisions.

    A deletion that the watch missed stays counted until the sampling's next reconcile or the operator's restart.

    Args:
        on_queued: called with the seconds that a sampling was Queued, as far as this process has seen it.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, on_queued: Callable[[float], object], now: Callable[[], float] = time.monotonic) -> None:
        self._on_queued = on_queued
        self._now = now
        self._samplings: dict[ObjectKey, _CountedSampling] = {}

    def update(self, sampling: Sampling) -> None:
        """Records a new version of a sampling."""
        key, phase, now = sampling.key, sampling.phase, self._now()
        old = self._samplings.get(key)
        unchanged = old is not None and old.phase is phase
        since = old.since if old and unchanged else now
        self._samplings[key] = _CountedSampling(phase, since, phase not in _ENDED or sampling.keeps_cluster)
        if old and not unchanged and old.phase is Phase.QUEUED:
            self._on_queued(now - old.since)

    def remove(self, key: ObjectKey) -> None:
        """Removes a sampling that no longer exists."""
        self._samplings.pop(key, None)

    def count(self, phase: Phase) -> int:
        """Returns the number of samplings in a phase."""
        return sum(it.phase is phase for it in self._samplings.values())

    def count_outlived(self, cluster_owners: Collection[ObjectKey]) -> int:
        """Returns how many owners of a RayCluster are deleted, or have ended and do not keep it for debugging."""
        return sum(key not in self._samplings or not self._samplings[key].needs_cluster for key in cluster_owners)


class Metrics:
    """The metrics of one operator process.

    Args:
        cluster_owners: returns every sampling that has a RayCluster.

    Attributes:
        registry: all metrics, for `serve`.
        samplings: the number of samplings by phase.
    """

    def __init__(self, cluster_owners: Callable[[], Collection[ObjectKey]]) -> None:
        self.registry = registry = CollectorRegistry()
        self._reconciles = Counter(
            "ddpm_operator_reconciles", "Reconciles of a sampling, by result.", ["result"], registry=registry
        )
        self._reconcile_seconds = Histogram(
            "ddpm_operator_reconcile_seconds",
            "Duration of a reconcile.",
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self._wait_seconds = Histogram(
            "ddpm_operator_reconcile_wait_seconds",
            "Time from when a reconcile was due until it started.",
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self._api_requests = Counter(
            "ddpm_operator_api_requests",
            "Requests to the API server except watches, by HTTP status; 0 without a response.",
            ["method", "status"],
            registry=registry,
        )
        self._attempts = Counter("ddpm_attempts", "Attempts that started.", registry=registry)
        self._failed_attempts = Counter(
            "ddpm_attempts_failed", "Attempts that failed, by reason.", ["reason"], registry=registry
        )
        self._ended = Counter(
            "ddpm_samplings_ended",
            "Samplings that ended: Complete, or the reason of their failure.",
            ["reason"],
            registry=registry,
        )
        queued_seconds = Histogram(
            "ddpm_sampling_queued_seconds",
            "Time that a sampling was Queued.",
            buckets=_QUEUED_BUCKETS,
            registry=registry,
        )
        self.samplings = SamplingCounts(queued_seconds.observe)
        by_phase = Gauge("ddpm_samplings", "Existing samplings, by phase.", ["phase"], registry=registry)
        for phase in Phase:
            by_phase.labels(phase.value).set_function(partial(self.samplings.count, phase))
        Gauge(
            "ddpm_samplings_outlived_by_cluster",
            "Samplings that are deleted, or have ended without keepClusterSeconds, but still have a RayCluster.",
            registry=registry,
        ).set_function(lambda: self.samplings.count_outlived(cluster_owners()))
        self._create_all_series()

    def _create_all_series(self) -> None:
        """Exports every series as 0. Prometheus could not see the increase of a counter that first appears as 1."""
        for result in ReconcileResult:
            self._reconciles.labels(result.value)
        for reason in FailureReason:
            self._failed_attempts.labels(reason.value)
        for reason_of_end in (ConditionType.COMPLETE, *FailureReason):
            self._ended.labels(reason_of_end.value)

    @contextmanager
    def time_reconcile(self) -> Iterator[None]:
        """Measures the duration of a reconcile, and counts an exception that escapes it as a crash."""
        with self._reconcile_seconds.time(), self._reconciles.labels(ReconcileResult.CRASHED.value).count_exceptions():
            yield

    def count_reconcile(self, result: ReconcileResult) -> None:
        """Counts a finished reconcile."""
        self._reconciles.labels(result.value).inc()

    def observe_wait(self, seconds: float) -> None:
        """Records how long a reconcile that was due waited for a free place in the work queue."""
        self._wait_seconds.observe(seconds)

    def count_api_request(self, method: Method, status: int) -> None:
        """Counts a request to the API server; `status` is 0 without a response."""
        self._api_requests.labels(method, str(status)).inc()

    def count_transitions(self, old: Status | None, new: Status) -> None:
        """Counts what changed between two statuses of a sampling: attempts that started or failed, and the end."""
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
    async def serve(self, host: str) -> AsyncIterator[None]:
        """Serves `GET /metrics`, and no other route, during the block.

        Args:
            host: the address to listen on.
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
