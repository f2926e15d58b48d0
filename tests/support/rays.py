"""Real Ray clusters for tests, started in a Python that does not have this project; and commands that run on them."""

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
PROJECT_FILES = ("ddpm_inference", "ddpm_inference-", "_editable_impl_ddpm")
START_TIMEOUT = 180.0
END_TIMEOUT = 60.0


@dataclass(frozen=True)
class Head:
    """The running head of a Ray cluster.

    Attributes:
        gcs: host:port.
        client: ray://host:port.
        folder: holds its temporary folder ``ray``, as if it were RAY_TMPDIR.
        environment: the variables that a user of it must export.
        python: its interpreter.
    """

    gcs: str
    client: str
    folder: Path
    environment: dict[str, str]
    python: Path
    process: subprocess.Popen[bytes]


def python_without(folder: Path, *packages: str) -> Path:
    """Creates an interpreter with the packages of this one, except this project and `packages`."""
    venv.create(folder, symlinks=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if entry.suffix != ".pth" and not entry.name.startswith((*PROJECT_FILES, *packages)):
            (site_packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


@contextmanager
def ray_head(folder: Path, python: Path, *options: str, token: str | None = None) -> Iterator[Head]:
    """Starts a head in its own folder and environment; ends it with all its processes."""
    gcs, client = free_port(), free_port()
    temporary = folder / "ray"
    environment = _environment(folder, token)
    start = ["--head", "--include-dashboard=false", f"--temp-dir={temporary}"]
    ports = [f"--port={gcs}", f"--ray-client-server-port={client}"]
    with _started(folder / "head.log", python, environment, *start, *ports, *options, mark=temporary) as process:
        address_file = temporary / "ray_current_cluster"
        wait_until(
            lambda: address_file.exists() and _listens(gcs) and _listens(client),
            START_TIMEOUT,
            lambda: check_alive(process),
        )
        exported = {"RAY_AUTH_TOKEN": token} if token else {}
        yield Head(f"127.0.0.1:{gcs}", f"ray://127.0.0.1:{client}", folder, exported, python, process)


@contextmanager
def ray_node(head: Head, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Adds a node to a head without a token, and waits until it has joined; ends it with all its processes."""
    log = head.folder / "node.log"
    environment = _environment(head.folder, None)
    with _started(log, head.python, environment, f"--address={head.gcs}", *options, mark=head.folder) as process:
        wait_until(lambda: "Ray runtime started" in log.read_text(), START_TIMEOUT, lambda: check_alive(process))
        yield process


def _environment(folder: Path, token: str | None) -> dict[str, str]:
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Do not ask a cloud's metadata service for S3 credentials.
        "AWS_EC2_METADATA_DISABLED": "true",
        **auth,
    }


@contextmanager
def _started(
    log: Path, python: Path, environment: Mapping[str, str], *options: str, mark: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `ray start`; at the end kills those of its processes that have `mark` among their arguments."""
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
        started = {process.pid, *descendants(process.pid)}
        process.terminate()
        try:
            process.wait(END_TIMEOUT)
        finally:
            for pid in started & set(_parents()):
                if str(mark) in _arguments(pid):
                    os.kill(pid, signal.SIGKILL)


def start_command(*arguments: object, cwd: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts ddpm-sample in a new session, with only those variables of Ray that are given."""
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
class CommandResult:
    """Exit code, stdout and stderr of a command that has ended."""

    code: int
    out: str
    err: str


def finish(process: subprocess.Popen[str], timeout: float = 300.0) -> CommandResult:
    """Waits for a command to end; if it takes too long it is killed and the test fails with its output."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the command did not end within {timeout} s; its output:\n{out}\n{err}") from None
    return CommandResult(process.returncode, out, err)


def run_command(*arguments: object, cwd: Path, environment: Mapping[str, str] | None = None) -> CommandResult:
    return finish(start_command(*arguments, cwd=cwd, environment=environment))


def wait_until(
    condition: Callable[[], object], timeout: float = 120.0, check: Callable[[], None] = lambda: None
) -> None:
    """Returns when the condition is true; raises if that takes too long, or if `check` raises meanwhile."""
    deadline = time.monotonic() + timeout
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"the condition was not true within {timeout} s")
        time.sleep(0.02)


def check_alive(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Raises if a process has ended."""
    if process.poll() is not None:
        output = process.stderr.read() if process.stderr else ""
        raise AssertionError(f"the process ended with {process.returncode}: {output!r}")


def descendants(pid: int) -> set[int]:
    """Returns the current child processes of a process, and theirs."""
    parents = _parents()
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if parent in {pid, *found}} - found:
        found |= new
    return found


def workers(pid: int) -> list[int]:
    """Returns the worker actors among the descendants of a process."""
    return sorted(child for child in descendants(pid) if _arguments(child).startswith("ray::Worker"))


def running(pids: Iterable[int]) -> set[int]:
    """Returns those processes that still run; a zombie does not."""
    return {pid for pid in pids if pid in _parents() and _state(pid) not in "ZX"}


def free_port() -> int:
    """Returns a port of this machine on which nothing listens now."""
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
