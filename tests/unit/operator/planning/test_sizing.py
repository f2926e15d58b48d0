"""From what is asked for to how it is spread over pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_inference import job
from ddpm_inference.checkpoint import fetch, load
from ddpm_operator.api import Plan, Spec
from ddpm_operator.api.quantity import parse
from ddpm_operator.planning.sizing import (
    BUILTIN_SHAPES,
    DEFAULT_STEPS,
    DEFAULT_TIMESTEPS,
    MAX_BATCH_SIZE,
    Device,
    PlanningError,
    claim_size,
    default_batch_size,
    head_size,
    plan,
    worker_size,
)

MakeSpec = Callable[..., Spec]
OWN = {"uri": "pvc://models/unet.safetensors"}

CPUS = st.integers(1, 32).map(str) | st.integers(100, 32_000).map(lambda milli: f"{milli}m")


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of YAML that sizing looks at."""
    gpus = draw(st.integers(0, 40))
    model = draw(
        st.sampled_from([{"uri": "builtin://mnist"}, OWN])
        | st.builds(lambda size: OWN | {"imgSize": size}, st.integers(1, 1024))
    )
    fields: dict[str, Any] = {
        "model": model,
        "samples": draw(st.integers(1, 200_000) | st.just(1_000_000_000)),
        "sampler": {"name": draw(st.sampled_from(["ddpm", "ddim", "dpmpp"]))},
        "resources": {
            "gpus": gpus,
            "tasksPerGPU": draw(st.integers(1, 8)),
            "maxWorkers": draw(st.integers(1 if gpus else 0, 20)),
            "worker": {"cpu": draw(CPUS), "memory": "4Gi"},
            "head": {"cpu": draw(CPUS), "memory": "2Gi"},
        },
    }
    if draw(st.booleans()):
        fields["batchSize"] = draw(st.integers(1, 1000))
    return fields


def spec_of(fields: dict[str, Any]) -> Spec:
    return Spec.from_document(fields)


