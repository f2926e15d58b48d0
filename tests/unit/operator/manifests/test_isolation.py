"""Whatever a sampling says, all that is made for it is in its own namespace and refers to nothing outside it."""

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
# Where a namespace is not a reference but a question: who may come in, which the operator alone writes.
WHO_MAY_COME_IN = ("ingress", "egress")
REFERENCES = ("secretName", "claimName", "serviceAccountName", "secretRef", "secretKeyRef", "imagePullSecrets")


def made_for(sampling: DDPMSampling, metadata: Metadata) -> list[Manifest]:
    """Everything that the operator creates for it."""
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
    """Every field of a document at any depth, but of who may come in."""
    if isinstance(value, list):
        for item in value:
            yield from fields(item)
    elif isinstance(value, dict):
        for key, below in value.items():
            yield key, below
            if key not in WHO_MAY_COME_IN:
                yield from fields(below)


def names(reference: Any) -> list[str]:  # noqa: ANN401 - as JSON has them
    if isinstance(reference, str):
        return [reference]
    if isinstance(reference, dict):
        return [str(reference["name"])]
    return [name for one in reference for name in names(one)]


def test_everything_is_in_the_samplings_namespace(accepted: list[DDPMSampling], metadata: Metadata) -> None:
    for sampling in accepted:
        for manifest in made_for(sampling, metadata):
            (where,) = [value for key, value in fields(manifest) if key == "namespace"]
            assert where == metadata.namespace
            assert not {"namespaces", "namespaceSelector"} & {key for key, _ in fields(manifest)}


def test_every_reference_is_a_plain_name(accepted: list[DDPMSampling], metadata: Metadata) -> None:
    """A plain name means an object of the same namespace: nothing in Kubernetes' references says another one."""
    found = [
        name
        for sampling in accepted
        for manifest in made_for(sampling, metadata)
        for key, value in fields(manifest)
        if key in REFERENCES
        for name in names(value)
    ]
    assert {"sampler", "digits-output"} & set(found)
    assert [name for name in found if "/" in name or ":" in name] == []


def test_no_pod_mounts_anything_but_its_own_claims_and_scratch(
    accepted: list[DDPMSampling], metadata: Metadata
) -> None:
    for sampling in accepted:
        volumes = [one for key, value in fields(made_for(sampling, metadata)[0]) if key == "volumes" for one in value]
        assert volumes
        assert {kind for one in volumes for kind in one} <= {"name", "emptyDir", "persistentVolumeClaim"}
