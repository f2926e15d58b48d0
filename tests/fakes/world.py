"""A fake Kubernetes with KubeRay, Kueue, a kubelet and drivers, which executes the operator's decisions.

Nothing happens by itself: each step of the world is a method, and the test chooses their order. After every action the
world asserts the invariants that the operator must never violate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ddpm_operator.api import Condition, ConditionType, DDPMSampling, EventReason, Phase, Status
from ddpm_operator.api.status import Placement
from ddpm_operator.controller.admission import AdmissionQueue
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.manifests.render import Attempt
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import UNLIMITED, Limits
from ddpm_operator.reconcile.actions import (
    Action,
    CopyPreview,
    CreateCluster,
    CreateNetworkPolicy,
    CreateSecret,
    Decision,
    DeleteCluster,
    DeleteSampling,
    EnsureClaim,
    Event,
    SubmitJob,
    WritePreview,
    WriteStatus,
)
from ddpm_operator.reconcile.deadlines import STUCK_POD_TIMEOUT
from ddpm_operator.reconcile.observed import (
    ActionError,
    Container,
    HeadResponse,
    HeadUnreachable,
    JobState,
    Observed,
    ObservedCluster,
    ObservedPod,
    OutputClaim,
    RayJob,
    Running,
    Terminated,
    Waiting,
)
from ddpm_operator.reconcile.placement import nodes_to_read
from ddpm_operator.reconcile.progress_document import (
    ChosenPlan,
    FailedOutcome,
    FinishedOutcome,
    NodeIps,
    ProgressDocument,
)
from ddpm_operator.reconcile.reconcile import reconcile

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
IMAGE = WorkerImage("registry.example.com/worker:1", "2.60.0")
IMAGE_ID = "registry.example.com/worker@sha256:" + "ab" * 32
BATCH = 64
NO_NODE = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."


def sha(samples: int) -> str:
    """Returns the manifest's sha256. In this world a manifest is identified by its number of samples."""
    return f"{samples:064x}"


@dataclass
class Driver:
    """What runs in a head: Ray's jobs, and the driver of the last one.

    Attributes:
        attempt: that the last job was submitted for.
        node_ips: what the driver reports about its pods.
    """

    jobs: list[RayJob] = field(default_factory=list)
    phase: str = "preparing"
    outcome: FinishedOutcome | FailedOutcome | None = None
    outcome_read: bool = False
    attempt: Attempt | None = None
    node_ips: NodeIps = field(default_factory=NodeIps)


@dataclass
class Conflict(Exception):
    """The resource has changed since it was read: HTTP 409."""


