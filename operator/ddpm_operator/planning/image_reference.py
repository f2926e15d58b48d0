"""Container image references, and the default worker image of the operator."""

from __future__ import annotations

import re
from dataclasses import dataclass


def repository(reference: str) -> str:
    """Returns the fully qualified repository without tag and digest: ``docker.io/library/mnist`` for ``mnist:1``."""
    name = re.sub(r":[^:/]*$", "", reference.partition("@")[0])
    registry, _, rest = name.partition("/")
    if not rest:
        return f"docker.io/library/{name}"
    return name if re.search(r"[.:]|^localhost$", registry) else f"docker.io/{name}"


@dataclass(frozen=True)
class WorkerImage:
    """The default image of sampling pods, used when spec.image is unset.

    Attributes:
        ray_version: the version of Ray in the image.
        pull_policy: the imagePullPolicy of sampling pods, with this image or with spec.image.
    """

    reference: str
    ray_version: str
    pull_policy: str = "IfNotPresent"
