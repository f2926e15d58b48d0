"""Real Rays for tests: `ray start --head` in a Python of its own that knows nothing of this project."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = Path(sys.executable).with_name("ddpm-sample")
PROJECT = ("ddpm_inference", "ddpm_inference-", "_editable_impl_ddpm")
STARTS_WITHIN = 180.0
ENDS_WITHIN = 60.0


@dataclass(frozen=True)
class Head:
    """A running Ray.

    Attributes:
        gcs: host:port.
        client: ray://host:port.
        folder: its temporary folder is ``ray`` in there, as if RAY_TMPDIR were the folder.
        environment: what a user of it must have exported.
        python: its interpreter.
    """

    gcs: str
    client: str
    folder: Path
    environment: dict[str, str]
    python: Path
    process: subprocess.Popen[bytes]


def python_without(folder: Path, *packages: str) -> Path:
    """An interpreter that has everything this one has, but not this project and none of `packages`."""
    venv.create(folder, symlinks=True)
    there = next(folder.glob("lib/python*/site-packages"))
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if entry.suffix != ".pth" and not entry.name.startswith((*PROJECT, *packages)):
            (there / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


@contextmanager
def ray_head(folder: Path, python: Path, *options: str, token: str | None = None) -> Iterator[Head]:
    """Starts a head in a working folder and an environment of its own; ends it and all that belongs to it."""
    gcs, client = free_port(), free_port()
    temporary = folder / "ray"
    environment = _environment(folder, token)
    start = ["--head", "--include-dashboard=false", f"--temp-dir={temporary}"]
    ports = [f"--port={gcs}", f"--ray-client-server-port={client}"]
    with _started(folder / "head.log", python, environment, *start, *ports, *options, mark=temporary) as process:
        note = temporary / "ray_current_cluster"
        wait_until(lambda: note.exists() and _listens(gcs) and _listens(client), STARTS_WITHIN, lambda: alive(process))
        exported = {"RAY_AUTH_TOKEN": token} if token else {}
        yield Head(f"127.0.0.1:{gcs}", f"ray://127.0.0.1:{client}", folder, exported, python, process)


@contextmanager
def ray_node(head: Head, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Starts one more node of a head that wants no token, and waits until it has joined; ends it and its own."""
    log = head.folder / "node.log"
    environment = _environment(head.folder, None)
    with _started(log, head.python, environment, f"--address={head.gcs}", *options, mark=head.folder) as process:
        wait_until(lambda: "Ray runtime started" in log.read_text(), STARTS_WITHIN, lambda: alive(process))
        yield process


def _environment(folder: Path, token: str | None) -> dict[str, str]:
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Nobody looks for credentials of S3 outside of this machine.
        "AWS_EC2_METADATA_DISABLED": "true",
        **auth,
    }


@contextmanager
def _started(
    log: Path, python: Path, environment: Mapping[str, str], *options: str, mark: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`ray start`; in the end all that belongs to it and has `mark` among its arguments is killed."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [python, "-m", "ray.scripts.scripts", "start", "--block", "--dashboard-agent-listen-port=0", *options],
            env=environment,
            cwd=log.parent,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        belonging = {process.pid, *descendants(process.pid)}
        process.terminate()
        try:
            process.wait(ENDS_WITHIN)
        finally:
            for pid in belonging & set(_parents()):
                if str(mark) in _arguments(pid):
                    os.kill(pid, signal.SIGKILL)


def start_command(*arguments: object, cwd: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts ddpm-sample in a session of its own, with nothing of Ray in its environment but what is given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**inherited, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def end_of(process: subprocess.Popen[str], within: float = 300.0) -> Ended:
    """Waits for a command; one that takes too long is killed, and the test fails with what it said."""
    try:
        out, err = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the command did not end within {within} s and had said:\n{out}\n{err}") from None
    return Ended(process.returncode, out, err)


def run_command(*arguments: object, cwd: Path, environment: Mapping[str, str] | None = None) -> Ended:
    return end_of(start_command(*arguments, cwd=cwd, environment=environment))


def wait_until(
    happened: Callable[[], object], within: float = 120.0, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Returns when something has happened; raises if it takes too long, or if `meanwhile` raises."""
    deadline = time.monotonic() + within
    while not happened():
        meanwhile()
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {within} s")
        time.sleep(0.02)


def alive(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Raises if a process has ended."""
    if process.poll() is not None:
        said = process.stderr.read() if process.stderr else ""
        raise AssertionError(f"the process ended with {process.returncode}: {said!r}")


def descendants(pid: int) -> set[int]:
    """The processes below one, by who started whom at this moment."""
    parents = _parents()
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if parent in {pid, *found}} - found:
        found |= new
    return found


def workers(pid: int) -> list[int]:
    """The actors of this project below a process."""
    return sorted(child for child in descendants(pid) if _arguments(child).startswith("ray::Worker"))


def running(pids: Iterable[int]) -> set[int]:
    """Those of the processes that still run; a zombie does not."""
    return {pid for pid in pids if pid in _parents() and _state(pid) not in "ZX"}


def free_port() -> int:
    """A port of this machine that nobody listens at just now."""
    with socket.create_server(("", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _parents() -> dict[int, int]:
    return {int(path.name): int(_stat(int(path.name))[1]) for path in Path("/proc").iterdir() if path.name.isdigit()}


def _arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
