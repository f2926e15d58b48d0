"""A command in a pod, over Kubernetes' exec: bytes to its standard input, bytes from its standard output.

The channels are those of v5.channel.k8s.io, and of v4 before it. Neither is relied on to end standard input alone,
which v4 cannot: a command that reads is told how much.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import websocket
from kubernetes.stream.ws_client import ERROR_CHANNEL, STDERR_CHANNEL, STDIN_CHANNEL, STDOUT_CHANNEL
from pydantic import BaseModel, ConfigDict, ValidationError

from ddpm_operator.client.errors import ClientError

_CLOSED = websocket.ABNF.OPCODE_CLOSE
_LONGEST_COMPLAINT = 4096


class CommandFailed(ClientError):
    """A command in a pod ended with an error, or its stream broke off.

    Args:
        message: the last line that it said, or what became of the stream.
        code: its exit code; None if it has none.
    """

    def __init__(self, message: str, hint: str, code: int | None = None) -> None:
        super().__init__(message, hint)
        self.code = code


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Cause(_Part):
    reason: str = ""
    message: str = ""


class _Details(_Part):
    causes: tuple[_Cause, ...] = ()


class _Verdict(_Part):
    """Kubernetes' Status at the end of a command."""

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
    """Of websocket.WebSocket, what is used here."""

    def recv_data_frame(self, control_frame: bool) -> tuple[int, _Frame]: ...
    def send_binary(self, payload: bytes) -> int: ...


class RemoteCommand:
    """A command that runs.

    Args:
        socket: open, with the time after which its silence is an error.
    """

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._said, self._verdict = b"", b""

    def write(self, data: bytes) -> None:
        """To its standard input; waits as long as the pod takes nothing.

        Raises:
            CommandFailed: if it has ended, with what it said.
        """
        try:
            self._socket.send_binary(bytes([STDIN_CHANNEL]) + data)
        except (websocket.WebSocketException, OSError) as error:
            while self.read():
                """What it has said before it ended is of no use now; why it ended is raised."""
            raise _broken(error) from error

    def read(self) -> bytes:
        """The next piece of its standard output; b"" once it has ended well.

        One frame at a time, so that no more is held than one: kubernetes' own reader takes all that has come
        before it gives anything away, and a fast pod never lets it end.

        Raises:
            CommandFailed: if it ends with an error, or the stream breaks off before its end.
        """
        while True:
            try:
                opcode, frame = self._socket.recv_data_frame(True)
            except (websocket.WebSocketException, OSError) as error:
                raise _broken(error) from error
            if opcode == _CLOSED:
                self._judge()
                return b""
            channel, data = frame.data[:1], frame.data[1:]
            if channel == bytes([STDOUT_CHANNEL]) and data:
                return data
            if channel == bytes([STDERR_CHANNEL]):
                self._said = (self._said + data)[-_LONGEST_COMPLAINT:]
            elif channel == bytes([ERROR_CHANNEL]):
                self._verdict += data

    def output(self) -> Iterator[bytes]:
        """All that is still to come of its standard output."""
        while data := self.read():
            yield data

    def _judge(self) -> None:
        try:
            verdict = _Verdict.model_validate_json(self._verdict)
        except ValidationError as error:
            raise _broken(error if self._verdict else "it has no end") from error
        if verdict.status != "Success":
            said = self._said.decode(errors="replace").strip().splitlines()
            raise CommandFailed(said[-1] if said else verdict.message, "try again", verdict.code)


def _broken(why: Exception | str) -> CommandFailed:
    return CommandFailed(f"the stream from the pod broke off: {why}", "try again")
