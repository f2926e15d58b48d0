"""The names of container images."""

from __future__ import annotations

import re


def repository(reference: str) -> str:
    """An image's full name without tag and digest: ``mnist:1`` is ``docker.io/library/mnist``."""
    name = re.sub(r":[^:/]*$", "", reference.partition("@")[0])
    registry, _, rest = name.partition("/")
    if not rest:
        return f"docker.io/library/{name}"
    return name if re.search(r"[.:]|^localhost$", registry) else f"docker.io/{name}"
