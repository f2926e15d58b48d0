"""The DDPMSamplings of one namespace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import ValidationError

from ddpm_operator.api import GROUP, KIND, VERSION, DDPMSampling
from ddpm_operator.client import head_log, stored_log
from ddpm_operator.client.checkpoint_file import CheckpointFile
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import Conflict, NotFound, RequestRejected
from ddpm_operator.client.fetch import Fetched, fetch
from ddpm_operator.client.progress_callback import ProgressCallback, ignore_progress
from ddpm_operator.client.retry import one_more_attempt
from ddpm_operator.client.upload import has_model, undone_unless_done, upload_checkpoint
from ddpm_operator.kube import paths
from ddpm_operator.kube.responses import APPLY, MERGE, Document

FIELD_MANAGER = "kubectl-ddpm"

# The items of a list come without it.
_IDENTITY: Document = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND}


class Submitted(NamedTuple):
    """A sampling as the API server has taken it, and what that was to it."""

    sampling: DDPMSampling
    was: Literal["created", "changed", "unchanged"]


@dataclass(frozen=True)
class Client:
    """What a person does with DDPMSamplings. Every method raises a ClientFault."""

    connection: Connection

    @classmethod
    def open(cls, namespace: str | None = None, context: str | None = None) -> Self:
        """Connects as kubectl does, in the namespace of its context if no other is given."""
        return cls(Connection.open(namespace, context))

    @property
    def namespace(self) -> str:
        return self.connection.namespace

    def list(self, *, everywhere: bool = False) -> tuple[DDPMSampling, ...]:
        """All samplings of the namespace, or of the whole cluster, by namespace and name."""
        path = paths.ALL_SAMPLINGS if everywhere else paths.samplings(self.namespace)
        items = self.connection.request("GET", path)["items"]
        found = [
            _typed(_IDENTITY | item) for item in (items if isinstance(items, list) else ()) if isinstance(item, dict)
        ]
        return tuple(sorted(found, key=lambda one: (one.metadata.namespace, one.metadata.name)))

    def get(self, name: str) -> DDPMSampling:
        """
        Raises:
            NotFound: if there is none of this name.
        """
        try:
            return _typed(self.connection.request("GET", f"{paths.samplings(self.namespace)}/{name}"))
        except NotFound as fault:
            raise self._absent(name, fault) from fault

    def submit(
        self,
        manifest: Document,
        checkpoint: CheckpointFile | None = None,
        told: ProgressCallback = ignore_progress,
    ) -> Submitted:
        """Creates a sampling, or changes the one of its name as far as that can be: more `samples` let it grow.

        Args:
            manifest: a DDPMSampling as in YAML; it goes to the client's namespace.
            checkpoint: is brought to the claim that the manifest's model names, as `model_uri` does, unless it is
                there already. If that fails, a sampling that was created for it is deleted again.
            told: is called with the bytes of it that have come and those that are to come, again and again.

        Raises:
            Refused: with the API server's sentence.
        """
        metadata = manifest["metadata"]
        name = str(metadata["name"]) if isinstance(metadata, dict) else ""
        try:
            before = self.get(name)
        except NotFound:
            before = None
        if checkpoint is None or (before is not None and has_model(self.connection, before)):
            taken = self._apply(name, manifest, before)
        else:
            taken = self._bring(name, manifest, before, checkpoint, told)
        if before is None:
            return Submitted(taken, "created")
        return Submitted(taken, "unchanged" if taken.spec == before.spec else "changed")

    def watch(self, name: str) -> Iterator[DDPMSampling]:
        """A sampling as it is, and again after every change, without an end of its own.

        Raises:
            NotFound: if there is none of this name, or none any more.
        """
        for document in self.connection.watch(paths.samplings(self.namespace), name):
            if document is None:
                raise self._absent(name)
            yield _typed(_IDENTITY | document)

    def log(self, sampling: DDPMSampling, *, follow: bool) -> Iterator[bytes]:
        """The driver's log, from its beginning, as long as its head pod is there.

        Args:
            follow: goes on until the head is gone.

        Raises:
            NotFound: if there is no head pod, or no driver in it yet.
        """
        return head_log.read(self.connection, sampling, follow=follow)

    def kept_log(self, sampling: DDPMSampling) -> Iterator[bytes]:
        """The log of the last attempt's driver as it was kept beside the samples, at most its last MiB.

        Raises:
            NotFound: if there is none.
        """
        return stored_log.read(self.connection, sampling)

    def fetch(self, name: str, folder: Path, told: ProgressCallback = ignore_progress) -> Fetched:
        """Brings the samples of a complete sampling into a folder, every file checked against its manifest.

        Files that are there already, whole, are not fetched again.

        Args:
            told: is called with the bytes that have come and those that are to come, again and again.

        Raises:
            SamplingFailed: if it has failed.
            NotFound: if it is not complete.
            Damaged: if a file is not what the manifest says; it is not kept.
        """
        return fetch(self.connection, self.get(name), folder, told)

    def retry(self, name: str) -> DDPMSampling:
        """Lets a failed sampling try again; it goes on with what is missing.

        Raises:
            NotFound: if there is none of this name.
            Refused: if it has not failed.
        """
        return self._change(name, one_more_attempt(self.get(name)))

    def delete(self, name: str) -> DDPMSampling:
        """Deletes a sampling and, behind it, its cluster; returns what it was.

        Raises:
            NotFound: if there is none of this name.
        """
        was = self.get(name)
        self._delete(was)
        return was

    def _bring(
        self,
        name: str,
        manifest: Document,
        before: DDPMSampling | None,
        checkpoint: CheckpointFile,
        told: ProgressCallback,
    ) -> DDPMSampling:
        spec = manifest["spec"]
        suspended: Document = {**manifest, "spec": {**(spec if isinstance(spec, dict) else {}), "suspend": True}}
        waiting = self._apply(name, suspended, before)
        with undone_unless_done(lambda: self._delete(waiting) if before is None else None):
            upload_checkpoint(self.connection, waiting, checkpoint, told)
            return self._apply(name, manifest, before)

    def _apply(self, name: str, manifest: Document, before: DDPMSampling | None) -> DDPMSampling:
        """Server-side apply. Whoever has set the number of samples before, it may grow."""
        path = f"{paths.samplings(self.namespace)}/{name}"
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        try:
            return _typed(self.connection.request("PATCH", path, query, manifest, APPLY))
        except Conflict as conflict:
            spec = manifest["spec"]
            samples = spec.get("samples") if isinstance(spec, dict) else None
            grows = before is not None and isinstance(samples, int) and samples > before.spec.samples
            if before is None or not grows or set(conflict.fields) != {"spec.samples"}:
                others = {field: manager for field, manager in conflict.fields.items() if manager != FIELD_MANAGER}
                raise (Conflict(others) if others else conflict) from conflict
            self._change(name, {"metadata": {"uid": before.metadata.uid}, "spec": {"samples": samples}})
            return _typed(self.connection.request("PATCH", path, query, manifest, APPLY))

    def _change(self, name: str, change: Document) -> DDPMSampling:
        path = f"{paths.samplings(self.namespace)}/{name}"
        return _typed(self.connection.request("PATCH", path, {"fieldManager": FIELD_MANAGER}, change, MERGE))

    def _delete(self, sampling: DDPMSampling) -> None:
        path = f"{paths.samplings(self.namespace)}/{sampling.metadata.name}"
        options: Document = {"preconditions": {"uid": sampling.metadata.uid}, "propagationPolicy": "Background"}
        self.connection.request("DELETE", path, body=options)

    def _absent(self, name: str, fault: NotFound | None = None) -> NotFound:
        if fault and name not in fault.message:
            return NotFound("the cluster knows no DDPMSamplings", "ask its administrator to install ddpm-ray's chart")
        return NotFound(
            f"there is no DDPMSampling {name} in the namespace {self.namespace}",
            "`kubectl ddpm list --all-namespaces` shows all there are",
        )


def _typed(document: Document) -> DDPMSampling:
    try:
        return DDPMSampling.from_document(document)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RequestRejected(
            f"a DDPMSampling of the cluster is not as this command knows it: {where}: {error.errors()[0]['msg']}",
            "use the kubectl-ddpm of the operator's own version",
        ) from error
