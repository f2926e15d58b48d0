"""Renders the manifests of an attempt from its spec and plan. Pure.

`templates/` contains the structure of each manifest; this module computes the values.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from ddpm_operator.api import KIND, Claim, Metadata, Plan, Spec
from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.quantity import parse
from ddpm_operator.api.resource import GROUP, VERSION
from ddpm_operator.api.status import Placement
from ddpm_operator.api.uri import claim_path
from ddpm_operator.manifests.naming import (
    MANAGED_BY,
    MANAGER,
    QUEUE,
    SAMPLING,
    claim_name,
    cluster_name,
    labels,
    preview_name,
)
from ddpm_operator.manifests.node_affinity import with_placement
from ddpm_operator.manifests.templating import Manifest, TemplateError, Templates
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.planning.sizing import PodSize, claim_size, head_size, worker_size

OUTPUT_PATH = "/output"
MODEL_PATH = "/model"
TOKEN_KEY = "auth_token"  # noqa: S105 - the Secret's key that KubeRay expects, not a token
PROGRESS_TOKEN_KEY = "progress_token"  # noqa: S105
PROGRESS_PORT = 8500
PREVIEW_FILE = "grid.png"

_RAY_API_VERSION = "ray.io/v1"
# Required of every pod that runs a user's image. The administrator may choose the seccomp profile, but not omit it.
_REQUIRED_POD_SPEC: Manifest = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {}},
}
_RAY_CLUSTER_TEMPLATE = "raycluster.yaml.j2"
# KubeRay must not recreate a dead head: the new one would lack the state of the driver, and the attempt has failed.
_DISABLE_HEAD_RESTART = {"ray.io/disable-provisioned-head-restart": "true"}


@dataclass(frozen=True)
class OperatorPods:
    """The namespace and labels that identify the operator's pods."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Attempt:
    """One numbered attempt of a sampling, with everything its manifests are computed from.

    Attributes:
        image: the image of the pods, pinned by digest from the second attempt on.
        ray_version: the version of Ray in the image.
        shared_output: whether all pods can mount the output claim, not only the head.
        pull_policy: the imagePullPolicy of the pods: Always, IfNotPresent or Never.
        cloud_identity: whether pods that use a bucket without credentials may use the cloud identity of their node.
        placement: the nodes that the pods that draw may use; None for any.
        repairs: whether the driver checks all stored files, and draws damaged samples again.
    """

    sampling: Metadata
    number: int
    spec: Spec
    plan: Plan
    image: str
    ray_version: str
    shared_output: bool
    pull_policy: str = "IfNotPresent"
    cloud_identity: bool = False
    placement: Placement | None = None
    repairs: bool = False

    @property
    def name(self) -> str:
        """The name of the RayCluster and the NetworkPolicy."""
        return cluster_name(self.sampling, self.number)

    @property
    def labels(self) -> dict[str, str]:
        return labels(self.sampling, self.number)


def ray_cluster(templates: Templates, attempt: Attempt, secret: str) -> Manifest:
    """Returns the RayCluster of an attempt. Its pods start only after the Secret has been created.

    Args:
        secret: the name of the Secret with the attempt's tokens.

    Raises:
        TemplateError: see `Templates.render`; also if head and workers have different images.
    """
    spec, plan = attempt.spec, attempt.plan
    queue = {QUEUE: spec.queue_name} if spec.queue_name else {}
    metadata: Manifest = {
        **_identity(attempt, [owned_by_sampling(attempt.sampling)]),
        "labels": {**attempt.labels, **queue},
        "annotations": {**_DISABLE_HEAD_RESTART},
    }
    auth: Manifest = {"mode": "token", "secretName": secret}
    head = head_size(spec, plan)
    values = {
        "metadata": metadata,
        "ray_version": attempt.ray_version,
        "auth": auth,
        "workers": plan.workers,
        "head": _group(attempt, head, head=True),
        "worker": _group(attempt, worker_size(spec, plan), head=False),
        "image": attempt.image,
        "pull_policy": attempt.pull_policy,
        "credentials": spec.credentials_secret_ref.name if spec.credentials_secret_ref else None,
        "progress_port": PROGRESS_PORT,
        "progress_token": {"name": secret, "key": PROGRESS_TOKEN_KEY},
    }
    workers: list[JsonValue] = [{"template": {"spec": _REQUIRED_POD_SPEC}}]
    required: Manifest = {
        "apiVersion": _RAY_API_VERSION,
        "kind": "RayCluster",
        "metadata": metadata,
        "spec": {
            "authOptions": auth,
            "headGroupSpec": {"template": {"spec": {**_REQUIRED_POD_SPEC, "restartPolicy": "Never"}}},
            **({"workerGroupSpecs": workers} if plan.workers else {}),
        },
    }
    manifest = templates.render(_RAY_CLUSTER_TEMPLATE, values, required)
    image = _ray_image(manifest, "headGroupSpec")
    if plan.workers and image != _ray_image(manifest, "workerGroupSpecs", 0):
        # The driver does not ship code to the workers, and assumes that all of them have the same torch version.
        raise TemplateError(_RAY_CLUSTER_TEMPLATE, "head and workers must have the same image")
    return manifest


