"""Commands in pods, as the frames of Kubernetes' exec tell of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
import websocket

from ddpm_operator.client.remote_command import CommandFailed, RemoteCommand

GOOD = b'\x03{"status": "Success"}'
CLOSE = None


@dataclass
class Frame:
    data: bytes


@dataclass
class Recorded:
    """A stream that says what was recorded, and takes what it is sent until it is full."""

    says: list[bytes | None]
    takes: int = 1 << 30
    sent: list[bytes] = field(default_factory=list)

    def recv_data_frame(self, control_frame: bool) -> tuple[int, Frame]:
        assert control_frame
        if not self.says:
            raise websocket.WebSocketConnectionClosedException("connection lost")
        data = self.says.pop(0)
        return (8, Frame(b"")) if data is None else (2, Frame(data))

    def send_binary(self, payload: bytes) -> int:
        if len(self.sent) == self.takes:
            raise BrokenPipeError("broken pipe")
        self.sent.append(payload)
        return len(payload)


def failed(code: int) -> bytes:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return b"\x03" + json.dumps({"status": "Failure", "message": "failed", "details": {"causes": causes}}).encode()


def test_output_comes_without_what_else_is_said() -> None:
    command = RemoteCommand(Recorded([b"\x01", b"\x01ab", b"\x02warning", b"\x01c", GOOD, CLOSE]))
    assert list(command.output()) == [b"ab", b"c"]


def test_an_error_has_its_last_line_and_its_code() -> None:
    said = b"\x02Traceback:\n  line 1\nOSError: no room\n"
    with pytest.raises(CommandFailed) as caught:
        RemoteCommand(Recorded([said, failed(44), CLOSE])).read()
    assert (caught.value.message, caught.value.code) == ("OSError: no room", 44)


def test_an_error_without_a_word_has_kubernetes_own() -> None:
    with pytest.raises(CommandFailed, match=r"^failed$"):
        RemoteCommand(Recorded([failed(1), CLOSE])).read()


@pytest.mark.parametrize("says", [[b"\x01ab"], [b"\x01ab", CLOSE], [b"\x01ab", b"\x03{", CLOSE]])
def test_a_stream_that_breaks_off_is_no_good_end(says: list[bytes | None]) -> None:
    command = RemoteCommand(Recorded(says))
    assert command.read() == b"ab"
    with pytest.raises(CommandFailed, match="broke off"):
        command.read()


def test_input_goes_to_its_channel_and_a_command_that_ended_says_why() -> None:
    stream = Recorded([b"\x010\n", b"\x02no room\n", failed(1), CLOSE], takes=1)
    command = RemoteCommand(stream)
    command.write(b"abc")
    assert stream.sent == [b"\x00abc"]
    with pytest.raises(CommandFailed, match=r"^no room$"):
        command.write(b"d")
