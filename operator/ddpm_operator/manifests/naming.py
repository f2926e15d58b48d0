"""Names and labels of what the operator makes: the same for the same resource and attempt, whoever asks."""

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

_LONGEST_SLUG = 30


def slug(name: str) -> str:
    """The part of a name that fits into a DNS-1035 label: at most 30 of a-z, 0-9 and -, a letter first."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789")[:_LONGEST_SLUG]
    return text.rstrip("-") or "ddpm"


def cluster_name(sampling: Metadata, attempt: int) -> str:
    """The name of an attempt's RayCluster and NetworkPolicy: ``<slug>-<8 of the uid's hash>-<attempt>``.

    At most 50 characters: KubeRay cuts longer names, from the end for pods and from the front for services.
    """
    return f"{_own(sampling)}-{attempt}"


def claim_name(sampling: Metadata) -> str:
    """The claim made where the output names no place; a later resource of the same name goes on with it."""
    return f"{sampling.name}-output"


def preview_name(sampling: Metadata) -> str:
    """The ConfigMap with the preview, grid.png: ``<slug>-<8 of the uid's hash>-preview``.

    It is applied without a look at what is there, and goes with the sampling: no name that somebody else may have
    chosen.
    """
    return f"{_own(sampling)}-preview"


def _own(sampling: Metadata) -> str:
    digest = hashlib.sha256(sampling.uid.encode()).hexdigest()[:8]
    return f"{slug(sampling.name)}-{digest}"


def job_id(cluster: str, run: int) -> str:
    """The submission id of a cluster's n-th Ray job: the cluster's own name, then ``<name>-r2`` and so on."""
    return cluster if run == 1 else f"{cluster}-r{run}"


def labels(sampling: Metadata, attempt: int) -> dict[str, str]:
    """What every object and pod of an attempt carries."""
    return {
        MANAGED_BY: MANAGER,
        SAMPLING: sampling.name,
        SAMPLING_UID: sampling.uid,
        ATTEMPT: str(attempt),
    }
