"""Flow control of an upload: a limited number of bytes is unacknowledged, and the pod may be slow or fail."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import websocket

from ddpm_operator.client import uploader_program
from ddpm_operator.client.remote_command import CommandFailed, RemoteCommand
from ddpm_operator.client.upload import CHUNK_BYTES, MAX_UNACKNOWLEDGED_BYTES, send

MIB = 1 << 20
DATA = bytes(range(256)) * (9 * MIB // 256)
CLOSE_OPCODE = 8
FAILED = json.dumps({"status": "Failure", "message": "command terminated with exit code 1"}).encode()


@dataclass
class Frame:
    data: bytes


@dataclass
class FakePod:
    """A pod that acknowledges every mebibyte, one line per frame.

    Attributes:
        fails_at: after this number of bytes it accepts no more, and ends with an error.
        acknowledged: the last acknowledged byte count; -1 before the first one.
        max_unacknowledged: the most bytes that were unacknowledged at once.
    """

    fails_at: int = 1 << 40
    received: int = 0
    acknowledged: int = -1
    max_unacknowledged: int = 0
    content: bytearray = field(default_factory=bytearray)
    last_frames: list[Frame] = field(default_factory=lambda: [Frame(b"\x02no space left\n"), Frame(b"\x03" + FAILED)])

    def send_binary(self, payload: bytes) -> int:
        if self.received >= self.fails_at:
            raise BrokenPipeError("broken pipe")
        self.content += payload[1:]
        self.received += len(payload) - 1
        self.max_unacknowledged = max(self.max_unacknowledged, self.received - max(self.acknowledged, 0))
        return len(payload)

    def recv_data_frame(self, control_frame: bool) -> tuple[int, Frame]:
        assert control_frame
        following = self.acknowledged + MIB if self.acknowledged >= 0 else 0
        if self.received >= self.fails_at:
            return (2, self.last_frames.pop(0)) if self.last_frames else (CLOSE_OPCODE, Frame(b""))
        assert following <= self.received, "deadlock: both sides wait for each other"
        self.acknowledged = following
        return 2, Frame(f"\x01{self.acknowledged}\n".encode())


def test_unacknowledged_bytes_are_limited() -> None:
    pod, progress = FakePod(), []
    send(io.BytesIO(DATA), RemoteCommand(pod), len(DATA), lambda done, total: progress.append((done, total)))
    assert pod.content == DATA
    assert MAX_UNACKNOWLEDGED_BYTES <= pod.max_unacknowledged <= MAX_UNACKNOWLEDGED_BYTES + CHUNK_BYTES
    assert progress == [(done * MIB, len(DATA)) for done in range(1, 10)]


def test_a_failing_pod_stops_the_upload_with_its_error() -> None:
    pod = FakePod(fails_at=3 * MIB)
    with pytest.raises(CommandFailed, match="no space left"):
        send(io.BytesIO(DATA), RemoteCommand(pod), len(DATA), lambda *_: None)
    assert pod.received == 3 * MIB


def test_a_truncated_file_is_an_error() -> None:
    with pytest.raises(CommandFailed, match="truncated during the upload: 1,048,576 of 9,437,184 bytes are left"):
        send(io.BytesIO(DATA[:MIB]), RemoteCommand(FakePod()), len(DATA), lambda *_: None)


def test_a_file_already_stored_is_not_sent() -> None:
    pod = FakePod(acknowledged=len(DATA) - MIB, received=len(DATA))
    send(io.BytesIO(DATA), RemoteCommand(pod), len(DATA), lambda *_: None)
    assert not pod.content


@dataclass
class LocalProcess:
    """The uploader program as a local process. Its output arrives in pieces of a few bytes."""

    process: subprocess.Popen[bytes]

    def send_binary(self, payload: bytes) -> int:
        assert self.process.stdin
        self.process.stdin.write(payload[1:])
        self.process.stdin.flush()
        return len(payload)

    def recv_data_frame(self, control_frame: bool) -> tuple[int, Frame]:
        assert self.process.stdout
        output = self.process.stdout.read1(7)
        if not output:
            raise websocket.WebSocketConnectionClosedException("the process has ended")
        return 2, Frame(b"\x01" + output)


def test_the_uploader_program_receives_the_whole_file(tmp_path: Path) -> None:
    arguments = [tmp_path, "model.pt", str(len(DATA)), hashlib.sha256(DATA).hexdigest()]
    command = [sys.executable, "-c", Path(uploader_program.__file__).read_text(), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        send(io.BytesIO(DATA), RemoteCommand(LocalProcess(process)), len(DATA), lambda *_: None)
        assert process.wait(60) == 0
    assert (tmp_path / "model.pt").read_bytes() == DATA