def least_shards(chosen: Plan, samples: int) -> int:
    return chosen.shards or -(-samples // MAX_BATCH_SIZE[chosen.device])


@settings(deadline=None)
@given(specs())
def test_nothing_is_asked_for_that_has_no_work_or_was_not_allowed(fields: dict[str, Any]) -> None:
    spec = spec_of(fields)
    chosen = plan(spec)
    shards = least_shards(chosen, spec.samples)
    assert chosen.workers <= min(spec.resources.max_workers, shards)
    assert chosen.gpus <= min(spec.resources.gpus, shards)
    assert chosen.gpus == chosen.workers * chosen.gpus_per_worker
    if chosen.tasks_per_gpu:
        assert chosen.tasks_per_gpu <= spec.resources.tasks_per_gpu
        assert chosen.gpus * (chosen.tasks_per_gpu - 1) < shards


@settings(deadline=None)
@given(specs())
def test_a_gpu_job_has_gpus_and_a_cpu_job_has_none(fields: dict[str, Any]) -> None:
    spec = spec_of(fields)
    chosen = plan(spec)
    assert (chosen.device == "cuda") == (spec.resources.gpus > 0) == (chosen.gpus > 0)
    assert (chosen.device == "cuda") == (chosen.tasks_per_gpu is not None)
    assert head_size(spec, chosen).gpus == 0


@settings(deadline=None)
@given(specs())
def test_every_task_finds_a_slot_and_someone_has_slots(fields: dict[str, Any]) -> None:
    spec = spec_of(fields)
    chosen = plan(spec)
    head, worker = head_size(spec, chosen), worker_size(spec, chosen)
    assert (head.slots > 0) == (chosen.workers == 0)
    assert worker.slots >= chosen.gpus_per_worker * (chosen.tasks_per_gpu or 1)
    assert worker.gpus * chosen.workers == chosen.gpus


@settings(deadline=None)
@given(specs())
def test_the_shards_hold_every_sample_once(fields: dict[str, Any]) -> None:
    spec = spec_of(fields)
    chosen = plan(spec)
    if chosen.batch_size:
        assert chosen.shards == job.shard_count(spec.samples, chosen.batch_size)
    else:
        assert chosen.shards is None


@settings(deadline=None)
@given(specs(), st.integers(1, 100_000))
def test_more_samples_never_get_less(fields: dict[str, Any], more: int) -> None:
    few = plan(spec_of(fields))
    many = plan(spec_of(fields | {"samples": min(fields["samples"] + more, 1_000_000_000)}))
    assert many.gpus >= few.gpus
    assert many.workers >= few.workers or many.gpus_per_worker > few.gpus_per_worker


@settings(deadline=None)
@given(specs(), st.integers(1, 20))
def test_more_gpus_asked_for_are_never_less_gpus_had(fields: dict[str, Any], more: int) -> None:
    resources = fields["resources"] | {"gpus": max(1, fields["resources"]["gpus"])}
    resources["maxWorkers"] = max(1, resources["maxWorkers"])
    richer = resources | {"gpus": resources["gpus"] + more}
    few, many = plan(spec_of(fields | {"resources": resources})), plan(spec_of(fields | {"resources": richer}))
    assert many.gpus >= few.gpus


@settings(deadline=None)
@given(specs(), st.integers(1, 20))
def test_more_workers_allowed_are_never_less_workers_on_cpus(fields: dict[str, Any], more: int) -> None:
    resources = fields["resources"] | {"gpus": 0}
    richer = resources | {"maxWorkers": resources["maxWorkers"] + more}
    few, many = plan(spec_of(fields | {"resources": resources})), plan(spec_of(fields | {"resources": richer}))
    assert many.workers >= few.workers


@settings(deadline=None)
@given(specs(), specs())
def test_what_decides_the_pixels_is_never_chosen_by_samples_or_resources(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    fixed = {key: one[key] for key in ("model", "sampler", "batchSize") if key in one}
    gpus = {"gpus": other["resources"]["gpus"] or 1} if one["resources"]["gpus"] else {"gpus": 0}
    resources = other["resources"] | gpus | {"maxWorkers": max(1, other["resources"]["maxWorkers"])}
    elsewhere = plan(spec_of(fixed | {"samples": other["samples"], "resources": resources}))
    here = plan(spec_of(one))
    assert (elsewhere.batch_size, elsewhere.device) == (here.batch_size, here.device)


@settings(deadline=None)
@given(specs(), specs())
def test_later_attempts_keep_batch_size_and_device(one: dict[str, Any], other: dict[str, Any]) -> None:
    first = plan(spec_of(one))
    later = spec_of(other | {"model": one["model"], "batchSize": one.get("batchSize", 7)})
    if first.device == "cuda" and later.resources.gpus == 0:
        with pytest.raises(PlanningError, match="ran on GPUs"):
            plan(later, first)
    else:
        again = plan(later, first)
        assert again.device == first.device
        assert again.batch_size == (first.batch_size or one.get("batchSize", 7))
        assert again.gpus == 0 or first.device == "cuda"


@settings(deadline=None)
@given(specs())
def test_a_plan_explains_itself_within_the_limits_of_the_status(fields: dict[str, Any]) -> None:
    chosen = plan(spec_of(fields))
    assert chosen.why
    assert all(sentence.endswith(".") for sentence in chosen.why)
    assert Plan.from_document(chosen.to_document()) == chosen


def said(chosen: Plan) -> str:
    return " ".join(chosen.why)


def test_a_small_job_runs_on_the_head_alone(make_spec: MakeSpec) -> None:
    spec = make_spec(samples=100, sampler={"name": "ddim", "steps": 500})
    chosen = plan(spec)
    assert (chosen.workers, chosen.shards, chosen.batch_size) == (0, 4, 32)
    assert "the head samples alone" in said(chosen)
    head = head_size(spec, chosen)
    assert (head.cpu, head.memory, head.slots) == ("2", "4Gi", 2)


def test_a_job_that_outlasts_the_start_of_workers_gets_them(make_spec: MakeSpec) -> None:
    assert plan(make_spec(samples=100, sampler={"name": "ddim", "steps": 501})).workers == 2


def test_a_large_job_has_as_many_workers_as_are_allowed(make_spec: MakeSpec) -> None:
    spec = make_spec(samples=100_000, resources={"maxWorkers": 3})
    chosen = plan(spec)
    assert (chosen.workers, chosen.shards) == (3, 3125)
    assert "and maxWorkers allows 3" in said(chosen)
    head = head_size(spec, chosen)
    assert (head.cpu, head.memory, head.slots) == ("1", "2Gi", 0)


def test_a_worker_is_not_asked_for_if_its_slots_would_be_empty(make_spec: MakeSpec) -> None:
    spec = make_spec(samples=160, model=OWN | {"imgSize": 64}, resources={"worker": {"cpu": "8"}, "maxWorkers": 9})
    assert plan(spec).shards == 20
    assert plan(spec).workers == 3


@pytest.mark.parametrize(("asked", "may_use"), [("1", "2"), ("500m", "1.5"), ("10", "11"), ("1e1", "11")])
def test_a_head_may_borrow_one_cpu_and_asks_for_none_more(make_spec: MakeSpec, asked: str, may_use: str) -> None:
    spec = make_spec(samples=100_000, resources={"head": {"cpu": asked}})
    head = head_size(spec, plan(spec))
    assert (head.cpu, head.cpu_limit) == (asked, may_use)


def test_a_worker_gets_the_cpus_that_it_asks_for_and_no_others(make_spec: MakeSpec) -> None:
    spec = make_spec(samples=100_000, resources={"worker": {"cpu": "1500m"}})
    worker = worker_size(spec, plan(spec))
    assert (worker.cpu, worker.cpu_limit) == ("1500m", "1500m")


def test_the_head_alone_can_be_asked_for(make_spec: MakeSpec) -> None:
    chosen = plan(make_spec(samples=1_000_000, resources={"maxWorkers": 0}))
    assert chosen.workers == 0
    assert "maxWorkers is 0" in said(chosen)


def test_one_shard_needs_no_worker_however_long_it_takes(make_spec: MakeSpec) -> None:
    chosen = plan(make_spec(samples=32, model=OWN | {"imgSize": 1024}, batchSize=32))
    assert (chosen.workers, chosen.shards) == (0, 1)


@pytest.mark.parametrize(
    ("gpus", "most_workers", "workers", "each"),
    [
        (4, 4, 4, 1),
        (8, 4, 4, 2),
        (6, 4, 3, 2),
        (5, 4, 4, 1),
        (7, 4, 3, 2),
        (1, 4, 1, 1),
        (5, 1, 1, 5),
        (3, 9, 3, 1),
    ],
)
def test_gpus_are_spread_evenly_over_the_workers(
    make_spec: MakeSpec, gpus: int, most_workers: int, workers: int, each: int
) -> None:
    chosen = plan(make_spec(samples=100_000, resources={"gpus": gpus, "maxWorkers": most_workers}))
    assert (chosen.workers, chosen.gpus_per_worker) == (workers, each)


def test_gpus_without_a_shard_are_not_taken(make_spec: MakeSpec) -> None:
    chosen = plan(make_spec(samples=1024, resources={"gpus": 8, "tasksPerGPU": 4}))
    assert (chosen.gpus, chosen.tasks_per_gpu, chosen.shards) == (2, 1, 2)
    assert "2 of 8 GPUs: no more than there are shards" in said(chosen)


def test_more_tasks_than_cpus_on_a_gpu_worker_still_run_at_once(make_spec: MakeSpec) -> None:
    spec = make_spec(samples=100_000, resources={"gpus": 1, "tasksPerGPU": 4, "worker": {"cpu": "2"}})
    assert worker_size(spec, plan(spec)).slots == 4


def test_an_unknown_image_size_is_said_and_never_overestimates_the_shards(make_spec: MakeSpec) -> None:
    chosen = plan(make_spec(model=OWN, samples=10_000))
    assert (chosen.batch_size, chosen.shards) == (None, None)
    assert "chosen by the checkpoint's image size, at most 32: 313 shards or more" in said(chosen)
    assert "Set model.imgSize or batchSize" in said(chosen)


def test_gpus_that_come_after_a_first_attempt_on_cpus_are_not_taken(make_spec: MakeSpec) -> None:
    first = plan(make_spec())
    chosen = plan(make_spec(resources={"gpus": 4}), first)
    assert (chosen.device, chosen.gpus) == ("cpu", 0)
    assert "no GPU is taken" in said(chosen)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"samples": 100}, "1Gi"),
        ({"samples": 1_000_000}, "12Gi"),
        ({"samples": 50_000, "model": OWN | {"imgSize": 64, "channels": 3}}, "10Gi"),
        ({"samples": 50_000, "model": OWN}, "10Gi"),
    ],
)
def test_the_claim_holds_everything_twice(make_spec: MakeSpec, fields: dict[str, Any], size: str) -> None:
    assert claim_size(make_spec(**fields)) == size


