"""stdout and stderr whose readers are gone, given to the real command and to small programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ddpm_inference.process import streams

pytestmark = pytest.mark.slow

COMMAND = Path(sys.executable).with_name("ddpm-sample")

# Prints more than a pipe holds, in three ways, and ends with a code of its own.
PROGRAM = """
import os, sys, traceback
from ddpm_inference.console import create_view, write_event
from ddpm_inference.process.streams import outlive_readers
from ddpm_inference.progress import Progress
outlive_readers()
outlive_readers()
view = create_view(sys.stdout, sys.stderr, as_json=True, quiet=False)
for _ in range(3000):
    view.show_message("x" * 100)
    print("y" * 100, file=sys.stderr)
    write_event(sys.stdout, "complete")
    os.system("echo z; echo z >&2") if _ == 2999 else None
try:
    raise ValueError("w" * 100)
except ValueError:
    traceback.print_exc()
Path = os.environ["RESULT"]
open(Path, "w").write("drawn")
sys.exit(7)
"""


def outcome(redirections: str, tmp_path: Path) -> tuple[int, str, str, str]:
    """Runs the program in a shell; returns its exit code, its result, and what stdout and stderr of the shell got."""
    (tmp_path / "program.py").write_text(PROGRAM)
    result = tmp_path / "result"
    script = f'{{ "$0" program.py; echo $? >code; }} {redirections}'
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable],
        cwd=tmp_path,
        env={**os.environ, "RESULT": str(result)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return int((tmp_path / "code").read_text()), result.read_text(), ended.stdout, ended.stderr


@pytest.mark.parametrize(
    "redirections",
    [
        "| head -1",
        "2>&1 | head -1",
        "2> >(head -1 >&2)",
        ">&-",
        "2>&-",
        "<&- >&- 2>&-",
        "> /dev/full",
        "2> /dev/full",
        "1< /dev/null",
    ],
)
def test_a_program_goes_on_without_its_readers(redirections: str, tmp_path: Path) -> None:
    code, result, _, err = outcome(redirections, tmp_path)
    assert (code, result) == (7, "drawn")
    assert "Error: [Errno" not in err
    assert "Exception ignored" not in err


def test_a_reader_gets_the_lines_that_it_reads(tmp_path: Path) -> None:
    _, _, out, err = outcome("2>/dev/null | head -2", tmp_path)
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["message", "complete"]
    assert err == ""


def test_everything_arrives_at_readers_that_stay(tmp_path: Path) -> None:
    code, _, out, err = outcome("", tmp_path)
    assert code == 7
    assert (len(out.splitlines()), err.count("y" * 100), err.count("ValueError: ")) == (6001, 3000, 1)


def test_a_full_disk_below_stdout_is_reported_once(tmp_path: Path) -> None:
    _, _, _, err = outcome("> /dev/full", tmp_path)
    assert err.count("stdout cannot be written, so the rest of it is lost: No space left on device") == 1


def test_a_full_pipe_that_does_not_block_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    drained = []

    def drain_then_wait(descriptor: int) -> None:
        drained.append(os.read(reader, 1 << 20))
        wait(descriptor)

    wait = streams._wait_until_writable
    monkeypatch.setattr(streams, "_wait_until_writable", drain_then_wait)
    assert streams._Output(writer, "wb", closefd=False).write(b"end") == 3
    assert len(drained) == 1
    assert os.read(reader, 3) == b"end"
    os.close(reader)
    os.close(writer)


def test_a_closed_descriptor_is_not_given_to_a_file(tmp_path: Path) -> None:
    program = (
        "from ddpm_inference.process.streams import outlive_readers\noutlive_readers()\n"
        "import os, subprocess, sys\nfile = open('file', 'w')\nsubprocess.run(['echo', 'not into the file'])\n"
        "file.write(str(file.fileno() > 2))"
    )
    script = 'exec "$0" -c "$1" <&- >&- 2>&-'
    subprocess.run(["bash", "-c", script, sys.executable, program], cwd=tmp_path, timeout=300, check=True)
    assert (tmp_path / "file").read_text() == "True"


@pytest.mark.parametrize("redirections", ["| head -c 1", ">&-", "2>&-", "2>&1 | head -c 1", ">&- 2>&-"])
def test_the_exit_code_of_the_command_is_that_of_its_result(redirections: str, tmp_path: Path) -> None:
    script = f'{{ "$0" --model_path none --json; echo $? >code; }} {redirections}'
    ended = subprocess.run(
        ["bash", "-c", script, COMMAND], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (tmp_path / "code").read_text() == "2\n"
    assert "Traceback" not in ended.stderr
