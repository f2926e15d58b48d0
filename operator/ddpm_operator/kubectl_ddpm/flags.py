"""From the flags of `ddpm-sample` to a DDPMSampling. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple, get_args

from pydantic import ValidationError

from ddpm_operator.api import GROUP, KIND, VERSION
from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.spec import Device, ModelName, Precision, SamplerName, ScheduleName, TimeEmbedding, Variance
from ddpm_operator.kubectl_ddpm.manifest_file import ManifestError, Written, validation_message


class Flag(NamedTuple):
    """One field of a DDPMSampling on the command line."""

    name: str
    path: str
    help: str
    type: type[int] | type[str] | type[float] = str
    choices: Sequence[str] | None = None
    nargs: str | None = None


MODEL = "model_path"
MODEL_URI = "spec.model.uri"
MODEL_SHA256 = "spec.model.sha256"
MODEL_IMG_SIZE = "spec.model.imgSize"
MODEL_CHANNELS = "spec.model.channels"
NAME = "metadata.name"
TASKS_PER_GPU = "spec.resources.tasksPerGPU"

FLAGS = (
    Flag(MODEL, MODEL_URI, "a checkpoint on this machine, or builtin://mnist, pvc://claim/file, s3://…, https://…"),
    Flag("n_samples", "spec.samples", "how many (default 100); may grow later", int),
    Flag("seed", "spec.seed", "of the noise (default 0)", int),
    Flag("model_name", "spec.model.name", "the network, as the five that follow only where the checkpoint has no "
         "metadata", choices=get_args(ModelName)),
    Flag("downs", "spec.model.downs", "channels of each level", int, nargs="+"),
    Flag("time_emb_dim", "spec.model.timeEmbDim", "width of the time embedding", int),
    Flag("img_size", MODEL_IMG_SIZE, "height and width in pixels", int),
    Flag("channels", MODEL_CHANNELS, "of an image", int),
    Flag("time_embedding", "spec.model.timeEmbedding", "step or row", choices=get_args(TimeEmbedding)),
    Flag("sampler", "spec.sampler.name", "default ddpm", choices=get_args(SamplerName)),
    Flag("steps", "spec.sampler.steps", "default: ddpm all timesteps, ddim 50, dpmpp 20", int),
    Flag("eta", "spec.sampler.eta", "ddim: 0 deterministic (default) to 1"),
    Flag("timesteps", "spec.sampler.timesteps", "T of the training (default 1000)", int),
    Flag("schedule", "spec.sampler.schedule", "default linear", choices=get_args(ScheduleName)),
    Flag("variance", "spec.sampler.variance", "ddpm: default large", choices=get_args(Variance)),
    Flag("precision", "spec.precision", "default fp32", choices=get_args(Precision)),
    Flag("batch_size", "spec.batchSize", "samples drawn at once by a task; chosen if left out", int),
    Flag("device", "spec.resources.device", "default auto: cuda with --gpus", choices=get_args(Device)),
    Flag("gpus", "spec.resources.gpus", "GPUs in all (default 0)", int),
    Flag("num_gpus_per_task", TASKS_PER_GPU, "share of a GPU that a task holds (default 1)", float),
    Flag("workers", "spec.resources.maxWorkers", "worker pods at most (default 4)", int),
    Flag("worker_cpu", "spec.resources.worker.cpu", "CPUs of a pod that samples (default 2)"),
    Flag("worker_memory", "spec.resources.worker.memory", "memory of a pod that samples (default 4Gi)"),
    Flag("output_uri", "spec.output.uri", "s3://bucket/folder or pvc://claim/folder (default: an own claim)"),
    Flag("credentials", "spec.credentialsSecretRef.name", "Secret with AWS_ACCESS_KEY_ID and so on, for s3://"),
    Flag("image", "spec.image", "of the pods (default: the operator's)"),
)  # fmt: skip

_NAMES = {flag.path: f"--{flag.name}" for flag in FLAGS} | {NAME: "NAME"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Every flag with underscores, as the guide has them, and with dashes; one not given leaves no trace."""
    for flag in FLAGS:
        names = [f"--{flag.name}", f"--{flag.name.replace('_', '-')}"]
        parser.add_argument(
            *dict.fromkeys([*names, "--model"] if flag.name == MODEL else names),
            dest=flag.path,
            type=flag.type,
            choices=flag.choices,
            nargs=flag.nargs,
            default=argparse.SUPPRESS,
            metavar=None
            if flag.choices
            else {int: "N", float: "X"}.get(flag.type, "URI" if "uri" in flag.path else "X"),
            help=flag.help,
        )


def given(options: argparse.Namespace) -> dict[str, JsonValue]:
    """Path -> value of the fields that flags were given for."""
    return {flag.path: getattr(options, flag.path) for flag in FLAGS if hasattr(options, flag.path)}


def local_model(fields: Mapping[str, JsonValue]) -> str | None:
    """The checkpoint that flags name, if it is a file of this machine."""
    named = fields.get(MODEL_URI)
    return named if isinstance(named, str) and "://" not in named else None


def sampling_of(name: str, fields: Mapping[str, JsonValue]) -> Written:
    """The DDPMSampling that a name and flags mean.

    Raises:
        FileFault: with a sentence for each flag that is wrong.
    """
    if MODEL_URI not in fields:
        raise ManifestError([f"--{MODEL} is missing: a checkpoint such as builtin://mnist"])
    whole = {"spec.samples": 100, **fields, NAME: name}
    if TASKS_PER_GPU in whole:
        whole[TASKS_PER_GPU] = _tasks_per_gpu(whole[TASKS_PER_GPU])
    document = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, **_nested(whole)}
    try:
        return Written.read(document)
    except ValidationError as error:
        raise ManifestError([validation_message(item, _NAMES) for item in error.errors()]) from error


def _tasks_per_gpu(share: JsonValue) -> int:
    """0.25 of a GPU a task are 4 tasks a GPU."""
    tasks = round(1 / share) if isinstance(share, float) and share > 0 else 0
    if tasks < 1 or not isinstance(share, float) or abs(share * tasks - 1) > 0.01:
        raise ManifestError([f"--num_gpus_per_task must be 1 divided by a whole number, such as 0.25, not {share}"])
    return tasks


def _nested(fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """``{"a.b": 1}`` to ``{"a": {"b": 1}}``."""
    document: dict[str, JsonValue] = {}
    for path, value in fields.items():
        *parents, last = path.split(".")
        reduce(_inner, parents, document)[last] = value
    return document


def _inner(document: dict[str, JsonValue], key: str) -> dict[str, JsonValue]:
    inner = document.setdefault(key, {})
    if not isinstance(inner, dict):
        raise ValueError(f"{key} is a field and has fields")
    return inner
