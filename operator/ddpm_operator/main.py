"""The operator's process: watches, queue, wiring; nothing else."""

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
from ddpm_operator.controller.clock import MonotonicWallClock
from ddpm_operator.controller.controller import Controller
from ddpm_operator.controller.executor import ActionExecutor
from ddpm_operator.controller.metrics import Metrics
from ddpm_operator.controller.resync import SELECTOR, Resync
from ddpm_operator.controller.signing_key import SigningKeyInvalid, signing_key
from ddpm_operator.controller.work_queue import WorkQueue
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.client import PAGE, REQUEST_TIMEOUT, ApiError, connected, patiently
from ddpm_operator.kube.objects import ObjectKey, RayCluster, RayPod, Sampling
from ddpm_operator.manifests.templating import TemplateError, Templates
from ddpm_operator.manifests.validate import validate_all_templates
from ddpm_operator.ray.head_client import HeadClient, new_session
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod
from ddpm_operator.settings import Settings, SettingsError

MAX_CONCURRENT_RECONCILES = 32
MAX_CONCURRENT_PER_NAMESPACE = 8
# A burst of events of one sampling is one look.
EVENT_DEBOUNCE_SECONDS = 0.05
# Every look ends within a minute, see `controller.LONGEST_LOOK`; that none does is no trouble of one sampling.
MAX_STALL_SECONDS = 300.0
# The first requests are worth a wait: who ends at once is started ever more seldom. The chart's startupProbe has
# patience for it.
STARTUP_TIMEOUT = 60.0
HEALTH = "http://0.0.0.0:8080/healthz"

logger = logging.getLogger(__name__)


class Stalled(Exception):
    """The operator's own work does not go on; a restart is the cure."""


