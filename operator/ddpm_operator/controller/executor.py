"""Executes the actions of a decision, by requests to the Kubernetes API and to the attempt's Ray head.

Any action may have been executed before, by an operator process that died before it saw the response. So every action
is idempotent: an object of the sampling that exists already counts as created, and a missing one as deleted.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeVar, assert_never

from ddpm_operator.api import GROUP, KIND, VERSION, DDPMSampling, Metadata, Status
from ddpm_operator.kube import paths
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.client import ApiError, KubeApi
from ddpm_operator.kube.decode import SCHEMA_FIELD_MANAGER
from ddpm_operator.kube.errors import classify_error
from ddpm_operator.kube.objects import ObjectKey, PersistentVolumeClaim, RayCluster
from ddpm_operator.kube.responses import Document
from ddpm_operator.manifests.job_document import job_document
from ddpm_operator.manifests.naming import MANAGER, claim_name, preview_name
from ddpm_operator.manifests.render import (
    Attempt,
    OperatorPods,
    network_policy,
    output_claim,
    preview,
    ray_cluster,
    token_secret,
)
from ddpm_operator.manifests.templating import TemplateError, Templates
from ddpm_operator.manifests.tokens import Tokens, attempt_tokens
from ddpm_operator.manifests.validate import validate_templates
from ddpm_operator.ray.head_client import HeadClient, HeadDidNotAnswer
from ddpm_operator.reconcile.actions import (
    Action,
    CopyPreview,
    CreateCluster,
    CreateNetworkPolicy,
    CreateSecret,
    DeleteCluster,
    DeleteSampling,
    EnsureClaim,
    Event,
    SubmitJob,
    WritePreview,
    WriteStatus,
)
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind, ObservedCluster

logger = logging.getLogger(__name__)

ConnectToHead = Callable[[str, Tokens], HeadClient]
Rendered = TypeVar("Rendered")


class ActionFailed(Exception):
    """An action failed. The error is an input of the next reconcile."""

    def __init__(self, error: ActionError) -> None:
        super().__init__(f"cannot {error.attempted_action}: {error.message}")
        self.error = error


class StaleResource(Exception):
    """The resource has changed since it was observed, or is gone: reconcile again."""


class PreviewNotReady(Exception):
    """The driver has no preview yet, or cannot be asked. The decision's other actions are executed all the same."""


class PreviewNotWritten(Exception):
    """The preview could not be written. The decision's other actions are executed all the same."""


