"""Uploads a local checkpoint for a sampling: both reach the cluster, or neither does.

`Client.submit` creates the sampling suspended. This module then creates a claim, which the sampling owns, and sends
the files one by one to an uploader pod that writes them there (`uploader_program`). Afterwards the client resumes the
sampling. So deleting the sampling removes everything at any moment, and after an interruption the same command can be
run again: it sends the files that are not there yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from typing import BinaryIO

from ddpm_operator.api import DDPMSampling
from ddpm_operator.api.model import JsonValue
from ddpm_operator.client.checkpoint_file import StoredFile
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import ClientError, RequestRejected, Unreachable
from ddpm_operator.client.helper_pod import helper_pod, run_helper_pod
from ddpm_operator.client.model_folder import LocalModel
from ddpm_operator.client.progress_callback import ProgressCallback
from ddpm_operator.client.remote_command import CommandFailed, RemoteCommand
from ddpm_operator.kube import paths
from ddpm_operator.kube.responses import Document
from ddpm_operator.manifests.naming import MANAGED_BY, SAMPLING
from ddpm_operator.manifests.render import owned_by_sampling

CHUNK_BYTES = 1 << 18
# Limits the bytes sent but not yet acknowledged, so that an error in the pod is noticed early and the reported progress
# never runs ahead of what has arrived.
MAX_UNACKNOWLEDGED_BYTES = 4 << 20

_OPERATOR_TIMEOUT = 60.0
_CLAIM_DELETION_TIMEOUT = 60.0
_SILENCE_TIMEOUT = 60.0
_MOUNT = "/model"
_GIB = 1 << 30
# A file system needs part of its volume for itself.
_FILE_SYSTEM_BYTES = 64 << 20


def upload_checkpoint(
    connection: Connection, sampling: DDPMSampling, model: LocalModel, on_progress: ProgressCallback
) -> None:
    """Stores a checkpoint at the URI that a suspended sampling names (`model_uri`). Files already there are not sent.

    Raises:
        RequestRejected: if a foreign claim has the name, or a file changes during the upload.
        Unreachable: if no operator reconciles the sampling, or the pod cannot store a file.
    """
    image = _worker_image(connection, sampling)
    _create_claim(connection, sampling, model)
    file, done = model.stored[0], 0
    try:
        with run_helper_pod(connection, _uploader_pod(sampling, image)) as pod:
            for file in model.stored:
                with (
                    file.path.open("rb") as content,
                    pod.running(_receive_command(file), _SILENCE_TIMEOUT, takes_input=True) as receiver,
                ):
                    send(content, receiver, file.bytes, _part_of(on_progress, done, model.bytes))
                done += file.bytes
    except CommandFailed as error:
        raise Unreachable(f"cannot upload {file.path}: {error.message}", error.hint) from error
    except OSError as error:
        raise RequestRejected(
            f"{file.path}: {error.strerror or error}", "do not change the file while it is uploaded"
        ) from error


def _part_of(on_progress: ProgressCallback, done: int, total: int) -> ProgressCallback:
    """Returns a callback for one of several files.

    Args:
        done: bytes of the files before it.
        total: bytes of all files.
    """
    return lambda received, _: on_progress(done + received, total)


def has_model(connection: Connection, sampling: DDPMSampling) -> bool:
    """Returns whether a sampling's checkpoint was uploaded: it is no longer suspended, and owns its claim."""
    if sampling.spec.suspend:
        return False
    claims = connection.watch(
        paths.claims(sampling.metadata.namespace), _claim_name(sampling.metadata.name), max_seconds=0
    )
    return _owner_uid(next(claims)) == sampling.metadata.uid


@contextmanager
def rollback_on_error(undo: Callable[[], object]) -> Iterator[None]:
    """Calls `undo` if the block raises, also on KeyboardInterrupt. A ClientError of `undo` itself is ignored."""
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        if not succeeded:
            with suppress(ClientError):
                undo()


def send(content: BinaryIO, receiver: RemoteCommand, length: int, on_progress: ProgressCallback) -> None:
    """Sends a file to a command that acknowledges the bytes received so far on lines, as `uploader_program` does.

    Args:
        length: of the file, in bytes.

    Raises:
        CommandFailed: if the command ends before it has received the file, or the file was truncated.
        OSError: if the file cannot be read.
    """
    acknowledgements = _Acknowledgements(receiver)
    sent = 0
    if acknowledgements.next() == length:
        return
    while chunk := content.read(min(CHUNK_BYTES, length - sent)):
        receiver.write(chunk)
        sent += len(chunk)
        while sent - acknowledgements.received > MAX_UNACKNOWLEDGED_BYTES:
            on_progress(acknowledgements.next(), length)
    while acknowledgements.received < length and sent == length:
        on_progress(acknowledgements.next(), length)
    if sent < length:
        raise CommandFailed(
            f"the file was truncated during the upload: {sent:,} of {length:,} bytes are left", "submit it again"
        )


class _Acknowledgements:
    """The byte counts that the uploader pod prints, one per line."""

    def __init__(self, receiver: RemoteCommand) -> None:
        self._receiver = receiver
        self._buffer = b""
        self.received = 0

    def next(self) -> int:
        """Waits for the next line and returns the bytes received so far."""
        while b"\n" not in self._buffer:
            chunk = self._receiver.read()
            if not chunk:
                raise CommandFailed("the pod ended before it had received the file", "try again")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        self.received = int(line)
        return self.received


def model_uri(sampling: str, model: LocalModel) -> str:
    """Returns the URI that a sampling of this name uses for its uploaded checkpoint."""
    return f"pvc://{_claim_name(sampling)}/{model.stored_as}"


def _claim_name(sampling: str) -> str:
    return f"{sampling}-model"


def _claim_manifest(sampling: DDPMSampling, model: LocalModel) -> dict[str, JsonValue]:
    """Returns a claim of the default storage class, in whole GiB, that is deleted with the sampling."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": _claim_name(sampling.metadata.name),
            "namespace": sampling.metadata.namespace,
            "labels": {MANAGED_BY: "kubectl-ddpm", SAMPLING: sampling.metadata.name},
            "ownerReferences": [owned_by_sampling(sampling.metadata)],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{-(-(model.bytes + _FILE_SYSTEM_BYTES) // _GIB)}Gi"}},
        },
    }


def _uploader_pod(sampling: DDPMSampling, image: str) -> dict[str, JsonValue]:
    """Returns a pod with the claim mounted for writing."""
    return helper_pod(sampling, image, "uploader", _claim_name(sampling.metadata.name), _MOUNT, read_only=False)


def _receive_command(file: StoredFile) -> list[str]:
    """Returns the command that reads the file from its standard input."""
    program = files(__package__).joinpath("uploader_program.py").read_text()
    return ["python", "-P", "-c", program, _MOUNT, file.name, str(file.bytes), file.sha256]


def _worker_image(connection: Connection, sampling: DDPMSampling) -> str:
    """Waits until the operator has set status.image, the image of the sampling's own pods."""
    path, name = paths.samplings(sampling.metadata.namespace), sampling.metadata.name
    for observed in connection.watch(path, name, _OPERATOR_TIMEOUT):
        status = (observed or {}).get("status")
        image = status.get("image") if isinstance(status, dict) else None
        if isinstance(image, str):
            return image
        if observed is None:
            break
    raise Unreachable(
        f"no operator has reconciled {name} within {_OPERATOR_TIMEOUT:.0f} s",
        "ask the administrator of the cluster whether the ddpm-ray operator is running",
    )


def _create_claim(connection: Connection, sampling: DDPMSampling, model: LocalModel) -> None:
    """Creates the claim, unless the sampling has it. A claim that is being deleted is waited for."""
    path, name = paths.claims(sampling.metadata.namespace), _claim_name(sampling.metadata.name)
    for observed in connection.watch(path, name, _CLAIM_DELETION_TIMEOUT):
        if observed is None:
            connection.request("POST", path, {"fieldValidation": "Strict"}, _claim_manifest(sampling, model))
            return
        owner = _owner_uid(observed)
        if owner is None:
            break
        if owner == sampling.metadata.uid and not _is_terminating(observed):
            return
    raise RequestRejected(
        f"the claim {name} already exists and does not belong to this sampling",
        f"give the sampling another name, or inspect the claim: kubectl describe pvc {name}",
    )


def _owner_uid(claim: Document | None) -> str | None:
    metadata = (claim or {}).get("metadata")
    owners = metadata.get("ownerReferences") if isinstance(metadata, dict) else None
    owner = owners[0] if isinstance(owners, list) and owners else None
    return str(owner.get("uid")) if isinstance(owner, dict) else None


def _is_terminating(claim: Document) -> bool:
    metadata = claim.get("metadata")
    return isinstance(metadata, dict) and "deletionTimestamp" in metadata
