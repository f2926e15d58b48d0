"""Names and labels of the objects that the operator creates, derived from the sampling and the attempt number."""

from __future__ import annotations

import hashlib
import re

from ddpm_operator.api import GROUP, Metadata

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "ddpm-operator"
SAMPLING = f"{GROUP}/sampling"
SAMPLING_UID = f"{GROUP}/sampling-uid"
ATTEMPT = f"{GROUP}/attempt"
QUEUE = "kueue.x-k8s.io/queue-name"

_MAX_SLUG_LENGTH = 30


def slug(name: str) -> str:
    """Returns the name reduced to a DNS-1035 label of at most 30 characters."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789")[:_MAX_SLUG_LENGTH]
    return text.rstrip("-") or "ddpm"


def cluster_name(sampling: Metadata, attempt: int) -> str:
    """Returns the name of an attempt's RayCluster and NetworkPolicy: ``<slug>-<8 hex digits of the uid>-<attempt>``.

    It has at most 50 characters, because KubeRay truncates longer names: for pods at the end, for services at the
    start.
    """
    return f"{_unique_prefix(sampling)}-{attempt}"


def claim_name(sampling: Metadata) -> str:
    """Returns the name of the created output claim. A later sampling of the same name reuses the claim."""
    return f"{sampling.name}-output"


def preview_name(sampling: Metadata) -> str:
    """Returns the name of the ConfigMap with grid.png: ``<slug>-<8 hex digits of the uid>-preview``.

    The operator applies it without reading it first, so the name must not collide with a ConfigMap of a user.
    """
    return f"{_unique_prefix(sampling)}-preview"


def _unique_prefix(sampling: Metadata) -> str:
    digest = hashlib.sha256(sampling.uid.encode()).hexdigest()[:8]
    return f"{slug(sampling.name)}-{digest}"


def job_id(cluster: str, run: int) -> str:
    """Returns the submission ID of the n-th Ray job on a cluster: the cluster's name, then ``<name>-r2`` and so on."""
    return cluster if run == 1 else f"{cluster}-r{run}"


def labels(sampling: Metadata, attempt: int) -> dict[str, str]:
    """Returns the labels of all objects and pods of an attempt."""
    return {
        MANAGED_BY: MANAGER,
        SAMPLING: sampling.name,
        SAMPLING_UID: sampling.uid,
        ATTEMPT: str(attempt),
    }
