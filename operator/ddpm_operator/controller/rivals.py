"""Samplings whose heads keep one another's workers out of a full quota: all but the oldest give way."""

from __future__ import annotations

from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod
from ddpm_operator.reconcile.quota import waits_for_workers


def blocked_by(key: ObjectKey, clusters: ObjectCache[ObservedCluster], pods: ObjectCache[ObservedPod]) -> str | None:
    """The sampling to which this one gives way, if both wait for their workers.

    Returns:
        its name; None if nobody else in the namespace waits so, or only with a younger cluster.
    """
    waiting = [
        (cluster.created, owner)
        for owner in clusters.owners()
        if owner.namespace == key.namespace
        for cluster in clusters.of(owner)
        if waits_for_workers(cluster, [pod for pod in pods.of(owner) if pod.cluster == cluster.name])
    ]
    _, first = min(waiting, default=(None, key))
    return first.name if first != key else None