@dataclass
class World:
    """One namespace with one sampling.

    Attributes:
        stored: samples in the output, in whole shards.
        manifest: number of samples in the manifest; 0 while there is none.
        preview: whether its ConfigMap exists.
        outcomes: the final progress documents that the operator has read, by cluster and number of jobs.
        executed: every action that was executed.
        history: every status that was written.
        events: every event that was created.
        reject: returns why an action is rejected, or None; set by the test.
        limits: those of the administrator.
        admission: the queue of the samplings that may not all be active at once.
        crash_at: the operator crashes, once, before it executes this many actions plus one.
        answers_early: heads respond before the kubelet reports them as ready.
        requeue_at: when the operator reconciles again.
        created: number of clusters and pods that were created.
        provisioned: names of clusters that had all their pods: KubeRay creates no other head for them.
        last_deleted_head: the last state of the head that was deleted last.
        blocked_by: an older sampling that waits for its workers.
        deleted_cluster_uids: clusters that the operator has deleted, so that no stale cache shows them to it again.
        secrets: uids of clusters whose Secret exists, whether the operator knows it or not.
        unresponsive: uids of heads that do not respond any more.
        observed_pods: the pods in the present observation.
        nodes: name of a node -> its hardware. The scheduler takes the first that a pod may use.
        full_nodes: nodes without room.
        node_labels: the labels of nodes that the operator can read.
        stored_hardware: that on which the stored samples were drawn.
        names_nodes: drivers report the nodes of their pods.
        damaged: stored samples that are damaged, which only a driver that checks all files notices.
        placements: RayCluster -> the nodes that its drawing pods may use.
    """

    sampling: DDPMSampling
    now: datetime = START
    clusters: dict[str, ObservedCluster] = field(default_factory=dict)
    pods: dict[str, ObservedPod] = field(default_factory=dict)
    drivers: dict[str, Driver] = field(default_factory=dict)
    claim: OutputClaim | None = None
    stored: int = 0
    manifest: int = 0
    previews: list[bytes] = field(default_factory=list)
    outcomes: dict[tuple[str, int], ProgressDocument] = field(default_factory=dict)
    preview: bool = False
    preview_attempted_at: datetime | None = None
    preview_written: bool = False
    executed: list[Action] = field(default_factory=list)
    history: list[Status] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    action_errors: tuple[ActionError, ...] = ()
    reject: Callable[[Action], ActionError | None] = lambda _: None
    limits: Limits = UNLIMITED
    admission: AdmissionQueue | None = None
    crash_at: int | None = None
    answers_early: bool = False
    unreachable_since: datetime | None = None
    requeue_at: datetime | None = START
    created: int = 0
    is_deleted: bool = False
    provisioned: set[str] = field(default_factory=set)
    last_deleted_head: ObservedPod | None = None
    blocked_by: str | None = None
    deleted_cluster_uids: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    unresponsive: set[str] = field(default_factory=set)
    observed_pods: dict[str, ObservedPod] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=lambda: {"node-a": "AVX512"})
    full_nodes: set[str] = field(default_factory=set)
    node_labels: dict[str, dict[str, str]] = field(default_factory=dict)
    stored_hardware: str | None = None
    names_nodes: bool = True
    damaged: int = 0
    placements: dict[str, Placement | None] = field(default_factory=dict)

    @classmethod
    def of(cls, **spec: Any) -> World:  # noqa: ANN401 - as YAML has them
        document = {
            "apiVersion": "ddpm-ray.io/v1alpha1",
            "kind": "DDPMSampling",
            "metadata": {
                "name": "digits",
                "namespace": "research",
                "uid": "0e2f7b1c",
                "resourceVersion": "1",
                "generation": 1,
            },
            "spec": {"model": {"uri": "builtin://mnist"}, "samples": 100, "resources": {"maxWorkers": 0}} | spec,
        }
        return cls(DDPMSampling.from_document(document))

    # --- the user ---

    def edit(self, **fields: Any) -> None:  # noqa: ANN401 - as YAML has them
        """Changes fields of the spec, as `kubectl apply` does."""
        self.requeue_at = self.now
        spec = self.sampling.spec.from_document(self.sampling.spec.to_document() | fields)
        self._store(generation=self.sampling.metadata.generation + 1, spec=spec)

    def delete_with_finalizer(self) -> None:
        """Deletes the resource, which a foreign finalizer keeps."""
        metadata = self.sampling.metadata.model_copy(update={"deletion_timestamp": self.now})
        self.requeue_at = self.now
        self._store(metadata=metadata)

    def _store(self, **fields: Any) -> None:  # noqa: ANN401 - of the resource
        metadata = fields.pop("metadata", self.sampling.metadata)
        changed = {"resource_version": str(int(metadata.resource_version) + 1)}
        if "generation" in fields:
            changed["generation"] = fields.pop("generation")
        self.sampling = self.sampling.model_copy(update={**fields, "metadata": metadata.model_copy(update=changed)})

    # --- observation ---

    @property
    def key(self) -> ObjectKey:
        metadata = self.sampling.metadata
        return ObjectKey(metadata.namespace, metadata.name, metadata.uid)

    @property
    def status(self) -> Status:
        assert self.sampling.status, "no status has been written yet"
        return self.sampling.status

    def condition(self, kind: ConditionType) -> Condition:
        return next(it for it in self.status.conditions if it.type == kind)

    def holds(self, kind: ConditionType) -> bool:
        return self.sampling.status is not None and self.condition(kind).status == "True"

    @property
    def finished(self) -> bool:
        return self.is_deleted or self.holds(ConditionType.COMPLETE) or self.holds(ConditionType.FAILED)

    @property
    def settled(self) -> bool:
        return self.is_deleted or (self.finished and self.holds(ConditionType.CLEANED_UP))

    @property
    def reasons(self) -> list[EventReason]:
        return [event.reason for event in self.events]

    def observe(
        self, pods: dict[str, ObservedPod] | None = None, clusters: dict[str, ObservedCluster] | None = None
    ) -> Observed:
        """Returns the observation of one reconcile pass.

        Args:
            pods, clusters: from stale caches; by default the present ones.
        """
        self.observed_pods = seen = self.pods if pods is None else pods
        observed = Observed(
            sampling=self.sampling,
            image=IMAGE,
            clusters=tuple(self._stale_clusters(clusters or {})),
            pods=tuple(seen.values()),
            last_deleted_head=self.last_deleted_head,
            blocked_by=self.blocked_by,
            claim=self.claim,
            preview_attempted_at=self.preview_attempted_at,
            preview_written=self.preview_written,
            action_errors=self.action_errors,
            limits=self.limits,
            admission_hold=self.admission.waiting_reason(self.key) if self.admission else None,
        )
        head = observed.pollable_head
        observed = replace(observed, head_poll=self._ask(head)) if head else observed
        read = {node: self.node_labels[node] for node in nodes_to_read(observed) if node in self.node_labels}
        return replace(observed, node_labels=read)

    def _stale_clusters(self, clusters: dict[str, ObservedCluster]) -> list[ObservedCluster]:
        """Returns the clusters of a stale cache, corrected by the operator's own creations and deletions."""
        deleted = self.deleted_cluster_uids
        left = [it for name, it in clusters.items() if name not in self.clusters and it.uid not in deleted]
        there = []
        for name, real in self.clusters.items():
            it = clusters.get(name, real)
            known = it if it.uid == real.uid and it.uid not in deleted else real
            own = {"has_secret": real.has_secret, "has_network_policy": real.has_network_policy}
            there.append(replace(known, **own))
        return [*left, *there]

    def _ask(self, head: ObservedPod) -> HeadUnreachable | HeadResponse | None:
        real = self.pods.get(head.uid)
        if real is None or real.uid in self.unresponsive or not (real.ready or self.answers_early):
            if not head.ready and not self.holds(ConditionType.RUNNING):
                self.unreachable_since = None
                return None
            self.unreachable_since = self.unreachable_since or self.now
            return HeadUnreachable(self.unreachable_since, "connection refused")
        self.unreachable_since = None
        driver = self.drivers[head.cluster]
        running = bool(driver.jobs) and driver.jobs[-1].state == "RUNNING"
        progress = self._progress(driver) if running else None
        key = (head.cluster, len(driver.jobs))
        if progress and progress.outcome:
            driver.outcome_read, self.outcomes = True, {key: progress}
        else:
            progress = progress or self.outcomes.get(key)
        return HeadResponse(tuple(driver.jobs), progress)

    def _progress(self, driver: Driver) -> ProgressDocument:
        # Until it has listed the stored shards, a driver reports no progress.
        total = 0 if driver.phase == "preparing" else driver.jobs[-1].samples
        done = min(self.stored, total)
        return ProgressDocument(
            version=1,
            phase=driver.phase,
            done=done,
            total=total,
            percent=100 * done / total if total else 0,
            samples_per_second=12.34 if driver.phase == "sampling" else None,
            eta_seconds=(total - done) / 12.34 if driver.phase == "sampling" else None,
            plan=ChosenPlan(
                device=self.status.plan.device if self.status.plan else "cpu",
                batch_size=BATCH,
                shards=-(-driver.jobs[-1].samples // BATCH),
                hardware={"aten": self.stored_hardware} if self.stored_hardware else None,
            ),
            node_ips=driver.node_ips,
            outcome=driver.outcome,
        )

    # --- the operator ---

    def reconcile(
        self,
        pods: dict[str, ObservedPod] | None = None,
        clusters: dict[str, ObservedCluster] | None = None,
        between: Callable[[], object] | None = None,
        doubled: bool = False,
    ) -> None:
        """Runs one reconcile pass and executes its actions.

        Args:
            pods, clusters: see `observe`.
            between: happens between the observation and the first action.
            doubled: a second operator with the same observation executes the same actions after the first.
        """
        if self.is_deleted:
            return
        if self.admission:
            self.admission.observe(self.sampling)
        decision = reconcile(self.observe(pods, clusters), self.now)
        if self.admission:
            self.admission.reserve(self.key, decision)
        self.action_errors = ()
        self.requeue_at = None if decision.requeue_after is None else self.now + decision.requeue_after
        if between:
            between()
        self._act(decision)
        if doubled and not self.is_deleted:
            self._act(decision)

    def _act(self, decision: Decision) -> None:
        for action in decision.actions:
            if len(self.executed) == self.crash_at:
                self.crash()
                return
            error = self.reject(action)
            if error and isinstance(action, CopyPreview):
                self.preview_attempted_at = self.now
                continue
            if error:
                self.action_errors = (error,)
                return
            try:
                self._carry_out(action)
            except Conflict:
                self.requeue_at = self.now
                return
            self.executed.append(action)
            assert len(self.clusters) <= 1, f"two clusters at once: {list(self.clusters)}"

    def _stuck(self, pod: ObservedPod) -> bool:
        return pod.deleted is not None and self.now - pod.deleted >= STUCK_POD_TIMEOUT

    def crash(self) -> None:
        """Restarts the operator: what it kept only in memory is lost."""
        self.crash_at = None
        self.action_errors, self.requeue_at, self.unreachable_since = (), self.now, None
        self.preview_attempted_at, self.preview_written, self.outcomes, self.last_deleted_head = None, False, {}, None
        self.clusters = {
            name: replace(it, has_secret=False, has_network_policy=False) for name, it in self.clusters.items()
        }

    def _carry_out(self, action: Action) -> None:
        match action:
            case WriteStatus(status, version):
                if version != self.sampling.metadata.resource_version:
                    raise Conflict
                self._check_status(status)
                self.history.append(status)
                self._store(status=status)  # the operator ignores the watch events of its own writes
                if self.admission:
                    self.admission.observe(self.sampling)
            case Event():
                self.events.append(action)
            case EnsureClaim():
                self.claim = self.claim or OutputClaim("digits-output", "Bound", ("ReadWriteOnce",))
            case CreateCluster(attempt):
                if attempt.name not in self.clusters:
                    assert not self.clusters, f"{attempt.name} is created while {list(self.clusters)} is there"
                    old = [it.name for it in self.observed_pods.values() if not self._stuck(it)]
                    assert not old, f"{attempt.name} is created while {old} are there"
                    self.created += 1
                    self.clusters[attempt.name] = ObservedCluster(
                        attempt.name, f"cluster-{self.created}", attempt.number, self.now
                    )
                    self.drivers[attempt.name] = Driver()
                    self.placements[attempt.name] = attempt.placement
                self.requeue_at = self.now
            case CreateNetworkPolicy(attempt, uid):
                self._owned(attempt.name, uid, has_network_policy=True)
            case CreateSecret(attempt, uid):
                there = self.clusters.get(attempt.name)
                assert there is None or there.has_network_policy, "a pod can start before its NetworkPolicy exists"
                self._owned(attempt.name, uid, has_secret=True)
                self.secrets.add(uid)
            case SubmitJob(attempt, job_id, _):
                self._submit(attempt, job_id)
            case CopyPreview():
                self.preview, self.preview_attempted_at, self.preview_written = True, self.now, True
            case WritePreview(png):
                self.previews.append(png)
                self.preview, self.preview_attempted_at, self.preview_written = True, self.now, True
            case DeleteCluster(name, uid):
                self.deleted_cluster_uids.add(uid)
                if name in self.clusters and self.clusters[name].uid == uid:
                    self.request_cluster_deletion(name)
            case DeleteSampling(version):
                if version != self.sampling.metadata.resource_version:
                    raise Conflict
                self.is_deleted = True
                for name in list(self.clusters):
                    self.request_cluster_deletion(name)
                    self.collect_garbage()

    def _owned(self, name: str, uid: str, **known: bool) -> None:
        if name in self.clusters and self.clusters[name].uid == uid:
            self.clusters[name] = replace(self.clusters[name], **known)

    def _submit(self, attempt: Attempt, job_id: str) -> None:
        driver = self.drivers.get(attempt.name)
        if driver is None or job_id in [job.id for job in driver.jobs]:
            return
        assert all(job.state not in ("PENDING", "RUNNING") for job in driver.jobs), "two drivers at once"
        driver.jobs.append(RayJob(job_id, "PENDING", attempt.spec.samples))
        driver.attempt, driver.node_ips = attempt, NodeIps()
        driver.phase, driver.outcome, driver.outcome_read = "preparing", None, False

    # --- invariants ---

    def _check_status(self, new: Status) -> None:
        old, spec = self.sampling.status, self.sampling.spec
        assert Status.from_document(new.to_document()) == new
        assert new != old, "a status is written that has not changed"
        by_type = {it.type: it for it in new.conditions}
        if by_type[ConditionType.COMPLETE].status == "True":
            assert self.manifest >= spec.samples, "Complete, but the manifest does not list all samples"
            assert new.output
            assert new.output.manifest_sha256 == sha(self.manifest)
            assert by_type[ConditionType.FAILED].status == "False"
        assert new.observed_generation == self.sampling.metadata.generation
        assert (new.completion_time is not None) == (new.phase in (Phase.SUCCEEDED, Phase.FAILED))
        assert self.preview or not (new.output and new.output.grid), "the status names a preview that was not written"
        assert new.progress
        assert new.progress.done <= new.progress.total == spec.samples or new.completion_time
        assert new.phase is Phase.RUNNING or not new.progress.eta, f"an ETA is reported in phase {new.phase}"
        for condition in new.conditions:
            assert condition.observed_generation == self.sampling.metadata.generation
            assert condition.message, f"{condition.type} has no message"
        if (new.failed_attempts or 0) > spec.backoff_limit:
            assert new.completion_time, "more attempts than backoffLimit allows"
        if old is None:
            return
        assert (new.attempt or 0) - (old.attempt or 0) in (0, 1)
        assert old.progress
        repairs = old.cluster is not None and old.cluster.repair is not None
        assert repairs or new.progress.done >= old.progress.done, "the number of stored samples decreased"
        for previous in old.conditions:
            later = by_type[previous.type]
            moved = later.last_transition_time != previous.last_transition_time
            in_future = previous.last_transition_time > self.now  # written by an operator whose clock was ahead
            assert moved <= (later.status != previous.status or in_future), (
                f"{previous.type} changed its lastTransitionTime without a change of status"
            )
        if old.completion_time and not new.completion_time:
            limit = old.failure.backoff_limit if old.failure else None
            grown = spec.samples > old.progress.total
            repaired = old.phase is Phase.SUCCEEDED and spec.repair > (old.repaired or 0)
            assert grown or repaired or (limit is not None and spec.backoff_limit > limit), (
                "a finished sampling is reopened in vain"
            )
        if old.placement and new.placement and new.attempt == old.attempt:
            assert len(new.placement.excluded_nodes) >= len(old.placement.excluded_nodes)

    # --- Kubernetes, KubeRay and Kueue ---

    def request_cluster_deletion(self, name: str) -> None:
        """Sets the deletionTimestamp of a RayCluster. It and its pods still exist for a while."""
        self.clusters[name] = replace(self.clusters[name], deleted=self.clusters[name].deleted or self.now)
        self.requeue_at = self.now

    def collect_garbage(self) -> bool:
        """Removes a RayCluster that is being deleted, and deletes its pods."""
        name = next((it.name for it in self.clusters.values() if it.deleted), None)
        if name is None:
            return False
        del self.clusters[name]
        self.drivers.pop(name, None)
        self.provisioned.discard(name)
        for pod in list(self.pods.values()):
            if pod.cluster == name:
                self.pods[pod.uid] = replace(pod, deleted=pod.deleted or self.now, ready=False)
        self.requeue_at = self.now
        return True

    def change(self, uid: str, **fields: Any) -> None:  # noqa: ANN401 - of the pod
        self.pods[uid] = replace(self.pods[uid], **fields)
        self.requeue_at = self.now

    def kuberay(self) -> bool:
        """Creates the missing pods of a cluster; no head if the cluster was ready before.

        Deletes a failed pod at once. While the quota is full, creates the head, but no worker.
        """
        failed = next((pod for pod in self.pods.values() if pod.finished and pod.cluster in self.clusters), None)
        if failed:
            self.finish_pod_deletion(failed)
            return True
        for cluster in self.clusters.values():
            if cluster.suspended and self._empty(cluster):
                return True
            if cluster.deleted or cluster.suspended:
                continue
            roles = [pod.role for pod in self.pods.values() if pod.cluster == cluster.name]
            head = "head" not in roles and cluster.name not in self.provisioned
            wanted = self.status.plan.workers if self.status.plan and not cluster.replica_failure else 0
            workers = max(0, wanted - roles.count("worker")) if head or "head" in roles else 0
            for role in [*["head"] * head, *["worker"] * workers]:
                self._new_pod(cluster, role)
            if head or workers:
                return True
        return False

    def _empty(self, cluster: ObservedCluster) -> bool:
        """Deletes the pods of a suspended cluster, and with them all state of Ray."""
        pods = [pod for pod in self.pods.values() if pod.cluster == cluster.name and not pod.deleted]
        for pod in pods:
            self.change(pod.uid, deleted=self.now, ready=False)
        if pods:
            self.drivers[cluster.name] = Driver()
            self.provisioned.discard(cluster.name)
        return bool(pods)

    def kueue_suspends(self) -> bool:
        """Suspends the cluster."""
        return self._suspend(True)

    def kueue_resumes(self) -> bool:
        """Resumes the cluster, once KubeRay has completed its suspension or before it has begun to."""
        going = any(pod.deleted for pod in self.pods.values())
        return not going and self._suspend(False)

    def _suspend(self, suspended: bool) -> bool:
        for cluster in self.clusters.values():
            if cluster.suspended != suspended:
                emptied = not any(pod.cluster == cluster.name for pod in self.pods.values())
                resumed = self.now if emptied and not suspended else cluster.resumed_at
                self.clusters[cluster.name] = replace(cluster, suspended=suspended, resumed_at=resumed)
                self.requeue_at = self.now
                return True
        return False

    def _new_pod(self, cluster: ObservedCluster, role: Any) -> None:  # noqa: ANN401 - head or worker
        self.created += 1
        uid = f"pod-{self.created}"
        waiting = Container("ray", Waiting("ContainerCreating"))
        self.pods[uid] = ObservedPod(
            f"{cluster.name}-{role}-{self.created}",
            uid,
            cluster.name,
            cluster.attempt,
            role,
            "Pending",
            owner=cluster.uid,
            containers=(waiting,),
        )
        self.requeue_at = self.now

    def kubelet(self) -> bool:
        """Removes a pod that is being deleted, starts a pending pod, or makes a running pod ready."""
        for pod in self.pods.values():
            if pod.deleted:
                self.finish_pod_deletion(pod)
                return True
            cluster = self.clusters.get(pod.cluster)
            if pod.phase == "Pending" and cluster and cluster.uid in self.secrets:
                node = self._node_for(pod)
                if node is None and pod.unschedulable is None:
                    self.change(pod.uid, unschedulable=NO_NODE)
                    return True
                if node is None:
                    continue
                started = Container("ray", Running(self.now), IMAGE_ID)
                self.change(
                    pod.uid,
                    phase="Running",
                    scheduled=self.now,
                    unschedulable=None,
                    node=node,
                    ip=f"10.0.0.{pod.uid.removeprefix('pod-')}",
                    containers=(started,),
                )
                return True
            if pod.phase == "Running" and not pod.ready:
                self.change(pod.uid, ready=True)
                if cluster and pod.role == "head":
                    self.provisioned.add(cluster.name)
                return True
        return False

    def _node_for(self, pod: ObservedPod) -> str | None:
        """Returns the node for a pod, as the scheduler does; None if it may use none that has room."""
        placement = self.placements.get(pod.cluster)
        draws = pod.role == ("worker" if self.status.plan and self.status.plan.workers else "head")
        free = [node for node in self.nodes if node not in self.full_nodes]
        if placement is None or not draws:
            return next(iter(free), None)
        allowed = [
            node
            for node in free
            if node not in placement.excluded_nodes
            and all(self.node_labels[node].get(key) in values for key, values in placement.node_labels.items())
        ]
        return next((node for node in allowed if node in placement.nodes), next(iter(allowed), None))

    def finish_pod_deletion(self, pod: ObservedPod) -> None:
        """Removes a pod; the watch reports its deletion."""
        del self.pods[pod.uid]
        self.last_deleted_head = pod if pod.role == "head" else self.last_deleted_head
        self.requeue_at = self.now

    def driver(self) -> bool:
        """Takes the driver's next step."""
        for cluster, driver in self.drivers.items():
            head = next((p for p in self.pods.values() if p.cluster == cluster and p.role == "head" and p.ready), None)
            if head is None or not driver.jobs:
                continue
            job = driver.jobs[-1]
            if job.state == "PENDING":
                driver.jobs[-1] = replace(job, state="RUNNING")
            elif job.state != "RUNNING":
                continue
            elif driver.outcome:
                return driver.outcome_read and self.driver_exits()
            elif driver.phase == "preparing":
                if not self._start_drawing(driver, cluster):
                    continue
            elif self.stored < job.samples:
                self.stored = min(self.stored + BATCH, job.samples)
            else:
                self.manifest = max(self.manifest, job.samples)
                driver.phase = "complete"
                driver.outcome = FinishedOutcome(
                    manifest_sha256=sha(job.samples),
                    samples=job.samples,
                    sampled=0,
                    output="/output",
                    grid="aGVsbG8=",
                )
            return True
        return False

    def _start_drawing(self, driver: Driver, cluster: str) -> bool:
        """Compares the hardware of the pods that draw with that of the stored samples, as a driver does.

        Returns whether it does anything: not while no worker fits a node.
        """
        assert driver.attempt
        role = "worker" if driver.attempt.plan.workers else "head"
        own = [pod for pod in self.pods.values() if pod.cluster == cluster and pod.role == role]
        pods = [pod for pod in own if pod.node]
        if not pods and any(pod.unschedulable for pod in own):
            return False
        hardware = {pod.ip: self.nodes[pod.node] for pod in pods}
        self.stored_hardware = self.stored_hardware or next(iter(hardware.values()), None)
        other = tuple(ip for ip, it in hardware.items() if it != self.stored_hardware)
        mixed = driver.attempt.spec.resources.allow_mixed_hardware
        if other and not mixed and hardware[next(iter(hardware))] != self.stored_hardware:
            self.driver_fails("OutputConflict", "the hardware differs", other_hardware_ips=other[:1])
            return True
        if self.names_nodes and not mixed:
            ready = tuple(ip for ip in hardware if ip not in other)
            driver.node_ips = NodeIps(ready=ready, other_hardware=other)
        if driver.attempt.repairs:
            self.stored, self.damaged = self.stored - self.damaged, 0
        driver.phase = "sampling"
        return True

    def driver_exits(self) -> bool:
        """Ends the Ray job of a driver that has an outcome, read or not."""
        for driver in self.drivers.values():
            if driver.jobs and driver.jobs[-1].state == "RUNNING" and driver.outcome:
                state: JobState = "SUCCEEDED" if isinstance(driver.outcome, FinishedOutcome) else "FAILED"
                driver.jobs[-1] = replace(driver.jobs[-1], state=state)
                return True
        return False

    def driver_fails(
        self,
        reason: str = "WorkerLost",
        message: str = "a worker died four times",
        hint: str = "",
        other_hardware_ips: tuple[str, ...] = (),
    ) -> bool:
        """Lets the driver fail."""
        for driver in self.drivers.values():
            if driver.jobs and driver.jobs[-1].state == "RUNNING" and driver.outcome is None:
                driver.phase = "failed"
                driver.outcome = FailedOutcome(
                    reason=reason,
                    exit_code=4,
                    message=message,
                    hint=hint,
                    other_hardware_ips=other_hardware_ips if self.names_nodes else (),
                )
                return True
        return False

    def head_dies(self, reason: str = "Error", exit_code: int = 1) -> bool:
        """Terminates the head's container, and with it the driver."""
        for pod in self.pods.values():
            if pod.role == "head" and pod.phase == "Running" and not pod.deleted:
                ended = Container("ray", Terminated(reason, exit_code), IMAGE_ID)
                self.change(pod.uid, phase="Failed", ready=False, containers=(ended,))
                return True
        return False

    def delete_pod(self) -> bool:
        """Deletes a pod, as another client or the node controller does."""
        for pod in self.pods.values():
            if not pod.deleted:
                self.change(pod.uid, deleted=self.now, ready=False)
                return True
        return False

    def delete_cluster(self) -> bool:
        """Deletes the RayCluster, as another client does."""
        for name in self.clusters:
            self.request_cluster_deletion(name)
            return True
        return False

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # --- a run without failures ---

    def step(self) -> None:
        """Runs half a second without failures. The operator reconciles on a watch event, or when it is requeued."""
        moved = self.collect_garbage() or self.kubelet() or self.kuberay() or self.driver()
        self.wait(0.5)
        if self.requeue_at and self.requeue_at <= self.now:
            self.reconcile()
        elif not moved:
            waits = any(cluster.suspended for cluster in self.clusters.values())
            idle = self.settled or self.sampling.spec.suspend or waits
            assert self.requeue_at or idle, f"no reconcile is scheduled for {self.sampling.status}"
            self.now = self.requeue_at or self.now
            self.reconcile()

    def run(self, until: Callable[[World], object], max_steps: int = 2000) -> None:
        """Steps until a condition is met.

        Raises:
            AssertionError: if it is not met within `max_steps`.
        """
        for _ in range(max_steps):
            if until(self):
                return
            self.step()
        raise AssertionError(f"not within {max_steps} steps; the status is {self.sampling.status}")
