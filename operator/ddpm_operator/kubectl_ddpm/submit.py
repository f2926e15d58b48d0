"""`kubectl ddpm submit`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

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
from ddpm_operator.kubectl_ddpm.bar import bar
from ddpm_operator.kubectl_ddpm.files import read
from ddpm_operator.kubectl_ddpm.flags import (
    MODEL_CHANNELS,
    MODEL_IMG_SIZE,
    MODEL_SHA256,
    MODEL_URI,
    add_flags,
    given,
    local_model,
    sampling_of,
)
from ddpm_operator.kubectl_ddpm.manifest_file import ManifestError, Written, samplings
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, client_of, print_json

_EXAMPLES = """\
examples:
  kubectl ddpm submit digits --model_path builtin://mnist --n_samples 100 --sampler dpmpp --steps 20
  kubectl ddpm submit digits --model_path builtin://mnist --n_samples 500 --sampler dpmpp --steps 20   lets it grow
  kubectl ddpm submit mine --model_path ./net.safetensors --n_samples 100                              uploads it
  kubectl ddpm submit -f examples/digits.yaml"""


def add_to(commands: Commands) -> None:
    command = add_command(commands, "submit", _submit, "create a sampling, or let one grow", epilog=_EXAMPLES)
    command.add_argument("name", nargs="?", metavar="NAME", help="of the sampling; with flags")
    command.add_argument("-f", "--filename", metavar="FILE", help="YAML file, or - for standard input")
    add_flags(command)


def _submit(options: argparse.Namespace) -> int:
    """Creates DDPMSamplings from flags or from a file. The same with more samples lets one grow.

    A checkpoint on this machine goes, by a pod with your rights, to a claim that the sampling owns.
    """
    wanted = _wanted(options)
    client = client_of(options)
    for one, _ in wanted:
        _check_namespace(one, client)
    for one, checkpoint in wanted:
        with _told(checkpoint) as told:
            sampling, was = client.submit(one.document, checkpoint, told)
        name = sampling.metadata.name
        if options.json:
            print_json({"name": name, "namespace": sampling.metadata.namespace, "was": was})
        else:
            print(f"{name} {was}; follow it with `kubectl ddpm watch {name} -n {sampling.metadata.namespace}`")
    return 0


def _told(checkpoint: CheckpointFile | None) -> AbstractContextManager[ProgressCallback]:
    if checkpoint is None:
        return nullcontext(ignore_progress)
    return bar("starting an uploader pod", str(checkpoint.path))


def _wanted(options: argparse.Namespace) -> list[tuple[Written, CheckpointFile | None]]:
    """Each sampling, and its checkpoint if that is a file of this machine."""
    fields = given(options)
    if options.filename is None:
        if options.name is None:
            raise ManifestError(["say which sampling: NAME with flags, or -f FILE"])
        path = local_model(fields)
        if path is None:
            return [(sampling_of(options.name, fields), None)]
        file = checkpoint_file(Path(path))
        return [(sampling_of(options.name, with_checkpoint(options.name, fields, file)), file)]
    if options.name is not None or fields:
        raise ManifestError([f"{options.filename} says it all: leave NAME and the other flags out"])
    return [(written, None) for written in samplings(*read(options.filename))]


def with_checkpoint(name: str, fields: Mapping[str, JsonValue], file: CheckpointFile) -> dict[str, JsonValue]:
    """The fields of a sampling of a file of this machine.

    What the file says of its images is among them, for the plan is made before any driver has read it. A flag that
    says otherwise stays, and the driver refuses it.
    """
    images = {MODEL_IMG_SIZE: file.images.img_size, MODEL_CHANNELS: file.images.channels}
    known = {path: value for path, value in images.items() if value is not None}
    return {**known, **fields, MODEL_URI: model_uri(name, file), MODEL_SHA256: file.sha256}


def _check_namespace(one: Written, client: Client) -> None:
    metadata = one.document["metadata"]
    named = metadata.get("namespace") if isinstance(metadata, dict) else None
    if named not in (None, client.namespace):
        raise RequestRejected(
            f"{one.sampling.metadata.name} is for the namespace {named}, not for {client.namespace}",
            f"say --namespace {named}",
        )
