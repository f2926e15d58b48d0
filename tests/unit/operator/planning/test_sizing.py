"""The plan of a sampling: workers, GPUs, batch size, pod sizes and claim size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_inference import job
from ddpm_inference.checkpoint import fetch, load
from ddpm_inference.models.families import family_of
from ddpm_operator.api import Plan, Spec
from ddpm_operator.api.quantity import parse
from ddpm_operator.planning.sizing import (
    BUDGETS,
    BUILTIN_SHAPES,
    DEFAULT_STEPS,
    DEFAULT_TIMESTEPS,
    Cost,
    Device,
    PlanningError,
    claim_size,
    default_batch_size,
    guide_cost,
    head_size,
    plan,
    worker_size,
)

MakeSpec = Callable[..., Spec]
CUSTOM_MODEL = {"uri": "pvc://models/unet.safetensors"}

CPUS = st.integers(1, 32).map(str) | st.integers(100, 32_000).map(lambda milli: f"{milli}m")


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Generates specs with the fields that sizing reads, as in YAML."""
    gpus = draw(st.integers(0, 40))
    model = draw(
        st.sampled_from([{"uri": "builtin://mnist"}, CUSTOM_MODEL])
        | st.builds(lambda size: CUSTOM_MODEL | {"imgSize": size}, st.integers(1, 1024))
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


def min_shards(chosen: Plan, samples: int) -> int:
    return chosen.shards or -(-samples // BUDGETS[chosen.device].rows)


@settings(deadline=None)
@given(specs())
def test_plan_stays_within_the_limits_and_the_shards(fields: dict[str, Any]) -> None:
    spec = spec_of(fields)
    chosen = plan(spec)
    shards = min_shards(chosen, spec.samples)
    assert chosen.workers <= min(spec.resources.max_workers, shards)
    assert chosen.gpus <= min(spec.resources.gpus, shards)
    assert chosen.gpus == chosen.workers * chosen.gpus_per_worker
    if chosen.tasks_per_gpu:
        assert chosen.tasks_per_gpu <= spec.resources.tasks_per_gpu
        assert chosen.gpus * (chosen.tasks_per_gpu - 1) < shards


@settings(deadline=None)
@given(specs())
def test_device_is_cuda_exactly_with_gpus(fields: dict[str, Any]) -> None:
    spec = spec_of(fields)
    chosen = plan(spec)
    assert (chosen.device == "cuda") == (spec.resources.gpus > 0) == (chosen.gpus > 0)
    assert (chosen.device == "cuda") == (chosen.tasks_per_gpu is not None)
    assert head_size(spec, chosen).gpus == 0


@settings(deadline=None)
@given(specs())
def test_every_task_has_a_slot(fields: dict[str, Any]) -> None:
    spec = spec_of(fields)
    chosen = plan(spec)
    head, worker = head_size(spec, chosen), worker_size(spec, chosen)
    assert (head.slots > 0) == (chosen.workers == 0)
    assert worker.slots >= chosen.gpus_per_worker * (chosen.tasks_per_gpu or 1)
    assert worker.gpus * chosen.workers == chosen.gpus


@settings(deadline=None)
@given(specs())
def test_shard_count_matches_inference(fields: dict[str, Any]) -> None:
    spec = spec_of(fields)
    chosen = plan(spec)
    if chosen.batch_size:
        assert chosen.shards == job.shard_count(spec.samples, chosen.batch_size)
    else:
        assert chosen.shards is None


@settings(deadline=None)
@given(specs(), st.integers(1, 100_000))
def test_more_samples_never_get_fewer_resources(fields: dict[str, Any], more: int) -> None:
    few = plan(spec_of(fields))
    many = plan(spec_of(fields | {"samples": min(fields["samples"] + more, 1_000_000_000)}))
    assert many.gpus >= few.gpus
    assert many.workers >= few.workers or many.gpus_per_worker > few.gpus_per_worker


@settings(deadline=None)
@given(specs(), st.integers(1, 20))
def test_higher_gpu_limit_never_uses_fewer_gpus(fields: dict[str, Any], more: int) -> None:
    resources = fields["resources"] | {"gpus": max(1, fields["resources"]["gpus"])}
    resources["maxWorkers"] = max(1, resources["maxWorkers"])
    higher = resources | {"gpus": resources["gpus"] + more}
    few, many = plan(spec_of(fields | {"resources": resources})), plan(spec_of(fields | {"resources": higher}))
    assert many.gpus >= few.gpus


@settings(deadline=None)
@given(specs(), st.integers(1, 20))
def test_higher_worker_limit_never_uses_fewer_workers(fields: dict[str, Any], more: int) -> None:
    resources = fields["resources"] | {"gpus": 0}
    higher = resources | {"maxWorkers": resources["maxWorkers"] + more}
    few, many = plan(spec_of(fields | {"resources": resources})), plan(spec_of(fields | {"resources": higher}))
    assert many.workers >= few.workers


@settings(deadline=None)
@given(specs(), specs())
def test_batch_size_does_not_depend_on_samples_or_resources(one: dict[str, Any], other: dict[str, Any]) -> None:
    fixed = {key: one[key] for key in ("model", "sampler", "batchSize") if key in one}
    gpus = {"gpus": other["resources"]["gpus"] or 1} if one["resources"]["gpus"] else {"gpus": 0}
    resources = other["resources"] | gpus | {"maxWorkers": max(1, other["resources"]["maxWorkers"])}
    second = plan(spec_of(fixed | {"samples": other["samples"], "resources": resources}))
    first = plan(spec_of(one))
    assert (second.batch_size, second.device) == (first.batch_size, first.device)


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
def test_explanation_fits_the_status(fields: dict[str, Any]) -> None:
    chosen = plan(spec_of(fields))
    assert chosen.why
    assert all(sentence.endswith(".") for sentence in chosen.why)
    assert Plan.from_document(chosen.to_document()) == chosen


def explanation(chosen: Plan) -> str:
    return " ".join(chosen.why)


def test_small_job_runs_on_the_head(make_spec: MakeSpec) -> None:
    spec = make_spec(samples=100, sampler={"name": "ddim", "steps": 500})
    chosen = plan(spec)
    assert (chosen.workers, chosen.shards, chosen.batch_size) == (0, 4, 32)
    assert "so the head draws all samples" in explanation(chosen)
    head = head_size(spec, chosen)
    assert (head.cpu, head.memory, head.slots) == ("2", "4Gi", 2)


def test_job_above_the_small_limit_gets_workers(make_spec: MakeSpec) -> None:
    assert plan(make_spec(samples=100, sampler={"name": "ddim", "steps": 501})).workers == 2


def test_large_job_gets_max_workers(make_spec: MakeSpec) -> None:
    spec = make_spec(samples=100_000, resources={"maxWorkers": 3})
    chosen = plan(spec)
    assert (chosen.workers, chosen.shards) == (3, 3125)
    assert "limited to 3 by maxWorkers" in explanation(chosen)
    head = head_size(spec, chosen)
    assert (head.cpu, head.memory, head.slots) == ("1", "2Gi", 0)


def test_workers_are_limited_by_the_shards(make_spec: MakeSpec) -> None:
    spec = make_spec(
        samples=160, model=CUSTOM_MODEL | {"imgSize": 64}, resources={"worker": {"cpu": "8"}, "maxWorkers": 9}
    )
    assert plan(spec).shards == 20
    assert plan(spec).workers == 3


@pytest.mark.parametrize(("cpu", "limit"), [("1", "2"), ("500m", "1.5"), ("10", "11"), ("1e1", "11")])
def test_head_cpu_limit_is_one_above_its_request(make_spec: MakeSpec, cpu: str, limit: str) -> None:
    spec = make_spec(samples=100_000, resources={"head": {"cpu": cpu}})
    head = head_size(spec, plan(spec))
    assert (head.cpu, head.cpu_limit) == (cpu, limit)


def test_worker_cpu_limit_equals_its_request(make_spec: MakeSpec) -> None:
    spec = make_spec(samples=100_000, resources={"worker": {"cpu": "1500m"}})
    worker = worker_size(spec, plan(spec))
    assert (worker.cpu, worker.cpu_limit) == ("1500m", "1500m")


def test_zero_max_workers_uses_only_the_head(make_spec: MakeSpec) -> None:
    chosen = plan(make_spec(samples=1_000_000, resources={"maxWorkers": 0}))
    assert chosen.workers == 0
    assert "maxWorkers is 0" in explanation(chosen)


def test_single_shard_runs_on_the_head(make_spec: MakeSpec) -> None:
    chosen = plan(make_spec(samples=32, model=CUSTOM_MODEL | {"imgSize": 1024}, batchSize=32))
    assert (chosen.workers, chosen.shards) == (0, 1)


@pytest.mark.parametrize(
    ("gpus", "max_workers", "workers", "each"),
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
def test_gpus_are_divided_evenly_among_workers(
    make_spec: MakeSpec, gpus: int, max_workers: int, workers: int, each: int
) -> None:
    chosen = plan(make_spec(samples=100_000, resources={"gpus": gpus, "maxWorkers": max_workers}))
    assert (chosen.workers, chosen.gpus_per_worker) == (workers, each)


def test_gpus_are_limited_by_the_shards(make_spec: MakeSpec) -> None:
    chosen = plan(make_spec(samples=1024, resources={"gpus": 8, "tasksPerGPU": 4}))
    assert (chosen.gpus, chosen.tasks_per_gpu, chosen.shards) == (2, 1, 2)
    assert "2 of 8 GPUs are used, one per shard" in explanation(chosen)


def test_every_gpu_task_has_a_slot_despite_few_cpus(make_spec: MakeSpec) -> None:
    spec = make_spec(samples=100_000, resources={"gpus": 1, "tasksPerGPU": 4, "worker": {"cpu": "2"}})
    assert worker_size(spec, plan(spec)).slots == 4


def test_unknown_image_size_is_explained(make_spec: MakeSpec) -> None:
    chosen = plan(make_spec(model=CUSTOM_MODEL, samples=10_000))
    assert (chosen.batch_size, chosen.shards) == (None, None)
    assert "depends on the checkpoint's image size and is at most 32, so there are 313 shards or more" in explanation(
        chosen
    )
    assert "Set model.imgSize or batchSize" in explanation(chosen)


def test_gpus_added_after_a_cpu_attempt_are_not_used(make_spec: MakeSpec) -> None:
    first = plan(make_spec())
    chosen = plan(make_spec(resources={"gpus": 4}), first)
    assert (chosen.device, chosen.gpus) == ("cpu", 0)
    assert "later attempts do not use GPUs" in explanation(chosen)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"samples": 100}, "1Gi"),
        ({"samples": 1_000_000}, "12Gi"),
        ({"samples": 50_000, "model": CUSTOM_MODEL | {"imgSize": 64, "channels": 3}}, "10Gi"),
        ({"samples": 50_000, "model": CUSTOM_MODEL}, "10Gi"),
    ],
)
def test_claim_size_is_twice_the_stored_bytes(make_spec: MakeSpec, fields: dict[str, Any], size: str) -> None:
    assert claim_size(make_spec(**fields)) == size


