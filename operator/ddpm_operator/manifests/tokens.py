"""The tokens of an attempt, derived from the operator's signing key so that they need not be stored or read back."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Literal

_SUFFIX_LENGTH = 16


@dataclass(frozen=True)
class Tokens:
    """The bearer tokens that the head of an attempt requires.

    Attributes:
        ray: for all ports of Ray.
        progress: for the read-only progress server of the driver.
        suffix: the suffix of the name of the Secret with the tokens.
    """

    ray: str
    progress: str
    suffix: str

    def secret_name(self, cluster: str) -> str:
        """Returns the name of the Secret with the tokens of an attempt's RayCluster.

        The operator has no right to read Secrets and assumes that a Secret with this name is its own. The suffix makes
        the name unpredictable. Otherwise a user who may create Secrets, but not pods, could create the Secret first,
        with a known token.
        """
        return f"{cluster}-{self.suffix}"


def attempt_tokens(key: bytes, uid: str, attempt: int) -> Tokens:
    """Returns the tokens of an attempt.

    Args:
        key: the operator's signing key, at least 32 random bytes.
        uid: the UID of the sampling.
        attempt: the number of the attempt.
    """
    return Tokens(
        ray=_token(key, "ray", uid, attempt),
        progress=_token(key, "progress", uid, attempt),
        suffix=_token(key, "name", uid, attempt)[:_SUFFIX_LENGTH],
    )


def _token(key: bytes, purpose: Literal["ray", "progress", "name"], uid: str, attempt: int) -> str:
    return hmac.new(key, f"{purpose}|{uid}|{attempt}".encode(), hashlib.sha256).hexdigest()
