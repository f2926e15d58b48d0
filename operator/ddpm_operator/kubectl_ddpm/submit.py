"""`kubectl ddpm submit`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from ddpm_operator.api.model import JsonValue
from ddpm_operator.client import (
    CheckpointFile,
    Client,
    LocalModel,
    ModelFolder,
    ProgressCallback,
    RequestRejected,
    ignore_progress,
    local_model,
    model_uri,
)
from ddpm_operator.kubectl_ddpm.flags import (
    MODEL_CHANNELS,
    MODEL_FOOTPRINT,
    MODEL_IMG_SIZE,
    MODEL_SHA256,
    MODEL_URI,
    SAMPLER_NAME,
    add_flags,
    given_fields,
    ineffective_flags,
    local_checkpoint,
    manifest_from_flags,
)
from ddpm_operator.kubectl_ddpm.manifest_file import ManifestError, SamplingManifest, read_manifests
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, open_client, print_json
from ddpm_operator.kubectl_ddpm.progress_bar import progress_bar
from ddpm_operator.kubectl_ddpm.user_path import user_path

_DESCRIPTION = """\
Create a DDPMSampling from flags, or the DDPMSamplings of a file. Submitting an
existing one again with more samples draws the additional ones.

A local checkpoint, a file or a pipeline folder, is uploaded to a
PersistentVolumeClaim that the sampling owns, by a short-lived pod that is created with your permissions."""

_USAGE = """kubectl ddpm submit NAME --model_path URI [options]
       kubectl ddpm submit -f FILE [options]"""

_EXAMPLES = """\
# Draw 100 digits from the checkpoint in the image
kubectl ddpm submit digits --model_path builtin://mnist --n_samples 100 --sampler dpmpp --steps 20

# Draw 400 more
kubectl ddpm submit digits --model_path builtin://mnist --n_samples 500 --sampler dpmpp --steps 20

# Upload a local checkpoint and sample it
kubectl ddpm submit mine --model_path ./net.safetensors --n_samples 100

# Upload the folder of a diffusers pipeline and sample it as the pipeline does
kubectl ddpm submit mine --model_path ./my-pipeline --n_samples 100

# Draw a pipeline of the Hugging Face hub; HF_TOKEN of a private one is in a Secret
kubectl ddpm submit cifar --model_path hf://google/ddpm-cifar10-32 --n_samples 100 --credentials hub-token

# Submit the samplings of a file
kubectl ddpm submit -f examples/digits.yaml"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands,
        "submit",
        _submit,
        "Create a sampling, or draw more samples of one",
        _DESCRIPTION,
        _EXAMPLES,
        usage=_USAGE,
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="name of the sampling; not with -f")
    command.add_argument("-f", "--filename", metavar="FILE", help="YAML file, or - for standard input")
    add_flags(command)


def _submit(options: argparse.Namespace) -> int:
    requested = _requested(options)
    notes = [note for _, model in requested if isinstance(model, ModelFolder) for note in model.notes]
    for sentence in (*ineffective_flags(given_fields(options)), *notes):
        print(f"note: {sentence}", file=sys.stderr)
    client = open_client(options)
    for manifest, _ in requested:
        _check_namespace(manifest, client)
    for manifest, checkpoint in requested:
        with _upload_progress(checkpoint) as on_progress:
            sampling, outcome = client.submit(manifest.document, checkpoint, on_progress)
        name, namespace = sampling.metadata.name, sampling.metadata.namespace
        if options.json:
            print_json({"name": name, "namespace": namespace, "was": outcome})
        else:
            print(f"{name} {outcome}; follow it with `kubectl ddpm watch {name} -n {namespace}`")
    return 0


def _upload_progress(checkpoint: LocalModel | None) -> AbstractContextManager[ProgressCallback]:
    if checkpoint is None:
        return nullcontext(ignore_progress)
    return progress_bar("starting an uploader pod", str(checkpoint.path))


def _requested(options: argparse.Namespace) -> list[tuple[SamplingManifest, LocalModel | None]]:
    """Returns each requested manifest, with its checkpoint if that is a local file."""
    fields = given_fields(options)
    if options.filename is None:
        if options.name is None:
            raise ManifestError(["specify a NAME and flags, or -f FILE; see `kubectl ddpm submit --help`"])
        path = local_checkpoint(fields)
        if path is None:
            return [(manifest_from_flags(options.name, fields), None)]
        img_size, sampler = fields.get(MODEL_IMG_SIZE), fields.get(SAMPLER_NAME)
        model = local_model(
            user_path(path),
            img_size if isinstance(img_size, int) else None,
            sampler if isinstance(sampler, str) else None,
        )
        return [(manifest_from_flags(options.name, with_checkpoint(options.name, fields, model)), model)]
    if options.name is not None or fields:
        raise ManifestError([f"-f {options.filename} cannot be combined with NAME or flags of the sampling"])
    return [(manifest, None) for manifest in read_manifests(options.filename)]


def with_checkpoint(name: str, fields: Mapping[str, JsonValue], model: LocalModel) -> dict[str, JsonValue]:
    """Returns the fields of a sampling with those that its local checkpoint determines.

    The image shape in the metadata, or what the network of a pipeline takes, is included because the operator plans
    before a driver has read the checkpoint. A flag takes precedence; if it contradicts the checkpoint, the driver
    rejects it.

    Raises:
        ManifestError: if the checkpoint is not the one that --sha256 names.
    """
    sha256 = model.sha256
    if fields.get(MODEL_SHA256, sha256) != sha256:
        raise ManifestError([f"the sha256 of {model.path} is {sha256}, not {fields[MODEL_SHA256]} as in --sha256"])
    known: dict[str, JsonValue] = {}
    if isinstance(model, CheckpointFile):
        known = {MODEL_IMG_SIZE: model.images.img_size, MODEL_CHANNELS: model.images.channels}
    if model.footprint:
        known[MODEL_FOOTPRINT] = model.footprint.to_document()
    from_checkpoint = {path: value for path, value in known.items() if value is not None}
    return {**from_checkpoint, **fields, MODEL_URI: model_uri(name, model), MODEL_SHA256: sha256}


def _check_namespace(manifest: SamplingManifest, client: Client) -> None:
    metadata = manifest.document["metadata"]
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    if namespace not in (None, client.namespace):
        raise RequestRejected(
            f"the manifest of {manifest.sampling.metadata.name} has the namespace {namespace}, but the request is for "
            f"{client.namespace}",
            f"add --namespace {namespace}",
        )
