"""The secrets of an attempt. They follow from the operator's key, so that none has to be kept or read back."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Tokens:
    """What one attempt's head asks for.

    Attributes:
        ray: on every port of Ray.
        progress: on the driver's own, which only reads.
    """

    ray: str
    progress: str


def attempt_tokens(key: bytes, uid: str, attempt: int) -> Tokens:
    """The tokens of an attempt.

    Args:
        key: the operator's, at least 32 random bytes.
        uid: of the sampling.
    """
    return Tokens(ray=_token(key, "ray", uid, attempt), progress=_token(key, "progress", uid, attempt))


def _token(key: bytes, purpose: Literal["ray", "progress"], uid: str, attempt: int) -> str:
    return hmac.new(key, f"{purpose}|{uid}|{attempt}".encode(), hashlib.sha256).hexdigest()
