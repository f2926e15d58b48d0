"""Once a minute all that the operator has made is listed: watches lose things, and owners go without their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Generic

from pydantic import ValidationError

from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube import paths
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.client import ApiError, KubeApi
from ddpm_operator.kube.objects import Fact, ObjectKey, RayCluster, RayPod, Versioned
from ddpm_operator.kube.responses import Document
from ddpm_operator.manifests.naming import MANAGED_BY, MANAGER
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod

SELECTOR = f"{MANAGED_BY}={MANAGER}"
INTERVAL = 60.0

_NO_RIGHTS = "the operator has no rights in it; if it was made anew, install the chart again, which brings its Role"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Within:
    """What the operator can see.

    Attributes:
        kuberay: there are RayClusters to be listed.
        namespaces: of those that are to be watched, the ones that can be; none where all are watched.
    """

    kuberay: bool
    namespaces: tuple[str, ...]


@dataclass(frozen=True)
class _List(Generic[Fact]):
    """What was listed of one kind.

    Attributes:
        before: what was known of it until then, less what could not be read.
    """

    sights: tuple[Versioned[Fact], ...]
    before: frozenset[str]


@dataclass(frozen=True)
class _Listed:
    """What is in one namespace, or in all; `clusters` is None without KubeRay."""

    namespace: str | None
    clusters: _List[ObservedCluster] | None
    pods: _List[ObservedPod]


class Resync:
    """Lists clusters and pods, and has every sampling looked at that has any.

    A look at a sampling that is gone removes what it has left, so this is what sweeps up as well.

    Args:
        namespaces: those that are watched; empty for all.
    """

    def __init__(
        self,
        api: KubeApi,
        clusters: ObjectCache[ObservedCluster],
        pods: ObjectCache[ObservedPod],
        namespaces: Collection[str] = (),
    ) -> None:
        self._api = api
        self._clusters = clusters
        self._pods = pods
        self._namespaces = namespaces
        self._within: Within | None = None
        self._unreadable: set[str] = set()

    @property
    def within(self) -> Within:
        """What could be listed the last time, which is what can be watched.

        Raises:
            ValueError: before the first time.
        """
        if self._within is None:
            raise ValueError("nothing was listed yet")
        return self._within

    async def once(self) -> set[ObjectKey]:
        """Lists everything. What cannot be listed or read is neither found nor lost: it stays as it was known.

        Returns:
            the samplings that something is there of, or was until now.

        Raises:
            ApiError: if a list cannot be had.
        """
        known = [one for where in self._namespaces or (None,) if (one := await self._below(where))]
        within = Within(
            kuberay=any(one.clusters is not None for one in known),
            namespaces=tuple(one.namespace for one in known if one.namespace),
        )
        if within != self._within:
            for namespace in sorted({*self._namespaces} - {*within.namespaces}):
                logger.warning("the namespace %s is left alone: %s", namespace, _NO_RIGHTS)
        self._within = within
        changed: set[ObjectKey] = set()
        for one in known:
            if one.clusters:
                changed |= self._clusters.listed(one.clusters.sights, one.clusters.before)
            changed |= self._pods.listed(one.pods.sights, one.pods.before)
        return changed | self._clusters.owners() | self._pods.owners()

    async def samplings(self) -> AsyncIterator[Document]:
        """Every DDPMSampling there is, for an operator that has yet to hear of them.

        Raises:
            ApiError: if a list cannot be had.
        """
        where = [paths.samplings(namespace) for namespace in self.within.namespaces]
        for path in where or [paths.ALL_SAMPLINGS]:
            async for document in self._api.list(path, ""):
                yield document

    async def for_ever(self, queue: WorkQueue) -> None:
        """Lists everything every minute, until other namespaces can be listed, or KubeRay is there all at once.

        With all namespaces this never ends: watches notice such things themselves there.
        """
        first = self.within
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                for key in await self.once():
                    queue.ask(key)
            except ApiError as error:
                logger.warning("clusters and pods cannot be listed: %s", error)
            if self._namespaces and self.within != first:
                logger.warning("what can be watched has changed, from %s to %s", first, self.within)
                return

    async def _below(self, namespace: str | None) -> _Listed | None:
        """What is in one namespace, or in all; None of a namespace that the operator has no rights in any more."""
        try:
            pods = await self._list(paths.pods(namespace) if namespace else paths.ALL_PODS, _pod, self._pods, namespace)
            clusters = await self._clusters_below(namespace)
        except ApiError as error:
            if namespace is None or error.status != HTTPStatus.FORBIDDEN:
                raise
            return None
        return _Listed(namespace, clusters, pods)

    async def _clusters_below(self, namespace: str | None) -> _List[ObservedCluster] | None:
        path = paths.clusters(namespace) if namespace else paths.ALL_CLUSTERS
        try:
            return await self._list(path, _cluster, self._clusters, namespace)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _list(
        self,
        path: str,
        read: Callable[[Document], Versioned[Fact] | None],
        seen: ObjectCache[Fact],
        namespace: str | None,
    ) -> _List[Fact]:
        before = seen.known(namespace)
        sights: list[Versioned[Fact]] = []
        unreadable: set[str] = set()
        async for document in self._api.list(path, SELECTOR):
            try:
                sight = read(document)
            except ValidationError as error:
                unreadable.add(self._left_out(path, document, error))
                continue
            if sight:
                sights.append(sight)
        return _List(tuple(sights), before - unreadable)

    def _left_out(self, path: str, document: Document, error: ValidationError) -> str:
        """Says once of an object that it is of no form that is known; returns its uid."""
        metadata = document.get("metadata")
        name, uid = (metadata.get("name"), metadata.get("uid")) if isinstance(metadata, dict) else (None, None)
        if str(uid) not in self._unreadable:
            self._unreadable.add(str(uid))
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            logger.error("%s: %s is left out, as it cannot be read: %s: %s", path, name, where, fault["msg"])
        return str(uid)


def _cluster(document: Document) -> Versioned[ObservedCluster] | None:
    return RayCluster.model_validate(document).sight()


def _pod(document: Document) -> Versioned[ObservedPod] | None:
    return RayPod.model_validate(document).sight()
