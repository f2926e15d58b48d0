"""The flags of `kubectl ddpm submit`, each mapped to a field of a DDPMSampling. Pure.

A flag that `ddpm-sample` has too has the same name here. Defaults may differ, such as that of num_gpus_per_task.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple, get_args

from pydantic import ValidationError

from ddpm_operator.api import GROUP, KIND, VERSION
from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.spec import (
    Device,
    ModelName,
    Precision,
    Sampler,
    SamplerName,
    ScheduleName,
    TimeEmbedding,
    Variance,
)
from ddpm_operator.kubectl_ddpm.manifest_file import ManifestError, SamplingManifest, validation_message


class Flag(NamedTuple):
    """A flag that sets one field of the DDPMSampling.

    Attributes:
        path: of the field, such as `spec.model.uri`.
        is_switch: it takes no value, and sets its field to true.
    """

    name: str
    path: str
    help: str
    type: Callable[[str], JsonValue] = str
    choices: Sequence[str] | None = None
    nargs: str | None = None
    metavar: str | None = None
    is_switch: bool = False


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"must be yes or no, not {text!r}")
    return text == "yes"


MODEL = "model_path"
MODEL_URI = "spec.model.uri"
MODEL_SHA256 = "spec.model.sha256"
MODEL_IMG_SIZE = "spec.model.imgSize"
MODEL_CHANNELS = "spec.model.channels"
NAME = "metadata.name"
TASKS_PER_GPU = "spec.resources.tasksPerGPU"

FLAGS = (
    Flag(MODEL, MODEL_URI, "checkpoint: a local file, which is uploaded, or builtin://mnist, pvc://claim/file, s3://…, "
         "https://…"),
    Flag("sha256", MODEL_SHA256, "the sha256 that the checkpoint must have, as printed by sha256sum", str.lower,
         metavar="HEX"),
    Flag("model_name", "spec.model.name", "network; this and the next six are needed only if the checkpoint has no "
         "metadata", choices=get_args(ModelName)),
    Flag("downs", "spec.model.downs", "channels of each level of the network", int, nargs="+"),
    Flag("time_emb_dim", "spec.model.timeEmbDim", "width of the time embedding", int),
    Flag("img_size", MODEL_IMG_SIZE, "height and width of an image in pixels", int),
    Flag("channels", MODEL_CHANNELS, "channels of an image", int),
    Flag("time_embedding", "spec.model.timeEmbedding", "what the time embedding encodes: the timestep, or the row in "
         "the batch", choices=get_args(TimeEmbedding)),
    Flag("attention_norm", "spec.model.attentionNorm", "whether a Unet applies its attention's BatchNorm (default: "
         "as its statistics say)", _yes_or_no, metavar="yes|no"),
    Flag("n_samples", "spec.samples", "number of images (default 100); can be raised later", int),
    Flag("seed", "spec.seed", "seed of the noise (default 0)", int),
    Flag("precision", "spec.precision", "floating-point precision (default fp32)", choices=get_args(Precision)),
    Flag("batch_size", "spec.batchSize", "images per shard (default: chosen automatically)", int),
    Flag("output_uri", "spec.output.uri", "s3://bucket/folder or pvc://claim/folder (default: a new claim)"),
    Flag("credentials", "spec.credentialsSecretRef.name", "Secret with AWS_ACCESS_KEY_ID and so on, for s3://",
         metavar="SECRET"),
    Flag("image", "spec.image", "image of the pods (default: set by the operator)", metavar="IMAGE"),
    Flag("sampler", "spec.sampler.name", "sampling algorithm (default ddpm)", choices=get_args(SamplerName)),
    Flag("steps", "spec.sampler.steps", "sampling steps (default: ddpm all timesteps, ddim 50, dpmpp 20)", int),
    Flag("eta", "spec.sampler.eta", "noise of ddim, from 0 (deterministic, the default) to 1"),
    Flag("timesteps", "spec.sampler.timesteps", "timesteps T of the training (default: the checkpoint's, else 1000)",
         int),
    Flag("schedule", "spec.sampler.schedule", "noise schedule of the training (default: the checkpoint's, else linear)",
         choices=get_args(ScheduleName)),
    Flag("variance", "spec.sampler.variance", "variance of ddpm (default: the checkpoint's, else large)",
         choices=get_args(Variance)),
    Flag("device", "spec.resources.device", "device to sample on (default auto: cuda with --gpus, otherwise cpu)",
         choices=get_args(Device)),
    Flag("gpus", "spec.resources.gpus", "total number of GPUs (default 0)", int),
    Flag("num_gpus_per_task", TASKS_PER_GPU, "fraction of a GPU per task (default 1)", float),
    Flag("workers", "spec.resources.maxWorkers", "maximum number of worker pods (default 4)", int),
    Flag("worker_cpu", "spec.resources.worker.cpu", "CPUs of a sampling pod (default 2)", metavar="QUANTITY"),
    Flag("worker_memory", "spec.resources.worker.memory", "memory of a sampling pod (default 4Gi)", metavar="QUANTITY"),
    Flag("allow_mixed_hardware", "spec.resources.allowMixedHardware", "draw the rest on any hardware, also if it "
         "computes other bits", is_switch=True),
)  # fmt: skip

_FLAG_OF_FIELD = {flag.path: f"--{flag.name}" for flag in FLAGS} | {NAME: "NAME"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds every flag, spelled with underscores as in `ddpm-sample` and with dashes. A flag not given sets nothing."""
    groups = {
        "spec.model": parser.add_argument_group("model"),
        "spec": parser.add_argument_group("samples and output"),
        "spec.sampler": parser.add_argument_group("sampler"),
        "spec.resources": parser.add_argument_group("resources"),
    }
    for flag in FLAGS:
        section = ".".join(flag.path.split(".")[:2])
        group = groups.get(section, groups["spec"])
        names = [f"--{flag.name}", f"--{flag.name.replace('_', '-')}"]
        metavar = "N" if flag.type is int else "URI" if "uri" in flag.path else "X"
        if flag.is_switch:
            group.add_argument(
                *dict.fromkeys(names),
                dest=flag.path,
                action="store_true",
                default=argparse.SUPPRESS,
                help=flag.help,
            )
            continue
        group.add_argument(
            *dict.fromkeys([*names, "--model"] if flag.name == MODEL else names),
            dest=flag.path,
            type=flag.type,
            choices=flag.choices,
            nargs=flag.nargs,
            default=argparse.SUPPRESS,
            metavar=None if flag.choices else flag.metavar or metavar,
            help=flag.help,
        )


