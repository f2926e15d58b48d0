"""Which files of a folder are the model, as `ddpm_inference.checkpoint.pipeline_folder` chooses them. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from ddpm_operator.client.errors import PipelineRejected

MAX_LISTED: Final = 5
CONFIGS: Final = ("config.json", "unet_config.json")
UNET_KEYS: Final = ("unet", "model", "noise_predictor")
"""Names of the component that is the network; the second is of google/ncsnpp."""
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


def single_weights(names: Collection[str]) -> str | None:
    """Returns the only weight file of a folder without configurations, such as one of this program; else None."""
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


def find_layout(names: Collection[str]) -> Layout:
    """Finds the files of the model in a folder. Reads no file.

    Raises:
        PipelineRejected: if there is no model, there are several, or an upload is unfinished.
    """
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
        raise PipelineRejected(
            f"it holds {len(roots)} models: {listed}{', …' if len(roots) > MAX_LISTED else ''}",
            f"give the subfolder of one, such as {roots[0]}",
        )
    raise _incomplete(names)


def _layout_at(root: str, names: Collection[str]) -> Layout | None:
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


def _roots_below(names: Collection[str]) -> list[str]:
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


def _is_model(root: str, names: Collection[str]) -> bool:
    layout = _layout_at(root, names)
    return layout is not None and (layout.index is not None or layout.weights is not None)


def _incomplete(names: Collection[str]) -> PipelineRejected:
    """Returns the error for a folder without the configuration of a network, saying what there is instead."""
    bases = {_base(name): name for name in names}
    if not names:
        return PipelineRejected("it is an empty folder")
    if INDEX in bases or any(name in bases for name in _SCHEDULER_NAMES):
        present = next(name for name in (INDEX, *_SCHEDULER_NAMES) if name in bases)
        return PipelineRejected(
            f"it has a {present} but no config.json of a network: its upload is unfinished",
            "its author has to upload unet/config.json and the weights",
        )
    states = sorted(name for name in bases if _TRAINING_STATE.fullmatch(name))
    if states:
        return PipelineRejected(
            f"it holds the state of a training ({', '.join(states[:3])}), and no model",
            "give the folder that holds unet/ or unet_ema/",
        )
    weights = sorted(name for name in bases if name.endswith((".safetensors", ".bin", ".pt", ".pth")))
    if weights:
        return PipelineRejected(
            f"it has weights ({', '.join(weights[:3])}) but no config.json, so their network is unknown",
            "give the path of a file itself if it is a network of the guide",
        )
    for suffix, kind in _OTHER_WEIGHTS.items():
        found = next((name for name in sorted(bases) if name.endswith(suffix)), None)
        if found:
            return PipelineRejected(f"it holds {kind} ({found}); only PyTorch models are drawn")
    return PipelineRejected(
        f"it holds no model: no {INDEX}, and no config.json of a network, among its {len(names)} files",
        "give the folder of a pipeline, or the path of a weight file",
    )


def no_weights(layout: Layout, names: Collection[str]) -> PipelineRejected:
    here = [_base(name) for name in names if name.startswith(layout.unet) and "/" not in name[len(layout.unet) :]]
    shards = sorted(name for name in here if _SHARD.fullmatch(name))
    if shards:
        return PipelineRejected(
            f"its weights are {len(shards)} shards, of which diffusion_pytorch_model.safetensors.index.json is "
            "missing: its upload is unfinished",
            "its author has to upload the index",
        )
    for suffix, kind in _OTHER_WEIGHTS.items():
        found = next((name for name in sorted(here) if name.endswith(suffix)), None)
        if found:
            return PipelineRejected(f"its weights are {kind} ({found})", "convert them to safetensors with diffusers")
    return PipelineRejected(
        f"it has a {layout.config} but no weights beside it (diffusion_pytorch_model.safetensors or .bin): its upload "
        "is unfinished",
        "its author has to upload the weights",
    )


def today(key: str) -> str:
    """Returns a key of an attention layer as diffusers names it since 0.17 (models/modeling_utils.py,
    ``_convert_deprecated_attention_blocks``); others unchanged."""
    old = _OLD_ATTENTION.fullmatch(key)
    return f"{old['layer']}.{_NEW_ATTENTION[old['part']]}.{old['kind']}" if old else key


def _base(name: str) -> str:
    return name.rpartition("/")[2]
