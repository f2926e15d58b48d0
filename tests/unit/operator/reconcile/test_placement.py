"""Later attempts draw on the hardware of the first: which nodes they may use, what they avoid, and how they wait."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from ddpm_operator.api import ConditionType, EventReason, FailureReason, Phase
from ddpm_operator.api.status import MAX_NODES, Placement
from ddpm_operator.controller.admission import AdmissionQueue
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.planning.limits import Limits
from ddpm_operator.reconcile.actions import CreateCluster
from tests.fakes.world import NO_NODE, World

ARCH, TYPE = "kubernetes.io/arch", "node.kubernetes.io/instance-type"
LARGE: dict[str, object] = {"samples": 2000, "resources": {"maxWorkers": 2}}


def a_world(nodes: dict[str, str] | None = None, **spec: object) -> World:
    """Returns a world with these nodes and their hardware."""
    world = World.of(**spec)
    world.nodes = nodes or {"node-a": "AVX512", "node-b": "AVX2"}
    return world


def draws(world: World) -> bool:
    return world.holds(ConditionType.RUNNING) and world.stored > 0


def lose_head(world: World) -> None:
    """Ends the present attempt with a failure, after it has drawn."""
    world.run(until=draws)
    world.head_dies()
    world.run(until=lambda it: it.status.cluster is None)


def prefer(world: World, *names: str) -> None:
    """Lets the scheduler take these nodes first, wherever a pod may use any."""
    world.nodes = {name: world.nodes[name] for name in (*names, *(it for it in world.nodes if it not in names))}


def placement(world: World) -> Placement:
    assert world.status.placement
    return world.status.placement


def placements(world: World) -> list[Placement | None]:
    """Returns what each attempt was created with."""
    return [it.attempt.placement for it in world.executed if isinstance(it, CreateCluster)]


def reason(world: World) -> str:
    return world.condition(ConditionType.CLUSTER_READY).reason


def test_the_first_attempt_records_hardware_node_and_labels() -> None:
    world = a_world()
    world.node_labels = {"node-a": {ARCH: "amd64", TYPE: "c7i.large"}}
    world.run(until=draws)
    world.run(until=lambda it: it.settled)
    assert world.status.plan
    assert world.status.plan.hardware == {"aten": "AVX512"}
    assert placement(world) == Placement(nodes=("node-a",), node_labels={ARCH: ("amd64",), TYPE: ("c7i.large",)})
    assert placements(world) == [None]


def test_later_attempts_run_on_the_node_that_drew() -> None:
    world = a_world()
    world.node_labels = {"node-a": {ARCH: "amd64"}, "node-b": {ARCH: "amd64"}}
    lose_head(world)
    prefer(world, "node-b")
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (2, 1)
    assert placements(world)[1] == placement(world)


def test_only_labels_that_all_nodes_have_are_required() -> None:
    world = a_world({"node-a": "AVX512", "node-b": "AVX512"}, **LARGE)
    world.node_labels = {"node-a": {ARCH: "amd64", TYPE: "c7i.large"}, "node-b": {ARCH: "x86"}}
    world.run(until=lambda it: len([pod for pod in it.pods.values() if pod.node]) == 2)
    prefer(world, "node-b")
    world.run(until=draws)
    world.run(until=lambda it: len(placement(it).nodes) == 2)
    assert placement(world).node_labels == {ARCH: ("amd64", "x86")}


def test_the_machine_type_is_required_only_where_no_label_names_the_part() -> None:
    world = a_world()
    gpu = "nvidia.com/gpu.product"
    world.node_labels = {"node-a": {TYPE: "p5.48xlarge", gpu: "NVIDIA-H100-80GB-HBM3"}}
    world.run(until=draws)
    world.run(until=lambda it: it.settled)
    assert placement(world).node_labels == {gpu: ("NVIDIA-H100-80GB-HBM3",)}


def test_the_head_does_not_count_where_workers_draw() -> None:
    world = a_world(**LARGE)
    world.run(until=lambda it: any(pod.node for pod in it.pods.values()))
    prefer(world, "node-b")
    world.run(until=draws)
    world.run(until=lambda it: it.status.placement is not None)
    assert placement(world).nodes == ("node-b",)


def test_nodes_without_readable_labels_are_known_by_name() -> None:
    world = a_world()
    lose_head(world)
    assert placement(world) == Placement(nodes=("node-a",))
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def test_an_attempt_on_other_hardware_does_not_count() -> None:
    world = a_world(backoffLimit=1)
    lose_head(world)
    world.full_nodes = {"node-a"}
    world.run(until=lambda it: bool(it.status.placement and it.status.placement.excluded_nodes))
    assert (world.status.attempt, world.status.failed_attempts, world.status.phase) == (2, 1, Phase.PENDING)
    assert world.status.failure is None
    assert reason(world) == "OtherHardware"
    ended = world.condition(ConditionType.RUNNING).message
    assert ended == (
        "Attempt 2 ran on other hardware than that of the stored samples, and does not count. Later attempts avoid "
        "node-b."
    )
    assert [it.message for it in world.events if it.reason is EventReason.OTHER_HARDWARE] == [ended]
    world.full_nodes.clear()
    prefer(world, "node-b")
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (3, 1)
    assert placement(world) == Placement(nodes=("node-a",), excluded_nodes=("node-b",))


def test_a_worker_on_other_hardware_excludes_its_node_while_the_others_draw() -> None:
    world = a_world(**LARGE)
    for names in (("node-a",), ("node-a",), ("node-b",)):
        prefer(world, *names)
        number = len([pod for pod in world.pods.values() if pod.node])
        world.run(until=lambda it, number=number: len([pod for pod in it.pods.values() if pod.node]) > number)
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert placement(world) == Placement(nodes=("node-a",), excluded_nodes=("node-b",))
    assert world.reasons.count(EventReason.OTHER_HARDWARE) == 1
    assert world.status.attempt == 1


@pytest.mark.parametrize("ips", [(), ("192.0.2.1",)], ids=["an older driver", "an unknown address"])
def test_without_a_known_node_the_attempt_has_failed(ips: tuple[str, ...]) -> None:
    world = a_world()
    world.run(until=draws)
    world.driver_fails("OutputConflict", "the hardware differs", "give --allow_mixed_hardware", ips)
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.FAILED)
    assert world.status.failure
    assert world.status.failure.reason is FailureReason.OUTPUT_CONFLICT
    assert world.status.failed_attempts == 1
    assert ("allowMixedHardware" in world.status.failure.hint) == bool(ips)


def test_uncounted_attempts_are_bounded() -> None:
    others = {f"node-{number}": "AVX2" for number in range(2 * MAX_NODES)}
    world = a_world({"node-a": "AVX512"} | others, backoffLimit=1)
    lose_head(world)
    world.full_nodes = {"node-a"}
    world.run(until=lambda it: it.settled, max_steps=20_000)
    assert world.holds(ConditionType.FAILED)
    assert world.status.attempt == 2 + MAX_NODES
    assert len(placement(world).excluded_nodes) == MAX_NODES


def test_an_excluded_node_that_is_used_again_fails_the_attempt() -> None:
    world = a_world({"node-b": "AVX2"})
    world.stored_hardware = "AVX512"
    world.step()
    world.run(until=lambda it: it.status.attempt == 2 and bool(it.clusters))
    world.placements = dict.fromkeys(world.placements)  # an administrator's template ignores the affinity
    world.run(until=lambda it: it.settled)
    assert world.status.failure
    assert (world.status.failure.reason, world.status.failed_attempts) == (FailureReason.OUTPUT_CONFLICT, 1)


def waiting(**spec: object) -> World:
    """Returns a sampling whose first node has no room any more, and whose second has other hardware."""
    world = a_world(**{"startupDeadlineSeconds": 60} | spec)
    world.node_labels = {"node-a": {TYPE: "c7i.large"}, "node-b": {TYPE: "m5.large"}}
    lose_head(world)
    world.full_nodes = {"node-a"}
    world.run(until=lambda it: it.status.phase is Phase.QUEUED)
    return world


@pytest.mark.parametrize("spec", [{}, LARGE], ids=["head", "workers"])
def test_without_such_a_node_the_sampling_is_queued(spec: dict[str, object]) -> None:
    world = waiting(backoffLimit=1, **spec)
    assert reason(world) == "WaitingForHardware"
    message = world.condition(ConditionType.CLUSTER_READY).message
    assert "(aten AVX512)" in message
    assert f"nodes with {TYPE}=c7i.large" in message
    assert "spec.resources.allowMixedHardware: true" in message
    for _ in range(2000):
        world.step()
    assert not world.holds(ConditionType.FAILED)
    assert (world.status.failed_attempts, world.status.completion_time) == (1, None)
    world.full_nodes.clear()
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert placement(world).unscheduled_attempts is None


@pytest.mark.parametrize("cause", ["Unschedulable", "WorkerLost"])
def test_a_driver_without_workers_waits_too(cause: str) -> None:
    world = a_world(**LARGE, backoffLimit=1)
    world.node_labels = {"node-a": {TYPE: "c7i.large"}, "node-b": {TYPE: "m5.large"}}
    lose_head(world)
    world.full_nodes = {"node-a"}
    world.run(until=lambda it: it.status.attempt == 2 and len(it.drivers) == 1)
    world.run(until=lambda it: any(job.state == "RUNNING" for driver in it.drivers.values() for job in driver.jobs))
    world.run(until=lambda it: [bool(pod.unschedulable) for pod in it.pods.values()].count(True) == 2)
    assert world.driver_fails(cause, "no worker could be placed within 600 s")
    world.run(until=lambda it: it.status.cluster is None)
    assert (world.status.phase, reason(world)) == (Phase.QUEUED, "WaitingForHardware")
    assert world.status.failed_attempts == 1


def test_the_pause_doubles_up_to_ten_minutes_and_survives_a_restart() -> None:
    world = waiting()
    pauses: list[timedelta] = []
    for _ in range(6):
        world.run(until=lambda it: it.status.phase is Phase.QUEUED)
        ended, attempt = world.now, world.status.attempt
        world.crash()
        world.run(until=lambda it, attempt=attempt: it.status.attempt != attempt)
        pauses.append(world.now - ended)
    expected = [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8, 10, 10)]
    assert all(abs(pause - it) < timedelta(seconds=30) for pause, it in zip(pauses, expected, strict=True)), pauses


def test_waiting_costs_no_running_time() -> None:
    world = waiting(activeDeadlineSeconds=60)
    before = world.status.running_seconds
    world.wait(3600)
    world.reconcile()
    world.full_nodes.clear()
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.running_seconds is not None
    assert before is not None
    assert world.status.running_seconds <= before + 60


def test_mixed_hardware_ends_the_wait_at_once() -> None:
    world = waiting(backoffLimit=1)
    world.edit(resources={"maxWorkers": 0, "allowMixedHardware": True})
    began = world.now
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.now - began < timedelta(seconds=60)
    assert placements(world)[-1] is None


def test_mixed_hardware_frees_an_attempt_that_waits_for_its_node() -> None:
    world = a_world(startupDeadlineSeconds=3600)
    world.node_labels = {"node-a": {TYPE: "c7i.large"}, "node-b": {TYPE: "m5.large"}}
    lose_head(world)
    world.full_nodes = {"node-a"}
    world.run(until=lambda it: any(pod.unschedulable for pod in it.pods.values()))
    world.edit(resources={"maxWorkers": 0, "allowMixedHardware": True})
    began = world.now
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.now - began < timedelta(seconds=120)


def test_a_waiting_sampling_holds_no_other_up() -> None:
    other = World.of().sampling
    other = other.model_copy(update={"metadata": other.metadata.model_copy(update={"name": "other", "uid": "u2"})})
    key = ObjectKey("research", "other", "u2")
    world = a_world(startupDeadlineSeconds=60)
    world.node_labels = {"node-a": {TYPE: "c7i.large"}, "node-b": {TYPE: "m5.large"}}
    world.admission = AdmissionQueue(Limits(at_once=1), lambda: {world.key} if world.clusters else set())
    lose_head(world)
    world.admission.observe(other)
    world.full_nodes = {"node-a"}
    world.run(until=lambda it: it.status.cluster is not None)
    assert world.admission.waiting_reason(key)
    world.run(until=lambda it: it.status.phase is Phase.QUEUED and it.holds(ConditionType.CLEANED_UP))
    assert world.admission.waiting_reason(key) is None
    world.full_nodes.clear()
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def unschedulable_for(text: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        for pod in world.pods.values():
            if pod.unschedulable:
                world.change(pod.uid, unschedulable=text)

    return change


@pytest.mark.parametrize(
    "text", ["0/2 nodes are available: 2 Insufficient cpu.", "1 node(s) had volume node affinity conflict."]
)
def test_pods_that_fit_no_node_for_another_reason_fail_as_before(text: str) -> None:
    world = a_world(startupDeadlineSeconds=60)
    world.node_labels = {"node-a": {TYPE: "c7i.large"}, "node-b": {TYPE: "m5.large"}}
    lose_head(world)
    world.full_nodes = {"node-a"}
    world.run(until=lambda it: any(pod.unschedulable for pod in it.pods.values()))
    unschedulable_for(text)(world)
    world.run(until=lambda it: it.settled)
    assert world.status.failure
    assert world.status.failure.reason is FailureReason.UNSCHEDULABLE


def test_samples_drawn_anew_on_other_hardware_replace_the_placement() -> None:
    world = a_world()
    lose_head(world)
    world.stored_hardware = None  # the user has emptied the output
    world.nodes = {"node-b": "AVX2"}
    world.run(until=lambda it: it.settled)
    assert world.status.plan
    assert world.status.plan.hardware == {"aten": "AVX2"}
    assert placement(world) == Placement(nodes=("node-b",))


def test_where_hardware_may_be_mixed_pods_that_fit_no_node_fail_as_before() -> None:
    world = a_world(startupDeadlineSeconds=60)
    world.node_labels = {"node-a": {TYPE: "c7i.large"}, "node-b": {TYPE: "m5.large"}}
    lose_head(world)
    world.edit(resources={"maxWorkers": 0, "allowMixedHardware": True})
    world.full_nodes = {"node-a", "node-b"}
    world.run(until=lambda it: it.settled)
    assert world.status.failure
    assert world.status.failure.reason is FailureReason.UNSCHEDULABLE


def test_an_attempt_that_may_use_any_node_does_not_wait_for_hardware() -> None:
    world = a_world(**LARGE)
    world.node_labels = {"node-a": {TYPE: "c7i.large"}}
    world.run(until=draws)
    world.run(until=lambda it: bool(it.status.placement and it.status.placement.node_labels))
    world.full_nodes = {"node-a", "node-b"}
    for pod in [it for it in world.pods.values() if it.role == "worker"]:
        world.finish_pod_deletion(pod)
    while world.kuberay() or world.kubelet():
        pass
    assert [bool(it.unschedulable) for it in world.pods.values() if it.role == "worker"] == [True, True]
    world.driver_fails("WorkerLost", "no node has had room for a worker for 600 s")
    world.reconcile()
    assert (world.status.phase, world.status.failed_attempts) == (Phase.PENDING, 1)


def test_a_lost_worker_is_a_failure_while_another_has_a_node() -> None:
    world = a_world(**LARGE)
    world.node_labels = {"node-a": {TYPE: "c7i.large"}, "node-b": {TYPE: "m5.large"}}
    lose_head(world)
    world.run(until=lambda it: it.status.attempt == 2 and it.holds(ConditionType.RUNNING))
    worker = next(pod for pod in world.pods.values() if pod.role == "worker")
    world.change(worker.uid, node="", ip="", phase="Pending", ready=False, scheduled=None, unschedulable=NO_NODE)
    assert world.driver_fails("WorkerLost", "workers keep dying")
    world.reconcile()
    assert (world.status.phase, world.status.failed_attempts) == (Phase.PENDING, 2)
