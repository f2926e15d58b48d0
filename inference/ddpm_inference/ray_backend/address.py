"""Finds the Ray cluster that ``--ray_address`` means, and prepares the environment before Ray is imported.

Ray reads its settings from the environment when it is first imported, so this module must not import it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]

from ddpm_inference.errors import InvalidSpec, ResourcesUnavailable
from ddpm_inference.ray_backend.ray_private import CLIENT_SERVER_PING, GCS_PING, last_started_cluster_file

CLIENT_SCHEME = "ray://"
PORT_FORWARD_ADDRESS = "127.0.0.1:10001"
CONNECT_TIMEOUT = 3.0
FROM_FLAG = "from --ray_address"
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

    ``None`` starts a local Ray. ``auto`` tries, in this order: RAY_ADDRESS; the Ray that ``ray start`` left running on
    this machine; a port-forward to a cluster at `PORT_FORWARD_ADDRESS`; a new local Ray. A Ray that another program
    started for itself is never used: it ends with that program.

    Raises:
        InvalidSpec: if the value is neither of these nor an address.
        ResourcesUnavailable: if nothing listens at the address.
    """
    if address.lower() in ("none", "local"):
        return RayTarget(None, FROM_FLAG)
    if address != "auto":
        return RayTarget(_reachable_address(address), FROM_FLAG)
    if from_environment := os.environ.get("RAY_ADDRESS"):
        return RayTarget(_reachable_address(from_environment), "from RAY_ADDRESS")
    started = _last_started_cluster()
    if started and is_listening(started):
        return RayTarget(started, FROM_THIS_MACHINE)
    if is_listening(PORT_FORWARD_ADDRESS):
        return RayTarget(f"{CLIENT_SCHEME}{PORT_FORWARD_ADDRESS}", "its client port is forwarded to this machine")
    return RayTarget(None, "no running Ray was found")


def configure_environment(target: RayTarget) -> None:
    """Sets the environment variables that Ray reads when it is imported. Variables that the user set stay.

    Ray has to know beforehand whether the cluster requires a token. With token authentication against a cluster that
    has none, Ray loses its actors; without a token, or with a wrong one, it retries for half a minute and then does not
    report why. So this function asks the cluster. The token file in the home folder belongs to this machine and is
    never sent to another address.

    Raises:
        ResourcesUnavailable: if the cluster rejects the token, or requires one and there is none.
    """
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if target.address is None:
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


def _rejects_token(address: str, token: str | None) -> bool | None:
    """Returns whether the server rejects a call with this token (None: without any); None if it cannot be known."""
    method, request = CLIENT_SERVER_PING if address.startswith(CLIENT_SCHEME) else GCS_PING
    metadata = [("client_id", "ddpm-sample"), *([("authorization", f"Bearer {token}")] if token else [])]
    with grpc.insecure_channel(address.removeprefix(CLIENT_SCHEME)) as channel:
        try:
            channel.unary_unary(method)(request, metadata=metadata, timeout=CONNECT_TIMEOUT)
        except grpc.RpcError as error:
            return True if error.code() is grpc.StatusCode.UNAUTHENTICATED else None
    return False


def _ray_token() -> str | None:
    """Returns the token that Ray will send, looked up in Ray's own order."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _reachable_address(address: str) -> str:
    host_port = address.removeprefix(CLIENT_SCHEME)
    try:
        parts = urlsplit(f"//{host_port}")
        well_formed = bool(parts.hostname and parts.port) and not parts.path
    except ValueError:
        well_formed = False
    if not well_formed:
        raise InvalidSpec(
            f"--ray_address {address} is not a Ray address",
            hint="give None (a local Ray), auto, host:port or ray://host:port",
        )
    if not is_listening(host_port):
        raise ResourcesUnavailable(
            f"no Ray answers at {address}",
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
    try:
        return last_started_cluster_file().read_text().strip() or None
    except OSError:
        return None
