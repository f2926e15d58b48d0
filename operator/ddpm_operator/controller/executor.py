"""Carries out what was decided: requests to the Kubernetes API, and to the attempt's head.

Every action may have been carried out before, by an operator that did not live to see the answer. What is there
already and is ours is as good as made; what is gone already is as good as deleted.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TypeVar, assert_never

from ddpm_operator.api import GROUP, KIND, VERSION, DDPMSampling, Metadata
from ddpm_operator.kube import paths
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.client import ApiError, KubeApi
from ddpm_operator.kube.decode import MANAGER as READER
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

_CLUSTERS = "rayclusters"

FindHead = Callable[[str, Tokens], HeadClient]
Rendered = TypeVar("Rendered")


class ActionRejected(Exception):
    """An action could not be carried out."""

    def __init__(self, fault: ActionError) -> None:
        super().__init__(f"cannot {fault.doing}: {fault.message}")
        self.fault = fault


class StaleResource(Exception):
    """The resource is newer than what the decision was taken on, or gone: look again."""


class ActionDeferred(Exception):
    """There is nothing to carry it out with at the moment, which stops nothing else."""


class PreviewNotReady(Exception):
    """A preview on the way could not be written, which stops nothing else."""


class ActionExecutor:
    """What the operator does to the world.

    Args:
        clusters: where clusters that are made and deleted are taken down at once.
        key: the operator's own.
        operator: its pods, which the attempts' network policies let in.
        find_head: from a head pod's address and its tokens to the head.
    """

    def __init__(
        self,
        api: KubeApi,
        clusters: ObjectCache[ObservedCluster],
        templates: Templates,
        key: bytes,
        operator: OperatorPods,
        find_head: FindHead,
    ) -> None:
        self._api = api
        self._clusters = clusters
        self._templates = templates
        self._key = key
        self._operator = operator
        self._find_head = find_head

    def head(self, sampling: Metadata, attempt: int, ip: str) -> HeadClient:
        """The head of an attempt, to be asked."""
        return self._find_head(ip, self._tokens(sampling, attempt))

    async def carry_out(self, sampling: DDPMSampling, action: Action) -> DDPMSampling:
        """Carries out one action.

        Returns:
            the resource as it is then, as far as that is known.

        Raises:
            Refused: if it could not be done.
            Overtaken: if the resource is another by now.
            NotYet: if the driver has no preview.
            NoPreview: if it has one, which could not be copied.
        """
        metadata = sampling.metadata
        match action:
            case WriteStatus():
                return await self._write_status(sampling, action)
            case Event():
                await self._tell(metadata, action)
            case EnsureClaim(attempt):
                await self._ensure_claim(attempt)
            case CreateCluster(attempt):
                await self._create_cluster(attempt)
            case CreateNetworkPolicy(attempt, cluster_uid):
                await self._create_policy(attempt, cluster_uid)
            case CreateSecret(attempt, cluster_uid):
                await self._create_secret(attempt, cluster_uid)
            case SubmitJob():
                await self._submit(action)
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

    async def delete_cluster(self, namespace: str, name: str, uid: str) -> None:
        """Deletes a RayCluster of this very uid; what it owns follows.

        A finalizer may hold it there, and so does a CRD that is away: until it is seen to be gone it is there.

        Raises:
            Refused: if it could not be deleted.
        """
        try:
            answer = await self._api.delete(f"{paths.clusters(namespace)}/{name}", {"uid": uid})
        except ApiError as error:
            # The API server may know no RayCluster for a time: the object is there all the same.
            if error.status == HTTPStatus.NOT_FOUND and error.kind != _CLUSTERS:
                return
            # 409 is another cluster of the same name.
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise ActionRejected(classify_error(error, f"delete the RayCluster {name}", "RayCluster")) from error
            answer = {}
        # The API server answers with the object as long as it is there, and with a Status when it is gone.
        held = RayCluster.model_validate(answer).sight() if answer.get("kind") == "RayCluster" else None
        if held:
            self._clusters.saw(held)
        else:
            self._clusters.deleted(uid)

    async def object_to(self, key: ObjectKey, objection: Document) -> None:
        """Says of a sampling that the operator cannot read it; see `ddpm_operator.kube.decode`.

        Raises:
            Refused: if that could not be written.
        """
        path = f"{paths.samplings(key.namespace)}/{key.name}/status"
        try:
            await self._api.apply(path, objection, READER, force=True)
        except ApiError as error:
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise ActionRejected(classify_error(error, "say that the resource cannot be read", KIND)) from error

    async def _write_status(self, sampling: DDPMSampling, action: WriteStatus) -> DDPMSampling:
        metadata = sampling.metadata
        body: Document = {
            "apiVersion": sampling.api_version,
            "kind": sampling.kind,
            "metadata": {
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
                "resourceVersion": action.resource_version,
            },
            "status": action.status.to_document(),
        }
        path = f"{paths.samplings(metadata.namespace)}/{metadata.name}/status"
        try:
            # Nobody else has a say in the status, whoever wrote into it by hand.
            return DDPMSampling.from_document(await self._api.apply(path, body, MANAGER, force=True))
        except ApiError as error:
            if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise StaleResource(error.message) from error
            # Whatever it was that refused it: once it can be written again, that is over.
            raise ActionRejected(
                ActionError(ActionErrorKind.TRANSIENT, "write the status", error.message or str(error))
            ) from error

    async def _tell(self, sampling: Metadata, event: Event) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        body: Document = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{sampling.name}.{secrets.token_hex(8)}", "namespace": sampling.namespace},
            "eventTime": now,
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
        try:
            await self._api.create(paths.events(sampling.namespace), body)
        except ApiError as error:
            logger.warning("%s/%s: no event %s: %s", sampling.namespace, sampling.name, event.reason, error)

    async def _ensure_claim(self, attempt: Attempt) -> None:
        metadata = attempt.sampling
        name = claim_name(metadata)
        doing = f"create the claim {name}"
        self._rehearse(doing, attempt)
        manifest = _rendered(doing, lambda: output_claim(self._templates, metadata, attempt.spec))
        if manifest is None:
            return
        if await self._create(paths.claims(metadata.namespace), manifest, doing):
            return
        found = PersistentVolumeClaim.model_validate(await self._get(paths.claims(metadata.namespace), name, doing))
        if found.goes_before(ObjectKey(metadata.namespace, metadata.name, metadata.uid)):
            message = f"the claim {name} of a former sampling is about to be deleted"
            raise ActionRejected(ActionError(ActionErrorKind.TRANSIENT, doing, message))

    async def _create_cluster(self, attempt: Attempt) -> None:
        namespace, doing = attempt.sampling.namespace, f"create the RayCluster {attempt.name}"
        self._rehearse(doing, attempt)
        secret = self._tokens(attempt.sampling, attempt.number).secret_name(attempt.name)
        manifest = _rendered(doing, lambda: ray_cluster(self._templates, attempt, secret))
        path = paths.clusters(namespace)
        document = await self._create(path, manifest, doing) or await self._get(path, attempt.name, doing)
        sight = RayCluster.model_validate(document).sight()
        if sight is None or sight.of.uid != attempt.sampling.uid:
            message = f"a RayCluster of the name {attempt.name} is there, and it is not this sampling's"
            raise ActionRejected(ActionError(ActionErrorKind.TAKEN, doing, message))
        self._clusters.saw(sight)

    async def _create_policy(self, attempt: Attempt, cluster_uid: str) -> None:
        doing = f"create the NetworkPolicy {attempt.name}"
        manifest = _rendered(doing, lambda: network_policy(self._templates, attempt, cluster_uid, self._operator))
        await self._create(paths.network_policies(attempt.sampling.namespace), manifest, doing)

    async def _create_secret(self, attempt: Attempt, cluster_uid: str) -> None:
        doing = f"create the Secret of {attempt.name}"
        tokens = self._tokens(attempt.sampling, attempt.number)
        manifest = _rendered(doing, lambda: token_secret(self._templates, attempt, cluster_uid, tokens))
        await self._create(paths.secrets(attempt.sampling.namespace), manifest, doing)

    def _tokens(self, sampling: Metadata, attempt: int) -> Tokens:
        return attempt_tokens(self._key, sampling.uid, attempt)

    async def _submit(self, action: SubmitJob) -> None:
        attempt = action.attempt
        head, doing = self.head(attempt.sampling, attempt.number, action.head_ip), f"submit the job {action.id}"
        try:
            objection = await head.objection()
            if objection:
                raise ActionRejected(ActionError(ActionErrorKind.OPEN_HEAD, doing, objection))
            await head.submit(action.id, job_document(attempt), attempt.spec.samples)
        except HeadDidNotAnswer as error:
            raise ActionRejected(ActionError(ActionErrorKind.TRANSIENT, doing, str(error))) from error

    async def _copy_preview(self, attempt: Attempt, head_ip: str) -> None:
        try:
            png = await self.head(attempt.sampling, attempt.number, head_ip).grid()
        except HeadDidNotAnswer as error:
            raise ActionDeferred(str(error)) from error
        if png is None:
            raise ActionDeferred("the driver has no picture of its samples")
        try:
            await self._write_preview(attempt.sampling, png)
        except ActionRejected as error:
            raise PreviewNotReady(str(error)) from error

    async def _write_preview(self, sampling: Metadata, png: bytes) -> None:
        name = preview_name(sampling)
        try:
            await self._api.apply(
                f"{paths.config_maps(sampling.namespace)}/{name}", preview(sampling, png), MANAGER, force=False
            )
        except ApiError as error:
            doing = f"write the preview {name}"
            raise ActionRejected(ActionError(ActionErrorKind.PREVIEW, doing, error.message or str(error))) from error

    async def _delete_sampling(self, sampling: Metadata, resource_version: str) -> None:
        path = f"{paths.samplings(sampling.namespace)}/{sampling.name}"
        try:
            await self._api.delete(path, {"uid": sampling.uid, "resourceVersion": resource_version})
        except ApiError as error:
            if error.status == HTTPStatus.CONFLICT:
                raise StaleResource(error.message) from error
            if error.status != HTTPStatus.NOT_FOUND:
                raise ActionRejected(classify_error(error, "delete the finished sampling", KIND)) from error

    def _rehearse(self, doing: str, attempt: Attempt) -> None:
        """Before the first thing of an attempt is made, all that it will need can be rendered."""
        _rendered(doing, lambda: validate_templates(self._templates, attempt, self._operator))

    async def _create(self, path: str, manifest: Document, doing: str) -> Document | None:
        """The object that was made; None if there is one of its name."""
        try:
            return await self._api.create(path, manifest)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise ActionRejected(classify_error(error, doing, str(manifest.get("kind")))) from error

    async def _get(self, path: str, name: str, doing: str) -> Document:
        """An object that was there a moment ago."""
        try:
            return await self._api.get(f"{path}/{name}")
        except ApiError as error:
            raise ActionRejected(ActionError(ActionErrorKind.TRANSIENT, doing, error.message or str(error))) from error


def _rendered(doing: str, render: Callable[[], Rendered]) -> Rendered:
    try:
        return render()
    except TemplateError as error:
        raise ActionRejected(ActionError(ActionErrorKind.TEMPLATE, doing, str(error))) from error