class ActionExecutor:
    """Executes actions.

    Args:
        clusters: cache in which created and deleted clusters are recorded at once.
        key: the operator's signing key, from which the attempts' tokens are derived.
        operator: the operator's own pods, which the attempts' network policies admit.
        connect_to_head: creates a client from a head pod's IP and its tokens.
    """

    def __init__(
        self,
        api: KubeApi,
        clusters: ObjectCache[ObservedCluster],
        templates: Templates,
        key: bytes,
        operator: OperatorPods,
        connect_to_head: ConnectToHead,
    ) -> None:
        self._api = api
        self._clusters = clusters
        self._templates = templates
        self._key = key
        self._operator = operator
        self._connect_to_head = connect_to_head

    async def execute(self, sampling: DDPMSampling, action: Action) -> DDPMSampling:
        """Executes one action.

        Returns:
            the sampling: as the API server returned it after a write of the status, otherwise as it was passed.

        Raises:
            ActionFailed: if the action failed.
            StaleResource: if the resource has changed since it was observed.
            PreviewNotReady: if the driver has no preview yet, or the head did not answer.
            PreviewNotWritten: if the driver's preview could not be written.
        """
        metadata = sampling.metadata
        match action:
            case WriteStatus(status, resource_version):
                return await self._write_status(sampling, status, resource_version)
            case Event():
                await self._create_event(metadata, action)
            case EnsureClaim(attempt):
                await self._ensure_claim(attempt)
            case CreateCluster(attempt):
                await self._create_cluster(attempt)
            case CreateNetworkPolicy(attempt, cluster_uid):
                await self._create_network_policy(attempt, cluster_uid)
            case CreateSecret(attempt, cluster_uid):
                await self._create_secret(attempt, cluster_uid)
            case SubmitJob(attempt, job_id, head_ip):
                await self._submit_job(attempt, job_id, head_ip)
            case CopyPreview(attempt, head_ip):
                await self._copy_preview(attempt, head_ip)
            case WritePreview(png):
                await self._write_preview(metadata, png)
            case DeleteCluster(name, uid):
                await self.delete_cluster(metadata.namespace, name, uid)
            case DeleteSampling(resource_version):
                await self._delete_sampling(metadata, resource_version)
            case _:
                assert_never(action)
        return sampling

    def head_client(self, sampling: Metadata, attempt: int, ip: str) -> HeadClient:
        """Returns a client of the head of an attempt."""
        return self._connect_to_head(ip, self._tokens(sampling, attempt))

    async def report_schema_mismatch(self, key: ObjectKey, manifest: Document) -> None:
        """Applies the manifest of `ddpm_operator.kube.decode.schema_mismatch_status`.

        Raises:
            ActionFailed: if it could not be applied.
        """
        path = f"{paths.samplings(key.namespace)}/{key.name}/status"
        try:
            await self._api.apply(path, manifest, SCHEMA_FIELD_MANAGER, force=True)
        except ApiError as error:
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise ActionFailed(classify_error(error, "write the condition Accepted=False", KIND)) from error

    # The status and events

    async def _write_status(self, sampling: DDPMSampling, status: Status, resource_version: str) -> DDPMSampling:
        path = f"{paths.samplings(sampling.metadata.namespace)}/{sampling.metadata.name}/status"
        manifest = _status_manifest(sampling, status, resource_version)
        try:
            # The status belongs to the operator: manual edits of it are overwritten.
            return DDPMSampling.from_document(await self._api.apply(path, manifest, MANAGER, force=True))
        except ApiError as error:
            if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise StaleResource(error.message) from error
            # Always transient: a permanent error could not be written into the status anyway.
            raise _failed(ActionErrorKind.TRANSIENT, "write the status", error.message or str(error)) from error

    async def _create_event(self, sampling: Metadata, event: Event) -> None:
        try:
            await self._api.create(paths.events(sampling.namespace), _event_manifest(sampling, event))
        except ApiError as error:
            logger.warning("%s/%s: cannot create event %s: %s", sampling.namespace, sampling.name, event.reason, error)

    # Objects of an attempt

    async def _ensure_claim(self, attempt: Attempt) -> None:
        sampling = attempt.sampling
        name = claim_name(sampling)
        attempted = f"create the claim {name}"
        self._validate_templates(attempted, attempt)
        manifest = _render(attempted, lambda: output_claim(self._templates, sampling, attempt.spec))
        if manifest is None:
            return
        path = paths.claims(sampling.namespace)
        if await self._create(path, manifest, attempted):
            return
        existing = PersistentVolumeClaim.model_validate(await self._get(path, name, attempted))
        if existing.is_stale_for(ObjectKey(sampling.namespace, sampling.name, sampling.uid)):
            message = f"the claim {name} of an earlier sampling is still being deleted"
            raise _failed(ActionErrorKind.TRANSIENT, attempted, message)

    async def _create_cluster(self, attempt: Attempt) -> None:
        path, attempted = paths.clusters(attempt.sampling.namespace), f"create the RayCluster {attempt.name}"
        self._validate_templates(attempted, attempt)
        secret = self._tokens(attempt.sampling, attempt.number).secret_name(attempt.name)
        manifest = _render(attempted, lambda: ray_cluster(self._templates, attempt, secret))
        document = await self._create(path, manifest, attempted) or await self._get(path, attempt.name, attempted)
        cluster = RayCluster.model_validate(document).versioned()
        if cluster is None or cluster.owner.uid != attempt.sampling.uid:
            message = f"a RayCluster {attempt.name} exists already and does not belong to this sampling"
            raise _failed(ActionErrorKind.NAME_TAKEN, attempted, message)
        self._clusters.update(cluster)

    async def _create_network_policy(self, attempt: Attempt, cluster_uid: str) -> None:
        attempted = f"create the NetworkPolicy {attempt.name}"
        manifest = _render(attempted, lambda: network_policy(self._templates, attempt, cluster_uid, self._operator))
        await self._create(paths.network_policies(attempt.sampling.namespace), manifest, attempted)

    async def _create_secret(self, attempt: Attempt, cluster_uid: str) -> None:
        attempted = f"create the Secret of {attempt.name}"
        tokens = self._tokens(attempt.sampling, attempt.number)
        manifest = _render(attempted, lambda: token_secret(self._templates, attempt, cluster_uid, tokens))
        await self._create(paths.secrets(attempt.sampling.namespace), manifest, attempted)

    def _tokens(self, sampling: Metadata, attempt: int) -> Tokens:
        return attempt_tokens(self._key, sampling.uid, attempt)

    def _validate_templates(self, attempted: str, attempt: Attempt) -> None:
        """Renders all manifests of an attempt before its first object is created."""
        _render(attempted, lambda: validate_templates(self._templates, attempt, self._operator))

    # The driver and its preview

    async def _submit_job(self, attempt: Attempt, job_id: str, head_ip: str) -> None:
        head, attempted = self.head_client(attempt.sampling, attempt.number, head_ip), f"submit the job {job_id}"
        try:
            insecure = await head.insecure_reason()
            if insecure:
                raise _failed(ActionErrorKind.HEAD_WITHOUT_AUTH, attempted, insecure)
            sampling, samples = attempt.sampling, attempt.spec.samples
            await head.submit(job_id, job_document(attempt), samples, f"{sampling.uid}/{attempt.number}")
        except HeadDidNotAnswer as error:
            raise _failed(ActionErrorKind.TRANSIENT, attempted, str(error)) from error

    async def _copy_preview(self, attempt: Attempt, head_ip: str) -> None:
        try:
            png = await self.head_client(attempt.sampling, attempt.number, head_ip).fetch_preview()
        except HeadDidNotAnswer as error:
            raise PreviewNotReady(str(error)) from error
        if png is None:
            raise PreviewNotReady("the driver has no preview yet")
        try:
            await self._write_preview(attempt.sampling, png)
        except ActionFailed as error:
            raise PreviewNotWritten(str(error)) from error

    async def _write_preview(self, sampling: Metadata, png: bytes) -> None:
        name = preview_name(sampling)
        path = f"{paths.config_maps(sampling.namespace)}/{name}"
        try:
            await self._api.apply(path, preview(sampling, png), MANAGER, force=False)
        except ApiError as error:
            attempted = f"write the preview {name}"
            raise _failed(ActionErrorKind.PREVIEW, attempted, error.message or str(error)) from error

    # Deletions

    async def delete_cluster(self, namespace: str, name: str, uid: str) -> None:
        """Deletes a RayCluster if it still has this uid, and with it the objects that it owns.

        The cluster stays in the cache as long as it exists: a finalizer may delay the deletion.

        Raises:
            ActionFailed: if it could not be deleted.
        """
        try:
            response = await self._api.delete(f"{paths.clusters(namespace)}/{name}", {"uid": uid})
        except ApiError as error:
            # A 404 without the resource's name means that the CRD is missing: the cluster may still exist.
            if error.status == HTTPStatus.NOT_FOUND and error.resource != "rayclusters":
                return
            # 409: the name belongs to another cluster by now.
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise ActionFailed(classify_error(error, f"delete the RayCluster {name}", "RayCluster")) from error
            response = {}
        # The response is the object while finalizers delay its deletion, and a Status once it is gone.
        remaining = RayCluster.model_validate(response).versioned() if response.get("kind") == "RayCluster" else None
        if remaining:
            self._clusters.update(remaining)
        else:
            self._clusters.mark_deleted(uid)

    async def _delete_sampling(self, sampling: Metadata, resource_version: str) -> None:
        path = f"{paths.samplings(sampling.namespace)}/{sampling.name}"
        try:
            await self._api.delete(path, {"uid": sampling.uid, "resourceVersion": resource_version})
        except ApiError as error:
            if error.status == HTTPStatus.CONFLICT:
                raise StaleResource(error.message) from error
            if error.status != HTTPStatus.NOT_FOUND:
                raise ActionFailed(classify_error(error, "delete the finished sampling", KIND)) from error

    # Requests

    async def _create(self, path: str, manifest: Document, attempted: str) -> Document | None:
        """Creates an object; returns None if one of its name exists already."""
        try:
            return await self._api.create(path, manifest)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise ActionFailed(classify_error(error, attempted, str(manifest.get("kind")))) from error

    async def _get(self, path: str, name: str, attempted: str) -> Document:
        """Reads an object that existed a moment ago."""
        try:
            return await self._api.get(f"{path}/{name}")
        except ApiError as error:
            raise _failed(ActionErrorKind.TRANSIENT, attempted, error.message or str(error)) from error


def _failed(kind: ActionErrorKind, attempted: str, message: str) -> ActionFailed:
    return ActionFailed(ActionError(kind, attempted, message))


def _render(attempted: str, render: Callable[[], Rendered]) -> Rendered:
    try:
        return render()
    except TemplateError as error:
        raise _failed(ActionErrorKind.TEMPLATE, attempted, str(error)) from error


def _status_manifest(sampling: DDPMSampling, status: Status, resource_version: str) -> Document:
    metadata = sampling.metadata
    return {
        "apiVersion": sampling.api_version,
        "kind": sampling.kind,
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "resourceVersion": resource_version,
        },
        "status": status.to_document(),
    }


def _event_manifest(sampling: Metadata, event: Event) -> Document:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{sampling.name}.{secrets.token_hex(8)}", "namespace": sampling.namespace},
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": f"{GROUP}/operator",
        "reportingInstance": socket.gethostname()[:128],
        "action": event.reason,
        "reason": event.reason,
        "type": event.type,
        "note": event.message,
        "regarding": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "name": sampling.name,
            "namespace": sampling.namespace,
            "uid": sampling.uid,
            "resourceVersion": sampling.resource_version,
        },
    }
