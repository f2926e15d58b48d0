"""The operator process: creates all parts, connects them, and runs kopf.

kopf only watches: its event handlers update the caches and add samplings to the work queue, which reconciles them.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
import time

import kopf
import prometheus_client

from ddpm_operator.api import GROUP, PLURAL, VERSION
from ddpm_operator.controller.admission import AdmissionQueue
from ddpm_operator.controller.clock import MonotonicWallClock
from ddpm_operator.controller.controller import Controller
from ddpm_operator.controller.executor import ActionExecutor
from ddpm_operator.controller.metrics import Metrics, SamplingCounts
from ddpm_operator.controller.resync import SELECTOR, Resync
from ddpm_operator.controller.signing_key import SigningKeyInvalid, signing_key
from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.client import PAGE_SIZE, REQUEST_TIMEOUT, ApiError, connect, retry_until
from ddpm_operator.kube.objects import ObjectKey, RayCluster, RayPod, Sampling
from ddpm_operator.manifests.templating import TemplateError, Templates
from ddpm_operator.manifests.validate import validate_all_templates
from ddpm_operator.ray.head_client import HeadClient, new_session
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod
from ddpm_operator.settings import Settings, SettingsError

MAX_CONCURRENT_RECONCILES = 32
MAX_CONCURRENT_PER_NAMESPACE = 8
# A burst of events of one sampling leads to one reconcile.
EVENT_DEBOUNCE_SECONDS = 0.05
# Every reconcile ends within `controller.RECONCILE_TIMEOUT`. If none has ended for this long, the process is broken.
MAX_STALL_SECONDS = 300.0
# The first requests are retried for this long: a process that exits at once runs into CrashLoopBackOff. The chart's
# startupProbe allows for it.
STARTUP_TIMEOUT = 60.0
HEALTH = "http://0.0.0.0:8080/healthz"

logger = logging.getLogger(__name__)


class Stalled(Exception):
    """The operator cannot make progress, and should be restarted."""


def watches(
    queue: WorkQueue,
    controller: Controller,
    admission: AdmissionQueue,
    samplings: SamplingCounts,
    clusters: ObjectCache[ObservedCluster],
    pods: ObjectCache[ObservedPod],
    *,
    cluster_wide: bool,
) -> kopf.OperatorRegistry:
    """Returns kopf's handlers: the watches of samplings, clusters and pods, and the liveness probe.

    Args:
        queue: gets every sampling that an event belongs to.
        controller: tells which events result from the operator's own writes.
        admission, samplings: are kept up to date with the watch of samplings.
        clusters, pods: are kept up to date with their watches.
        cluster_wide: whether all namespaces are watched; kopf then also notices CRDs that are installed later.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: object) -> None:
        # The API server filters by these. A handler's own `labels` filter only in this process, after every pod of
        # the cluster was sent to it.
        settings.watching.label_selectors["ray.io", "rayclusters"] = SELECTOR
        settings.watching.label_selectors["", "pods"] = SELECTOR
        # Users can create large objects. Keep neither a whole list of them nor kopf's last event of each in memory.
        settings.watching.chunk_size = PAGE_SIZE
        settings.queueing.idle_timeout = 0.1
        # By default kopf waits five minutes for a list. Events are missed in the meantime.
        settings.networking.request_timeout = REQUEST_TIMEOUT
        settings.watching.server_timeout = 600
        settings.watching.client_timeout = 660
        settings.posting.enabled = False
        # Scanning needs rights on namespaces and CRDs of the whole cluster.
        settings.scanning.disabled = not cluster_wide

    @kopf.on.login(registry=registry)
    async def login(settings: kopf.OperatorSettings, **_: object) -> kopf.ConnectionInfo | None:
        in_pod = kopf.login_with_service_account(settings=settings)
        return in_pod or kopf.login_with_kubeconfig(settings=settings)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def sampling_event(body: kopf.Body, type: str | None, **_: object) -> None:
        sampling = Sampling.model_validate(dict(body))
        if type == "DELETED":
            samplings.remove(sampling.key)
        else:
            samplings.update(sampling)
            admission.observe_document(dict(body))
        if not controller.is_own_write(sampling.key, str(sampling.metadata.resource_version)):
            queue.add(sampling.key, EVENT_DEBOUNCE_SECONDS)

    @kopf.on.event("ray.io", "v1", "rayclusters", registry=registry)
    async def cluster_event(body: kopf.Body, type: str | None, **_: object) -> None:
        cluster = RayCluster.model_validate(dict(body)).versioned()
        if cluster and (clusters.remove(cluster.uid) if type == "DELETED" else clusters.update(cluster)):
            queue.add(cluster.owner, EVENT_DEBOUNCE_SECONDS)

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod_event(body: kopf.Body, type: str | None, **_: object) -> None:
        pod = RayPod.model_validate(dict(body)).versioned()
        if pod is None:
            return
        # KubeRay deletes a failed head at once, so often only its deletion event says why it failed.
        last = pod if pod.observed.role == "head" else None
        if pods.remove(pod.uid, last) if type == "DELETED" else pods.update(pod):
            queue.add(pod.owner, EVENT_DEBOUNCE_SECONDS)

    # The id is a key in the JSON of /healthz. In any other error mode, kopf would retry this and delay the response.
    @kopf.on.probe(registry=registry, id="stands_still", errors=kopf.ErrorsMode.PERMANENT)
    async def check_progress(**_: object) -> float:
        seconds = queue.stalled_seconds()
        if seconds > MAX_STALL_SECONDS:
            raise Stalled(f"no reconcile has ended for {seconds:.0f} s")
        return round(seconds, 1)

    return registry