def token_secret(templates: Templates, attempt: Attempt, cluster_uid: str, tokens: Tokens) -> Manifest:
    """Returns the Secret with the tokens of an attempt, owned by the RayCluster.

    Raises:
        TemplateError: see `Templates.render`.
    """
    metadata = _identity(attempt, [_owned_by_cluster(attempt, cluster_uid)])
    metadata["name"] = tokens.secret_name(attempt.name)
    data: Manifest = {TOKEN_KEY: tokens.ray, PROGRESS_TOKEN_KEY: tokens.progress}
    required: Manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}
    return templates.render("secret.yaml.j2", {"metadata": metadata, "data": data}, required)


def network_policy(templates: Templates, attempt: Attempt, cluster_uid: str, operator: OperatorPods) -> Manifest:
    """Returns the NetworkPolicy of an attempt's pods, owned by the RayCluster.

    Raises:
        TemplateError: see `Templates.render`.
    """
    spec = attempt.spec
    metadata = _identity(attempt, [_owned_by_cluster(attempt, cluster_uid)])
    uris = [spec.model.uri, spec.output.uri or ""]
    values = {
        "metadata": metadata,
        "cluster": attempt.name,
        "operator": {"namespace": operator.namespace, "labels": dict(operator.labels)},
        "progress_port": PROGRESS_PORT,
        "outside": any(uri.startswith(("s3://", "gs://", "https://", "hf://")) for uri in uris),
        "cloud_identity": attempt.cloud_identity
        and spec.credentials_secret_ref is None
        and any(uri.startswith(("s3://", "gs://")) for uri in uris),
    }
    required: Manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": {"ray.io/cluster": attempt.name}},
            "policyTypes": ["Ingress", "Egress"],
        },
    }
    return templates.render("networkpolicy.yaml.j2", values, required)


def output_claim(templates: Templates, sampling: Metadata, spec: Spec) -> Manifest | None:
    """Returns the PersistentVolumeClaim to create for the samples; None if spec.output.uri is set.

    Raises:
        TemplateError: see `Templates.render`.
    """
    if spec.output.uri:
        return None
    claim = spec.output.claim or Claim()
    metadata: Manifest = {
        "name": claim_name(sampling),
        "namespace": sampling.namespace,
        "labels": {MANAGED_BY: MANAGER, SAMPLING: sampling.name},
    }
    if claim.retention_policy == "Delete":
        metadata["ownerReferences"] = [owned_by_sampling(sampling)]
    values = {
        "metadata": metadata,
        "size": claim.size or claim_size(spec),
        "access_modes": claim.access_modes,
        "storage_class": claim.storage_class_name,
    }
    required: Manifest = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
    return templates.render("claim.yaml.j2", values, required)


