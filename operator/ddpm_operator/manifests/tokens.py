"""The secrets of an attempt. They follow from the operator's key, so that none has to be kept or read back."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Literal

_LONGEST_SUFFIX = 16


@dataclass(frozen=True)
class Tokens:
    """What one attempt's head asks for.

    Attributes:
        ray: on every port of Ray.
        progress: on the driver's own, which only reads.
        suffix: of the name of the Secret that holds them.
    """

    ray: str
    progress: str
    suffix: str

    def secret_name(self, cluster: str) -> str:
        """The name of the Secret that holds the tokens of an attempt's RayCluster.

        The operator may read no Secret, so one that has this name is taken for its own. Were it known before,
        somebody who may create Secrets, but no pods, could put one with a token of theirs there.
        """
        return f"{cluster}-{self.suffix}"


def attempt_tokens(key: bytes, uid: str, attempt: int) -> Tokens:
    """The tokens of an attempt.

    Args:
        key: the operator's, at least 32 random bytes.
        uid: of the sampling.
    """
    return Tokens(
        ray=_token(key, "ray", uid, attempt),
        progress=_token(key, "progress", uid, attempt),
        suffix=_token(key, "name", uid, attempt)[:_LONGEST_SUFFIX],
    )


def _token(key: bytes, purpose: Literal["ray", "progress", "name"], uid: str, attempt: int) -> str:
    return hmac.new(key, f"{purpose}|{uid}|{attempt}".encode(), hashlib.sha256).hexdigest()
