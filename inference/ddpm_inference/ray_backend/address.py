"""Finds the Ray cluster that ``--ray_address`` means, and prepares the environment before Ray is imported.

Ray reads its settings from the environment when it is first imported, so this module must not import it.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]

from ddpm_inference.errors import InvalidSpec, ResourcesUnavailable
from ddpm_inference.ray_backend.ray_private import (
    CLIENT_SERVER_PING,
    GCS_PING,
    MAX_SOCKET_PATH,
    START_TIMEOUTS,
    last_started_cluster_files,
    socket_path_length,
    temp_folders,
)
from ddpm_inference.text import count
from ddpm_inference.user_path import user_path

CLIENT_SCHEME = "ray://"
PORT_FORWARD_ADDRESS = "127.0.0.1:10001"
CONNECT_TIMEOUT = 3.0
FLAG = "--ray_address"
VARIABLE = "RAY_ADDRESS"
FROM_FLAG = f"from {FLAG}"
FROM_VARIABLE = f"from {VARIABLE}"
FROM_THIS_MACHINE = "running on this machine"
AUTH_MODE_VARIABLE = "RAY_AUTH_MODE"

# Ray delays log lines to merge equal ones; without this the delayed lines are printed when the process exits.
RAY_ENVIRONMENT = {"RAY_DEDUP_LOGS": "0"}


@dataclass(frozen=True)
class RayTarget:
    """The Ray cluster to use.

    Attributes:
        address: ``host:port``, ``ray://host:port``, or None to start a local Ray.
        source: how it was found, for messages.
    """

    address: str | None
    source: str


def resolve_address(address: str) -> RayTarget:
    """Resolves the value of ``--ray_address``.

    ``None`` and ``local`` start a local Ray. ``auto`` tries, in this order: RAY_ADDRESS, which may have the same values
    as the flag; the Ray that ``ray start`` left running on this machine; a port-forward to a cluster at
    `PORT_FORWARD_ADDRESS`; a new local Ray. Something else that listens there is left alone. A Ray that another program
    started for itself is never used: it ends with that program.

    Raises:
        InvalidSpec: if the value is neither of these nor an address; it names the flag or the variable.
        ResourcesUnavailable: if nothing listens at the address.
    """
    for value, name, source in (
        (address, FLAG, FROM_FLAG),
        (os.environ.get(VARIABLE) or "auto", VARIABLE, FROM_VARIABLE),
    ):
        value = value.strip()
        if value.lower() in ("none", "local"):
            return RayTarget(None, source)
        if value.lower() != "auto":
            return RayTarget(_reachable_address(value, name), source)
    started = _last_started_cluster()
    if started and is_ray(started):
        return RayTarget(started, FROM_THIS_MACHINE)
    forwarded = f"{CLIENT_SCHEME}{PORT_FORWARD_ADDRESS}"
    if is_ray(forwarded):
        return RayTarget(forwarded, "its client port is forwarded to this machine")
    if is_listening(PORT_FORWARD_ADDRESS):
        return RayTarget(None, f"what listens at {PORT_FORWARD_ADDRESS} does not answer as Ray")
    return RayTarget(None, "no running Ray was found")


def configure_environment(target: RayTarget) -> None:
    """Sets the environment variables that Ray reads when it is imported. Variables that the user set stay.

    Ray has to know beforehand whether the cluster requires a token. With token authentication against a cluster that
    has none, Ray loses its actors; without a token, or with a wrong one, it retries for half a minute and then does not
    report why. So this function asks the cluster. The token file in the home folder belongs to this machine and is
    never sent to another address.

    Raises:
        InvalidSpec: if RAY_TMPDIR is too long for the sockets of a local Ray.
        ResourcesUnavailable: if the cluster rejects the token, or requires one and there is none.
    """
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _expand_token_path()
    if target.address is None:
        for name, value in START_TIMEOUTS.items():
            os.environ.setdefault(name, value)
        _shorten_temp_folder()
        return
    exported = bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
    if AUTH_MODE_VARIABLE not in os.environ:
        token_required = _rejects_token(target.address, None)
        if token_required is False:
            os.environ[AUTH_MODE_VARIABLE] = "disabled"
        elif exported or (token_required and target.source == FROM_THIS_MACHINE):
            os.environ[AUTH_MODE_VARIABLE] = "token"
    token = _ray_token() if os.environ.get(AUTH_MODE_VARIABLE) == "token" else None
    if os.environ.get(AUTH_MODE_VARIABLE) != "disabled" and _rejects_token(target.address, token):
        raise ResourcesUnavailable(
            f"the Ray at {target.address} " + ("rejects the token" if token else "requires a token"),
            hint="export RAY_AUTH_TOKEN=… with the token of that cluster (or RAY_AUTH_TOKEN_PATH=…, or "
            "RAY_AUTH_MODE=token for the one in ~/.ray/auth_token)",
        )


def is_ray(address: str) -> bool:
    """Returns whether a Ray answers at an address, which a token may protect; something else is no Ray."""
    return is_listening(address.removeprefix(CLIENT_SCHEME)) and _ping(address, None) in (
        grpc.StatusCode.OK,
        grpc.StatusCode.UNAUTHENTICATED,
    )


def _rejects_token(address: str, token: str | None) -> bool | None:
    """Returns whether the server rejects a call with this token (None: without any); None if it cannot be known."""
    return {grpc.StatusCode.OK: False, grpc.StatusCode.UNAUTHENTICATED: True}.get(_ping(address, token))


def _ping(address: str, token: str | None) -> grpc.StatusCode:
    method, request = CLIENT_SERVER_PING if address.startswith(CLIENT_SCHEME) else GCS_PING
    metadata = [("client_id", "ddpm-sample"), *([("authorization", f"Bearer {token}")] if token else [])]
    with grpc.insecure_channel(address.removeprefix(CLIENT_SCHEME)) as channel:
        try:
            channel.unary_unary(method)(request, metadata=metadata, timeout=CONNECT_TIMEOUT)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _ray_token() -> str | None:
    """Returns the token that Ray will send, looked up in Ray's own order."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _shorten_temp_folder() -> None:
    """Has a local Ray use a folder below which the paths of its sockets are short enough."""
    chosen, *others = temp_folders()
    if socket_path_length(chosen) <= MAX_SOCKET_PATH:
        return
    if not others:
        surplus = socket_path_length(chosen) - MAX_SOCKET_PATH
        raise InvalidSpec(
            f"RAY_TMPDIR {chosen} is too long by {count(surplus, 'byte')} for the sockets of a local Ray",
            hint="set RAY_TMPDIR to a shorter path, or unset it",
        )
    os.environ["RAY_TMPDIR"] = str(others[0])


