"""Whether a run tells of itself over HTTP, and to whom: two variables of the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ddpm_inference.errors import InvalidSpec

PORT_VARIABLE = "DDPM_PROGRESS_PORT"
TOKEN_VARIABLE = "DDPM_PROGRESS_TOKEN"  # noqa: S105 - the name of one
SHORTEST_TOKEN = 32


@dataclass(frozen=True)
class Settings:
    """Where to listen.

    Attributes:
        port: 1 to 65535; 0 takes a free one.
        token: what a request must bring.
    """

    port: int
    token: str = field(repr=False)


def settings_from(environment: Mapping[str, str]) -> Settings | None:
    """What the environment asks for; None if it does not ask.

    Raises:
        InvalidSpec: if the port is no port, or the token is missing, short, or of letters no header can carry.
    """
    port = environment.get(PORT_VARIABLE)
    if port is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise InvalidSpec(f"{PORT_VARIABLE} is {port!r}, which is no port", hint="give a number from 1 to 65535")
    token = environment.get(TOKEN_VARIABLE, "")
    if not re.fullmatch(rf"[A-Za-z0-9._~+/=-]{{{SHORTEST_TOKEN},}}", token):
        raise InvalidSpec(
            f"{PORT_VARIABLE} is set, but {TOKEN_VARIABLE} is not a token of at least {SHORTEST_TOKEN} characters "
            "out of A-Z a-z 0-9 . _ ~ + / = -",
            hint=f"set it to what `openssl rand -hex 32` prints, or unset {PORT_VARIABLE}",
        )
    return Settings(int(port), token)