@settings(deadline=None)
@given(specs())
def test_the_claim_is_never_too_small_for_shards_and_samples(fields: dict[str, Any]) -> None:
    spec = spec_of(fields)
    pixels = {"builtin://mnist": 28}.get(spec.model.uri, spec.model.img_size or 0) ** 2
    assert parse(claim_size(spec)) >= 2 * 4 * pixels * spec.samples


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("img_size", [1, 8, 16, 28, 31, 32, 33, 64, 100, 128, 181, 256, 512, 1024])
def test_both_halves_choose_the_same_batch_size(img_size: int, device: Device) -> None:
    model = job.ModelSpec(name="Unet", downs=(8,), time_emb_dim=4, img_size=img_size, time_embedding="step")
    assert default_batch_size(img_size, device) == job.default_batch_size(model, device)


def test_both_halves_know_the_same_defaults() -> None:
    assert DEFAULT_STEPS == job.DEFAULT_STEPS
    assert DEFAULT_TIMESTEPS == job.DEFAULT_TIMESTEPS


@pytest.mark.parametrize("name", BUILTIN_SHAPES)
def test_both_halves_know_the_same_shipped_checkpoints(name: str) -> None:
    uri = f"builtin://{name}"
    channels, height, width = load(fetch(uri), job.ModelRequest(uri=uri)).spec.image_shape
    assert BUILTIN_SHAPES[name] == (channels, height) == (channels, width)
