"""Which files of a folder are the model: finds the layout of a pipeline, and reads its configurations and weights.

Layouts: nested (``unet/``, ``scheduler/``), flat (all in one folder), a UNet alone, ``unet_ema`` of a training folder,
sharded weights, a pipeline one folder down, and the file names that uploads have made of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from pydantic import JsonValue

from ddpm_inference.checkpoint.formats import as_safetensors, refuse_foreign
from ddpm_inference.checkpoint.model_files import Json, ModelFiles
from ddpm_inference.checkpoint.pipeline_index import UNET_KEYS, check_config, check_index
from ddpm_inference.checkpoint.safetensors_file import Weights, decode
from ddpm_inference.checkpoint.source import CONFIGS, MAX_CHECKPOINT_BYTES, Source
from ddpm_inference.errors import ModelRejected

MAX_JSON_BYTES: Final = 4 << 20
"""The largest configuration: `trained_betas` of 100,000 timesteps are 2 MB."""
MAX_SHARDS: Final = 256
MAX_LISTED: Final = 5

INDEX: Final = "model_index.json"
WEIGHT_NAMES: Final = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "diffusion_model.pt",  # of July 2022
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.fp16.bin",
    "diffusion_pytorch_model.bin.index.fp16.json",
)
"""Weights of a network, the best first. All other variants come after these."""
_VARIANT: Final = re.compile(
    r"diffusion_pytorch_model\.(?:(?P<name>[A-Za-z0-9_]+)\.(?:safetensors|bin)"
    r"|(?:safetensors|bin)\.index\.(?P<index>[A-Za-z0-9_]+)\.json)"
)
_SHARD: Final = re.compile(r"diffusion_pytorch_model.*-\d{5}-of-\d{5}.*\.(?:safetensors|bin)")
_SCHEDULER_NAMES: Final = ("scheduler_config.json", "scheduler_scheduler_config.json")
_SCHEDULER_FOLDERS: Final = ("scheduler/", "noise_scheduler/")
_TRAINING_STATE: Final = re.compile(
    r"(?:optimizer|scheduler|scaler|opt\d*|random_states_\d+|sampler)[^/]*\.(?:bin|pt|pkl|pth)|rng_state.*\.pth|.*\.pkl"
)
_OTHER_WEIGHTS: Final = {
    ".msgpack": "Flax weights",
    ".onnx": "an ONNX model",
    ".h5": "TensorFlow weights",
    ".ckpt": "a checkpoint of another program",
    ".pkl": "a pickle, which is never loaded",
    ".tflite": "a TensorFlow Lite model",
}
_OLD_ATTENTION: Final = re.compile(
    r"(?P<layer>.*attentions\.\d+)\.(?P<part>query|key|value|proj_attn)\.(?P<kind>weight|bias)"
)
_NEW_ATTENTION: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class Layout:
    """The files of a model in a folder; paths are relative to the source.

    Attributes:
        root: the pipeline's folder; "" or with a slash at its end, as `unet`.
        unet: the network's folder.
        config: of the network.
        scheduler: None if there is none.
        index: None if there is none.
        weights: the file or the index of shards; None if there are no weights.
        notes: about the choice, one sentence each.
    """

    root: str
    unet: str
    config: str
    scheduler: str | None
    index: str | None
    weights: str | None
    notes: tuple[str, ...] = ()


def probe_names() -> list[str]:
    """Returns the names of the configurations to look for where a folder cannot be listed."""
    configs = [f"{folder}{name}" for folder in ("unet/", "") for name in CONFIGS]
    schedulers = [f"{folder}{name}" for folder in ("scheduler/", "") for name in _SCHEDULER_NAMES]
    return [INDEX, *configs, *schedulers]


def single_weights(source: Source) -> str | None:
    """Returns the only weight file of a folder without configurations, such as one of this program; else None."""
    names = source.entries
    if any(name.endswith(".json") and not _is_notebook_state(name) for name in names):
        return None
    found = [
        name
        for name in names
        if name.endswith((".safetensors", ".pt", ".pth")) and not _TRAINING_STATE.fullmatch(_base(name))
    ]
    return found[0] if len(found) == 1 else None


def _is_notebook_state(name: str) -> bool:
    return _base(name) in ("trainer_state.json", "tokenizer_config.json")


def refuse_by_name(path: str) -> None:
    """Raises ModelRejected if a file is by its name the state of a training, or a configuration."""
    name = _base(path)
    if _TRAINING_STATE.fullmatch(name):
        raise ModelRejected(
            f"{name} is the state of a training (its optimizer, learning rate or random numbers), not a network",
            hint="give the folder that holds unet/ or unet_ema/, or the file of the weights",
        )
    if name.endswith(".json"):
        raise ModelRejected(f"{name} is a configuration, not weights", hint="give the folder that holds it")


def hint_by_name(path: str) -> str:
    """Returns a hint for a weight file of diffusers that was given without its configuration; "" for others."""
    if _base(path).startswith("diffusion_pytorch_model"):
        return "give the folder instead of the file: the config.json beside it says what network it is"
    return ""


def find_layout(source: Source) -> Layout:
    """Finds the files of the model in a folder. Reads no file.

    Raises:
        ModelRejected: if there is no model, there are several, or an upload is unfinished.
    """
    names = source.entries
    layout = _layout_at("", names)
    if layout is not None:
        return layout
    roots = _roots_below(names)
    if len(roots) == 1:
        layout = _layout_at(roots[0], names)
        if layout is not None:
            note = f"the model is in the subfolder {roots[0].rstrip('/')}"
            return replace(layout, notes=(note, *layout.notes))
    if len(roots) > 1:
        listed = ", ".join(root.rstrip("/") for root in roots[:MAX_LISTED])
        raise ModelRejected(
            f"it holds {len(roots)} models: {listed}{', …' if len(roots) > MAX_LISTED else ''}",
            hint=f"add the subfolder of one, as in {source.where(roots[0].rstrip('/'))}",
        )
    _refuse_incomplete(names)


def _layout_at(root: str, names: Mapping[str, int | None]) -> Layout | None:
    """Returns the layout of the model whose pipeline folder is `root`, or None if it holds no network."""
    index = f"{root}{INDEX}" if f"{root}{INDEX}" in names else None
    nested = [f"{root}{key}/" for key in UNET_KEYS]
    ema = f"{root}unet_ema/"
    folders = [*nested, root, ema]
    notes = []
    if index is None and _config_in(ema, names) and _weights_in(ema, names):
        folders = [ema, *nested, root]
        if any(_config_in(folder, names) for folder in nested):
            notes.append("unet_ema is drawn, the averaged weights of a training; add /unet to the path for the others")
    unet = next((folder for folder in folders if _config_in(folder, names)), None)
    if unet is None:
        return None
    config = _config_in(unet, names)
    assert config is not None  # noqa: S101 - of the line above
    if unet != root and _config_in(root, names) and _weights_in(root, names):
        notes.append(f"the model in {unet.removeprefix(root).rstrip('/')} is drawn, not the second one beside it")
    weights = _weights_in(unet, names)
    if weights is not None:
        notes += _weight_notes(_base(weights))
    scheduler = _scheduler(root, unet, names)
    return Layout(root, unet, config, scheduler, index, weights, tuple(notes))


def _config_in(folder: str, names: Collection[str]) -> str | None:
    return next((f"{folder}{name}" for name in CONFIGS if f"{folder}{name}" in names), None)


def _scheduler(root: str, unet: str, names: Collection[str]) -> str | None:
    folders = [root, *(f"{root}{folder}" for folder in _SCHEDULER_FOLDERS)]
    if unet != root:
        folders = [*folders[1:], root, unet]
    return next(
        (f"{folder}{name}" for folder in folders for name in _SCHEDULER_NAMES if f"{folder}{name}" in names), None
    )


def _weights_in(folder: str, names: Collection[str]) -> str | None:
    """Returns the best weight file of a folder, or the index of its shards."""
    known = next((f"{folder}{name}" for name in WEIGHT_NAMES if f"{folder}{name}" in names), None)
    if known is not None:
        return known
    here = sorted(name for name in names if name.startswith(folder) and "/" not in name[len(folder) :])
    variants = [name for name in here if _VARIANT.fullmatch(_base(name))]
    if variants:
        # safetensors before .bin
        return min(variants, key=lambda name: (".bin" in name, name))
    others = [name for name in here if name.endswith(".safetensors") and not _SHARD.fullmatch(_base(name))]
    return others[0] if len(others) == 1 else None


def _weight_notes(name: str) -> list[str]:
    match = _VARIANT.fullmatch(name)
    variant = match and (match["name"] or match["index"])
    if variant in ("fp16", "bf16"):
        return [f"weights: only their {variant} variant is there ({name}); it is drawn with these rounded values"]
    if variant:
        return [f"weights: only their variant {variant} is there ({name})"]
    return []


def _roots_below(names: Mapping[str, int | None]) -> list[str]:
    """Returns the folders at any depth that hold a model, without those inside another one, sorted."""
    folders = {name.rpartition("/")[0] for name in names}
    parents = {parent for folder in folders for parent in _with_parents(folder)}
    roots: list[str] = []
    for folder in sorted(parents, key=lambda folder: (folder.count("/"), folder)):
        root = f"{folder}/"
        if folder and not root.startswith(tuple(roots)) and _is_model(root, names):
            roots.append(root)
    return sorted(roots)


def _with_parents(folder: str) -> Iterable[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]


def _is_model(root: str, names: Mapping[str, int | None]) -> bool:
    layout = _layout_at(root, names)
    return layout is not None and (layout.index is not None or layout.weights is not None)


def _refuse_incomplete(names: Mapping[str, int | None]) -> NoReturn:
    """Raises ModelRejected for a folder without the configuration of a network, saying what there is instead."""
    bases = {_base(name): name for name in names}
    if not names:
        raise ModelRejected("it is an empty folder")
    if INDEX in bases or any(name in bases for name in _SCHEDULER_NAMES):
        present = next(name for name in (INDEX, *_SCHEDULER_NAMES) if name in bases)
        raise ModelRejected(
            f"it has a {present} but no config.json of a network: its upload is unfinished",
            hint="its author has to upload unet/config.json and the weights",
        )
    states = sorted(name for name in bases if _TRAINING_STATE.fullmatch(name))
    if states:
        raise ModelRejected(
            f"it holds the state of a training ({', '.join(states[:3])}), and no model",
            hint="give the folder that holds unet/ or unet_ema/",
        )
    weights = sorted(name for name in bases if name.endswith((".safetensors", ".bin", ".pt", ".pth")))
    if weights:
        raise ModelRejected(
            f"it has weights ({', '.join(weights[:3])}) but no config.json, so their network is unknown",
            hint="give the path of a file itself if it is a network of the guide",
        )
    for suffix, kind in _OTHER_WEIGHTS.items():
        found = next((name for name in sorted(bases) if name.endswith(suffix)), None)
        if found:
            raise ModelRejected(f"it holds {kind} ({found}); only PyTorch models are drawn")
    raise ModelRejected(
        f"it holds no model: no {INDEX}, and no config.json of a network, among its {len(names)} files",
        hint="give the folder of a pipeline, or the path of a weight file",
    )


def read_configs(source: Source, layout: Layout) -> ModelFiles:
    """Reads the configurations of a model, and refuses what is no DDPM of pixels. Reads no weights.

    Raises:
        ModelRejected: see `pipeline_index`, or if a file is damaged.
        ModelNotFound: if a file cannot be read.
    """
    index = _read_json(source, layout.index) if layout.index else None
    if index is not None:
        check_index(index, {name.removeprefix(layout.root) for name in source.entries if name.startswith(layout.root)})
    config = _read_json(source, layout.config)
    check_config(config, layout.config)
    if layout.weights is None:
        raise _no_weights(layout, source.entries)
    scheduler = _read_json(source, layout.scheduler) if layout.scheduler else None
    return ModelFiles(
        origin=source.uri,
        config=config,
        scheduler=scheduler,
        index=index,
        files=tuple(source.used.values()),
        revision=source.revision,
        notes=layout.notes,
    )


def _no_weights(layout: Layout, names: Collection[str]) -> ModelRejected:
    here = [_base(name) for name in names if name.startswith(layout.unet) and "/" not in name[len(layout.unet) :]]
    shards = sorted(name for name in here if _SHARD.fullmatch(name))
    if shards:
        return ModelRejected(
            f"its weights are {len(shards)} shards, of which diffusion_pytorch_model.safetensors.index.json is missing: "
            "its upload is unfinished",
            hint="its author has to upload the index",
        )
    for suffix, kind in _OTHER_WEIGHTS.items():
        found = next((name for name in sorted(here) if name.endswith(suffix)), None)
        if found:
            return ModelRejected(f"its weights are {kind} ({found})", hint="convert them to safetensors with diffusers")
    return ModelRejected(
        f"it has a {layout.config} but no weights beside it (diffusion_pytorch_model.safetensors or .bin): its upload is "
        "unfinished",
        hint="its author has to upload the weights",
    )


def read_weights(source: Source, layout: Layout, files: ModelFiles) -> ModelFiles:
    """Returns the files with their weights.

    Raises:
        ModelRejected: if a weight file is damaged or dangerous, or a shard is missing.
        ModelNotFound: if a file cannot be read.
    """
    assert layout.weights is not None  # noqa: S101 - `read_configs` has refused it
    if layout.weights.endswith(".json"):
        weights = _read_shards(source, layout)
    else:
        weights = _decoded(source, layout.weights, source.read(layout.weights))
    renamed = {_today(key): value for key, value in weights.items()}
    if len(renamed) != len(weights):
        raise ModelRejected(f"{layout.weights}: it holds an attention layer under its old and its new name")
    return replace(files, weights=renamed, files=tuple(source.used.values()))


def _read_shards(source: Source, layout: Layout) -> Weights:
    name = layout.weights or ""
    entries = _read_json(source, name).get("weight_map")
    if not isinstance(entries, dict) or not entries or not all(isinstance(shard, str) for shard in entries.values()):
        raise ModelRejected(f"{name}: it has no weight_map of keys to files")
    shard_of = {key: str(shard) for key, shard in entries.items()}
    shards = sorted(set(shard_of.values()))
    if len(shards) > MAX_SHARDS:
        raise ModelRejected(f"{name}: it names {len(shards)} shards, of at most {MAX_SHARDS}")
    missing = [
        shard for shard in shards if "/" in shard or "\\" in shard or f"{layout.unet}{shard}" not in source.entries
    ]
    if missing:
        raise ModelRejected(
            f"{name}: its shard {missing[0]} is missing: its upload is unfinished", hint="its author has to upload it"
        )
    weights: Weights = {}
    left = MAX_CHECKPOINT_BYTES
    for shard in shards:
        path = f"{layout.unet}{shard}"
        data = source.read(path, left)
        left -= len(data)
        for key, value in _decoded(source, path, data).items():
            if shard_of.get(key) != shard:
                raise ModelRejected(f"{path}: it holds {key}, which is not listed as a part of it")
            weights[key] = value
    if absent := shard_of.keys() - weights.keys():
        raise ModelRejected(f"{name}: it lists {min(absent)}, which no shard holds")
    return weights


def _decoded(source: Source, name: str, data: bytes) -> Weights:
    try:
        return decode(as_safetensors(data))[0]
    except ModelRejected as error:
        raise ModelRejected(f"{name}: {error.message}", hint=error.hint) from error


def _today(key: str) -> str:
    """Returns a key of an attention layer as diffusers names it since 0.17 (models/modeling_utils.py,
    ``_convert_deprecated_attention_blocks``); others unchanged."""
    old = _OLD_ATTENTION.fullmatch(key)
    return f"{old['layer']}.{_NEW_ATTENTION[old['part']]}.{old['kind']}" if old else key


def _read_json(source: Source, name: str) -> dict[str, JsonValue]:
    data = source.read(name, MAX_JSON_BYTES)
    try:
        return parse_json_object(data)
    except ModelRejected as error:
        raise ModelRejected(f"{name}: {error.message}", hint=error.hint) from error


def parse_json_object(data: bytes) -> dict[str, JsonValue]:
    """Parses a JSON object of untrusted origin.

    Raises:
        ModelRejected: if it is anything else.
    """
    refuse_foreign(data)
    try:
        # Schedulers write -Infinity; the range of a number is checked where it is used.
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ModelRejected(f"it is not valid JSON: {what}", hint="download or copy it again") from error
    if not isinstance(value, dict):
        raise ModelRejected(f"it holds a {type(value).__name__} instead of an object")
    return value


def _base(name: str) -> str:
    return name.rpartition("/")[2]
