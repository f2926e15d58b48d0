"""Commands in pods, from the recorded frames of Kubernetes' exec."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
import websocket

from ddpm_operator.client.remote_command import CommandFailed, RemoteCommand

SUCCESS = b'\x03{"status": "Success"}'
CLOSE = None


@dataclass
class Frame:
    data: bytes


@dataclass
class RecordedSocket:
    """A WebSocket with recorded frames. It accepts a number of writes, then it breaks."""

    frames: list[bytes | None]
    max_writes: int = 1 << 30
    sent: list[bytes] = field(default_factory=list)

    def recv_data_frame(self, control_frame: bool) -> tuple[int, Frame]:
        assert control_frame
        if not self.frames:
            raise websocket.WebSocketConnectionClosedException("connection lost")
        data = self.frames.pop(0)
        return (8, Frame(b"")) if data is None else (2, Frame(data))

    def send_binary(self, payload: bytes) -> int:
        if len(self.sent) == self.max_writes:
            raise BrokenPipeError("broken pipe")
        self.sent.append(payload)
        return len(payload)


def failure(code: int) -> bytes:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return b"\x03" + json.dumps({"status": "Failure", "message": "failed", "details": {"causes": causes}}).encode()


def test_output_is_the_standard_output_alone() -> None:
    command = RemoteCommand(RecordedSocket([b"\x01", b"\x01ab", b"\x02warning", b"\x01c", SUCCESS, CLOSE]))
    assert list(command.output()) == [b"ab", b"c"]


def test_an_error_has_the_last_stderr_line_and_the_code() -> None:
    stderr = b"\x02Traceback:\n  line 1\nOSError: no room\n"
    with pytest.raises(CommandFailed) as caught:
        RemoteCommand(RecordedSocket([stderr, failure(44), CLOSE])).read()
    assert (caught.value.message, caught.value.code) == ("OSError: no room", 44)


def test_an_error_without_stderr_has_kubernetes_message() -> None:
    with pytest.raises(CommandFailed, match=r"^failed$"):
        RemoteCommand(RecordedSocket([failure(1), CLOSE])).read()


@pytest.mark.parametrize("frames", [[b"\x01ab"], [b"\x01ab", CLOSE], [b"\x01ab", b"\x03{", CLOSE]])
def test_a_lost_connection_is_an_error(frames: list[bytes | None]) -> None:
    command = RemoteCommand(RecordedSocket(frames))
    assert command.read() == b"ab"
    with pytest.raises(CommandFailed, match="connection to the pod was lost"):
        command.read()


def test_a_write_to_an_ended_command_raises_its_error() -> None:
    socket = RecordedSocket([b"\x010\n", b"\x02no room\n", failure(1), CLOSE], max_writes=1)
    command = RemoteCommand(socket)
    command.write(b"abc")
    assert socket.sent == [b"\x00abc"]
    with pytest.raises(CommandFailed, match=r"^no room$"):
        command.write(b"d")
