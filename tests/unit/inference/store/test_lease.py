"""The lease: one driver a place, takeover of dead holders, and attempts that supersede each other."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ddpm_inference.errors import OutputInUse, StorageFailed, Superseded
from ddpm_inference.store import lease as leases
from ddpm_inference.store.folder import Folder
from ddpm_inference.store.lease import (
    BEAT_SECONDS,
    DEAD_AFTER_SECONDS,
    MAX_UNVERIFIED_SECONDS,
    DriverLease,
    acquire,
    hold,
)
from ddpm_inference.store.lease_holder import Attempt, Holder
from tests.support.leases import FakeClock, a_driver, take

DEADLINE = 60.0


@pytest.fixture
def backend(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


def names(backend: Folder) -> list[str]:
    return sorted(str(path.relative_to(backend.path)) for path in backend.path.rglob("*"))


def test_a_released_lease_leaves_no_files(backend: Folder) -> None:
    with hold(backend) as lease:
        lease.verify()
        assert len(backend.sizes("lease")) == 2
    assert not backend.path.exists()


def test_a_folder_that_existed_is_kept(backend: Folder) -> None:
    backend.path.mkdir()
    with hold(backend):
        pass
    assert names(backend) == []
    assert backend.path.exists()


def test_a_lease_is_released_after_an_error(backend: Folder) -> None:
    with pytest.raises(KeyboardInterrupt), hold(backend):
        raise KeyboardInterrupt
    assert names(backend) == []


def test_a_driver_at_work_is_named_with_its_start(backend: Folder) -> None:
    holder = a_driver()
    first = take(backend, holder)
    clock = FakeClock(on_sleep=first.verify)
    told: list[str] = []
    with pytest.raises(OutputInUse) as refused:
        acquire(backend, a_driver(), told.append, clock.timing)
    for text in (refused.value.message, *told):
        assert f"process {os.getpid()} on far-away" in text
        assert holder.since in text
    assert len(told) == 1
    assert refused.value.exit_code == 2
    assert clock.slept < BEAT_SECONDS
    first.verify()


def test_a_dead_holder_is_superseded_after_its_time(backend: Folder) -> None:
    dead, clock = take(backend), FakeClock()
    lease = take(backend, clock=clock)
    assert DEAD_AFTER_SECONDS <= clock.slept < DEAD_AFTER_SECONDS + 2
    lease.verify()
    with pytest.raises(Superseded, match="taken over by process") as lost:
        dead.verify()
    assert lost.value.exit_code == 4
    with pytest.raises(Superseded):
        dead.check()
    dead.release()
    lease.verify()


def test_a_slow_holder_is_alive(backend: Folder) -> None:
    first = take(backend)
    clock = FakeClock()

    def beat_late() -> None:
        if clock.slept > DEAD_AFTER_SECONDS - 2:
            first.verify()

    clock.on_sleep = beat_late
    with pytest.raises(OutputInUse):
        take(backend, clock=clock)


def test_clocks_and_file_times_do_not_matter(backend: Folder) -> None:
    first = take(backend, a_driver().model_copy(update={"since": "1970-01-01 00:00:00 UTC"}))

    def beat_with_an_old_time() -> None:
        first.verify()
        for path in (backend.path / "lease").iterdir():
            os.utime(path, (0, 0))

    with pytest.raises(OutputInUse, match="since 1970-01-01"):
        take(backend, clock=FakeClock(on_sleep=beat_with_an_old_time))


def test_a_higher_attempt_fences_the_lower_at_once(backend: Folder) -> None:
    first = take(backend, a_driver(Attempt("uid-1", 1)))
    clock = FakeClock()
    second = take(backend, a_driver(Attempt("uid-1", 2)), clock)
    assert clock.slept == 0
    with pytest.raises(Superseded, match=r"by process .* attempt 2 of the sampling uid-1"):
        first.verify()
    second.verify()


def test_a_lower_attempt_is_refused_at_once(backend: Folder) -> None:
    second = take(backend, a_driver(Attempt("uid-1", 2)))
    clock = FakeClock()
    with pytest.raises(OutputInUse, match="attempt 2"):
        take(backend, a_driver(Attempt("uid-1", 1)), clock)
    assert clock.slept == 0
    second.verify()


def test_an_attempt_of_another_resource_waits(backend: Folder) -> None:
    first = take(backend, a_driver(Attempt("uid-1", 1)))
    with pytest.raises(OutputInUse):
        take(backend, a_driver(Attempt("uid-2", 2)), FakeClock(on_sleep=first.verify))


def test_a_dead_process_of_this_host_frees_the_place_at_once(backend: Folder) -> None:
    program = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from ddpm_inference.store.folder import Folder\n"
        "from ddpm_inference.store.lease import hold\n"
        "with hold(Folder(Path(sys.argv[1]))):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(backend.path)], check=False, timeout=DEADLINE)
    assert ended.returncode == -signal.SIGKILL
    assert len(backend.sizes("lease")) == 2
    clock = FakeClock()
    take(backend, clock=clock).release()
    assert clock.slept == 0
    assert names(backend) == []


def test_a_process_that_is_not_reaped_has_ended() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        started = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        holder = Holder.of_this_process(None).model_copy(update={"pid": process.pid, "started": started})
        assert holder.has_ended()


@pytest.mark.parametrize(
    ("changed", "ended"),
    [
        ({}, False),
        ({"started": 1}, True),
        ({"started": 1, "kernel": "another boot"}, False),
        ({"started": 1, "kernel": ""}, False),
        ({"started": 0}, False),
        ({"pid": 2**31 - 1}, True),
        ({"pid": 2**31 - 1, "kernel": "another namespace"}, False),
    ],
)
def test_only_a_process_of_the_same_namespace_is_known_to_have_ended(changed: dict[str, object], ended: bool) -> None:
    assert Holder.of_this_process(None).model_copy(update=changed).has_ended() is ended


def test_a_pid_namespace_of_its_own_is_another_kernel() -> None:
    program = "from ddpm_inference.store.lease_holder import Holder; print(Holder.of_this_process(None).kernel)"
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--pid", "--fork", "--mount-proc", sys.executable, "-c", program]
    kernel = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=DEADLINE).stdout.strip()
    assert kernel not in {"", Holder.of_this_process(None).kernel}


def test_a_suspended_holder_verifies_before_it_writes(backend: Folder) -> None:
    clock = FakeClock()
    suspended = take(backend, clock=clock)
    take(backend, clock=FakeClock())
    suspended.check()
    clock.now += MAX_UNVERIFIED_SECONDS + 1
    with pytest.raises(Superseded):
        suspended.check()


def test_a_holder_that_cannot_reach_the_store_stops_writing(backend: Folder) -> None:
    clock = FakeClock()
    lease = take(backend, clock=clock)
    beat = next((backend.path / "lease").glob("*.beat"))
    beat.unlink()
    beat.mkdir()
    lease.check()
    clock.now += MAX_UNVERIFIED_SECONDS + 1
    with pytest.raises(StorageFailed, match="could not be written"):
        lease.check()


def test_a_late_release_keeps_the_lease_of_another_driver(backend: Folder) -> None:
    first = take(backend)
    second = take(backend, clock=FakeClock())
    first.release()
    second.verify()
    second.release()
    third = take(backend)
    first.release()
    third.verify()


def test_an_unfinished_claim_is_waited_for(backend: Folder) -> None:
    (backend.path / "lease").mkdir(parents=True)
    (backend.path / "lease/000000001.json").touch()
    clock = FakeClock()
    take(backend, clock=clock).verify()
    assert clock.slept >= DEAD_AFTER_SECONDS


@pytest.mark.parametrize("content", [b"{}", b"\xff", b"[1]", b" " * 100_000, b'{"token": "../../x"}'])
def test_an_invalid_claim_counts_as_unknown(backend: Folder, content: bytes) -> None:
    (backend.path / "lease").mkdir(parents=True)
    (backend.path / "lease/000000001.json").write_bytes(content)
    (backend.path / "lease/notes.txt").write_text("keep")
    take(backend, clock=FakeClock()).release()
    assert names(backend) == ["lease", "lease/notes.txt"]


def test_a_counter_without_a_claim_does_not_hold_the_place(backend: Folder) -> None:
    (backend.path / "lease").mkdir(parents=True)
    (backend.path / f"lease/000000003.{'a' * 32}.beat").touch()
    clock = FakeClock()
    take(backend, clock=clock).release()
    assert clock.slept == 0
    assert names(backend) == []


def test_the_record_of_a_later_version_is_read() -> None:
    document = json.loads(a_driver().to_json()) | {"later": {"field": 1}}
    assert Holder.parse(json.dumps(document).encode()) is not None


@pytest.mark.parametrize(
    ("value", "attempt"),
    [
        ("1f2e-uid/3", Attempt("1f2e-uid", 3)),
        ("", None),
        ("uid", None),
        ("/3", None),
        ("uid/x", None),
        ("uid/-1", None),
        ("\x1b[31m/1", None),
        ("uid/99999999999", None),
    ],
)
def test_the_attempt_comes_from_the_environment(value: str, attempt: Attempt | None) -> None:
    assert Attempt.from_environment({"DDPM_ATTEMPT": value}) == attempt


def test_a_stale_listing_does_not_supersede_a_driver_at_work(backend: Folder) -> None:
    dead = take(backend)
    later: list[DriverLease] = []

    class SlowFolder(Folder):
        """Another driver comes, goes, and is followed by a third, between the decision and the claim."""

        def reserve(self, name: str, data: bytes) -> bool:
            if not later:
                take(backend, clock=FakeClock()).release()
                later.append(take(backend))
            return super().reserve(name, data)

    clock = FakeClock()

    def beat() -> None:
        for lease in later:
            # Not `verify`, which would find the claim that is given up.
            backend.update(lease.beat_name, b"%020d\n" % int(clock.now * 1000))

    clock.on_sleep = beat
    with pytest.raises(OutputInUse):
        acquire(SlowFolder(backend.path), a_driver(), timing=clock.timing)
    assert dead.generation == later[0].generation == 1
    later[0].verify()


def test_the_thread_raises_the_counter(backend: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.001)
    with hold(backend) as lease:
        first, changed = backend.read(lease.beat_name, 64), threading.Event()
        for _ in range(10_000):
            if backend.read(lease.beat_name, 64) != first:
                changed.set()
                break
            changed.wait(DEADLINE / 10_000)
        assert changed.is_set()


@dataclass(frozen=True)
class CrashingFolder(Folder):
    """A folder whose process is killed at a given write or removal."""

    steps: Iterator[int] = field(default_factory=lambda: iter(()))

    def _step(self) -> None:
        if next(self.steps, None) is None:
            raise CrashError

    def reserve(self, name: str, data: bytes) -> bool:
        if next(self.steps, None) is None:
            # Killed after the file was created, before its content was written.
            super().reserve(name, b"")
            raise CrashError
        return super().reserve(name, data)

    def update(self, name: str, data: bytes) -> bool:
        self._step()
        return super().update(name, data)

    def remove(self, names: Iterator[str]) -> None:
        for name in names:
            self._step()
            super().remove([name])


class CrashError(BaseException):
    """The process is killed: nothing later of it runs."""


@pytest.mark.parametrize("held_before", [False, True])
def test_a_driver_killed_at_any_write_is_superseded(tmp_path: Path, held_before: bool) -> None:
    for steps in range(100):
        backend = Folder(tmp_path / str(steps))
        if held_before:
            take(backend)
        crashing = CrashingFolder(backend.path, iter(range(steps)))
        crashed = False
        try:
            lease = take(crashing)
            lease.verify()
            lease.release()
        except CrashError:
            crashed = True
        lease = take(backend, clock=FakeClock())
        lease.verify()
        lease.release()
        assert names(backend) == []
        if not crashed:
            break
    assert 4 < steps < 99


def _claim_when_told(path: str, ready: Connection, start: Connection) -> None:
    """Claims a folder on a signal; reports whether it got it, and releases it on a second signal."""
    ready.send("ready")
    start.recv()
    try:
        with hold(Folder(Path(path))):
            ready.send(True)
            start.recv()
    except OutputInUse:
        ready.send(False)


@contextmanager
def _claimant(path: Path) -> Iterator[tuple[Connection, Connection]]:
    context = multiprocessing.get_context("fork")
    reports, ready = context.Pipe(duplex=False)
    start, orders = context.Pipe(duplex=False)
    process = context.Process(target=_claim_when_told, args=(str(path), ready, start))
    process.start()
    try:
        assert reports.poll(DEADLINE)
        assert reports.recv() == "ready"
        yield reports, orders
        process.join(DEADLINE)
        assert process.exitcode == 0
    finally:
        process.kill()


@pytest.mark.slow
def test_of_two_drivers_at_once_exactly_one_proceeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.01)
    for pair in range(40):
        path = tmp_path / str(pair)
        with _claimant(path) as one, _claimant(path) as other:
            for _, orders in (one, other):
                orders.send("claim")
            results = []
            for reports, _ in (one, other):
                assert reports.poll(DEADLINE)
                results.append(reports.recv())
            assert sorted(results) == [False, True]
            for _, orders in (one, other):
                orders.send("end")
        assert names(Folder(path)) == []
