"""A small Kubernetes with KubeRay, a kubelet and drivers, in which the operator's decisions are carried out.

Nothing happens by itself: each thing that the world may do next is a move, and the test chooses the order. What
the operator must never bring about is checked after every action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ddpm_operator.api import Condition, ConditionType, DDPMSampling, EventReason, Phase, Status
from ddpm_operator.controller.admission import AdmissionQueue
from ddpm_operator.kube.objects import ObjectKey
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
from ddpm_operator.reconcile.progress_document import ChosenPlan, FailedOutcome, FinishedOutcome, ProgressDocument
from ddpm_operator.reconcile.reconcile import reconcile

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
IMAGE = WorkerImage("registry.example.com/worker:1", "2.60.0")
IMAGE_ID = "registry.example.com/worker@sha256:" + "ab" * 32
BATCH = 64


def sha(samples: int) -> str:
    """The manifest's sha256 in a world where a manifest is known by its N."""
    return f"{samples:064x}"


@dataclass
class Driver:
    """What runs in a head: one driver at a time, of the last job."""

    jobs: list[RayJob] = field(default_factory=list)
    phase: str = "preparing"
    outcome: FinishedOutcome | FailedOutcome | None = None
    heard: bool = False


@dataclass
class Conflict(Exception):
    """The resource has changed since it was read."""


