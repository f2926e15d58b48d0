"""One look at a sampling: see what there is, decide, carry it out."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.api.uri import claim_path
from ddpm_operator.controller.admission import AdmissionQueue
from ddpm_operator.controller.executor import (
    ActionDeferred,
    ActionExecutor,
    ActionRejected,
    PreviewNotReady,
    StaleResource,
)
from ddpm_operator.controller.log_line import log_line
from ddpm_operator.controller.metrics import Metrics, Result
from ddpm_operator.controller.rivals import blocked_by
from ddpm_operator.kube import paths
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.client import ApiError, KubeApi
from ddpm_operator.kube.decode import SchemaMismatch, decode_sampling, objection
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
from ddpm_operator.reconcile.progress_document import ProgressDocument
from ddpm_operator.reconcile.reconcile import reconcile
from ddpm_operator.reconcile.status_builder import holds

STALE_RETRY_SECONDS = 0.2
# Every request has a limit of its own. This one is of all together, whoever draws them out.
RECONCILE_TIMEOUT = 60.0
_FIRST_RETRY = 0.5
_LONGEST_RETRY = 60.0

logger = logging.getLogger(__name__)


@dataclass
class _Memory:
    """What is kept of a sampling from one look to the next; after a restart, all of it is found again.

    Attributes:
        sampling: as it was last read or written.
        claim: the output's, once it is bound; as long as there is a cluster, it stays so.
        last_word: of a driver that has ended, which says it once: cluster uid, number of jobs there, the word.
        secrets, policies: uids of the clusters that have theirs.
        failures: looks in a row that did not get through.
    """

    sampling: DDPMSampling | None = None
    claim: OutputClaim | None = None
    silent: HeadUnreachable | None = None
    last_word: tuple[str, int, ProgressDocument] | None = None
    preview_tried: datetime | None = None
    preview_written: bool = False
    secrets: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    faults: tuple[ActionError, ...] = ()
    failures: int = 0


class Controller:
    """Looks at samplings, one at a time each.

    Args:
        clusters, pods: as the watches have told of them.
        image: for pods of samplings that name none.
        metrics: where it is counted what happens.
        limits: what samplings may name, and how many may be at work.
        now: the time, with its zone, by which deadlines are told.

    Attributes:
        line: of those that wait for others to end.
        metrics: as they were given.
    """

    def __init__(
        self,
        api: KubeApi,
        work: ActionExecutor,
        clusters: ObjectCache[ObservedCluster],
        pods: ObjectCache[ObservedPod],
        image: WorkerImage,
        metrics: Metrics,
        limits: Limits = UNLIMITED,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._work = work
        self._clusters = clusters
        self._pods = pods
        self._image = image
        self.metrics = metrics
        self._limits = limits
        self._now = now
        self.line = AdmissionQueue(limits, clusters.owners)
        self._memories: dict[ObjectKey, _Memory] = {}

    def has_written(self, key: ObjectKey, version: str) -> bool:
        """Whether a sampling's resourceVersion is that of the operator's own last write, which needs no look."""
        memory = self._memories.get(key)
        return bool(memory and memory.sampling and memory.sampling.metadata.resource_version == version)

    async def look(self, key: ObjectKey) -> float | None:
        """Looks once.

        Returns:
            after how many seconds to look again; None: when something is heard.
        """
        memory = self._memories.setdefault(key, _Memory())
        try:
            async with asyncio.timeout(RECONCILE_TIMEOUT):
                after = await self._look(key, memory)
        except TimeoutError:
            self.metrics.looked(Result.STALLED)
            logger.warning("%s: the look was broken off after %.0f s, and is tried again", key, RECONCILE_TIMEOUT)
            return _later(memory)
        except ApiError as error:
            self.metrics.looked(Result.UNREACHABLE)
            logger.warning("%s: cannot be looked at: %s", key, error)
            return _later(memory)
        except ActionRejected as error:
            self.metrics.looked(Result.REFUSED)
            logger.warning("%s: %s", key, error)
            memory.faults = (error.fault,)
            return _later(memory)
        except StaleResource:
            self.metrics.looked(Result.OVERTAKEN)
            return STALE_RETRY_SECONDS
        except SchemaMismatch as error:
            self.metrics.looked(Result.UNREADABLE)
            logger.error("%s: left alone, as its CRD is of another version than this operator: %s", key, error)
            self.line.gone(key)
            return await self._object_to(key, error, memory)
        self.metrics.looked(Result.DONE)
        return after

    async def _look(self, key: ObjectKey, memory: _Memory) -> float | None:
        memory.sampling = memory.sampling or await self._read(key)
        if memory.sampling is None:
            await self._part_from(key)
            return None
        claim = await self._claim(key, memory.sampling, memory)
        driver = await self._ask_driver(self._observed(key, memory.sampling, memory), memory)
        # Last of all, so that its status is at least as new as all else.
        memory.sampling = await self._read(key)
        if memory.sampling is None:
            await self._part_from(key)
            return None
        self.line.read(memory.sampling)
        observed = replace(self._observed(key, memory.sampling, memory), claim=claim, driver=driver)
        decision = reconcile(replace(observed, held_back=self.line.held_back(key)), self._now())
        self.line.decided(key, decision)
        await self._carry_out(key, memory, memory.sampling, decision)
        memory.faults, memory.failures = (), 0
        if decision.look_again is None and not observed.clusters:
            self._forget(key)
        if any(isinstance(action, CreateCluster) for action in decision.actions):
            return 0.0  # the watch tells nothing new of it, and it waits for its Secret
        return decision.look_again.total_seconds() if decision.look_again is not None else None

    async def _carry_out(self, key: ObjectKey, memory: _Memory, sampling: DDPMSampling, decision: Decision) -> None:
        for action in decision.actions:
            before = sampling.status
            said = log_line(action, before)
            try:
                memory.sampling = sampling = await self._work.carry_out(sampling, action)
            except ActionDeferred:
                continue
            except PreviewNotReady as error:
                logger.warning("%s: %s", key, error)
                memory.preview_tried = self._now()
                continue
            if isinstance(action, WriteStatus):
                self.line.read(sampling)
                self.metrics.wrote(before, action.status)
            _remember(memory, action, self._now())
            if said:
                logger.info("%s: %s", key, said)

    async def _object_to(self, key: ObjectKey, error: SchemaMismatch, memory: _Memory) -> float | None:
        said = objection(error.document, error.fault, self._now())
        try:
            if said:
                await self._work.object_to(key, said)
        except ActionRejected as refused:
            logger.warning("%s: %s", key, refused)
            return _later(memory)
        del self._memories[key]
        return None

    async def _part_from(self, key: ObjectKey) -> None:
        """The sampling is gone. Its clusters follow it by their owner references, unless those were taken away."""
        for cluster in self._clusters.of(key):
            if not cluster.deleted:
                await self._work.delete_cluster(key.namespace, cluster.name, cluster.uid)
                logger.info("%s: gone, and so is its cluster %s", key, cluster.name)
        self.line.gone(key)
        self.metrics.census.gone(key)
        self._forget(key)

    def _forget(self, key: ObjectKey) -> None:
        self._pods.forget(key)
        del self._memories[key]

    async def _read(self, key: ObjectKey) -> DDPMSampling | None:
        """The sampling as the API server has it; None if it is gone, though another may have its name."""
        try:
            document = await self._api.get(f"{paths.samplings(key.namespace)}/{key.name}")
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        sampling = decode_sampling(document)
        return sampling if sampling.metadata.uid == key.uid else None

    def _observed(self, key: ObjectKey, sampling: DDPMSampling, memory: _Memory) -> Observed:
        clusters = tuple(
            replace(one, has_secret=one.uid in memory.secrets, has_network_policy=one.uid in memory.policies)
            for one in self._clusters.of(key)
        )
        return Observed(
            sampling=sampling,
            image=self._image,
            clusters=clusters,
            pods=self._pods.of(key),
            departed=self._pods.departed(key),
            ahead=blocked_by(key, self._clusters, self._pods),
            preview_tried=memory.preview_tried,
            preview_written=memory.preview_written,
            faults=memory.faults,
            limits=self._limits,
        )

    async def _claim(self, key: ObjectKey, sampling: DDPMSampling, memory: _Memory) -> OutputClaim | None:
        uri, metadata = sampling.spec.output.uri, sampling.metadata
        place = claim_path(uri or "")
        if uri and not place:
            return None
        name = place.claim if place else claim_name(metadata)
        if memory.claim and self._clusters.of(key):
            return memory.claim
        try:
            document = await self._api.get(f"{paths.claims(metadata.namespace)}/{name}")
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        claim = PersistentVolumeClaim.model_validate(document)
        if claim.goes_before(key):
            return None
        fact = claim.fact()
        memory.claim = fact if fact.phase == "Bound" else None
        return fact

    async def _ask_driver(self, observed: Observed, memory: _Memory) -> HeadResponse | HeadUnreachable | None:
        head, cluster = observed.head_to_ask, observed.cluster
        if head is None or cluster is None or cluster.attempt is None:
            memory.silent = None
            return None
        try:
            answer = await self._work.head(observed.sampling.metadata, cluster.attempt, head.ip).ask(cluster.name)
        except HeadDidNotAnswer as error:
            if not head.ready and not holds(observed.sampling.status, ConditionType.RUNNING):
                memory.silent = None  # it starts; the deadline of the start is its limit
                return None
            since = memory.silent.since if memory.silent else self._now()
            memory.silent = HeadUnreachable(since, str(error))
            return memory.silent
        memory.silent = None
        if answer.progress and answer.progress.outcome:
            memory.last_word = (cluster.uid, len(answer.jobs), answer.progress)
        elif not answer.progress and memory.last_word and memory.last_word[:2] == (cluster.uid, len(answer.jobs)):
            return replace(answer, progress=memory.last_word[2])
        return answer


def _remember(memory: _Memory, action: Action, now: datetime) -> None:
    match action:
        case CreateSecret(_, uid):
            memory.secrets.add(uid)
        case CreateNetworkPolicy(_, uid):
            memory.policies.add(uid)
        case CopyPreview() | WritePreview():
            memory.preview_tried, memory.preview_written = now, True


def _later(memory: _Memory) -> float:
    """Ever longer pauses, not the same for all who met the same trouble."""
    memory.failures += 1
    delay = min(_FIRST_RETRY * 2.0 ** min(memory.failures - 1, 16), _LONGEST_RETRY)
    return delay * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