def _expand_token_path() -> None:
    """Expands ~ in RAY_AUTH_TOKEN_PATH: a shell does not always do so, and Ray never does."""
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(user_path(path))


def _reachable_address(address: str, name: str) -> str:
    """Returns an address at which something listens.

    Args:
        name: of the flag or variable that it is from, for the error message.
    """
    host_port = address.removeprefix(CLIENT_SCHEME)
    forms = "None (a local Ray), auto, host:port or ray://host:port"
    change = f"give {forms}" if name == FLAG else f"unset {name}, or set it to {forms}"
    if address.startswith(("http://", "https://")):
        raise InvalidSpec(
            f"{name} {address} is not a Ray address: it is that of a dashboard or of the Ray Jobs API", hint=change
        )
    try:
        parts = urlsplit(f"//{host_port}")
        well_formed = bool(parts.hostname and parts.port) and not parts.path
    except ValueError:
        well_formed = False
    if not well_formed:
        raise InvalidSpec(f"{name} {address or repr(address)} is not a Ray address", hint=change)
    if not is_listening(host_port):
        raise ResourcesUnavailable(
            f"no Ray answers at {address}" + (f" ({FROM_VARIABLE})" if name == VARIABLE else ""),
            hint="check the address and that the cluster runs (for Kubernetes: that the port-forward runs), "
            "or give --ray_address None to use this machine alone",
        )
    return address


def is_listening(host_port: str) -> bool:
    """Returns whether a TCP connection to ``host:port`` succeeds."""
    parts = urlsplit(f"//{host_port}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=CONNECT_TIMEOUT):
            return True
    except OSError:
        return False


def _last_started_cluster() -> str | None:
    for file in last_started_cluster_files():
        with suppress(OSError):
            if address := file.read_text().strip():
                return address
    return None
