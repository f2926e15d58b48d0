"""From a plan to the manifests of one attempt: pure, through the templates.

The shape of a manifest stands in `templates/`; what goes into it is computed here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from ddpm_operator.api import KIND, Claim, Metadata, Plan, Spec
from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.quantity import parse
from ddpm_operator.api.resource import GROUP, VERSION
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
from ddpm_operator.manifests.templating import Manifest, TemplateError, Templates
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.planning.sizing import PodSize, claim_size, head_size, worker_size

OUTPUT_PATH = "/output"
MODEL_PATH = "/model"
TOKEN_KEY = "auth_token"  # noqa: S105 - the key KubeRay looks for, not a token
PROGRESS_TOKEN_KEY = "progress_token"  # noqa: S105
PROGRESS_PORT = 8500
PREVIEW_FILE = "grid.png"

_RAY = "ray.io/v1"
# Of every pod that runs what users bring; which seccomp profile it is, an administrator may choose.
_CLOSED: Manifest = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {}},
}
_RAY_CLUSTER = "raycluster.yaml.j2"
_KEEPS_A_DEAD_HEAD_DEAD = {"ray.io/disable-provisioned-head-restart": "true"}


@dataclass(frozen=True)
class OperatorPods:
    """How the operator's own pods are told from others: by their namespace and labels."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Attempt:
    """One numbered attempt at a sampling, and what it takes from around it.

    Attributes:
        image: of the pods; by digest from the second attempt on.
        ray_version: of the Ray in that image.
        shared_output: the output's claim can be mounted by every pod, not by one alone.
        pull_policy: when a node asks the registry for the image: Always, IfNotPresent or Never.
        cloud_identity: where a bucket is named without credentials, pods may ask their node's cloud for them.
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

    @property
    def name(self) -> str:
        """The RayCluster's and its NetworkPolicy's name."""
        return cluster_name(self.sampling, self.number)

    @property
    def labels(self) -> dict[str, str]:
        return labels(self.sampling, self.number)


def ray_cluster(templates: Templates, attempt: Attempt, secret: str) -> Manifest:
    """The attempt's RayCluster. Until its Secret is there, no pod of it starts.

    Args:
        secret: name of the Secret with the attempt's tokens.

    Raises:
        TemplateFault: see `Templates.render`.
    """
    spec, plan = attempt.spec, attempt.plan
    queue = {QUEUE: spec.queue_name} if spec.queue_name else {}
    metadata: Manifest = {
        **_identity(attempt, [owned_by_sampling(attempt.sampling)]),
        "labels": {**attempt.labels, **queue},
        "annotations": {**_KEEPS_A_DEAD_HEAD_DEAD},
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
    workers: list[JsonValue] = [{"template": {"spec": _CLOSED}}]
    must: Manifest = {
        "apiVersion": _RAY,
        "kind": "RayCluster",
        "metadata": metadata,
        "spec": {
            "authOptions": auth,
            "headGroupSpec": {"template": {"spec": {**_CLOSED, "restartPolicy": "Never"}}},
            **({"workerGroupSpecs": workers} if plan.workers else {}),
        },
    }
    made = templates.render(_RAY_CLUSTER, values, must)
    image = _image_of(made, "headGroupSpec")
    if plan.workers and image != _image_of(made, "workerGroupSpecs", 0):
        # The driver sends its workers no code, and takes the torch of one for that of all.
        raise TemplateError(_RAY_CLUSTER, "head and workers have not one image, which the operator relies on")
    return made


def token_secret(templates: Templates, attempt: Attempt, cluster_uid: str, tokens: Tokens) -> Manifest:
    """The Secret with the attempt's tokens, owned by its RayCluster.

    Raises:
        TemplateFault: see `Templates.render`.
    """
    metadata = _identity(attempt, [_owned_by_cluster(attempt, cluster_uid)])
    metadata["name"] = tokens.secret_name(attempt.name)
    data: Manifest = {TOKEN_KEY: tokens.ray, PROGRESS_TOKEN_KEY: tokens.progress}
    must: Manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}
    return templates.render("secret.yaml.j2", {"metadata": metadata, "data": data}, must)


def network_policy(templates: Templates, attempt: Attempt, cluster_uid: str, operator: OperatorPods) -> Manifest:
    """Who may talk to the attempt's pods, and to whom they may talk; owned by its RayCluster.

    Raises:
        TemplateFault: see `Templates.render`.
    """
    spec = attempt.spec
    metadata = _identity(attempt, [_owned_by_cluster(attempt, cluster_uid)])
    places = [spec.model.uri, spec.output.uri or ""]
    values = {
        "metadata": metadata,
        "cluster": attempt.name,
        "operator": {"namespace": operator.namespace, "labels": dict(operator.labels)},
        "progress_port": PROGRESS_PORT,
        "outside": any(place.startswith(("s3://", "gs://", "https://")) for place in places),
        "cloud_identity": attempt.cloud_identity
        and spec.credentials_secret_ref is None
        and any(place.startswith(("s3://", "gs://")) for place in places),
    }
    must: Manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": {"ray.io/cluster": attempt.name}},
            "policyTypes": ["Ingress", "Egress"],
        },
    }
    return templates.render("networkpolicy.yaml.j2", values, must)


def output_claim(templates: Templates, sampling: Metadata, spec: Spec) -> Manifest | None:
    """The claim made for the samples; None where the output names its place.

    Raises:
        TemplateFault: see `Templates.render`.
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
    must: Manifest = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
    return templates.render("claim.yaml.j2", values, must)


