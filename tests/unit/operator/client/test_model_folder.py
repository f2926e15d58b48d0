"""Local pipeline folders: the files that are uploaded, and refusals, both as the driver's own."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
import yaml

from ddpm_inference.checkpoint import load_from
from ddpm_inference.checkpoint import pipeline_folder as driver
from ddpm_inference.checkpoint.pipeline_index import check_config, check_index
from ddpm_inference.errors import DdpmError
from ddpm_inference.job import ModelRequest
from ddpm_inference.models.families import family_of
from ddpm_operator.client.checkpoint_file import CheckpointFile
from ddpm_operator.client.errors import RequestRejected
from ddpm_operator.client.model_folder import ModelFolder, local_model
from ddpm_operator.client.pipeline import layout, unet2d_config, unet2d_layout, verdict
from tests.support.hub_configs import Entry, drawn, entries
from tests.support.pipelines import CONFIG, INDEX, SCHEDULER, WEIGHTS, arrays, encoded, nested, weights, write

Files = dict[str, bytes]
SHARDED = "diffusion_pytorch_model.safetensors.index.json"
ROOT = Path(__file__).parents[4]
SHIPPED = ROOT / "models" / "mnist.safetensors"


def without(files: Files, *names: str) -> Files:
    return {name: content for name, content in files.items() if name not in names}


def flat() -> Files:
    return {name.rpartition("/")[2]: content for name, content in nested().items()}


def shards() -> Files:
    values = arrays()
    names = [f"diffusion_pytorch_model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    shard_of = {key: names[index % 2] for index, key in enumerate(sorted(values))}
    files = {
        f"unet/{name}": safetensors.numpy.save({key: values[key] for key, shard in shard_of.items() if shard == name})
        for name in names
    }
    return {**without(nested(), f"unet/{WEIGHTS}"), **files, f"unet/{SHARDED}": encoded({"weight_map": shard_of})}


def training() -> Files:
    ema = {f"checkpoint-500/unet_ema/{name}": nested()[f"unet/{name}"] for name in ("config.json", WEIGHTS)}
    raw = {f"checkpoint-500/unet/{name}": nested(1)[f"unet/{name}"] for name in ("config.json", WEIGHTS)}
    return {**ema, **raw, "checkpoint-500/optimizer.bin": b"x", "checkpoint-500/random_states_0.pkl": b"x"}


def old_keys() -> Files:
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    values = {}
    for key, value in arrays().items():
        for new, old in names.items():
            key = key.replace(f".{new}.", f".{old}.")
        values[key] = value
    return {**nested(), f"unet/{WEIGHTS}": safetensors.numpy.save(values)}


LAYOUTS: dict[str, Callable[[], Files]] = {
    "nested": nested,
    "flat": flat,
    "with other files": lambda: {
        **nested(),
        "README.md": b"#",
        "samples/1.png": b"x",
        f"unet/{WEIGHTS.replace('safetensors', 'bin')}": b"x",
        "unet/diffusion_pytorch_model.fp16.safetensors": weights(half=True),
    },
    "bare network": lambda: without(flat(), "model_index.json", "scheduler_config.json"),
    "sharded": shards,
    "training": training,
    "one folder down": lambda: {f"checkpoints/{name}": content for name, content in nested().items()},
    "fp16 alone": lambda: {
        **without(nested(), f"unet/{WEIGHTS}"),
        "unet/diffusion_pytorch_model.fp16.safetensors": weights(half=True),
    },
    "keys of 2022": old_keys,
}


def uploaded(model: ModelFolder, claim: Path) -> Path:
    """Copies the files as the uploader pod stores them, and returns the pipeline's folder."""
    for file in model.stored:
        target = claim / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, target)
    return claim / model.stored_as


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_the_driver_reads_exactly_the_uploaded_files(files: Callable[[], Files], tmp_path: Path) -> None:
    folder = write(tmp_path / "local", files())
    model = local_model(folder)
    assert isinstance(model, ModelFolder)
    there = load_from(ModelRequest(uri=str(uploaded(model, tmp_path / "claim")), sha256=model.sha256))
    here = load_from(ModelRequest(uri=str(folder)))
    assert there.sha256 == here.sha256 == model.sha256
    assert there.source == here.source
    assert here.source is not None
    assert [file.name for file in here.source.files] == [file.name for file in model.files]
    cost = family_of(here.spec).cost(here.spec)
    assert model.footprint is not None
    assert (model.footprint.flops, model.footprint.activation_bytes) == cost
    assert model.footprint.weight_bytes == sum(value.nbytes for value in here.weights.values())
    channels, height, width = here.spec.image_shape
    assert (model.footprint.channels, model.footprint.height, model.footprint.width) == (channels, height, width)


