"""Settings of the progress server, from two environment variables; without them the server does not start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ddpm_inference.errors import InvalidSpec

PORT_VARIABLE = "DDPM_PROGRESS_PORT"
TOKEN_VARIABLE = "DDPM_PROGRESS_TOKEN"  # noqa: S105 - the name of the variable
MIN_TOKEN_LENGTH = 32


@dataclass(frozen=True)
class Settings:
    """Settings of the progress server.

    Attributes:
        port: 1 to 65535; 0 picks a free one.
        token: the bearer token that requests must send.
    """

    port: int
    token: str = field(repr=False)


def settings_from(environment: Mapping[str, str]) -> Settings | None:
    """Returns the settings in the environment, or None if no port is set.

    Raises:
        InvalidSpec: if the port is invalid, or the token is missing, too short, or cannot be sent in a header.
    """
    port = environment.get(PORT_VARIABLE)
    if port is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise InvalidSpec(f"{PORT_VARIABLE} is {port!r}, not a port", hint="set a number from 1 to 65535")
    token = environment.get(TOKEN_VARIABLE, "")
    if not re.fullmatch(rf"[A-Za-z0-9._~+/=-]{{{MIN_TOKEN_LENGTH},}}", token):
        raise InvalidSpec(
            f"{PORT_VARIABLE} is set, but {TOKEN_VARIABLE} is not a token of at least {MIN_TOKEN_LENGTH} characters "
            "out of A-Z a-z 0-9 . _ ~ + / = -",
            hint=f"set it to the output of `openssl rand -hex 32`, or unset {PORT_VARIABLE}",
        )
    return Settings(int(port), token)
