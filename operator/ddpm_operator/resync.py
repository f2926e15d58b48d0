"""Once a minute all that the operator has made is listed: watches lose things, and owners go without their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus

from ddpm_operator import paths
from ddpm_operator.facts import Key, RayCluster, RayPod
from ddpm_operator.kube_answer import Document
from ddpm_operator.kube_api import ApiError, KubeApi
from ddpm_operator.naming import MANAGED_BY, MANAGER
from ddpm_operator.observed import Cluster, Pod
from ddpm_operator.seen import Seen
from ddpm_operator.work_queue import WorkQueue

SELECTOR = f"{MANAGED_BY}={MANAGER}"
INTERVAL = 60.0

_NO_RIGHTS = (
    "the operator has no rights in it; if it was made anew, install the chart again, which brings its Role"
)

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
class _Listed:
    """What is in one namespace, or in all; `clusters` is None without KubeRay."""

    namespace: str | None
    clusters: list[dict[str, object]] | None
    pods: list[dict[str, object]]


class Resync:
    """Lists clusters and pods, and has every sampling looked at that has any.

    A look at a sampling that is gone removes what it has left, so this is what sweeps up as well.

    Args:
        namespaces: those that are watched; empty for all.
    """

    def __init__(
        self, api: KubeApi, clusters: Seen[Cluster], pods: Seen[Pod], namespaces: Collection[str] = ()
    ) -> None:
        self._api = api
        self._clusters = clusters
        self._pods = pods
        self._namespaces = namespaces
        self._within: Within | None = None

    @property
    def within(self) -> Within:
        """What could be listed the last time, which is what can be watched.

        Raises:
            ValueError: before the first time.
        """
        if self._within is None:
            raise ValueError("nothing was listed yet")
        return self._within

    async def once(self) -> set[Key]:
        """Lists everything.

        Returns:
            the samplings that something is there of, or was until now.

        Raises:
            ApiError: if a list cannot be had.
        """
        before_clusters, before_pods = self._clusters.uids(), self._pods.uids()
        listed = [await self._below(namespace) for namespace in self._namespaces or (None,)]
        known = [one for one in listed if one]
        clusters = [RayCluster.model_validate(it).sight() for one in known for it in one.clusters or ()]
        pods = [RayPod.model_validate(it).sight() for one in known for it in one.pods]
        within = Within(
            kuberay=any(one.clusters is not None for one in known),
            namespaces=tuple(one.namespace for one in known if one.namespace),
        )
        if within != self._within:
            for namespace in sorted({*self._namespaces} - {*within.namespaces}):
                logger.warning("the namespace %s is left alone: %s", namespace, _NO_RIGHTS)
        self._within = within
        changed = self._clusters.listed([it for it in clusters if it], before_clusters)
        changed |= self._pods.listed([it for it in pods if it], before_pods)
        return changed | self._clusters.owners() | self._pods.owners()

    async def samplings(self) -> list[Document]:
        """Every DDPMSampling there is, for an operator that has yet to hear of them.

        Raises:
            ApiError: if a list cannot be had.
        """
        where = [paths.samplings(namespace) for namespace in self.within.namespaces]
        listed = [await self._api.list(path, "") for path in where or [paths.ALL_SAMPLINGS]]
        return [item for one in listed for item in one]

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
            pods = await self._list(paths.pods(namespace) if namespace else paths.ALL_PODS)
            clusters = await self._clusters_below(namespace)
        except ApiError as error:
            if namespace is None or error.status != HTTPStatus.FORBIDDEN:
                raise
            return None
        return _Listed(namespace, clusters, pods)

    async def _clusters_below(self, namespace: str | None) -> list[dict[str, object]] | None:
        try:
            return await self._list(paths.clusters(namespace) if namespace else paths.ALL_CLUSTERS)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _list(self, path: str) -> list[dict[str, object]]:
        return [dict(item) for item in await self._api.list(path, SELECTOR)]