def preview(sampling: Metadata, png: bytes) -> Manifest:
    """Returns the ConfigMap with the preview image, owned by the sampling.

    Args:
        png: the image, at most 48 KiB.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": preview_name(sampling),
            "namespace": sampling.namespace,
            "labels": {MANAGED_BY: MANAGER, SAMPLING: sampling.name},
            "ownerReferences": [owned_by_sampling(sampling)],
        },
        "binaryData": {PREVIEW_FILE: base64.b64encode(png).decode()},
    }


def _identity(attempt: Attempt, owners: list[JsonValue]) -> Manifest:
    return {
        "name": attempt.name,
        "namespace": attempt.sampling.namespace,
        "labels": {**attempt.labels},
        "ownerReferences": owners,
    }


def owned_by_sampling(sampling: Metadata) -> JsonValue:
    """Returns the owner reference for objects that are deleted with the sampling."""
    return _owner(f"{GROUP}/{VERSION}", KIND, sampling.name, sampling.uid)


def _owned_by_cluster(attempt: Attempt, uid: str) -> JsonValue:
    return _owner(_RAY_API_VERSION, "RayCluster", attempt.name, uid)


def _owner(api_version: str, kind: str, name: str, uid: str) -> JsonValue:
    # blockOwnerDeletion would require permission to update the finalizers of the owner.
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _group(attempt: Attempt, size: PodSize, *, head: bool) -> Manifest:
    """Returns the template variables of the head or the worker group."""
    overrides = attempt.spec.pod_overrides.to_document() if attempt.spec.pod_overrides else {}
    user_labels, annotations = overrides.pop("labels", {}), overrides.pop("annotations", {})
    draws = head == (attempt.plan.workers == 0)
    if draws and attempt.placement:
        overrides["affinity"] = with_placement(overrides.get("affinity"), attempt.placement)
    memory = int(parse(size.memory))
    resources: Manifest = {"cpu": size.cpu, "memory": size.memory}
    if size.gpus:
        resources[attempt.spec.resources.gpu_resource_name] = str(size.gpus)
    volumes, mounts = _claims(attempt, head=head)
    return {
        "num_cpus": str(size.slots),
        "num_gpus": str(size.gpus),
        "object_store_memory": str(memory // 5),
        "shared_memory": str(memory // 4),
        "requests": resources,
        "limits": {**resources, "cpu": size.cpu_limit},
        "labels": {**_mapping(user_labels), **attempt.labels},
        "annotations": annotations,
        "overrides": _with_default_selectors(overrides, attempt),
        "volumes": volumes,
        "mounts": mounts,
    }


def _ray_image(ray_cluster: Manifest, *group: str | int) -> JsonValue:
    """Returns the image of the first container of a group, which runs Ray. A template may add sidecars after it."""
    value: JsonValue = ray_cluster
    for key in ("spec", *group, "template", "spec", "containers", 0, "image"):
        if isinstance(key, int):
            value = value[key] if isinstance(value, list) and value else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def _mapping(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _with_default_selectors(overrides: Manifest, attempt: Attempt) -> Manifest:
    """Adds a selector for the attempt's pods to topology spread constraints without a labelSelector."""
    selector: JsonValue = {"matchLabels": {**attempt.labels}}
    constraints = overrides.get("topologySpreadConstraints")
    if not isinstance(constraints, list):
        return overrides
    spread: list[JsonValue] = [{"labelSelector": selector, **_mapping(constraint)} for constraint in constraints]
    return {**overrides, "topologySpreadConstraints": spread}


def _claims(attempt: Attempt, *, head: bool) -> tuple[list[JsonValue], list[JsonValue]]:
    """Returns (volumes, mounts) of the claims that the head or a worker mounts.

    Only the head mounts the checkpoint. Workers mount the output only if the claim can be mounted by several pods.
    """
    spec = attempt.spec
    output, model = claim_path(spec.output.uri or ""), claim_path(spec.model.uri)
    volumes: list[JsonValue] = []
    mounts: list[JsonValue] = []
    claims: dict[str, str] = {}  # mount path -> claim
    if (output or not spec.output.uri) and (head or attempt.shared_output):
        claims[OUTPUT_PATH] = output.claim if output else claim_name(attempt.sampling)
    if model and head:
        claims[MODEL_PATH] = model.claim
    names: dict[str, str] = {}  # claim -> volume
    for path, claim in claims.items():
        if claim not in names:
            names[claim] = path.strip("/")
            volumes.append({"name": names[claim], "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": names[claim], "mountPath": path, "readOnly": path == MODEL_PATH})
    return volumes, mounts
