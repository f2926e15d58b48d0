"""Container images: their names, and the default image of sampling pods."""

from __future__ import annotations

import re
from dataclasses import dataclass


def repository(reference: str) -> str:
    """An image's full name without tag and digest: ``mnist:1`` is ``docker.io/library/mnist``."""
    name = re.sub(r":[^:/]*$", "", reference.partition("@")[0])
    registry, _, rest = name.partition("/")
    if not rest:
        return f"docker.io/library/{name}"
    return name if re.search(r"[.:]|^localhost$", registry) else f"docker.io/{name}"


@dataclass(frozen=True)
class WorkerImage:
    """The image of pods whose sampling names none.

    Attributes:
        ray_version: of the Ray in it.
        pull_policy: when a node asks the registry for an image, this one or a sampling's own.
    """

    reference: str
    ray_version: str
    pull_policy: str = "IfNotPresent"
