"""Lists all RayClusters and pods once a minute, and adds every sampling that has any to the work queue.

This makes up for watch events that were missed. It also finds clusters whose sampling is gone: the reconcile of that
sampling deletes them.
"""

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
from ddpm_operator.kube.objects import ObjectKey, OwnedObject, RayCluster, RayPod, Versioned
from ddpm_operator.kube.responses import Document
from ddpm_operator.manifests.naming import MANAGED_BY, MANAGER
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod

SELECTOR = f"{MANAGED_BY}={MANAGER}"
RESYNC_SECONDS = 60.0

_NO_RIGHTS = (
    "the operator has no rights in it; if the namespace was created again, upgrade the chart, which restores its Role"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchScope:
    """What the operator can watch.

    Attributes:
        kuberay: whether the RayCluster CRD exists.
        namespaces: the configured namespaces that can be listed; empty if all namespaces are watched.
    """

    kuberay: bool
    namespaces: tuple[str, ...]


@dataclass(frozen=True)
class _Listed(Generic[OwnedObject]):
    """The listed objects of one kind.

    Attributes:
        known_before: uids that were cached before the list request, less objects that could not be decoded.
    """

    entries: tuple[Versioned[OwnedObject], ...]
    known_before: frozenset[str]


@dataclass(frozen=True)
class _ListedNamespace:
    """The listed objects of one namespace, or of all (None). `clusters` is None without the RayCluster CRD."""

    namespace: str | None
    clusters: _Listed[ObservedCluster] | None
    pods: _Listed[ObservedPod]


class Resync:
    """Lists the objects that the operator manages, and applies the lists to the caches.

    Args:
        namespaces: the watched namespaces; empty for all.
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
        self._scope: WatchScope | None = None
        self._reported_invalid: set[str] = set()

    @property
    def scope(self) -> WatchScope:
        """What could be listed the last time, and so can be watched.

        Raises:
            ValueError: before the first call of `list_all`.
        """
        if self._scope is None:
            raise ValueError("nothing was listed yet")
        return self._scope

    async def list_all(self) -> set[ObjectKey]:
        """Lists all clusters and pods, and updates the caches.

        Objects that could not be listed or decoded stay in the caches as they were.

        Returns:
            the samplings that own an object, or owned one until now.

        Raises:
            ApiError: if a list request fails.
        """
        listed = [found for it in self._namespaces or (None,) if (found := await self._list_namespace(it))]
        scope = WatchScope(
            kuberay=any(it.clusters is not None for it in listed),
            namespaces=tuple(it.namespace for it in listed if it.namespace),
        )
        if scope != self._scope:
            for namespace in sorted({*self._namespaces} - {*scope.namespaces}):
                logger.warning("skipping namespace %s: %s", namespace, _NO_RIGHTS)
        self._scope = scope
        changed: set[ObjectKey] = set()
        for it in listed:
            if it.clusters:
                changed |= self._clusters.apply_list(it.clusters.entries, it.clusters.known_before)
            changed |= self._pods.apply_list(it.pods.entries, it.pods.known_before)
        return changed | self._clusters.owners() | self._pods.owners()

    async def list_samplings(self) -> AsyncIterator[Document]:
        """Yields every DDPMSampling in the watched namespaces.

        Raises:
            ApiError: if a list request fails.
        """
        collections = [paths.samplings(namespace) for namespace in self.scope.namespaces]
        for path in collections or [paths.ALL_SAMPLINGS]:
            async for document in self._api.list(path, ""):
                yield document

    async def run(self, queue: WorkQueue) -> None:
        """Lists everything every minute. Returns when the scope changes, since kopf has to be restarted then.

        With all namespaces it never returns: kopf itself notices new namespaces and CRDs then.
        """
        first = self.scope
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            try:
                for key in await self.list_all():
                    queue.add(key)
            except ApiError as error:
                logger.warning("cannot list clusters and pods: %s", error)
            if self._namespaces and self.scope != first:
                logger.warning("the watchable scope has changed, from %s to %s", first, self.scope)
                return

    async def _list_namespace(self, namespace: str | None) -> _ListedNamespace | None:
        """Lists one namespace, or all; None if the operator has no rights in the namespace."""
        try:
            path = paths.pods(namespace) if namespace else paths.ALL_PODS
            pods = await self._list(path, _decode_pod, self._pods, namespace)
            clusters = await self._list_clusters(namespace)
        except ApiError as error:
            if namespace is None or error.status != HTTPStatus.FORBIDDEN:
                raise
            return None
        return _ListedNamespace(namespace, clusters, pods)

    async def _list_clusters(self, namespace: str | None) -> _Listed[ObservedCluster] | None:
        path = paths.clusters(namespace) if namespace else paths.ALL_CLUSTERS
        try:
            return await self._list(path, _decode_cluster, self._clusters, namespace)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _list(
        self,
        path: str,
        decode: Callable[[Document], Versioned[OwnedObject] | None],
        cache: ObjectCache[OwnedObject],
        namespace: str | None,
    ) -> _Listed[OwnedObject]:
        known_before = cache.known_uids(namespace)
        entries: list[Versioned[OwnedObject]] = []
        invalid: set[str] = set()
        async for document in self._api.list(path, SELECTOR):
            try:
                entry = decode(document)
            except ValidationError as error:
                invalid.add(self._report_invalid(path, document, error))
                continue
            if entry:
                entries.append(entry)
        return _Listed(tuple(entries), known_before - invalid)

    def _report_invalid(self, path: str, document: Document, error: ValidationError) -> str:
        """Logs once that an object cannot be decoded; returns its uid."""
        metadata = document.get("metadata")
        name, uid = (metadata.get("name"), metadata.get("uid")) if isinstance(metadata, dict) else (None, None)
        if str(uid) not in self._reported_invalid:
            self._reported_invalid.add(str(uid))
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            logger.error("%s: ignoring %s, which is invalid: %s: %s", path, name, field, first["msg"])
        return str(uid)


def _decode_cluster(document: Document) -> Versioned[ObservedCluster] | None:
    return RayCluster.model_validate(document).versioned()


def _decode_pod(document: Document) -> Versioned[ObservedPod] | None:
    return RayPod.model_validate(document).versioned()
