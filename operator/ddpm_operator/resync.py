"""Once a minute all that the operator has made is listed: watches lose things, and owners go without their own."""

from __future__ import annotations

import asyncio
import logging

from ddpm_operator import paths
from ddpm_operator.facts import Key, RayCluster, RayPod
from ddpm_operator.kube_api import ApiError, KubeApi
from ddpm_operator.naming import MANAGED_BY, MANAGER
from ddpm_operator.observed import Cluster, Pod
from ddpm_operator.seen import Seen
from ddpm_operator.work_queue import WorkQueue

SELECTOR = f"{MANAGED_BY}={MANAGER}"
INTERVAL = 60.0

logger = logging.getLogger(__name__)


class Resync:
    """Lists clusters and pods, and has every sampling looked at that has any.

    A look at a sampling that is gone removes what it has left, so this is what sweeps up as well.
    """

    def __init__(self, api: KubeApi, clusters: Seen[Cluster], pods: Seen[Pod]) -> None:
        self._api = api
        self._clusters = clusters
        self._pods = pods

    async def once(self) -> set[Key]:
        """Lists everything.

        Returns:
            the samplings that something is there of, or was until now.

        Raises:
            ApiError: if a list cannot be had.
        """
        before = self._clusters.uids()
        clusters = [RayCluster.model_validate(it).sight() for it in await self._list(paths.ALL_CLUSTERS)]
        changed = self._clusters.listed([it for it in clusters if it], before)
        before = self._pods.uids()
        pods = [RayPod.model_validate(it).sight() for it in await self._list(paths.ALL_PODS)]
        changed |= self._pods.listed([it for it in pods if it], before)
        return changed | self._clusters.owners() | self._pods.owners()

    async def for_ever(self, queue: WorkQueue) -> None:
        """Lists everything every minute."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                for key in await self.once():
                    queue.ask(key)
            except ApiError as error:
                logger.warning("clusters and pods cannot be listed: %s", error)

    async def _list(self, path: str) -> list[dict[str, object]]:
        try:
            return [dict(item) for item in await self._api.list(path, SELECTOR)]
        except ApiError as error:
            if error.status == 404:  # KubeRay is not installed
                return []
            raise