def test_a_folder_of_one_weight_file_is_that_file(tmp_path: Path) -> None:
    shutil.copyfile(SHIPPED, tmp_path / "net.safetensors")
    model = local_model(tmp_path)
    assert isinstance(model, CheckpointFile)
    assert model.path == tmp_path / "net.safetensors"


def json_with(document: Mapping[str, Any], **fields: Any) -> bytes:  # noqa: ANN401
    return encoded({**document, **fields})


REFUSED: dict[str, tuple[Files, str]] = {
    "empty": ({"README.md": b"#"}, "it holds no model"),
    "half uploaded": (without(nested(), f"unet/{WEIGHTS}"), "its upload is unfinished"),
    "scheduler alone": ({"scheduler_config.json": encoded(SCHEDULER)}, "its upload is unfinished"),
    "shard missing": (without(shards(), "unet/diffusion_pytorch_model-00002-of-00002.safetensors"), "is not there"),
    "shard outside": (
        {**shards(), f"unet/{SHARDED}": encoded({"weight_map": {"a": "../../secret.safetensors"}})},
        "secret.safetensors is not there",
    ),
    "latent": (
        {**nested(), "model_index.json": json_with(INDEX, vqvae=["diffusers", "VQModel"])},
        "it is a latent model",
    ),
    "main": (
        {**nested(), "model_index.json": json_with(INDEX, unet=["__main__", "UNet"])},
        "is of the class UNet of __main__",
    ),
    "remote code": (
        {**nested(), "unet_model.py": b"", "model_index.json": json_with(INDEX, unet=["unet_model", "UNet2DModel"])},
        "code of a repository is never executed",
    ),
    "text": (
        {**nested(), "unet/config.json": json_with(CONFIG, _class_name="UNet2DConditionModel")},
        "its UNet is a UNet2DConditionModel",
    ),
    "foreign config": ({**nested(), "unet/config.json": encoded({"hidden": 4})}, "neither _class_name nor"),
    "levels": (
        {**nested(), "unet/config.json": json_with(CONFIG, sample_size=7)},
        "images of 7x7 do not fit its 2 levels",
    ),
    "other weights": (
        {**nested(), "unet/config.json": json_with(CONFIG, block_out_channels=[8, 32])},
        "its weights are not those of the network in its config.json",
    ),
    "fourier": ({**nested(), "unet/config.json": json_with(CONFIG, time_embedding_type="fourier")}, "not a DDPM"),
    "SDE": (
        {**nested(), "scheduler/scheduler_config.json": json_with(SCHEDULER, _class_name="ScoreSdeVeScheduler")},
        "of a score SDE",
    ),
    "PNDM": (
        {**nested(), "scheduler/scheduler_config.json": json_with(SCHEDULER, _class_name="PNDMScheduler")},
        "there is no sampler for its scheduler PNDMScheduler",
    ),
    "variance": (
        {**nested(), "scheduler/scheduler_config.json": json_with(SCHEDULER, variance_type="fixed_large_log")},
        "variance_type 'fixed_large_log'",
    ),
    "truncated": ({**nested(), f"unet/{WEIGHTS}": weights()[:-100]}, "bytes long, but its header says"),
    "LFS pointer": (
        {**nested(), f"unet/{WEIGHTS}": b"version https://git-lfs.github.com/spec/v1"},
        "is a Git LFS pointer",
    ),
    "pickle": (
        {**without(nested(), f"unet/{WEIGHTS}"), "unet/diffusion_pytorch_model.bin": b"\x80\x02}"},
        "is a bare pickle",
    ),
    "no JSON": ({**nested(), "unet/config.json": b"{"}, "it is not valid JSON"),
    "two models": (
        {f"{folder}/{name}": content for folder in "ab" for name, content in nested().items()},
        "it holds 2 models: a, b",
    ),
}


