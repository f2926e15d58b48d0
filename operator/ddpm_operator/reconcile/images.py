"""The container image of a sampling's pods: which one is requested, and which digest runs."""

from __future__ import annotations

from ddpm_operator.api import Status
from ddpm_operator.planning.image_reference import repository
from ddpm_operator.reconcile.observed import Observed, ObservedPod


def requested_image(observed: Observed, status: Status) -> str:
    """Returns the image for new pods: that of the previous attempts, else spec.image, else the operator's default."""
    return status.image or observed.sampling.spec.image or observed.image.reference


def pinned_image(pod: ObservedPod, requested: str) -> str | None:
    """Returns the image of a pod by digest; None while the digest is not known.

    Returns the requested reference if the node knows the image under another name only: an image that was loaded
    into the node cannot be pulled by that name elsewhere.
    """
    found = next((container.image_id for container in pod.containers if container.image_id), None)
    if found is None:
        return None
    found = found.removeprefix("docker-pullable://")
    return found if "@sha256:" in found and repository(found) == repository(requested) else requested
