"""How many samplings stand where, as the watch has told; for figures, never for decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ddpm_operator.api import Phase
from ddpm_operator.kube.objects import ObjectKey, Sampling

_ENDED = frozenset({Phase.SUCCEEDED, Phase.FAILED})


@dataclass(frozen=True)
class _Standing:
    phase: Phase
    since: float
    keeps_cluster: bool


class SamplingCounts:
    """Every sampling's phase.

    What was deleted while there was no watch for minutes is counted until the next start, unless it is looked at.

    Args:
        queued: is told how many seconds a sampling was Queued, as far as this operator has seen it.
        now: seconds of any clock.
    """

    def __init__(self, queued: Callable[[float], object], now: Callable[[], float] = time.monotonic) -> None:
        self._queued = queued
        self._now = now
        self._standings: dict[ObjectKey, _Standing] = {}

    def saw(self, sampling: Sampling) -> None:
        """The watch has told of a sampling."""
        key, phase, now = sampling.key, sampling.phase, self._now()
        old = self._standings.get(key)
        same = old is not None and old.phase is phase
        since = old.since if old and same else now
        self._standings[key] = _Standing(phase, since, phase not in _ENDED or sampling.keeps_cluster)
        if old and not same and old.phase is Phase.QUEUED:
            self._queued(now - old.since)

    def gone(self, key: ObjectKey) -> None:
        """A sampling is there no more."""
        self._standings.pop(key, None)

    def count(self, phase: Phase) -> int:
        """How many samplings there are of a phase."""
        return sum(it.phase is phase for it in self._standings.values())

    def outlived(self, owners: Collection[ObjectKey]) -> int:
        """How many of those who own a RayCluster are gone, or have ended and do not keep it."""
        return sum(key not in self._standings or not self._standings[key].keeps_cluster for key in owners)
