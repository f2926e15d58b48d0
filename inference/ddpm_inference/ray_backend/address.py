"""Which Ray is meant by an address, and how to prepare for it before it is imported.

What a process has in its environment when it first imports Ray decides how Ray behaves in it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]

from ddpm_inference.errors import InvalidSpec, ResourcesUnavailable

CLIENT = "ray://"
FORWARDED = "127.0.0.1:10001"
ANSWERS_WITHIN = 3.0
ON_THIS_MACHINE = "running on this machine"
MODE = "RAY_AUTH_MODE"

# Lines that Ray holds back for merging would be printed when the process ends.
ENVIRONMENT = {"RAY_DEDUP_LOGS": "0"}

# Calls that change nothing and that Ray's servers answer to anybody whose token is right, with their message.
CLIENT_PING = ("/ray.rpc.RayletDriver/ClusterInfo", b"\x08\x06")
HEAD_PING = ("/ray.rpc.NodeInfoGcsService/CheckAlive", b"")


@dataclass(frozen=True)
class Target:
    """The Ray to use.

    Attributes:
        address: ``host:port``, ``ray://host:port``, or None to start one here.
        why: how it was found, for the user.
    """

    address: str | None
    why: str


def find(address: str) -> Target:
    """Resolves ``--ray_address``.

    ``None`` is a Ray started here. ``auto`` is RAY_ADDRESS; else the Ray that ``ray start`` left running on this
    machine; else, where `FORWARDED` answers, the cluster behind that port-forward; else a Ray started here. A
    Ray that another program started for itself is never taken: it ends with that program.

    Raises:
        InvalidSpec: if it is none of these.
        ResourcesUnavailable: if nothing answers there.
    """
    if address.lower() in ("none", "local"):
        return Target(None, "as asked")
    if address != "auto":
        return Target(_answering(address), "as asked")
    if from_environment := os.environ.get("RAY_ADDRESS"):
        return Target(_answering(from_environment), "from RAY_ADDRESS")
    started = _started_on_this_machine()
    if started and answers(started):
        return Target(started, ON_THIS_MACHINE)
    if answers(FORWARDED):
        return Target(f"{CLIENT}{FORWARDED}", "its client port answers on this machine")
    return Target(None, "no other Ray was found")


def prepare(target: Target) -> None:
    """Sets what Ray reads from the environment; call it before Ray is imported. What the user set stays.

    Ray must be told rightly whether to use a token: with one where none is wanted, it loses its actors; without
    one, or with a wrong one, it tries for half a minute to connect and does not say why it cannot. So the cluster
    is asked. The token file in the home folder is this machine's own, and goes to no other address.

    Raises:
        ResourcesUnavailable: if that Ray wants another token, or any.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if target.address is None:
        return
    exported = bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
    if MODE not in os.environ:
        wanted = _refuses(target.address, None)
        if wanted is False:
            os.environ[MODE] = "disabled"
        elif exported or (wanted and target.why == ON_THIS_MACHINE):
            os.environ[MODE] = "token"
    token = _token() if os.environ.get(MODE) == "token" else None
    if os.environ.get(MODE) != "disabled" and _refuses(target.address, token):
        raise ResourcesUnavailable(
            f"the Ray at {target.address} " + ("refuses the token" if token else "wants a token"),
            hint="export RAY_AUTH_TOKEN=… with the token of that cluster (or RAY_AUTH_TOKEN_PATH=…, or "
            "RAY_AUTH_MODE=token for the one in ~/.ray/auth_token)",
        )


def _refuses(address: str, token: str | None) -> bool | None:
    """Whether the Ray at an address refuses a call with that token; None if it cannot be told."""
    call, message = CLIENT_PING if address.startswith(CLIENT) else HEAD_PING
    metadata = [("client_id", "ddpm-sample"), *([("authorization", f"Bearer {token}")] if token else [])]
    with grpc.insecure_channel(address.removeprefix(CLIENT)) as channel:
        try:
            channel.unary_unary(call)(message, metadata=metadata, timeout=ANSWERS_WITHIN)
        except grpc.RpcError as error:
            return True if error.code() is grpc.StatusCode.UNAUTHENTICATED else None
    return False


def _token() -> str | None:
    """The token that Ray will send, found in the order in which Ray looks for it."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _answering(address: str) -> str:
    host_port = address.removeprefix(CLIENT)
    try:
        parts = urlsplit(f"//{host_port}")
        well_formed = bool(parts.hostname and parts.port) and not parts.path
    except ValueError:
        well_formed = False
    if not well_formed:
        raise InvalidSpec(
            f"--ray_address {address} is not an address of Ray",
            hint="give None (a Ray of its own), auto, host:port or ray://host:port",
        )
    if not answers(host_port):
        raise ResourcesUnavailable(
            f"no Ray answers at {address}",
            hint="check the address and that the cluster runs (for Kubernetes: that the port-forward runs), "
            "or give --ray_address None to use this machine alone",
        )
    return address


def answers(host_port: str) -> bool:
    """Whether anything listens at ``host:port``."""
    parts = urlsplit(f"//{host_port}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=ANSWERS_WITHIN):
            return True
    except OSError:
        return False


def _started_on_this_machine() -> str | None:
    """The address that the last ``ray start`` on this machine wrote down."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # noqa: S108 - Ray's own choice
    try:
        return note.read_text().strip() or None
    except OSError:
        return None