@settings(deadline=None)
@given(specs())
def test_claim_size_covers_shards_and_samples(fields: dict[str, Any]) -> None:
    spec = spec_of(fields)
    pixels = {"builtin://mnist": 28}.get(spec.model.uri, spec.model.img_size or 0) ** 2
    assert parse(claim_size(spec)) >= 2 * 4 * pixels * spec.samples


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("img_size", [1, 8, 16, 28, 31, 32, 33, 64, 100, 128, 181, 256, 512, 1024])
def test_default_batch_size_matches_inference(img_size: int, device: Device) -> None:
    model = job.ModelSpec(name="Unet", downs=(8,), time_emb_dim=4, img_size=img_size, time_embedding="step")
    cost = family_of(model).cost(model)
    assert guide_cost(img_size, img_size) == cost
    assert default_batch_size(Cost(*cost), device) == job.default_batch_size(cost, device)


@given(st.integers(1, 10**14), st.integers(1, 1 << 40), st.sampled_from(["cpu", "cuda"]))
def test_batch_of_any_cost_matches_inference(flops: int, activation_bytes: int, device: Device) -> None:
    expected = job.default_batch_size(job.Cost(flops, activation_bytes), device)
    assert default_batch_size(Cost(flops, activation_bytes), device) == expected


HUB = {"uri": "hf://google/ddpm-celebahq-256"}
FOOTPRINT = {
    "height": 256,
    "width": 256,
    "channels": 3,
    "flops": 497 * 10**9,
    "activationBytes": 400 << 20,
    "weightBytes": 454_688_012,
}


