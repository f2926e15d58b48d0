"""Reconciles one sampling: observes it, decides with the pure function `reconcile`, and executes the decision."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.api.conditions import holds
from ddpm_operator.api.uri import claim_path
from ddpm_operator.controller.admission import AdmissionQueue, blocked_by
from ddpm_operator.controller.executor import (
    ActionExecutor,
    ActionFailed,
    PreviewNotReady,
    PreviewNotWritten,
    StaleResource,
)
from ddpm_operator.controller.log_line import log_line
from ddpm_operator.controller.metrics import Metrics, ReconcileResult
from ddpm_operator.kube import paths
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.client import ApiError, KubeApi
from ddpm_operator.kube.decode import SchemaMismatch, decode_sampling, schema_mismatch_status
from ddpm_operator.kube.node_labels import NodeLabels
from ddpm_operator.kube.objects import ObjectKey, PersistentVolumeClaim
from ddpm_operator.manifests.naming import claim_name
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import UNLIMITED, Limits
from ddpm_operator.ray.head_client import HeadDidNotAnswer
from ddpm_operator.reconcile.actions import (
    Action,
    CopyPreview,
    CreateCluster,
    CreateNetworkPolicy,
    CreateSecret,
    Decision,
    WritePreview,
    WriteStatus,
)
from ddpm_operator.reconcile.observed import (
    ActionError,
    HeadResponse,
    HeadUnreachable,
    Observed,
    ObservedCluster,
    ObservedPod,
    OutputClaim,
)
from ddpm_operator.reconcile.placement import nodes_to_read
from ddpm_operator.reconcile.progress_document import ProgressDocument
from ddpm_operator.reconcile.reconcile import reconcile

STALE_RETRY_SECONDS = 0.2
# Every request has a timeout of its own; this one bounds a whole reconcile, however slow the head is.
RECONCILE_TIMEOUT = 60.0
_FIRST_RETRY_DELAY = 0.5
_MAX_RETRY_DELAY = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _FinalProgress:
    """The last progress document of a driver.

    Attributes:
        cluster_uid: uid of the driver's RayCluster.
        jobs: number of the head's jobs at that time. Another number means that the document is of an earlier driver.
    """

    cluster_uid: str
    jobs: int
    document: ProgressDocument


@dataclass
class _Memory:
    """What the controller remembers of a sampling between reconciles.

    Losing it costs repeated requests or detail, never correctness.

    Attributes:
        sampling: the resource as it was last read or written.
        claim: the output claim once it is bound. It is not read again while a cluster exists.
        unreachable: the head's silence, if it did not answer the last request.
        final_progress: the last progress document of a driver that has ended, since it serves its outcome only once.
        preview_attempted_at: when copying a preview was last attempted.
        preview_written: whether a preview was written.
        clusters_with_secret, clusters_with_policy: uids of clusters whose Secret, or NetworkPolicy, is known to exist.
        action_errors: why the last reconcile could not execute all of its actions.
        failures: number of consecutive reconciles that failed.
    """

    sampling: DDPMSampling | None = None
    claim: OutputClaim | None = None
    unreachable: HeadUnreachable | None = None
    final_progress: _FinalProgress | None = None
    preview_attempted_at: datetime | None = None
    preview_written: bool = False
    clusters_with_secret: set[str] = field(default_factory=set)
    clusters_with_policy: set[str] = field(default_factory=set)
    action_errors: tuple[ActionError, ...] = ()
    failures: int = 0


class Controller:
    """Reconciles samplings. The work queue never calls it twice at the same time for one sampling.

    Args:
        clusters, pods: caches that the watches keep up to date.
        image: default image of samplings without spec.image.
        admission: decides which sampling may start.
        metrics: counts reconciles and transitions.
        limits: what the administrator allows samplings to use.
        now: returns the current time, with a time zone; deadlines are measured with it.
    """

    def __init__(
        self,
        api: KubeApi,
        executor: ActionExecutor,
        clusters: ObjectCache[ObservedCluster],
        pods: ObjectCache[ObservedPod],
        image: WorkerImage,
        admission: AdmissionQueue,
        metrics: Metrics,
        limits: Limits = UNLIMITED,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._executor = executor
        self._clusters = clusters
        self._pods = pods
        self._image = image
        self._admission = admission
        self._metrics = metrics
        self._limits = limits
        self._now = now
        self._node_labels = NodeLabels(api)
        self._memories: dict[ObjectKey, _Memory] = {}

    def is_own_write(self, key: ObjectKey, version: str) -> bool:
        """Returns whether a resourceVersion results from the operator's own last write, which needs no reconcile."""
        memory = self._memories.get(key)
        return bool(memory and memory.sampling and memory.sampling.metadata.resource_version == version)

    async def reconcile_one(self, key: ObjectKey) -> float | None:
        """Reconciles one sampling, and counts how that ended.

        Returns:
            seconds until its next reconcile; None to wait for an event.
        """
        memory = self._memories.setdefault(key, _Memory())
        try:
            async with asyncio.timeout(RECONCILE_TIMEOUT):
                requeue_after = await self._reconcile(key, memory)
        except TimeoutError:
            self._metrics.count_reconcile(ReconcileResult.TIMED_OUT)
            logger.warning("%s: reconcile cancelled after %.0f s, will be retried", key, RECONCILE_TIMEOUT)
            return _retry_delay(memory)
        except ApiError as error:
            self._metrics.count_reconcile(ReconcileResult.UNREACHABLE)
            logger.warning("%s: reconcile failed: %s", key, error)
            return _retry_delay(memory)
        except ActionFailed as failure:
            self._metrics.count_reconcile(ReconcileResult.REJECTED)
            logger.warning("%s: %s", key, failure)
            memory.action_errors = (failure.error,)
            return _retry_delay(memory)
        except StaleResource:
            self._metrics.count_reconcile(ReconcileResult.STALE)
            return STALE_RETRY_SECONDS
        except SchemaMismatch as mismatch:
            self._metrics.count_reconcile(ReconcileResult.SCHEMA_MISMATCH)
            logger.error("%s: ignored, as the CRD and the operator are of different releases: %s", key, mismatch)
            self._admission.remove(key)
            return await self._report_schema_mismatch(key, mismatch, memory)
        self._metrics.count_reconcile(ReconcileResult.DONE)
        return requeue_after

    async def _reconcile(self, key: ObjectKey, memory: _Memory) -> float | None:
        memory.sampling = memory.sampling or await self._get_sampling(key)
        if memory.sampling is None:
            await self._clean_up_deleted(key)
            return None
        claim = await self._get_claim(key, memory.sampling, memory)
        observed = self._observe(key, memory.sampling, memory)
        head_poll = await self._poll_head(observed, memory)
        node_labels = await self._node_labels.read(nodes_to_read(replace(observed, head_poll=head_poll)))
        # The sampling is read last, so that its status is at least as new as everything else that was observed.
        memory.sampling = await self._get_sampling(key)
        if memory.sampling is None:
            await self._clean_up_deleted(key)
            return None
        self._admission.observe(memory.sampling)
        observed = replace(
            self._observe(key, memory.sampling, memory),
            claim=claim,
            head_poll=head_poll,
            node_labels=node_labels,
            admission_hold=self._admission.waiting_reason(key),
        )
        decision = reconcile(observed, self._now())
        self._admission.reserve(key, decision)
        await self._execute(key, memory, memory.sampling, decision)
        memory.action_errors, memory.failures = (), 0
        if decision.requeue_after is None and not observed.clusters:
            self._forget(key)
        if any(isinstance(action, CreateCluster) for action in decision.actions):
            return 0.0  # the cluster waits for its Secret, and the cache already holds it: its watch event is no news
        return decision.requeue_after.total_seconds() if decision.requeue_after is not None else None

    async def _execute(self, key: ObjectKey, memory: _Memory, sampling: DDPMSampling, decision: Decision) -> None:
        for action in decision.actions:
            old_status = sampling.status
            line = log_line(action, old_status)
            try:
                memory.sampling = sampling = await self._executor.execute(sampling, action)
            except PreviewNotReady:
                continue
            except PreviewNotWritten as error:
                logger.warning("%s: %s", key, error)
                memory.preview_attempted_at = self._now()
                continue
            if isinstance(action, WriteStatus):
                self._admission.observe(sampling)
                self._metrics.count_transitions(old_status, action.status)
            _remember(memory, action, self._now())
            if line:
                logger.info("%s: %s", key, line)

    async def _report_schema_mismatch(self, key: ObjectKey, mismatch: SchemaMismatch, memory: _Memory) -> float | None:
        manifest = schema_mismatch_status(mismatch.document, mismatch.detail, self._now())
        try:
            if manifest:
                await self._executor.report_schema_mismatch(key, manifest)
        except ActionFailed as failure:
            logger.warning("%s: %s", key, failure)
            return _retry_delay(memory)
        del self._memories[key]
        return None

    async def _clean_up_deleted(self, key: ObjectKey) -> None:
        """Deletes the clusters of a deleted sampling, in case their ownerReferences were removed."""
        for cluster in self._clusters.for_sampling(key):
            if not cluster.deleted:
                await self._executor.delete_cluster(key.namespace, cluster.name, cluster.uid)
                logger.info("%s: the sampling was deleted; deleted its RayCluster %s", key, cluster.name)
        self._admission.remove(key)
        self._metrics.samplings.remove(key)
        self._forget(key)

    def _forget(self, key: ObjectKey) -> None:
        self._pods.forget_last_removed(key)
        del self._memories[key]

    async def _get_sampling(self, key: ObjectKey) -> DDPMSampling | None:
        """Reads the sampling; returns None if it is gone, even if another one has its name by now."""
        try:
            document = await self._api.get(f"{paths.samplings(key.namespace)}/{key.name}")
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        sampling = decode_sampling(document)
        return sampling if sampling.metadata.uid == key.uid else None

    def _observe(self, key: ObjectKey, sampling: DDPMSampling, memory: _Memory) -> Observed:
        """Combines the sampling with the caches and the memory. Leaves unset what is not in them."""
        clusters = tuple(
            replace(
                cluster,
                has_secret=cluster.uid in memory.clusters_with_secret,
                has_network_policy=cluster.uid in memory.clusters_with_policy,
            )
            for cluster in self._clusters.for_sampling(key)
        )
        return Observed(
            sampling=sampling,
            image=self._image,
            clusters=clusters,
            pods=self._pods.for_sampling(key),
            last_deleted_head=self._pods.last_removed(key),
            blocked_by=blocked_by(key, self._clusters, self._pods),
            preview_attempted_at=memory.preview_attempted_at,
            preview_written=memory.preview_written,
            action_errors=memory.action_errors,
            limits=self._limits,
        )

    async def _get_claim(self, key: ObjectKey, sampling: DDPMSampling, memory: _Memory) -> OutputClaim | None:
        """Reads the output claim; None if there is none yet, or the output does not go to a claim."""
        uri, metadata = sampling.spec.output.uri, sampling.metadata
        path_on_claim = claim_path(uri or "")
        if uri and not path_on_claim:
            return None
        name = path_on_claim.claim if path_on_claim else claim_name(metadata)
        if memory.claim and self._clusters.for_sampling(key):
            return memory.claim
        try:
            document = await self._api.get(f"{paths.claims(metadata.namespace)}/{name}")
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        claim = PersistentVolumeClaim.model_validate(document)
        if claim.is_stale_for(key):
            return None
        observed = claim.observed()
        memory.claim = observed if observed.phase == "Bound" else None
        return observed

    async def _poll_head(self, observed: Observed, memory: _Memory) -> HeadResponse | HeadUnreachable | None:
        """Returns the head's jobs and progress; None if there is no head to ask, or it is still starting."""
        head, cluster = observed.pollable_head, observed.cluster
        if head is None or cluster is None or cluster.attempt is None:
            memory.unreachable = None
            return None
        try:
            client = self._executor.head_client(observed.sampling.metadata, cluster.attempt, head.ip)
            response = await client.poll(cluster.name)
        except HeadDidNotAnswer as error:
            if not head.ready and not holds(observed.sampling.status, ConditionType.RUNNING):
                memory.unreachable = None  # the head is still starting; the startup deadline bounds that
                return None
            since = memory.unreachable.since if memory.unreachable else self._now()
            memory.unreachable = HeadUnreachable(since, str(error))
            return memory.unreachable
        memory.unreachable = None
        if response.progress and response.progress.outcome:
            memory.final_progress = _FinalProgress(cluster.uid, len(response.jobs), response.progress)
        elif not response.progress and memory.final_progress:
            final = memory.final_progress
            if (final.cluster_uid, final.jobs) == (cluster.uid, len(response.jobs)):
                return replace(response, progress=final.document)
        return response


def _remember(memory: _Memory, action: Action, now: datetime) -> None:
    """Records the effect of an executed action that later reconciles do not observe by themselves."""
    match action:
        case CreateSecret(_, uid):
            memory.clusters_with_secret.add(uid)
        case CreateNetworkPolicy(_, uid):
            memory.clusters_with_policy.add(uid)
        case CopyPreview() | WritePreview():
            memory.preview_attempted_at, memory.preview_written = now, True


def _retry_delay(memory: _Memory) -> float:
    """Returns the seconds until the next retry: exponential backoff, with jitter against simultaneous retries."""
    memory.failures += 1
    delay = min(_FIRST_RETRY_DELAY * 2.0 ** min(memory.failures - 1, 16), _MAX_RETRY_DELAY)
    return delay * random.uniform(0.75, 1.25)  # noqa: S311 - not cryptographic
