"""Renders all templates before any object is created, so that a broken template never leaves a partial attempt."""

from __future__ import annotations

from ddpm_operator.api import Metadata, Spec
from ddpm_operator.api.model import JsonValue
from ddpm_operator.manifests.render import (
    Attempt,
    OperatorPods,
    network_policy,
    output_claim,
    ray_cluster,
    token_secret,
)
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.sizing import plan

# Placeholders: UIDs and tokens have a fixed format, so rendering does not depend on their values.
_UID = "00000000-0000-0000-0000-000000000000"
_TOKENS = Tokens(ray="token", progress="token", suffix="suffix")

# Together, these specs set and leave unset every optional value that the templates are given.
_SAMPLINGS: tuple[dict[str, JsonValue], ...] = (
    {"model": {"uri": "builtin://mnist"}, "samples": 1},
    {
        "model": {"uri": "pvc://models/digits.safetensors"},
        "samples": 100_000,
        "resources": {"gpus": 2},
        "output": {"claim": {"storageClassName": "fast", "accessModes": ["ReadWriteMany"]}},
        "podOverrides": {"labels": {"team": "research"}, "nodeSelector": {"disk": "fast"}},
        "queueName": "research",
    },
    {
        "model": {"uri": "builtin://mnist"},
        "samples": 100_000,
        "output": {"uri": "s3://bucket/digits"},
        "credentialsSecretRef": {"name": "s3"},
    },
)


def validate_templates(templates: Templates, attempt: Attempt, operator: OperatorPods) -> None:
    """Renders all manifests of an attempt and discards them.

    Raises:
        TemplateError: see `Templates.render`.
    """
    output_claim(templates, attempt.sampling, attempt.spec)
    ray_cluster(templates, attempt, _TOKENS.secret_name(attempt.name))
    network_policy(templates, attempt, _UID, operator)
    token_secret(templates, attempt, _UID, _TOKENS)


def validate_all_templates(templates: Templates, image: WorkerImage, operator: OperatorPods) -> None:
    """Renders all manifests of representative samplings: head only, GPU workers, claims and buckets.

    Raises:
        TemplateError: see `Templates.render`.
    """
    sampling = Metadata(name="digits", namespace="research", uid=_UID)
    for document in _SAMPLINGS:
        spec = Spec.from_document(document)
        shared = spec.output.claim is not None and "ReadWriteMany" in spec.output.claim.access_modes
        attempt = Attempt(sampling, 1, spec, plan(spec), image.reference, image.ray_version, shared)
        validate_templates(templates, attempt, operator)