@pytest.mark.parametrize(("files", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_driver_would_refuse_is_not_uploaded(files: Files, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "pipeline", files)
    with pytest.raises(RequestRejected) as error:
        local_model(folder)
    assert error.value.message.startswith(str(folder))
    assert message in error.value.message
    assert error.value.hint
    if "PNDM" not in message:  # refused by the driver when it resolves the sampler
        with pytest.raises(DdpmError):
            load_from(ModelRequest(uri=str(folder)))


def test_a_sampler_makes_up_for_a_scheduler_without_one(tmp_path: Path) -> None:
    pndm = json_with(SCHEDULER, _class_name="PNDMScheduler")
    folder = write(tmp_path, {**nested(), "scheduler/scheduler_config.json": pndm})
    assert isinstance(local_model(folder, sampler="dpmpp"), ModelFolder)


def test_a_network_of_another_package_is_left_to_the_driver(tmp_path: Path) -> None:
    model = local_model(write(tmp_path, {**nested(), "unet/config.json": encoded({"_class_name": "OursNet"})}))
    assert isinstance(model, ModelFolder)
    assert model.footprint is None


def driver_refusal(entry: Entry) -> str | None:
    try:
        if entry.model_index is not None:
            check_index(entry.model_index, set())
        if entry.unet is not None:
            check_config(entry.unet, "config.json")
        entry.read()
    except DdpmError as error:
        return error.message
    return None


def refusal(entry: Entry) -> str | None:
    try:
        if entry.model_index is not None:
            verdict.check_index(entry.model_index, set())
        if entry.scheduler is not None:
            verdict.check_scheduler(entry.scheduler, entry.pipeline, "ddpm")
        verdict.check_config(entry.unet or {}, "config.json")
        if not unet2d_config.is_unet2d(entry.unet or {}):
            return "another network"
        unet2d_config.read_unet2d(entry.unet or {}, None)
    except RequestRejected as error:
        return error.message
    return None


SEEN = [entry for entry in entries() if entry.unet is not None]


@pytest.mark.parametrize("entry", SEEN, ids=lambda entry: entry.id)
def test_verdicts_on_configurations_of_the_hub_are_the_drivers(entry: Entry) -> None:
    ours, theirs = refusal(entry), driver_refusal(entry)
    assert (ours is None) == (theirs is None), f"{ours} | {theirs}"


@pytest.mark.parametrize("entry", drawn(), ids=lambda entry: entry.id)
def test_shapes_and_cost_are_the_drivers(entry: Entry) -> None:
    spec = entry.read()[0]
    family = family_of(spec)
    shapes, cost = unet2d_layout.shapes_and_cost(unet2d_config.read_unet2d(entry.unet or {}, None))
    assert shapes == family.shapes(spec)
    assert tuple(cost) == tuple(family.cost(spec))


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_chosen_files_are_the_drivers(files: Callable[[], Files]) -> None:
    names = dict.fromkeys(files())
    source = type("Source", (), {"entries": names})()
    assert vars(layout.find_layout(names)) == vars(driver.find_layout(source))


def test_the_example_of_the_hub_has_the_footprint_of_its_network() -> None:
    entry = next(entry for entry in entries() if entry.name == "google/ddpm-cifar10-32")
    shapes, cost = unet2d_layout.shapes_and_cost(unet2d_config.read_unet2d(entry.unet or {}, None))
    weight_bytes = 4 * sum(math.prod(shape) for shape in shapes.values())
    model = yaml.safe_load((ROOT / "examples" / "hub.yaml").read_text())["spec"]["model"]
    assert model["uri"] == f"hf://{entry.name}"
    footprint = model["footprint"]
    assert (footprint["flops"], footprint["activationBytes"], footprint["weightBytes"]) == (*cost, weight_bytes)
    assert (footprint["height"], footprint["width"], footprint["channels"]) == (32, 32, 3)


@pytest.mark.parametrize("name", ["WEIGHT_NAMES", "MAX_LISTED", "INDEX"])
def test_constants_of_layouts_are_the_drivers(name: str) -> None:
    assert getattr(layout, name) == getattr(driver, name)