def test_footprint_decides_batch_claim_and_workers(make_spec: MakeSpec) -> None:
    spec = make_spec(model=HUB | {"footprint": FOOTPRINT}, samples=100, sampler={"name": "ddim"})
    chosen = plan(spec)
    assert (chosen.batch_size, chosen.shards, chosen.workers) == (1, 100, 4)
    assert "chosen for 256x256 pixels and 497 GFLOP an evaluation on cpu" in explanation(chosen)
    assert "assumes" not in explanation(chosen)
    assert claim_size(make_spec(model=HUB | {"footprint": FOOTPRINT}, samples=1000)) == "3Gi"


def test_non_square_footprint_is_explained(make_spec: MakeSpec) -> None:
    tall = FOOTPRINT | {"height": 160, "width": 240, "channels": 1}
    assert "for 160x240 pixels" in explanation(plan(make_spec(model=HUB | {"footprint": tall})))


@pytest.mark.parametrize("uri", [HUB["uri"], "s3://bucket/pipeline/", "pvc://claim/pipeline", "https://host/pipeline/"])
def test_assumptions_about_an_unread_pipeline_are_said(make_spec: MakeSpec, uri: str) -> None:
    chosen = plan(make_spec(model={"uri": uri}, samples=64, sampler={"name": "ddim"}))
    assert chosen.batch_size is None
    scheme = uri.partition("://")[0]
    assert f"does not read {scheme}://: it assumes 256x256 pixels, 3 channels and 500 GFLOP" in explanation(chosen)
    assert "Set batchSize for an exact plan" in explanation(chosen)
    assert chosen.workers > 0
    assert claim_size(make_spec(model={"uri": uri}, samples=1000)) == "3Gi"


