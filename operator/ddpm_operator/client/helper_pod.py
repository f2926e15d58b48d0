"""A pod of the user's own that helps a sampling: restricted, of short life, and nothing to the operator. Pure."""

from __future__ import annotations

from ddpm_operator.api import DDPMSampling
from ddpm_operator.api.model import JsonValue
from ddpm_operator.manifests.naming import MANAGED_BY, SAMPLING, slug
from ddpm_operator.manifests.render import owned_by_sampling

CONTAINER = "main"
LONGEST_LIFE = 3600

# It waits to be asked, and ends at once when it is told to.
_WAIT = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"
# What may decide whether a pod finds a node, an image or its identity; the rest is for Ray's pods.
_PLACEMENT = ("nodeSelector", "tolerations", "imagePullSecrets", "serviceAccountName", "schedulerName")


def helper_pod(
    sampling: DDPMSampling,
    image: str,
    role: str,
    claim: str | None = None,
    mount: str = "",
    *,
    read_only: bool = True,
    credentials: str | None = None,
) -> dict[str, JsonValue]:
    """A pod that the restricted Pod Security level takes, and that runs what it is asked to by exec.

    It carries no label of the operator's own pods, and is owned by the sampling.

    Args:
        image: with Python.
        role: part of its name.
        claim: mounted at `mount`.
        credentials: a Secret with environment variables.
    """
    overrides = sampling.spec.pod_overrides.to_document() if sampling.spec.pod_overrides else {}
    container: dict[str, JsonValue] = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", _WAIT],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: dict[str, JsonValue] = {key: overrides[key] for key in _PLACEMENT if key in overrides}
    if claim:
        container["volumeMounts"] = [{"name": "claim", "mountPath": mount, "readOnly": read_only}]
        pod["volumes"] = [{"name": "claim", "persistentVolumeClaim": {"claimName": claim}}]
    if credentials:
        container["envFrom"] = [{"secretRef": {"name": credentials}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{slug(sampling.metadata.name)}-{role}-",
            "namespace": sampling.metadata.namespace,
            "labels": {MANAGED_BY: "kubectl-ddpm", SAMPLING: sampling.metadata.name},
            "ownerReferences": [owned_by_sampling(sampling.metadata)],
        },
        "spec": {
            **pod,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LONGEST_LIFE,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }
