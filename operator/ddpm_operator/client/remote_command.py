"""A command that runs in a pod by Kubernetes' exec: writes to its standard input, reads its standard output.

The channels are those of the WebSocket subprotocols v5.channel.k8s.io and v4.channel.k8s.io. v4 cannot close standard
input alone, so no command may rely on its end: the sender tells each command how many bytes to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import websocket
from kubernetes.stream.ws_client import ERROR_CHANNEL, STDERR_CHANNEL, STDIN_CHANNEL, STDOUT_CHANNEL
from pydantic import BaseModel, ConfigDict, ValidationError

from ddpm_operator.client.errors import ClientError

_CLOSE_FRAME = websocket.ABNF.OPCODE_CLOSE
_MAX_STDERR_BYTES = 4096


class CommandFailed(ClientError):
    """A command in a pod ended with an error, or the connection to it was lost.

    Args:
        message: the last line of its standard error, or why the connection was lost.
        code: its exit code; None if unknown.
    """

    def __init__(self, message: str, hint: str, code: int | None = None) -> None:
        super().__init__(message, hint)
        self.code = code


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Cause(_Model):
    reason: str = ""
    message: str = ""


class _Details(_Model):
    causes: tuple[_Cause, ...] = ()


class _ExitStatus(_Model):
    """The Status object that Kubernetes sends on the error channel when the command has ended."""

    status: str
    message: str = ""
    details: _Details = _Details()

    @property
    def code(self) -> int | None:
        codes = (it.message for it in self.details.causes if it.reason == "ExitCode" and it.message.isdigit())
        return next(map(int, codes), None)


class _Frame(Protocol):
    data: bytes


class WebSocket(Protocol):
    """The part of websocket.WebSocket that is used here."""

    def recv_data_frame(self, control_frame: bool) -> tuple[int, _Frame]: ...
    def send_binary(self, payload: bytes) -> int: ...


class RemoteCommand:
    """A running command.

    Args:
        socket: an open WebSocket. Its timeout limits how long the command may stay silent.
    """

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._stderr, self._exit_status = b"", b""

    def write(self, data: bytes) -> None:
        """Writes to the command's standard input; blocks while the pod does not read.

        Raises:
            CommandFailed: if the command has ended, with its error.
        """
        try:
            self._socket.send_binary(bytes([STDIN_CHANNEL]) + data)
        except (websocket.WebSocketException, OSError) as error:
            while self.read():
                """Discards the remaining output; the end of the stream raises the command's own error."""
            raise _connection_lost(error) from error

    def read(self) -> bytes:
        """Returns the next chunk of standard output; b"" once the command has succeeded.

        Reads one frame at a time, so that at most one is held in memory. The WSClient of the kubernetes package
        buffers all pending frames before it returns any, which never ends while a pod writes fast.

        Raises:
            CommandFailed: if the command fails, or the connection is lost before it ends.
        """
        while True:
            try:
                opcode, frame = self._socket.recv_data_frame(True)
            except (websocket.WebSocketException, OSError) as error:
                raise _connection_lost(error) from error
            if opcode == _CLOSE_FRAME:
                self._check_exit_status()
                return b""
            channel, data = frame.data[:1], frame.data[1:]
            if channel == bytes([STDOUT_CHANNEL]) and data:
                return data
            if channel == bytes([STDERR_CHANNEL]):
                self._stderr = (self._stderr + data)[-_MAX_STDERR_BYTES:]
            elif channel == bytes([ERROR_CHANNEL]):
                self._exit_status += data

    def output(self) -> Iterator[bytes]:
        """Yields the rest of the standard output."""
        while data := self.read():
            yield data

    def _check_exit_status(self) -> None:
        try:
            exit_status = _ExitStatus.model_validate_json(self._exit_status)
        except ValidationError as error:
            raise _connection_lost(error if self._exit_status else "no exit status was received") from error
        if exit_status.status != "Success":
            lines = self._stderr.decode(errors="replace").strip().splitlines()
            raise CommandFailed(lines[-1] if lines else exit_status.message, "try again", exit_status.code)


def _connection_lost(reason: Exception | str) -> CommandFailed:
    return CommandFailed(f"the connection to the pod was lost: {reason}", "try again")
