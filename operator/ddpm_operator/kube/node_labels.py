"""Reads the labels of nodes that decide hardware, each node once in a while.

Nodes belong to no namespace. An operator that watches only some namespaces has no right to read them, and goes on
without: see `ddpm_operator.reconcile.placement`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus

from pydantic import ValidationError

from ddpm_operator.kube import paths
from ddpm_operator.kube.client import ApiError, KubeApi
from ddpm_operator.kube.objects import Node

MAX_AGE_SECONDS = 600.0
_MAX_CACHED = 10_000
_NOT_READABLE = (HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED)

logger = logging.getLogger(__name__)


class NodeLabels:
    """The hardware labels of nodes, as they were read within the last `MAX_AGE_SECONDS`.

    Args:
        seconds: returns the seconds of a monotonic clock.
    """

    def __init__(self, api: KubeApi, seconds: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._seconds = seconds
        self._cached: dict[str, tuple[float, Mapping[str, str] | None]] = {}
        self._forbidden_until = 0.0

    async def read(self, nodes: Iterable[str]) -> dict[str, Mapping[str, str]]:
        """Returns the labels of the nodes, without those that do not exist or cannot be read."""
        names = list(dict.fromkeys(nodes))
        read = await asyncio.gather(*(self._labels(name) for name in names))
        return {name: labels for name, labels in zip(names, read, strict=True) if labels is not None}

    async def _labels(self, name: str) -> Mapping[str, str] | None:
        now = self._seconds()
        cached = self._cached.get(name)
        if cached and now < cached[0] + MAX_AGE_SECONDS:
            return cached[1]
        if now < self._forbidden_until:
            return None
        try:
            labels = Node.model_validate(await self._api.get(paths.node(name))).hardware_labels()
        except ApiError as error:
            if error.status in _NOT_READABLE:
                if not self._forbidden_until:
                    logger.info("later attempts are placed by the names of nodes alone: %s", error.message)
                self._forbidden_until = now + MAX_AGE_SECONDS
            elif error.status == HTTPStatus.NOT_FOUND:
                self._store(name, now, None)
            else:
                logger.warning("cannot read the node %s: %s", name, error)
            return None
        except ValidationError as error:
            logger.warning("cannot read the node %s: %s", name, error)
            return None
        self._store(name, now, labels)
        return labels

    def _store(self, name: str, now: float, labels: Mapping[str, str] | None) -> None:
        if len(self._cached) >= _MAX_CACHED:
            self._cached.clear()
        self._cached[name] = (now, labels)