def given_fields(options: argparse.Namespace) -> dict[str, JsonValue]:
    """Returns path -> value of the fields whose flags were given."""
    return {flag.path: getattr(options, flag.path) for flag in FLAGS if hasattr(options, flag.path)}


def ineffective_flags(fields: Mapping[str, JsonValue]) -> list[str]:
    """Returns a sentence for each given field that the sampler does not use.

    They are no error: a stored DDPMSampling may have them, and grows only if they are given again.
    """
    sampler = fields.get("spec.sampler.name", Sampler().name)
    owners = {"spec.sampler.eta": "ddim", "spec.sampler.variance": "ddpm"}
    return [
        f"{_FLAG_OF_FIELD[path]} has no effect with the sampler {sampler}: it applies to {owner}"
        for path, owner in owners.items()
        if path in fields and sampler != owner
    ]


def local_checkpoint(fields: Mapping[str, JsonValue]) -> str | None:
    """Returns the path of the checkpoint if it is a local file and not a URI."""
    model = fields.get(MODEL_URI)
    return model if isinstance(model, str) and "://" not in model else None


def manifest_from_flags(name: str, fields: Mapping[str, JsonValue]) -> SamplingManifest:
    """Builds the manifest of a DDPMSampling from its name and the given fields.

    Raises:
        ManifestError: with a message for each invalid flag.
    """
    if MODEL_URI not in fields:
        raise ManifestError([f"--{MODEL} is missing: pass a checkpoint such as builtin://mnist"])
    all_fields = {"spec.samples": 100, **fields, NAME: name}
    if TASKS_PER_GPU in all_fields:
        all_fields[TASKS_PER_GPU] = _tasks_per_gpu(all_fields[TASKS_PER_GPU])
    document = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, **_nested(all_fields)}
    try:
        return SamplingManifest.parse(document)
    except ValidationError as error:
        raise ManifestError([validation_message(item, _FLAG_OF_FIELD) for item in error.errors()]) from error


def _tasks_per_gpu(fraction: JsonValue) -> int:
    """Converts GPUs per task to tasks per GPU: 0.25 to 4."""
    tasks = round(1 / fraction) if isinstance(fraction, float) and fraction > 0 else 0
    if tasks < 1 or not isinstance(fraction, float) or abs(fraction * tasks - 1) > 0.01:
        raise ManifestError([f"--num_gpus_per_task must be 1 divided by a whole number, such as 0.25, not {fraction}"])
    return tasks


def _nested(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Converts ``{"a.b": 1}`` to ``{"a": {"b": 1}}``."""
    document: dict[str, JsonValue] = {}
    for path, value in fields.items():
        *parents, last = path.split(".")
        reduce(_child, parents, document)[last] = value
    return document


def _child(document: dict[str, JsonValue], key: str) -> dict[str, JsonValue]:
    child = document.setdefault(key, {})
    if not isinstance(child, dict):
        raise ValueError(f"{key} is both a value and an object")
    return child
