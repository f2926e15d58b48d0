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
    ProgressCallback,
    RequestRejected,
    checkpoint_file,
    ignore_progress,
    model_uri,
)
from ddpm_operator.kubectl_ddpm.flags import (
    MODEL_CHANNELS,
    MODEL_IMG_SIZE,
    MODEL_SHA256,
    MODEL_URI,
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

A local checkpoint is uploaded to a PersistentVolumeClaim that the sampling
owns, by a short-lived pod that is created with your permissions."""

_USAGE = """kubectl ddpm submit NAME --model_path URI [options]
       kubectl ddpm submit -f FILE [options]"""

_EXAMPLES = """\
# Draw 100 digits from the checkpoint in the image
kubectl ddpm submit digits --model_path builtin://mnist --n_samples 100 --sampler dpmpp --steps 20

# Draw 400 more
kubectl ddpm submit digits --model_path builtin://mnist --n_samples 500 --sampler dpmpp --steps 20

# Upload a local checkpoint and sample it
kubectl ddpm submit mine --model_path ./net.safetensors --n_samples 100

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
    for sentence in ineffective_flags(given_fields(options)):
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


def _upload_progress(checkpoint: CheckpointFile | None) -> AbstractContextManager[ProgressCallback]:
    if checkpoint is None:
        return nullcontext(ignore_progress)
    return progress_bar("starting an uploader pod", str(checkpoint.path))


def _requested(options: argparse.Namespace) -> list[tuple[SamplingManifest, CheckpointFile | None]]:
    """Returns each requested manifest, with its checkpoint if that is a local file."""
    fields = given_fields(options)
    if options.filename is None:
        if options.name is None:
            raise ManifestError(["specify a NAME and flags, or -f FILE; see `kubectl ddpm submit --help`"])
        path = local_checkpoint(fields)
        if path is None:
            return [(manifest_from_flags(options.name, fields), None)]
        file = checkpoint_file(user_path(path))
        return [(manifest_from_flags(options.name, with_checkpoint(options.name, fields, file)), file)]
    if options.name is not None or fields:
        raise ManifestError([f"-f {options.filename} cannot be combined with NAME or flags of the sampling"])
    return [(manifest, None) for manifest in read_manifests(options.filename)]


def with_checkpoint(name: str, fields: Mapping[str, JsonValue], file: CheckpointFile) -> dict[str, JsonValue]:
    """Returns the fields of a sampling with those that its local checkpoint determines.

    The image shape in the checkpoint's metadata is included because the operator plans before a driver has read the
    file. A flag takes precedence; if it contradicts the metadata, the driver rejects it.

    Raises:
        ManifestError: if the file is not the one that --sha256 names.
    """
    if fields.get(MODEL_SHA256, file.sha256) != file.sha256:
        raise ManifestError([f"the sha256 of {file.path} is {file.sha256}, not {fields[MODEL_SHA256]} as in --sha256"])
    images = {MODEL_IMG_SIZE: file.images.img_size, MODEL_CHANNELS: file.images.channels}
    from_metadata = {path: value for path, value in images.items() if value is not None}
    return {**from_metadata, **fields, MODEL_URI: model_uri(name, file), MODEL_SHA256: file.sha256}


def _check_namespace(manifest: SamplingManifest, client: Client) -> None:
    metadata = manifest.document["metadata"]
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    if namespace not in (None, client.namespace):
        raise RequestRejected(
            f"the manifest of {manifest.sampling.metadata.name} has the namespace {namespace}, but the request is for "
            f"{client.namespace}",
            f"add --namespace {namespace}",
        )
