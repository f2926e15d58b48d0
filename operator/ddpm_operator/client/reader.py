"""The pod that reads a claim or a bucket for a person: with that person's rights, for a short time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from ddpm_operator.api import DDPMSampling
from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.uri import claim_path
from ddpm_operator.naming import MANAGED_BY, SAMPLING, claim_name, slug
from ddpm_operator.render import OUTPUT_PATH, owned_by_sampling

CONTAINER = "reader"
LONGEST_LIFE = 3600

# It waits to be asked, and ends at once when it is told to.
_WAIT = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"
# What may decide whether a pod finds a node, an image or its identity; the rest is for Ray's pods.
_PLACEMENT = ("nodeSelector", "tolerations", "imagePullSecrets", "serviceAccountName", "schedulerName")


def reader_pod(sampling: DDPMSampling, image: str) -> dict[str, JsonValue]:
    """A pod that the restricted Pod Security level takes, with the output's claim read-only or its credentials.

    It carries no label of the operator's own pods: to the operator it is nothing.
    """
    spec = sampling.spec
    overrides = spec.pod_overrides.to_document() if spec.pod_overrides else {}
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
    claim = _claim(sampling)
    if claim:
        container["volumeMounts"] = [{"name": "output", "mountPath": OUTPUT_PATH, "readOnly": True}]
        pod["volumes"] = [{"name": "output", "persistentVolumeClaim": {"claimName": claim}}]
    elif spec.credentials_secret_ref:
        container["envFrom"] = [{"secretRef": {"name": spec.credentials_secret_ref.name}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{slug(sampling.metadata.name)}-reader-",
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


def read_command(sampling: DDPMSampling, names: Sequence[str]) -> list[str]:
    """The command that writes the stored files to standard output, one after another."""
    program = files(__package__).joinpath("reader_program.py").read_text()
    return ["python", "-c", program, _folder(sampling), *names]


def _claim(sampling: DDPMSampling) -> str | None:
    uri = sampling.spec.output.uri
    place = claim_path(uri or "")
    if place:
        return place.claim
    return None if uri else claim_name(sampling.metadata)


def _folder(sampling: DDPMSampling) -> str:
    """Where the samples are, as the pod sees it."""
    uri = sampling.spec.output.uri
    place = claim_path(uri or "")
    if place:
        return f"{OUTPUT_PATH}/{place.path}"
    return uri.rstrip("/") if uri else OUTPUT_PATH
