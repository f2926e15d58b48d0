"""Submits a sampling of a checkpoint on the user's machine: both get to the cluster, or neither.

The sampling is created suspended; a claim and a pod that it owns take the file; then it may go on. So deleting it
takes all away at any moment, and the same command again goes on after one that was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ddpm_operator.api import DDPMSampling
from ddpm_operator.client.checkpoint_file import CheckpointFile
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import ClientError, RequestRejected, Unreachable
from ddpm_operator.client.pods import running
from ddpm_operator.client.progress_callback import ProgressCallback
from ddpm_operator.client.remote_command import CommandFailed
from ddpm_operator.client.sending import send
from ddpm_operator.client.uploader import model_claim, model_claim_name, receive_command, uploader_pod
from ddpm_operator.kube import paths
from ddpm_operator.kube.responses import Document

_SEEN_WITHIN = 60.0
_GONE_WITHIN = 60.0
_LONGEST_SILENCE = 60.0


def upload_checkpoint(
    connection: Connection, sampling: DDPMSampling, file: CheckpointFile, told: ProgressCallback
) -> None:
    """Puts the checkpoint of a suspended sampling where it names it.

    Args:
        told: is called with the bytes that have come and those that are to come, again and again.

    Raises:
        Refused: if another claim has the name, or the file is changed meanwhile.
        Unreachable: if no operator looks at the sampling, or the pod does not take the file.
    """
    image = _image(connection, sampling)
    _claim(connection, sampling, file)
    try:
        with (
            file.path.open("rb") as content,
            running(connection, uploader_pod(sampling, image)) as pod,
            pod.running(receive_command(file), _LONGEST_SILENCE, takes_input=True) as receiver,
        ):
            send(content, receiver, file.bytes, told)
    except CommandFailed as fault:
        raise Unreachable(f"{file.path} could not be stored: {fault.message}", fault.hint) from fault
    except OSError as error:
        raise RequestRejected(
            f"{file.path}: {error.strerror or error}", "it must stay as it is until it is sent"
        ) from error


def has_model(connection: Connection, sampling: DDPMSampling) -> bool:
    """Whether a sampling's checkpoint was brought: it was allowed to go on, and its claim is there."""
    if sampling.spec.suspend:
        return False
    claims = connection.watch(
        paths.claims(sampling.metadata.namespace), model_claim_name(sampling.metadata.name), longest=0
    )
    return _owner(next(claims)) == sampling.metadata.uid


@contextmanager
def undone_unless_done(undo: Callable[[], object]) -> Iterator[None]:
    """Undoes what was begun if the block is left by anything but its end. What cannot be undone is left."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            with suppress(ClientError):
                undo()


def _image(connection: Connection, sampling: DDPMSampling) -> str:
    """What the sampling's own pods would run, as the operator says: one that the cluster has."""
    where, name = paths.samplings(sampling.metadata.namespace), sampling.metadata.name
    for seen in connection.watch(where, name, _SEEN_WITHIN):
        status = (seen or {}).get("status")
        image = status.get("image") if isinstance(status, dict) else None
        if isinstance(image, str):
            return image
        if seen is None:
            break
    raise Unreachable(
        f"no operator has looked at {name} within {_SEEN_WITHIN:.0f} s",
        "ask the administrator whether ddpm-ray's operator runs",
    )


def _claim(connection: Connection, sampling: DDPMSampling, file: CheckpointFile) -> None:
    """Creates the claim; that of a sampling that was deleted a moment ago has to go first."""
    where, name = paths.claims(sampling.metadata.namespace), model_claim_name(sampling.metadata.name)
    for seen in connection.watch(where, name, _GONE_WITHIN):
        if seen is None:
            connection.request("POST", where, {"fieldValidation": "Strict"}, model_claim(sampling, file))
            return
        owner = _owner(seen)
        if owner is None:
            break
        if owner == sampling.metadata.uid and not _is_going(seen):
            return
    raise RequestRejected(
        f"the claim {name} is there already, and is not this sampling's",
        f"give the sampling another name, or look into it: kubectl describe pvc {name}",
    )


def _owner(claim: Document | None) -> str | None:
    """The uid of the sampling that owns a claim."""
    metadata = (claim or {}).get("metadata")
    owners = metadata.get("ownerReferences") if isinstance(metadata, dict) else None
    owner = owners[0] if isinstance(owners, list) and owners else None
    return str(owner.get("uid")) if isinstance(owner, dict) else None


def _is_going(claim: Document) -> bool:
    metadata = claim.get("metadata")
    return isinstance(metadata, dict) and "deletionTimestamp" in metadata
