"""All objects created for a sampling are in its namespace and reference only objects in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddpm_operator.api import Claim, DDPMSampling, Metadata
from ddpm_operator.manifests.render import (
    Attempt,
    OperatorPods,
    network_policy,
    output_claim,
    preview,
    ray_cluster,
    token_secret,
)
from ddpm_operator.manifests.templating import Manifest, Templates
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.planning.sizing import plan

OPERATOR = OperatorPods("ddpm-ray", {"app": "operator"})
# Namespaces in NetworkPolicy rules are selectors, not references, and only the operator writes them.
POLICY_RULES = ("ingress", "egress")
REFERENCE_FIELDS = ("secretName", "claimName", "serviceAccountName", "secretRef", "secretKeyRef", "imagePullSecrets")


def manifests_of(sampling: DDPMSampling, metadata: Metadata) -> list[Manifest]:
    """Returns all objects that the operator creates for a sampling."""
    templates = Templates()
    shared = "ReadWriteMany" in (sampling.spec.output.claim or Claim()).access_modes
    attempt = Attempt(metadata, 1, sampling.spec, plan(sampling.spec), "worker:1", "2.60.0", shared_output=shared)
    claim = output_claim(templates, metadata, sampling.spec)
    return [
        ray_cluster(templates, attempt, "secret"),
        network_policy(templates, attempt, "cluster-uid", OPERATOR),
        token_secret(templates, attempt, "cluster-uid", Tokens("ray", "progress", "suffix")),
        preview(metadata, b"png"),
        *([claim] if claim else []),
    ]


def fields(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - as JSON has them
    """Yields every field at any depth, except below POLICY_RULES."""
    if isinstance(value, list):
        for item in value:
            yield from fields(item)
    elif isinstance(value, dict):
        for key, below in value.items():
            yield key, below
            if key not in POLICY_RULES:
                yield from fields(below)


def names(reference: Any) -> list[str]:  # noqa: ANN401 - as JSON has them
    if isinstance(reference, str):
        return [reference]
    if isinstance(reference, dict):
        return [str(reference["name"])]
    return [name for item in reference for name in names(item)]


def test_all_objects_are_in_the_namespace_of_the_sampling(accepted: list[DDPMSampling], metadata: Metadata) -> None:
    for sampling in accepted:
        for manifest in manifests_of(sampling, metadata):
            (namespace,) = [value for key, value in fields(manifest) if key == "namespace"]
            assert namespace == metadata.namespace
            assert not {"namespaces", "namespaceSelector"} & {key for key, _ in fields(manifest)}


def test_references_are_plain_names(accepted: list[DDPMSampling], metadata: Metadata) -> None:
    """Kubernetes resolves a plain name in the namespace of the referring object."""
    found = [
        name
        for sampling in accepted
        for manifest in manifests_of(sampling, metadata)
        for key, value in fields(manifest)
        if key in REFERENCE_FIELDS
        for name in names(value)
    ]
    assert {"sampler", "digits-output"} & set(found)
    assert [name for name in found if "/" in name or ":" in name] == []


def test_pods_mount_only_claims_and_empty_dirs(accepted: list[DDPMSampling], metadata: Metadata) -> None:
    for sampling in accepted:
        volumes = [
            volume for key, value in fields(manifests_of(sampling, metadata)[0]) if key == "volumes" for volume in value
        ]
        assert volumes
        assert {key for volume in volumes for key in volume} <= {"name", "emptyDir", "persistentVolumeClaim"}