def test_image_size_alone_decides_no_batch_of_a_pipeline(make_spec: MakeSpec) -> None:
    chosen = plan(make_spec(model=HUB | {"imgSize": 32}, samples=100))
    assert chosen.batch_size is None
    assert "assumes 32x32 pixels, 3 channels" in explanation(chosen)


@pytest.mark.parametrize(
    ("resources", "sentences"),
    [
        ({"worker": {"cpu": "2", "memory": "4Gi"}}, []),
        (
            {"worker": {"cpu": "4", "memory": "4Gi"}},
            ["a worker needs about 6,527Mi, more than its memory of 4Gi. Set resources.worker.memory."],
        ),
        (
            {"head": {"cpu": "1", "memory": "1Gi"}},
            ["a head needs about 2,325Mi, more than its memory of 1Gi. Set resources.head.memory."],
        ),
        (
            {"maxWorkers": 0, "worker": {"cpu": "2", "memory": "4Gi"}},
            ["a head that draws needs about 4,860Mi, more than its memory of 4Gi. Set resources.worker.memory."],
        ),
    ],
)
def test_memory_too_small_for_the_weights_is_said(
    make_spec: MakeSpec, resources: dict[str, Any], sentences: list[str]
) -> None:
    head = {"head": {"cpu": "1", "memory": "4Gi"}}
    spec = make_spec(model=HUB | {"footprint": FOOTPRINT}, samples=100, resources=head | resources)
    prefix = "The weights take 434Mi: "
    assert [it.removeprefix(prefix) for it in plan(spec).why if it.startswith(prefix)] == sentences


def test_sampler_defaults_match_inference() -> None:
    assert DEFAULT_STEPS == job.DEFAULT_STEPS
    assert DEFAULT_TIMESTEPS == job.DEFAULT_TIMESTEPS


@pytest.mark.parametrize("name", BUILTIN_SHAPES)
def test_builtin_shapes_match_the_checkpoints(name: str) -> None:
    uri = f"builtin://{name}"
    assert load(fetch(uri), job.ModelRequest(uri=uri)).spec.image_shape == BUILTIN_SHAPES[name]


@pytest.mark.parametrize("resources", [{}, {"gpus": 1}], ids=["cpu", "cuda"])
def test_the_hardware_of_an_earlier_attempt_is_kept(make_spec: MakeSpec, resources: dict[str, Any]) -> None:
    spec = make_spec(resources=resources)
    first = plan(spec)
    assert first.hardware is None
    known = first.model_copy(update={"hardware": {"aten": "AVX512"}})
    assert plan(spec, previous=known).hardware == {"aten": "AVX512"}
