"""Folders of pipelines: which layouts are drawn, with which files, and what is refused by which sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from ddpm_inference.checkpoint import Checkpoint, load_from
from ddpm_inference.errors import ModelNotFound, ModelRejected
from ddpm_inference.job import ModelRequest
from tests.support.pipelines import CONFIG, INDEX, SCHEDULER, WEIGHTS, arrays, encoded, nested, weights, write

Files = dict[str, bytes]


def load(folder: Path, files: Files) -> Checkpoint:
    return load_from(ModelRequest(uri=str(write(folder, files))))


def refusal(folder: Path, files: Files) -> str:
    with pytest.raises(ModelRejected) as error:
        load(folder, files)
    return error.value.message + " | " + error.value.hint


def used(checkpoint: Checkpoint) -> list[str]:
    assert checkpoint.source is not None
    return [file.name for file in checkpoint.source.files]


def moved(files: Files, **renamed: str) -> Files:
    """Returns files with other folders: ``unet="x/"`` moves ``unet/config.json`` to ``x/config.json``."""
    found = {}
    for name, content in files.items():
        folder, _, base = name.rpartition("/")
        found[f"{renamed.get(folder or 'root', folder + '/' if folder else '')}{base}"] = content
    return found


def without(files: Files, *names: str) -> Files:
    return {name: content for name, content in files.items() if name not in names}


FLAT = moved(nested(), unet="", scheduler="")
SHARDED = "diffusion_pytorch_model.safetensors.index.json"


def shards() -> Files:
    values = arrays()
    names = [f"diffusion_pytorch_model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    shard_of = {key: names[index % 2] for index, key in enumerate(sorted(values))}
    files = {
        f"unet/{name}": safetensors.numpy.save({key: values[key] for key, shard in shard_of.items() if shard == name})
        for name in names
    }
    return {**without(nested(), f"unet/{WEIGHTS}"), **files, f"unet/{SHARDED}": encoded({"weight_map": shard_of})}


@pytest.mark.parametrize(
    ("files", "read"),
    [
        (nested(), [*nested()]),
        (FLAT, [*FLAT]),
        (without(FLAT, "model_index.json", "scheduler_config.json"), ["config.json", WEIGHTS]),
        (without(nested(), "model_index.json"), [*without(nested(), "model_index.json")]),
        (moved(nested(), unet="model/", scheduler="noise_scheduler/"), None),
        ({**without(nested(), "unet/config.json"), "unet/unet_config.json": encoded(CONFIG)}, None),
        (
            {
                **without(nested(), "scheduler/scheduler_config.json"),
                "scheduler/scheduler_scheduler_config.json": encoded(SCHEDULER),
            },
            None,
        ),
        ({**without(FLAT, "config.json"), "unet_config.json": encoded(CONFIG)}, None),
        (shards(), [*shards()]),
        ({f"runs/best/{name}": content for name, content in nested().items()}, None),
        ({**nested(), "README.md": b"#", "runs/events.out.tfevents.1": b"x", "unet/model.onnx": b"x"}, [*nested()]),
    ],
    ids=[
        "nested",
        "flat",
        "bare",
        "no index",
        "other components",
        "unet_config",
        "odd scheduler",
        "flat odd",
        "sharded",
        "subfolder",
        "more files",
    ],
)
def test_a_layout_is_drawn_with_the_same_weights(tmp_path: Path, files: Files, read: list[str] | None) -> None:
    checkpoint = load(tmp_path, files)
    assert checkpoint.spec.image_shape == (1, 8, 8)
    assert checkpoint.weights.keys() == arrays().keys()
    assert all(np.array_equal(value, arrays()[key]) for key, value in checkpoint.weights.items())
    assert read is None or used(checkpoint) == sorted(read)
    assert checkpoint.diffusion is not None
    has_scheduler = any("scheduler" in name for name in files)
    assert checkpoint.diffusion.timesteps == (20 if has_scheduler else 1000)
    if not has_scheduler:
        assert "scheduler_config.json is missing" in checkpoint.diffusion.notes[0]


def test_full_precision_comes_before_variants_which_are_said(tmp_path: Path) -> None:
    half = {"unet/diffusion_pytorch_model.fp16.safetensors": weights(half=True)}
    both = load(tmp_path / "both", {**nested(), **half})
    assert f"unet/{WEIGHTS}" in used(both)
    assert both.notes == ()
    alone = load(tmp_path / "alone", {**without(nested(), f"unet/{WEIGHTS}"), **half})
    assert "only their fp16 variant is there" in alone.notes[0]
    assert all(value.dtype == np.float32 for value in alone.weights.values())


def test_averaged_weights_of_a_training_folder_are_preferred_and_said(tmp_path: Path) -> None:
    ema = {**CONFIG, "decay": 0.9999, "inv_gamma": 1.0, "optimization_step": 500, "use_ema_warmup": True}
    state = {name: pickle.dumps({}) for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl")}
    unet = {"unet/config.json": encoded(CONFIG), f"unet/{WEIGHTS}": weights(1)}
    checkpoint = load(
        tmp_path, {**unet, "unet_ema/config.json": encoded(ema), f"unet_ema/{WEIGHTS}": weights(2), **state}
    )
    assert used(checkpoint) == ["unet_ema/config.json", f"unet_ema/{WEIGHTS}"]
    assert "unet_ema is drawn" in checkpoint.notes[0]


def test_the_nested_model_wins_over_a_second_one_at_the_root(tmp_path: Path) -> None:
    second = {"config.json": encoded(CONFIG), WEIGHTS: weights(9)}
    checkpoint = load(tmp_path, {**nested(), **second})
    assert f"unet/{WEIGHTS}" in used(checkpoint)
    assert "not the second one beside it" in checkpoint.notes[0]


def test_attention_keys_of_2022_are_renamed(tmp_path: Path) -> None:
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for key, value in arrays().items():
        for name, former in new.items():
            key = key.replace(f".{name}.", f".{former}.") if "attentions" in key else key
        old[key] = value
    assert old.keys() != arrays().keys()
    checkpoint = load(tmp_path, {**nested(), f"unet/{WEIGHTS}": safetensors.numpy.save(old)})
    assert checkpoint.weights.keys() == arrays().keys()


def test_the_sha256_of_a_folder_is_pinned_over_its_files(tmp_path: Path) -> None:
    checkpoint = load(tmp_path, nested())
    request = ModelRequest(uri=str(tmp_path), sha256=checkpoint.sha256)
    assert load_from(request).sha256 == checkpoint.sha256
    (tmp_path / "README.md").write_text("of no effect")
    assert load_from(request).sha256 == checkpoint.sha256
    write(tmp_path, {"scheduler/scheduler_config.json": encoded({**SCHEDULER, "beta_end": 0.03})})
    with pytest.raises(ModelRejected, match="not the pinned"):
        load_from(request)


def index(**changed: object) -> Files:
    return {**nested(), "model_index.json": encoded({**INDEX, **changed})}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (index(_class_name="DDPMPipelineConditional"), "way of sampling is unknown here"),
        (index(_class_name=["pipeline", "KarrasEDMPipeline"]), "of its own file pipeline.py: code of a repository"),
        (index(unet=["__main__", "UNet2DModel"]), "of the class UNet2DModel of __main__"),
        (
            {**index(unet=["unet_model", "UNet2DModel"]), "unet/unet_model.py": b"raise SystemExit(1)"},
            "of its own file unet_model.py: code of a repository",
        ),
        (index(_class_name="LDMPipeline", vqvae=["diffusers", "VQModel"]), "a latent model (vqvae)"),
        (index(vae=["diffusers", "AutoencoderKL"]), "a latent model (vae)"),
        (index(unet=["diffusers", "UNet2DConditionModel"]), "needs the embedding of a text or a class"),
        (index(text_encoder=["transformers", "CLIPTextModel"]), "draws from a text or an image"),
        (index(_class_name="ScoreSdeVePipeline", scheduler=["diffusers", "ScoreSdeVeScheduler"]), "a score SDE model"),
        (index(_class_name="ConsistencyModelPipeline"), "a consistency model"),
        (index(scheduler=["diffusers", "EDMEulerScheduler"]), "an EDM model"),
        (
            {**nested(), "scheduler/scheduler_config.json": encoded({"_class_name": "CMStochasticIterativeScheduler"})},
            "of a consistency model",
        ),
        ({**nested(), "unet/config.json": encoded({"_class_name": "UNet2DConditionModel"})}, "needs the embedding"),
        ({**nested(), "unet/config.json": encoded({"dim": 64, "dim_mults": [1, 2]})}, "not that of a known network"),
        ({**nested(), "unet/config.json": encoded({"model_type": "vit"})}, "of a transformers model (vit)"),
        ({**nested(), "unet/config.json": encoded({"_class_name": "VQModel"})}, "the decoder of a latent model"),
        ({"scheduler_config.json": encoded(SCHEDULER), ".gitattributes": b""}, "its upload is unfinished"),
        (without(nested(), f"unet/{WEIGHTS}"), "no weights beside it"),
        (without(shards(), f"unet/{SHARDED}"), "its weights are 2 shards, of which"),
        (
            without(shards(), "unet/diffusion_pytorch_model-00002-of-00002.safetensors"),
            "its shard diffusion_pytorch_model-00002-of-00002.safetensors is missing",
        ),
        ({**without(nested(), f"unet/{WEIGHTS}"), "unet/diffusion_flax_model.msgpack": b"x"}, "are Flax weights"),
        ({"optimizer.bin": b"x", "random_states_0.pkl": b"x"}, "the state of a training"),
        ({"a.safetensors": weights(), "b.safetensors": weights()}, "no config.json, so their network is unknown"),
        ({f"{run}/{name}": content for run in "ab" for name, content in nested().items()}, "it holds 2 models: a, b"),
        ({"README.md": b"#"}, "it holds no model"),
        ({**nested(), "unet/config.json": b"version https://git-lfs.github.com/spec/v1\n"}, "a Git LFS pointer"),
        ({**nested(), f"unet/{WEIGHTS}": b"version https://git-lfs.github.com/spec/v1\n"}, "a Git LFS pointer"),
        ({**nested(), f"unet/{WEIGHTS}": b"/annex/objects/SHA256E-s7--0.safetensors\n"}, "a git-annex pointer"),
        (
            {**without(nested(), f"unet/{WEIGHTS}"), "unet/diffusion_pytorch_model.bin": pickle.dumps([1])},
            "a bare pickle, which may carry code",
        ),
        ({**nested(), "unet/config.json": b"<!doctype html>"}, "an HTML or XML page"),
        ({**nested(), "unet/config.json": b"[1]"}, "holds a list instead of an object"),
        ({**nested(), "unet/config.json": b"[" * 100_000}, "not valid JSON"),
        ({**nested(), "unet/config.json": b'{"a": ' + b"9" * 5000 + b"}"}, "not valid JSON"),
        ({**nested(), f"unet/{WEIGHTS}": weights()[:-9]}, "not a complete safetensors file"),
    ],
)
def test_a_refusal_says_what_it_is_and_where(tmp_path: Path, files: Files, sentence: str) -> None:
    message = refusal(tmp_path, files)
    assert sentence in message
    assert message.startswith(str(tmp_path))


@pytest.mark.parametrize("name", ["optimizer.bin", "scheduler.bin", "random_states_0.pkl", "opt500000.pt"])
def test_the_state_of_a_training_given_as_the_model_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelRejected, match="the state of a training"):
        load_from(ModelRequest(uri=str(tmp_path / name)))


def test_a_weight_file_alone_asks_for_its_folder(tmp_path: Path) -> None:
    write(tmp_path, nested())
    with pytest.raises(ModelRejected) as error:
        load_from(ModelRequest(uri=str(tmp_path / "unet" / WEIGHTS)))
    assert "give the folder instead of the file" in error.value.hint


def test_a_link_into_a_missing_annex_says_so(tmp_path: Path) -> None:
    write(tmp_path, without(nested(), f"unet/{WEIGHTS}"))
    (tmp_path / "unet" / WEIGHTS).symlink_to("../.git/annex/objects/x")
    with pytest.raises(ModelNotFound, match="is a link to a file that is not there"):
        load_from(ModelRequest(uri=str(tmp_path)))


def test_a_cache_of_links_is_read(tmp_path: Path) -> None:
    for number, (name, content) in enumerate(nested().items()):
        blob = write(tmp_path, {f"blobs/{number}": content}) / "blobs" / str(number)
        link = tmp_path / "snapshot" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    assert load_from(ModelRequest(uri=str(tmp_path / "snapshot"))).spec.name == "UNet2DModel"


@pytest.mark.parametrize("name", ["../secret.safetensors", "sub/x.safetensors", "..", ""])
def test_a_shard_outside_of_the_folder_is_never_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.safetensors").write_bytes(weights())
    files = {**shards(), f"unet/{SHARDED}": encoded({"weight_map": {"conv_in.weight": name}})}
    assert "is missing" in refusal(tmp_path / "pipeline" / "x", files)


def test_infinities_of_a_scheduler_are_json_for_diffusers(tmp_path: Path) -> None:
    scheduler: dict[str, Any] = {
        **SCHEDULER,
        "_class_name": "DPMSolverMultistepScheduler",
        "lambda_min_clipped": float("-inf"),
    }
    assert "-Infinity" in json.dumps(scheduler)
    del scheduler["variance_type"], scheduler["clip_sample"]
    checkpoint = load(tmp_path, {**nested(), "scheduler/scheduler_config.json": encoded(scheduler)})
    assert checkpoint.diffusion is not None
    assert checkpoint.diffusion.sampler == "dpmpp"
