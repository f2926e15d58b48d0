"""The client: every operation of a user on the DDPMSamplings of one namespace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import ValidationError

from ddpm_operator.api import GROUP, KIND, VERSION, DDPMSampling
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import Conflict, NotFound, RequestRejected
from ddpm_operator.client.fetch import Fetched, fetch
from ddpm_operator.client.logs import head_log, stored_log
from ddpm_operator.client.model_folder import LocalModel
from ddpm_operator.client.progress_callback import ProgressCallback, ignore_progress
from ddpm_operator.client.retry import retry_patch
from ddpm_operator.client.upload import has_model, rollback_on_error, upload_checkpoint
from ddpm_operator.client.verify import Verified, verify
from ddpm_operator.kube import paths
from ddpm_operator.kube.responses import APPLY, MERGE, Document

FIELD_MANAGER = "kubectl-ddpm"

# The items of a list lack both fields.
_TYPE_META: Document = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND}


class Submitted(NamedTuple):
    """A sampling as the API server stored it, and what the request did."""

    sampling: DDPMSampling
    was: Literal["created", "changed", "unchanged"]


@dataclass(frozen=True)
class Client:
    """A client for the DDPMSamplings of one namespace. Every method raises ClientError."""

    connection: Connection

    @classmethod
    def open(cls, namespace: str | None = None, context: str | None = None) -> Self:
        """Connects as kubectl does. The namespace defaults to that of the kubeconfig's context."""
        return cls(Connection.open(namespace, context))

    @property
    def namespace(self) -> str:
        return self.connection.namespace

    def list(self, *, everywhere: bool = False) -> tuple[DDPMSampling, ...]:
        """Returns all samplings of the namespace, or of the whole cluster, sorted by namespace and name."""
        path = paths.ALL_SAMPLINGS if everywhere else paths.samplings(self.namespace)
        items = self.connection.request("GET", path)["items"]
        samplings = [
            _typed(_TYPE_META | item) for item in (items if isinstance(items, list) else ()) if isinstance(item, dict)
        ]
        return tuple(sorted(samplings, key=lambda it: (it.metadata.namespace, it.metadata.name)))

    def get(self, name: str) -> DDPMSampling:
        """Returns a sampling.

        Raises:
            NotFound: if it does not exist.
        """
        try:
            return _typed(self.connection.request("GET", f"{paths.samplings(self.namespace)}/{name}"))
        except NotFound as error:
            raise self._not_found(name, error) from error

    def submit(
        self,
        manifest: Document,
        checkpoint: LocalModel | None = None,
        told: ProgressCallback = ignore_progress,
    ) -> Submitted:
        """Creates a sampling or updates the one of the same name. More `samples` let it grow.

        Args:
            manifest: a DDPMSampling, as in YAML. It is created in the client's namespace.
            checkpoint: a local file or folder to upload to the claim that the manifest's model URI names (see
                `model_uri`), unless it was uploaded before. If the upload fails, a sampling created by this call is
                deleted again.
            told: called with the progress of the upload.

        Raises:
            RequestRejected: with the message of the API server.
        """
        metadata = manifest["metadata"]
        name = str(metadata["name"]) if isinstance(metadata, dict) else ""
        try:
            before = self.get(name)
        except NotFound:
            before = None
        if checkpoint is None or (before is not None and has_model(self.connection, before)):
            after = self._apply(name, manifest, before)
        else:
            after = self._upload_and_apply(name, manifest, before, checkpoint, told)
        if before is None:
            return Submitted(after, "created")
        return Submitted(after, "unchanged" if after.spec == before.spec else "changed")

    def watch(self, name: str) -> Iterator[DDPMSampling]:
        """Yields a sampling as it is now, and again after every change. Never ends by itself.

        Raises:
            NotFound: if it does not exist, or is deleted.
        """
        for document in self.connection.watch(paths.samplings(self.namespace), name):
            if document is None:
                raise self._not_found(name)
            yield _typed(_TYPE_META | document)

    def log(self, sampling: DDPMSampling, *, follow: bool) -> Iterator[bytes]:
        """Yields the driver's log from its beginning, read from the running head pod.

        Args:
            follow: continues until the head pod is deleted.

        Raises:
            NotFound: if there is no running head pod, or the driver has not logged anything yet.
        """
        return head_log(self.connection, sampling, follow=follow)

    def kept_log(self, sampling: DDPMSampling) -> Iterator[bytes]:
        """Yields the driver's log of the last attempt as stored with the samples, at most its last MiB.

        Raises:
            NotFound: if no log is stored.
        """
        return stored_log(self.connection, sampling)

    def fetch(self, name: str, folder: Path, told: ProgressCallback = ignore_progress) -> Fetched:
        """Downloads the files of a complete sampling into a folder, and checks each against the manifest.

        Files that are already complete in the folder are not downloaded again.

        Args:
            folder: created if it does not exist.
            told: called with the progress of the download.

        Raises:
            SamplingFailed: if the sampling has failed.
            NotFound: if the sampling is not complete yet.
            Damaged: if a file does not match the manifest. It is not kept.
        """
        return fetch(self.connection, self.get(name), folder, told)

    def verify(self, name: str, told: ProgressCallback = ignore_progress) -> Verified:
        """Hashes the stored files of a complete sampling in a pod, and compares them with the manifest.

        Args:
            told: called with the progress in bytes.

        Raises:
            SamplingFailed: if the sampling has failed.
            NotFound: if the sampling is not complete yet.
        """
        return verify(self.connection, self.get(name), told)

    def retry(self, name: str, *, repair: bool = False) -> DDPMSampling:
        """Starts another attempt of a failed sampling, which draws only the missing samples.

        Args:
            repair: also checks all stored files and draws damaged samples again, of a complete sampling as well.

        Raises:
            NotFound: if it does not exist.
            RequestRejected: if it has not failed, nor is complete and to be repaired.
        """
        return self._patch(name, retry_patch(self.get(name), repair=repair))

    def delete(self, name: str) -> DDPMSampling:
        """Deletes a sampling, and with it its RayCluster. Returns the deleted sampling.

        Raises:
            NotFound: if it does not exist.
        """
        sampling = self.get(name)
        self._delete(sampling)
        return sampling

    def _upload_and_apply(
        self,
        name: str,
        manifest: Document,
        before: DDPMSampling | None,
        checkpoint: LocalModel,
        on_progress: ProgressCallback,
    ) -> DDPMSampling:
        """Applies a manifest suspended, uploads its checkpoint, then resumes it."""
        spec = manifest["spec"]
        suspended_manifest: Document = {
            **manifest,
            "spec": {**(spec if isinstance(spec, dict) else {}), "suspend": True},
        }
        suspended = self._apply(name, suspended_manifest, before)
        with rollback_on_error(lambda: self._delete(suspended) if before is None else None):
            upload_checkpoint(self.connection, suspended, checkpoint, on_progress)
            return self._apply(name, manifest, before)

    def _apply(self, name: str, manifest: Document, before: DDPMSampling | None) -> DDPMSampling:
        """Applies a manifest by server-side apply.

        `samples` may grow even if another field manager owns it, such as kubectl. It is then set by a merge patch.
        """
        path = f"{paths.samplings(self.namespace)}/{name}"
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        try:
            return _typed(self.connection.request("PATCH", path, query, manifest, APPLY))
        except Conflict as conflict:
            spec = manifest["spec"]
            samples = spec.get("samples") if isinstance(spec, dict) else None
            grows = before is not None and isinstance(samples, int) and samples > before.spec.samples
            if before is None or not grows or set(conflict.fields) != {"spec.samples"}:
                # After such a merge patch, this client counts as another manager of `samples` too.
                others = {field: manager for field, manager in conflict.fields.items() if manager != FIELD_MANAGER}
                raise (Conflict(others) if others else conflict) from conflict
            self._patch(name, {"metadata": {"uid": before.metadata.uid}, "spec": {"samples": samples}})
            return _typed(self.connection.request("PATCH", path, query, manifest, APPLY))

    def _patch(self, name: str, patch: Document) -> DDPMSampling:
        path = f"{paths.samplings(self.namespace)}/{name}"
        return _typed(self.connection.request("PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, MERGE))

    def _delete(self, sampling: DDPMSampling) -> None:
        path = f"{paths.samplings(self.namespace)}/{sampling.metadata.name}"
        options: Document = {"preconditions": {"uid": sampling.metadata.uid}, "propagationPolicy": "Background"}
        self.connection.request("DELETE", path, body=options)

    def _not_found(self, name: str, error: NotFound | None = None) -> NotFound:
        # The API server names a missing object, but not a missing resource type.
        if error and name not in error.message:
            return NotFound(
                "the cluster has no DDPMSampling CRD",
                "ask the administrator of the cluster to install the ddpm-ray chart",
            )
        return NotFound(
            f"there is no DDPMSampling {name} in the namespace {self.namespace}",
            "`kubectl ddpm list --all-namespaces` lists all samplings",
        )


def _typed(document: Document) -> DDPMSampling:
    try:
        return DDPMSampling.from_document(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RequestRejected(
            f"the API server returned a DDPMSampling that this version does not know: {field}: {first['msg']}",
            "use the kubectl-ddpm of the operator's version",
        ) from error