@dataclass
class World:
    """One namespace with one sampling.

    Attributes:
        stored: samples in the output, whole shards of them.
        last_words: what drivers said in the end, by cluster and number of jobs, as the operator remembers it.
        preview: its ConfigMap is there.
        manifest: N of the manifest; 0 before there is one.
        carried: every action that was carried out.
        history: every status that was written.
        told: every event.
        refuse: why an action cannot be carried out, if the test wants it so.
        limits: what the administrator allows.
        line: of the samplings that may not all be at work at once.
        dies_at: the operator is killed, once, before it carries out one more than so many actions.
        answers_early: heads answer before the kubelet says that they are ready.
        due: when the operator looks again.
        provisioned: names of clusters that had all their pods: KubeRay makes no other head for them.
        departed: the last head that is gone, as the operator has heard of its end.
        ahead: another sampling that waits for its workers and came first.
        unseen: uids of clusters that the operator has deleted, which no late cache shows it again.
        secrets: uids of clusters whose Secret is there, whether the operator knows of it or not.
        unheard: uids of heads that answer nobody any more.
        shown: the pods of the present look.
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
    last_words: dict[tuple[str, int], ProgressDocument] = field(default_factory=dict)
    preview: bool = False
    preview_attempted_at: datetime | None = None
    preview_written: bool = False
    carried: list[Action] = field(default_factory=list)
    history: list[Status] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    action_errors: tuple[ActionError, ...] = ()
    refuse: Callable[[Action], ActionError | None] = lambda _: None
    limits: Limits = UNLIMITED
    line: AdmissionQueue | None = None
    dies_at: int | None = None
    answers_early: bool = False
    silent_since: datetime | None = None
    due: datetime | None = START
    made: int = 0
    gone: bool = False
    provisioned: set[str] = field(default_factory=set)
    last_deleted_head: ObservedPod | None = None
    blocked_by: str | None = None
    unseen: set[str] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    unheard: set[str] = field(default_factory=set)
    shown: dict[str, ObservedPod] = field(default_factory=dict)

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

    # --- what the user does ---

    def edit(self, **fields: Any) -> None:  # noqa: ANN401 - as YAML has them
        """Changes the spec, as `kubectl apply` does."""
        self.due = self.now
        spec = self.sampling.spec.from_document(self.sampling.spec.to_document() | fields)
        self._store(generation=self.sampling.metadata.generation + 1, spec=spec)

    def asked_to_go(self) -> None:
        """Deletes the resource, which somebody's finalizer keeps."""
        metadata = self.sampling.metadata.model_copy(update={"deletion_timestamp": self.now})
        self.due = self.now
        self._store(metadata=metadata)

    def _store(self, **fields: Any) -> None:  # noqa: ANN401 - of the resource
        metadata = fields.pop("metadata", self.sampling.metadata)
        changed = {"resource_version": str(int(metadata.resource_version) + 1)}
        if "generation" in fields:
            changed["generation"] = fields.pop("generation")
        self.sampling = self.sampling.model_copy(update={**fields, "metadata": metadata.model_copy(update=changed)})

    # --- what is there to be seen ---

    @property
    def key(self) -> ObjectKey:
        metadata = self.sampling.metadata
        return ObjectKey(metadata.namespace, metadata.name, metadata.uid)

    @property
    def status(self) -> Status:
        assert self.sampling.status, "no status was written yet"
        return self.sampling.status

    def condition(self, kind: ConditionType) -> Condition:
        return next(it for it in self.status.conditions if it.type == kind)

    def holds(self, kind: ConditionType) -> bool:
        return self.sampling.status is not None and self.condition(kind).status == "True"

    @property
    def ended(self) -> bool:
        return self.gone or self.holds(ConditionType.COMPLETE) or self.holds(ConditionType.FAILED)

    @property
    def at_rest(self) -> bool:
        return self.gone or (self.ended and self.holds(ConditionType.CLEANED_UP))

    @property
    def reasons(self) -> list[EventReason]:
        return [event.reason for event in self.told]

    def observe(
        self, pods: dict[str, ObservedPod] | None = None, clusters: dict[str, ObservedCluster] | None = None
    ) -> Observed:
        """One look.

        Args:
            pods, clusters: as caches that are late have them; else as they are.
        """
        self.shown = seen = self.pods if pods is None else pods
        observed = Observed(
            sampling=self.sampling,
            image=IMAGE,
            clusters=tuple(self._late(clusters or {})),
            pods=tuple(seen.values()),
            last_deleted_head=self.last_deleted_head,
            blocked_by=self.blocked_by,
            claim=self.claim,
            preview_attempted_at=self.preview_attempted_at,
            preview_written=self.preview_written,
            action_errors=self.action_errors,
            limits=self.limits,
            admission_hold=self.line.waiting_reason(self.key) if self.line else None,
        )
        head = observed.pollable_head
        return replace(observed, head_poll=self._ask(head)) if head else observed

    def _late(self, clusters: dict[str, ObservedCluster]) -> list[ObservedCluster]:
        """What a late cache shows, with all that the operator did to clusters itself: that it knows."""
        left = [it for name, it in clusters.items() if name not in self.clusters and it.uid not in self.unseen]
        there = []
        for name, real in self.clusters.items():
            it = clusters.get(name, real)
            known = it if it.uid == real.uid and it.uid not in self.unseen else real
            own = {"has_secret": real.has_secret, "has_network_policy": real.has_network_policy}
            there.append(replace(known, **own))
        return [*left, *there]

    def _ask(self, head: ObservedPod) -> HeadUnreachable | HeadResponse | None:
        real = self.pods.get(head.uid)
        if real is None or real.uid in self.unheard or not (real.ready or self.answers_early):
            if not head.ready and not self.holds(ConditionType.RUNNING):
                self.silent_since = None
                return None
            self.silent_since = self.silent_since or self.now
            return HeadUnreachable(self.silent_since, "connection refused")
        self.silent_since = None
        driver = self.drivers[head.cluster]
        running = bool(driver.jobs) and driver.jobs[-1].state == "RUNNING"
        progress = self._progress(driver) if running else None
        word = (head.cluster, len(driver.jobs))
        if progress and progress.outcome:
            driver.heard, self.last_words = True, {word: progress}
        else:
            progress = progress or self.last_words.get(word)
        return HeadResponse(tuple(driver.jobs), progress)

    def _progress(self, driver: Driver) -> ProgressDocument:
        # Before it has looked what is stored, a driver knows of nothing.
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
            ),
            outcome=driver.outcome,
        )

    # --- what the operator does ---

    def look(
        self,
        pods: dict[str, ObservedPod] | None = None,
        clusters: dict[str, ObservedCluster] | None = None,
        between: Callable[[], object] | None = None,
        doubled: bool = False,
    ) -> None:
        """One look of the operator, and what it does about it.

        Args:
            pods, clusters: see `observe`.
            between: something that happens after the look and before the first action.
            doubled: another operator has read the same, and does the same after it.
        """
        if self.gone:
            return
        if self.line:
            self.line.observe(self.sampling)
        decision = reconcile(self.observe(pods, clusters), self.now)
        if self.line:
            self.line.reserve(self.key, decision)
        self.action_errors = ()
        self.due = None if decision.requeue_after is None else self.now + decision.requeue_after
        if between:
            between()
        self._act(decision)
        if doubled and not self.gone:
            self._act(decision)

    def _act(self, decision: Decision) -> None:
        for action in decision.actions:
            if len(self.carried) == self.dies_at:
                self._die()
                return
            fault = self.refuse(action)
            if fault and isinstance(action, CopyPreview):
                self.preview_attempted_at = self.now
                continue
            if fault:
                self.action_errors = (fault,)
                return
            try:
                self._carry_out(action)
            except Conflict:
                self.due = self.now
                return
            self.carried.append(action)
            assert len(self.clusters) <= 1, f"two clusters at once: {list(self.clusters)}"

    def _stuck(self, pod: ObservedPod) -> bool:
        return pod.deleted is not None and self.now - pod.deleted >= STUCK_POD_TIMEOUT

    def _die(self) -> None:
        """What the operator kept in its memory alone is lost; it starts again at once."""
        self.dies_at = None
        self.action_errors, self.due, self.silent_since = (), self.now, None
        self.preview_attempted_at, self.preview_written, self.last_words, self.last_deleted_head = None, False, {}, None
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
                self._store(status=status)  # of its own writes the operator does not hear
                if self.line:
                    self.line.observe(self.sampling)
            case Event():
                self.told.append(action)
            case EnsureClaim():
                self.claim = self.claim or OutputClaim("digits-output", "Bound", ("ReadWriteOnce",))
            case CreateCluster(attempt):
                if attempt.name not in self.clusters:
                    assert not self.clusters, f"{attempt.name} is made while {list(self.clusters)} is there"
                    old = [it.name for it in self.shown.values() if not self._stuck(it)]
                    assert not old, f"{attempt.name} is made while {old} are there"
                    self.made += 1
                    self.clusters[attempt.name] = ObservedCluster(
                        attempt.name, f"cluster-{self.made}", attempt.number, self.now
                    )
                    self.drivers[attempt.name] = Driver()
                self.due = self.now
            case CreateNetworkPolicy(attempt, uid):
                self._owned(attempt.name, uid, has_network_policy=True)
            case CreateSecret(attempt, uid):
                there = self.clusters.get(attempt.name)
                assert there is None or there.has_network_policy, "pods start before they are fenced in"
                self._owned(attempt.name, uid, has_secret=True)
                self.secrets.add(uid)
            case SubmitJob(attempt, job_id, _):
                self._submit(attempt.name, job_id, attempt.spec.samples)
            case CopyPreview():
                self.preview, self.preview_attempted_at, self.preview_written = True, self.now, True
            case WritePreview(png):
                self.previews.append(png)
                self.preview, self.preview_attempted_at, self.preview_written = True, self.now, True
            case DeleteCluster(name, uid):
                self.unseen.add(uid)
                if name in self.clusters and self.clusters[name].uid == uid:
                    self.remove_cluster(name)
            case DeleteSampling(version):
                if version != self.sampling.metadata.resource_version:
                    raise Conflict
                self.gone = True
                for name in list(self.clusters):
                    self.remove_cluster(name)
                    self.collect_garbage()

    def _owned(self, name: str, uid: str, **known: bool) -> None:
        if name in self.clusters and self.clusters[name].uid == uid:
            self.clusters[name] = replace(self.clusters[name], **known)

    def _submit(self, name: str, job_id: str, samples: int) -> None:
        driver = self.drivers.get(name)
        if driver is None or job_id in [job.id for job in driver.jobs]:
            return
        assert all(job.state not in ("PENDING", "RUNNING") for job in driver.jobs), "two drivers at once"
        driver.jobs.append(RayJob(job_id, "PENDING", samples))
        driver.phase, driver.outcome, driver.heard = "preparing", None, False

    # --- what must never be ---

    def _check_status(self, new: Status) -> None:
        old, spec = self.sampling.status, self.sampling.spec
        assert Status.from_document(new.to_document()) == new
        assert new != old, "a status is written that says nothing new"
        by_type = {it.type: it for it in new.conditions}
        if by_type[ConditionType.COMPLETE].status == "True":
            assert self.manifest >= spec.samples, "Complete, and the manifest does not account for N"
            assert new.output
            assert new.output.manifest_sha256 == sha(self.manifest)
            assert by_type[ConditionType.FAILED].status == "False"
        assert new.observed_generation == self.sampling.metadata.generation
        assert (new.completion_time is not None) == (new.phase in (Phase.SUCCEEDED, Phase.FAILED))
        assert self.preview or not (new.output and new.output.grid), "a preview is named that nobody has written"
        assert new.progress
        assert new.progress.done <= new.progress.total == spec.samples or new.completion_time
        assert new.phase is Phase.RUNNING or not new.progress.eta, f"an end is foretold while {new.phase}"
        for condition in new.conditions:
            assert condition.observed_generation == self.sampling.metadata.generation
            assert condition.message, f"{condition.type} says nothing"
        if (new.failed_attempts or 0) > spec.backoff_limit:
            assert new.completion_time, "another attempt than backoffLimit allows"
        if old is None:
            return
        assert (new.attempt or 0) - (old.attempt or 0) in (0, 1)
        assert old.progress
        assert new.progress.done >= old.progress.done, "samples that were stored are not counted any more"
        for former in old.conditions:
            later = by_type[former.type]
            moved = later.last_transition_time != former.last_transition_time
            ahead = former.last_transition_time > self.now  # said by an operator whose clock was another
            assert moved <= (later.status != former.status or ahead), f"{former.type} moved its time without a change"
        if old.completion_time and not new.completion_time:
            limit = old.failure.backoff_limit if old.failure else None
            grown = spec.samples > old.progress.total
            assert grown or (limit is not None and spec.backoff_limit > limit), "an end is taken back for nothing"

    # --- what the world does by itself ---

    def remove_cluster(self, name: str) -> None:
        """A RayCluster is asked to go: it is still there for a while, and its pods end after it."""
        self.clusters[name] = replace(self.clusters[name], deleted=self.clusters[name].deleted or self.now)
        self.due = self.now

    def collect_garbage(self) -> bool:
        """A RayCluster that was asked to go is gone, and its pods are asked to end."""
        name = next((it.name for it in self.clusters.values() if it.deleted), None)
        if name is None:
            return False
        del self.clusters[name]
        self.drivers.pop(name, None)
        self.provisioned.discard(name)
        for pod in list(self.pods.values()):
            if pod.cluster == name:
                self.pods[pod.uid] = replace(pod, deleted=pod.deleted or self.now, ready=False)
        self.due = self.now
        return True

    def change(self, uid: str, **fields: Any) -> None:  # noqa: ANN401 - of the pod
        self.pods[uid] = replace(self.pods[uid], **fields)
        self.due = self.now

    def kuberay(self) -> bool:
        """KubeRay makes the pods that a cluster lacks; no head, if that has been ready before.

        One that has failed it deletes at once. Where a quota is full, the head is let in, and no worker.
        """
        failed = next((pod for pod in self.pods.values() if pod.finished and pod.cluster in self.clusters), None)
        if failed:
            self.pod_gone(failed)
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
        """The pods of a suspended cluster are asked to end; nothing of Ray is left with them."""
        pods = [pod for pod in self.pods.values() if pod.cluster == cluster.name and not pod.deleted]
        for pod in pods:
            self.change(pod.uid, deleted=self.now, ready=False)
        if pods:
            self.drivers[cluster.name] = Driver()
            self.provisioned.discard(cluster.name)
        return bool(pods)

    def queue_takes(self) -> bool:
        """Kueue suspends the cluster."""
        return self._suspend(True)

    def queue_gives(self) -> bool:
        """Kueue lets it in, and KubeRay has made an end of the suspension; or had not begun with it."""
        going = any(pod.deleted for pod in self.pods.values())
        return not going and self._suspend(False)

    def _suspend(self, suspended: bool) -> bool:
        for cluster in self.clusters.values():
            if cluster.suspended != suspended:
                emptied = not any(pod.cluster == cluster.name for pod in self.pods.values())
                resumed = self.now if emptied and not suspended else cluster.resumed_at
                self.clusters[cluster.name] = replace(cluster, suspended=suspended, resumed_at=resumed)
                self.due = self.now
                return True
        return False

    def _new_pod(self, cluster: ObservedCluster, role: Any) -> None:  # noqa: ANN401 - head or worker
        self.made += 1
        uid = f"pod-{self.made}"
        waiting = Container("ray", Waiting("ContainerCreating"))
        self.pods[uid] = ObservedPod(
            f"{cluster.name}-{role}-{self.made}",
            uid,
            cluster.name,
            cluster.attempt,
            role,
            "Pending",
            owner=cluster.uid,
            containers=(waiting,),
        )
        self.due = self.now

    def kubelet(self) -> bool:
        """A pod that waits starts; one that is asked to end is gone."""
        for pod in self.pods.values():
            if pod.deleted:
                self.pod_gone(pod)
                return True
            cluster = self.clusters.get(pod.cluster)
            if pod.phase == "Pending" and cluster and cluster.uid in self.secrets:
                started = Container("ray", Running(self.now), IMAGE_ID)
                self.change(pod.uid, phase="Running", scheduled=self.now, ip="10.0.0.7", containers=(started,))
                return True
            if pod.phase == "Running" and not pod.ready:
                self.change(pod.uid, ready=True)
                if cluster and pod.role == "head":
                    self.provisioned.add(cluster.name)
                return True
        return False

    def pod_gone(self, pod: ObservedPod) -> None:
        """The API server has it no more, and its watch tells of that."""
        del self.pods[pod.uid]
        self.last_deleted_head = pod if pod.role == "head" else self.last_deleted_head
        self.due = self.now

    def driver(self) -> bool:
        """The driver takes its next step."""
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
                return driver.heard and self.driver_exits()
            elif driver.phase == "preparing":
                driver.phase = "sampling"
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

    def driver_exits(self) -> bool:
        """A driver that has told its outcome exits; one that nobody has heard does so after a while."""
        for driver in self.drivers.values():
            if driver.jobs and driver.jobs[-1].state == "RUNNING" and driver.outcome:
                state: JobState = "SUCCEEDED" if isinstance(driver.outcome, FinishedOutcome) else "FAILED"
                driver.jobs[-1] = replace(driver.jobs[-1], state=state)
                return True
        return False

    def driver_fails(
        self, reason: str = "WorkerLost", message: str = "a worker died four times", hint: str = ""
    ) -> bool:
        """The driver gives up."""
        for driver in self.drivers.values():
            if driver.jobs and driver.jobs[-1].state == "RUNNING" and driver.outcome is None:
                driver.phase = "failed"
                driver.outcome = FailedOutcome(reason=reason, exit_code=4, message=message, hint=hint)
                return True
        return False

    def head_dies(self, reason: str = "Error", exit_code: int = 1) -> bool:
        """The head's container ends, and with it the driver."""
        for pod in self.pods.values():
            if pod.role == "head" and pod.phase == "Running" and not pod.deleted:
                ended = Container("ray", Terminated(reason, exit_code), IMAGE_ID)
                self.change(pod.uid, phase="Failed", ready=False, containers=(ended,))
                return True
        return False

    def pod_deleted(self) -> bool:
        """Somebody deletes a pod, or its node goes away."""
        for pod in self.pods.values():
            if not pod.deleted:
                self.change(pod.uid, deleted=self.now, ready=False)
                return True
        return False

    def cluster_deleted(self) -> bool:
        """Somebody deletes the RayCluster, and not the operator."""
        for name in self.clusters:
            self.remove_cluster(name)
            return True
        return False

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # --- an ordinary course of things ---

    def step(self) -> None:
        """Half a second in which all goes well; the operator looks when it hears of something or it is time to."""
        moved = self.collect_garbage() or self.kubelet() or self.kuberay() or self.driver()
        self.wait(0.5)
        if self.due and self.due <= self.now:
            self.look()
        elif not moved:
            waits = any(cluster.suspended for cluster in self.clusters.values())
            asleep = self.at_rest or self.sampling.spec.suspend or waits
            assert self.due or asleep, f"nobody will ever look again at {self.sampling.status}"
            self.now = self.due or self.now
            self.look()

    def run(self, until: Callable[[World], object], most: int = 2000) -> None:
        """Everything takes its course."""
        for _ in range(most):
            if until(self):
                return
            self.step()
        raise AssertionError(f"not within {most} steps; the status is {self.sampling.status}")