async def reconcile_and_admit(
    controller: Controller, admission: AdmissionQueue, metrics: Metrics, queue: WorkQueue, key: ObjectKey
) -> float | None:
    """Reconciles one sampling, then adds those that can start now to the queue; returns the requeue time."""
    try:
        with metrics.time_reconcile():
            return await controller.reconcile_one(key)
    finally:
        for admissible in admission.take_admissible():
            queue.add(admissible)


async def load_admission(admission: AdmissionQueue, resync: Resync) -> None:
    """Fills the admission queue with all samplings, some of which hold slots.

    Raises:
        ApiError: if they cannot be listed.
    """
    async for document in resync.list_samplings():
        admission.observe_document(document)


async def run(settings: Settings) -> None:
    """Runs the operator until it gets a signal, or the namespaces that it can watch change.

    Raises:
        ApiError: if the API server is unreachable for STARTUP_TIMEOUT, or rejects the first requests.
        SigningKeyInvalid: if the Secret with the signing key is invalid.
        Stalled: if none of the configured namespaces can be watched.
        TemplateError: if a template is invalid.
    """
    templates = Templates(settings.templates)
    validate_all_templates(templates, settings.worker, settings.pods)
    clusters: ObjectCache[ObservedCluster] = ObjectCache()
    pods: ObjectCache[ObservedPod] = ObjectCache()
    metrics = Metrics(clusters.owners)
    admission = AdmissionQueue(settings.limits, clusters.owners)
    async with (
        connect(metrics.count_api_request) as api,
        new_session() as session,
        metrics.serve(settings.metrics_host),
    ):
        deadline = asyncio.get_running_loop().time() + STARTUP_TIMEOUT
        key = await retry_until(deadline, lambda: signing_key(api, settings.pods.namespace, settings.key_secret))
        executor = ActionExecutor(
            api=api,
            clusters=clusters,
            templates=templates,
            key=key,
            operator=settings.pods,
            connect_to_head=functools.partial(HeadClient.for_pod, session),
        )
        controller = Controller(
            api=api,
            executor=executor,
            clusters=clusters,
            pods=pods,
            image=settings.worker,
            admission=admission,
            metrics=metrics,
            limits=settings.limits,
            now=MonotonicWallClock(time.time, lambda: time.clock_gettime(time.CLOCK_BOOTTIME)).now,
        )
        queue = WorkQueue(
            lambda key: reconcile_and_admit(controller, admission, metrics, queue, key),
            MAX_CONCURRENT_RECONCILES,
            MAX_CONCURRENT_PER_NAMESPACE,
            metrics.observe_wait,
        )
        resync = Resync(api, clusters, pods, settings.namespaces)
        # All clusters and samplings have to be known before the first reconcile: an unknown cluster would count as
        # lost, and the slot of an unknown sampling as free.
        owners = await retry_until(deadline, resync.list_all)
        if admission.enabled:
            await retry_until(deadline, lambda: load_admission(admission, resync))
        for owner in owners:
            queue.add(owner)
        scope = resync.scope
        if not scope.kuberay:
            logger.warning(
                "KubeRay is not installed: samplings wait for version 1.6 or newer, and fail at their startup deadline"
            )
        if settings.namespaces and not scope.namespaces:
            raise Stalled(f"none of the namespaces to watch can be listed: {', '.join(settings.namespaces)}")
        logger.info("watching the DDPMSamplings of %s", ", ".join(scope.namespaces) or "all namespaces")
        scope_changed = asyncio.Event()
        resyncing = asyncio.create_task(resync.run(queue))
        resyncing.add_done_callback(lambda _: scope_changed.set())
        try:
            await kopf.operator(
                registry=watches(
                    queue,
                    controller,
                    admission,
                    metrics.samplings,
                    clusters,
                    pods,
                    cluster_wide=not settings.namespaces,
                ),
                clusterwide=not settings.namespaces,
                namespaces=scope.namespaces,
                standalone=True,
                liveness_endpoint=HEALTH,
                stop_flag=scope_changed,
            )
        finally:
            resyncing.cancel()
            await queue.stop()


def main() -> int:
    """Runs the command `ddpm-operator`; returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # They log every event and every probe.
    for name in ("kopf", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The creation time of each series would double the number of exported lines.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        asyncio.run(run(Settings.from_environment(os.environ)))
    except (SettingsError, TemplateError, SigningKeyInvalid, ApiError, Stalled) as error:
        logger.error("the operator cannot start: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