def preview(sampling: Metadata, png: bytes) -> Manifest:
    """The ConfigMap with a picture of the samples, owned by the sampling.

    Args:
        png: at most 48 KiB.
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
    """The owner reference of what goes with the sampling."""
    return _owner(f"{GROUP}/{VERSION}", KIND, sampling.name, sampling.uid)


def _owned_by_cluster(attempt: Attempt, uid: str) -> JsonValue:
    return _owner(_RAY, "RayCluster", attempt.name, uid)


def _owner(api_version: str, kind: str, name: str, uid: str) -> JsonValue:
    # blockOwnerDeletion would need a right on the owner's finalizers.
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _group(attempt: Attempt, size: PodSize, *, head: bool) -> Manifest:
    """What the templates need to know of the head or of the workers."""
    overrides = attempt.spec.pod_overrides.to_document() if attempt.spec.pod_overrides else {}
    own_labels, annotations = overrides.pop("labels", {}), overrides.pop("annotations", {})
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
        "labels": {**_mapping(own_labels), **attempt.labels},
        "annotations": annotations,
        "overrides": _with_selectors(overrides, attempt),
        "volumes": volumes,
        "mounts": mounts,
    }


def _image_of(ray_cluster: Manifest, *group: str | int) -> JsonValue:
    """The image of a group's Ray, which is its first container: any other is an administrator's."""
    value: JsonValue = ray_cluster
    for step in ("spec", *group, "template", "spec", "containers", 0, "image"):
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and value else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _mapping(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _with_selectors(overrides: Manifest, attempt: Attempt) -> Manifest:
    """Spread constraints that count no pods in particular count the attempt's own."""
    own: JsonValue = {"matchLabels": {**attempt.labels}}
    constraints = overrides.get("topologySpreadConstraints")
    if not isinstance(constraints, list):
        return overrides
    spread: list[JsonValue] = [{"labelSelector": own, **_mapping(constraint)} for constraint in constraints]
    return {**overrides, "topologySpreadConstraints": spread}


def _claims(attempt: Attempt, *, head: bool) -> tuple[list[JsonValue], list[JsonValue]]:
    """(volumes, mounts) of the claims that a pod reaches.

    The head alone reads the checkpoint, and writes an output that one pod at most can mount.
    """
    spec = attempt.spec
    output, model = claim_path(spec.output.uri or ""), claim_path(spec.model.uri)
    volumes: list[JsonValue] = []
    mounts: list[JsonValue] = []
    reached: dict[str, str] = {}
    if (output or not spec.output.uri) and (head or attempt.shared_output):
        reached[OUTPUT_PATH] = output.claim if output else claim_name(attempt.sampling)
    if model and head:
        reached[MODEL_PATH] = model.claim
    names: dict[str, str] = {}
    for path, claim in reached.items():
        if claim not in names:
            names[claim] = path.strip("/")
            volumes.append({"name": names[claim], "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": names[claim], "mountPath": path, "readOnly": path == MODEL_PATH})
    return volumes, mounts
