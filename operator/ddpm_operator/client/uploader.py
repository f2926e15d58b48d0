"""The claim and the pod by which a person's checkpoint gets to a sampling. Pure."""

from __future__ import annotations

from importlib.resources import files

from ddpm_operator.api import DDPMSampling
from ddpm_operator.api.model import JsonValue
from ddpm_operator.client.checkpoint_file import CheckpointFile
from ddpm_operator.client.helper_pod import helper_pod
from ddpm_operator.manifests.naming import MANAGED_BY, SAMPLING
from ddpm_operator.manifests.render import owned_by_sampling

_MOUNT = "/model"
_GIB = 1 << 30
# A file system takes some of its volume for itself.
_MARGIN = 64 << 20


def model_claim_name(sampling: str) -> str:
    """The claim of an uploaded checkpoint."""
    return f"{sampling}-model"


def model_uri(sampling: str, file: CheckpointFile) -> str:
    """What the sampling names as its model."""
    return f"pvc://{model_claim_name(sampling)}/model.{file.suffix}"


def model_claim(sampling: DDPMSampling, file: CheckpointFile) -> dict[str, JsonValue]:
    """Of the default storage class, in whole GiB, and owned by the sampling: it goes with it."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": model_claim_name(sampling.metadata.name),
            "namespace": sampling.metadata.namespace,
            "labels": {MANAGED_BY: "kubectl-ddpm", SAMPLING: sampling.metadata.name},
            "ownerReferences": [owned_by_sampling(sampling.metadata)],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{-(-(file.bytes + _MARGIN) // _GIB)}Gi"}},
        },
    }


def uploader_pod(sampling: DDPMSampling, image: str) -> dict[str, JsonValue]:
    """With the claim, to be written to."""
    claim = model_claim_name(sampling.metadata.name)
    return helper_pod(sampling, image, "uploader", claim, _MOUNT, read_only=False)


def receive_command(file: CheckpointFile) -> list[str]:
    """The command that takes the file from its standard input."""
    program = files(__package__).joinpath("uploader_program.py").read_text()
    return ["python", "-c", program, f"{_MOUNT}/model.{file.suffix}", str(file.bytes), file.sha256]