def watches(
    queue: WorkQueue,
    controller: Controller,
    clusters: ObjectCache[ObservedCluster],
    pods: ObjectCache[ObservedPod],
    *,
    everywhere: bool,
) -> kopf.OperatorRegistry:
    """What kopf is asked to do: to watch, to tell, and to answer the probe.

    Args:
        everywhere: in all namespaces, where CRDs that come later are noticed too.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: object) -> None:
        # A handler's own `labels` would filter only after every pod of the cluster had been sent here.
        settings.watching.label_selectors["ray.io", "rayclusters"] = SELECTOR
        settings.watching.label_selectors["", "pods"] = SELECTOR
        # What users have stored is never to be in memory all at once, neither as a list nor as kopf's last events.
        settings.watching.chunk_size = PAGE
        # Left to itself, kopf gives a list five minutes; nothing is seen of what happens meanwhile.
        settings.networking.request_timeout = REQUEST_TIMEOUT
        settings.queueing.idle_timeout = 0.1
        settings.watching.server_timeout = 600
        settings.watching.client_timeout = 660
        settings.posting.enabled = False
        # Namespaces and CRDs belong to the whole cluster, of which an operator of a few namespaces knows nothing.
        settings.scanning.disabled = not everywhere

    @kopf.on.login(registry=registry)
    async def login(settings: kopf.OperatorSettings, **_: object) -> kopf.ConnectionInfo | None:
        in_pod = kopf.login_with_service_account(settings=settings)
        return in_pod or kopf.login_with_kubeconfig(settings=settings)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def sampling(body: kopf.Body, type: str | None, **_: object) -> None:
        seen = Sampling.model_validate(dict(body))
        if type == "DELETED":
            controller.metrics.census.gone(seen.key)
        else:
            controller.metrics.census.saw(seen)
            controller.line.heard(dict(body))
        if not controller.has_written(seen.key, str(seen.metadata.resource_version)):
            queue.ask(seen.key, EVENT_DEBOUNCE_SECONDS)

    @kopf.on.event("ray.io", "v1", "rayclusters", registry=registry)
    async def cluster(body: kopf.Body, type: str | None, **_: object) -> None:
        sight = RayCluster.model_validate(dict(body)).sight()
        if sight and (clusters.gone(sight.uid) if type == "DELETED" else clusters.saw(sight)):
            queue.ask(sight.of, EVENT_DEBOUNCE_SECONDS)

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod(body: kopf.Body, type: str | None, **_: object) -> None:
        sight = RayPod.model_validate(dict(body)).sight()
        if sight is None:
            return
        # KubeRay deletes a head that has failed at once: what it died of is known from its end alone.
        last = sight if sight.fact.role == "head" else None
        if pods.gone(sight.uid, last) if type == "DELETED" else pods.saw(sight):
            queue.ask(sight.of, EVENT_DEBOUNCE_SECONDS)

    # An error of any other mode would be tried again, and the probe kept waiting for it.
    @kopf.on.probe(registry=registry, id="stands_still", errors=kopf.ErrorsMode.PERMANENT)
    async def stands_still(**_: object) -> float:
        seconds = queue.stands_still()
        if seconds > MAX_STALL_SECONDS:
            raise Stalled(f"no look at a sampling has ended for {seconds:.0f} s")
        return round(seconds, 1)

    return registry


async def look(controller: Controller, queue: WorkQueue, key: ObjectKey) -> float | None:
    """One look, after which it may be the turn of others."""
    try:
        with controller.metrics.look():
            return await controller.look(key)
    finally:
        for other in controller.line.called():
            queue.ask(other)


async def hear_all(controller: Controller, resync: Resync) -> None:
    """Tells the line of all samplings, of which some hold places in it.

    Raises:
        ApiError: if they cannot be listed.
    """
    async for document in resync.samplings():
        controller.line.heard(document)


async def run(settings: Settings) -> None:
    """Runs the operator until a signal ends it.

    Raises:
        ApiError: if the API server cannot be reached for a minute, or does not let the operator start.
        KeyUnusable: if the operator's key is broken.
        StandsStill: if there is nothing that it may watch.
        TemplateFault: if a template in force cannot be used.
    """
    templates = Templates(settings.templates)
    validate_all_templates(templates, settings.worker, settings.pods)
    clusters: ObjectCache[ObservedCluster] = ObjectCache()
    pods: ObjectCache[ObservedPod] = ObjectCache()
    metrics = Metrics(clusters.owners)
    async with (
        connected(metrics.requested) as api,
        new_session() as session,
        metrics.served(settings.metrics_host),
    ):
        until = asyncio.get_running_loop().time() + STARTUP_TIMEOUT
        secret = await patiently(lambda: signing_key(api, settings.pods.namespace, settings.key_secret), until)
        work = ActionExecutor(
            api=api,
            clusters=clusters,
            templates=templates,
            key=secret,
            operator=settings.pods,
            find_head=functools.partial(HeadClient.of_pod, session),
        )
        clock = MonotonicWallClock(time.time, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        controller = Controller(api, work, clusters, pods, settings.worker, metrics, settings.limits, clock.now)
        queue = WorkQueue(
            lambda key: look(controller, queue, key),
            MAX_CONCURRENT_RECONCILES,
            MAX_CONCURRENT_PER_NAMESPACE,
            metrics.waited,
        )
        resync = Resync(api, clusters, pods, settings.namespaces)
        # Before the first look: a cluster that is not known yet would be taken for one that is lost, and whoever
        # holds a place in the line for one who does not.
        found = await patiently(resync.once, until)
        if controller.line.limited:
            await patiently(lambda: hear_all(controller, resync), until)
        for key in found:
            queue.ask(key)
        where = resync.within
        if not where.kuberay:
            logger.warning("KubeRay is not there: until it is, in version 1.6 or newer, samplings fail")
        if settings.namespaces and not where.namespaces:
            raise Stalled(f"none of the namespaces to watch can be listed: {', '.join(settings.namespaces)}")
        logger.info("looks after the DDPMSamplings of %s", ", ".join(where.namespaces) or "all namespaces")
        sweeping = asyncio.create_task(resync.for_ever(queue))
        start_again = asyncio.Event()
        sweeping.add_done_callback(lambda _: start_again.set())
        try:
            await kopf.operator(
                registry=watches(queue, controller, clusters, pods, everywhere=not settings.namespaces),
                clusterwide=not settings.namespaces,
                namespaces=where.namespaces,
                standalone=True,
                liveness_endpoint=HEALTH,
                stop_flag=start_again,
            )
        finally:
            sweeping.cancel()
            await queue.stop()


def main() -> int:
    """The command `ddpm-operator`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # They would say of every event that it was told, and of every probe that it was answered.
    for name in ("kopf", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # When each series began: as many lines again, which nothing here needs.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        asyncio.run(run(Settings.from_environment(os.environ)))
    except (SettingsError, TemplateError, SigningKeyInvalid, ApiError, Stalled) as error:
        logger.error("the operator cannot start: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
