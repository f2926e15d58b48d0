"""A large file into a pod: only so much of it is on its way at once, and who takes it may be slow, or die."""

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
from ddpm_operator.client.sending import PIECE, UNHEARD, send

MIB = 1 << 20
DATA = bytes(range(256)) * (9 * MIB // 256)
CLOSED = 8
FAILED = json.dumps({"status": "Failure", "message": "command terminated with exit code 1"}).encode()


@dataclass
class Frame:
    data: bytes


@dataclass
class Pod:
    """A pod that takes what is sent, and says with every mebibyte how much it has; one line a frame.

    Attributes:
        dies_at: bytes after which it takes no more, and ends with an error.
        most: bytes that were on their way at once.
    """

    dies_at: int = 1 << 40
    came: int = 0
    told: int = -1
    most: int = 0
    sent: bytearray = field(default_factory=bytearray)
    last: list[Frame] = field(default_factory=lambda: [Frame(b"\x02no space left\n"), Frame(b"\x03" + FAILED)])

    def send_binary(self, payload: bytes) -> int:
        if self.came >= self.dies_at:
            raise BrokenPipeError("broken pipe")
        self.sent += payload[1:]
        self.came += len(payload) - 1
        self.most = max(self.most, self.came - max(self.told, 0))
        return len(payload)

    def recv_data_frame(self, control_frame: bool) -> tuple[int, Frame]:
        assert control_frame
        more = self.told + MIB if self.told >= 0 else 0
        if self.came >= self.dies_at:
            return (2, self.last.pop(0)) if self.last else (CLOSED, Frame(b""))
        assert more <= self.came, "both sides wait for each other"
        self.told = more
        return 2, Frame(f"\x01{self.told}\n".encode())


def test_however_slowly_it_is_taken_a_few_mebibytes_are_on_their_way_and_what_has_come_is_told() -> None:
    pod, told = Pod(), []
    send(io.BytesIO(DATA), RemoteCommand(pod), len(DATA), lambda come, of: told.append((come, of)))
    assert pod.sent == DATA
    assert UNHEARD <= pod.most <= UNHEARD + PIECE
    assert told == [(come * MIB, len(DATA)) for come in range(1, 10)]


def test_one_that_dies_is_heard_with_its_own_words_before_the_rest_is_sent() -> None:
    pod = Pod(dies_at=3 * MIB)
    with pytest.raises(CommandFailed, match="no space left"):
        send(io.BytesIO(DATA), RemoteCommand(pod), len(DATA), lambda *_: None)
    assert pod.came == 3 * MIB


def test_a_file_that_has_become_shorter_is_not_waited_for() -> None:
    with pytest.raises(CommandFailed, match="it has become shorter: 1,048,576 bytes of 9,437,184 are left"):
        send(io.BytesIO(DATA[:MIB]), RemoteCommand(Pod()), len(DATA), lambda *_: None)


def test_what_is_there_already_is_not_sent() -> None:
    pod = Pod(told=len(DATA) - MIB, came=len(DATA))
    send(io.BytesIO(DATA), RemoteCommand(pod), len(DATA), lambda *_: None)
    assert not pod.sent


@dataclass
class Process:
    """What the pod runs, run here: what it says comes in the pieces that a pipe gives."""

    process: subprocess.Popen[bytes]

    def send_binary(self, payload: bytes) -> int:
        assert self.process.stdin
        self.process.stdin.write(payload[1:])
        self.process.stdin.flush()
        return len(payload)

    def recv_data_frame(self, control_frame: bool) -> tuple[int, Frame]:
        assert self.process.stdout
        said = self.process.stdout.read1(7)
        if not said:
            raise websocket.WebSocketConnectionClosedException("it has ended")
        return 2, Frame(b"\x01" + said)


def test_what_the_pod_runs_takes_nine_mebibytes_whole(tmp_path: Path) -> None:
    arguments = [tmp_path / "model.pt", str(len(DATA)), hashlib.sha256(DATA).hexdigest()]
    command = [sys.executable, "-c", Path(uploader_program.__file__).read_text(), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        send(io.BytesIO(DATA), RemoteCommand(Process(process)), len(DATA), lambda *_: None)
        assert process.wait(60) == 0
    assert (tmp_path / "model.pt").read_bytes() == DATA
