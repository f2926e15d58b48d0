"""The lease on an output URI: one driver writes to it at a time.

::

    lease/<generation>.json            the claim: the Holder; created exclusively, never changed
    lease/<generation>.<token>.beat    its counter, which the holder raises every few seconds

The claim with the highest generation holds the place. A claim is created only where no file of its name exists, which
every file system and S3 do atomically, so of several drivers exactly one gets the next generation. A driver that finds
a claim watches its counter by its own monotonic clock: one that does not change for `DEAD_AFTER_SECONDS` is dead, so
clocks need not agree and file times do not matter. The next generation supersedes it. The dead driver's files are
removed, so that one that was only suspended notices by its counter that it was superseded.

Before a driver writes, it calls `DriverLease.check`, and before the manifest `DriverLease.verify`.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ddpm_inference.errors import RESUME, DdpmError, OutputInUse, Superseded
from ddpm_inference.store.lease_holder import MAX_HOLDER_BYTES, Attempt, Holder
from ddpm_inference.store.storage_backend import StorageBackend

FOLDER = "lease"
BEAT_SECONDS = 3.0
DEAD_AFTER_SECONDS = 30.0
POLL_SECONDS = 0.5
MAX_UNVERIFIED_SECONDS = 15.0
"""Age of the last counter that was written, from which on a holder verifies its lease before it writes anything."""
RELEASE_TIMEOUT = 5.0
MAX_BEAT_BYTES = 64

GENERATION_DIGITS = 9

_NAME = re.compile(r"(?P<generation>\d{9})(?:\.(?P<token>[0-9a-f]{32})\.beat|\.json)")

Tell = Callable[[str], None]


def _since_boot() -> float:
    """Returns seconds of a clock that also counts while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class Timing:
    """Clocks of a lease; tests replace them.

    Attributes:
        monotonic: seconds of the clock that a driver watches another one by. It stops while the machine is suspended,
            where the other one may be suspended too.
        since_boot: seconds of the clock that a holder measures the age of its own counter by.
        sleep: waits for some seconds.
    """

    monotonic: Callable[[], float] = time.monotonic
    since_boot: Callable[[], float] = _since_boot
    sleep: Callable[[float], None] = time.sleep


@dataclass
class DriverLease:
    """A lease that this process holds. `check` and `verify` may be called from any thread.

    Attributes:
        generation: of its claim.
    """

    backend: StorageBackend
    holder: Holder
    generation: int
    timing: Timing = field(default_factory=Timing)
    _count: int = 0
    _verified_at: float = field(init=False)
    _lost: DdpmError | None = None
    _io: threading.Lock = field(default_factory=threading.Lock)
    _released: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._verified_at = self.timing.since_boot()

    def check(self) -> None:
        """Raises an error if the lease is lost. Performs no I/O unless the counter was not written for a while.

        Raises:
            Superseded: if another driver has taken the place.
            StorageFailed: if the lease has to be verified and cannot be.
        """
        if self._lost is not None:
            raise self._lost
        if self.timing.since_boot() - self._verified_at > MAX_UNVERIFIED_SECONDS:
            self.verify()

    def verify(self) -> None:
        """Checks in the store that no other driver has taken the place, and raises the counter.

        Raises:
            Superseded: if another driver has.
            StorageFailed: if the store cannot be read or written.
        """
        with self._io:
            if self._lost is not None:
                raise self._lost
            # The time before the requests: a response may be late.
            now = self.timing.since_boot()
            self._count += 1
            kept = self.backend.update(self.beat_name, _beat(self._count))
            highest = _Listing.of(self.backend).highest
            if not kept or highest != self.generation or not self.is_stored():
                self._lost = self._superseded_by(highest)
                raise self._lost
            self._verified_at = now

    def is_stored(self) -> bool:
        """Whether the stored claim is that of this holder."""
        data = self.backend.read(_claim_name(self.generation), MAX_HOLDER_BYTES)
        holder = Holder.parse(data) if data else None
        return holder is not None and holder.token == self.holder.token

    def beat_until_released(self) -> None:
        """Raises the counter at intervals; the body of a thread of its own."""
        while not self._released.wait(BEAT_SECONDS):
            try:
                self.verify()
            except Superseded:
                return
            except DdpmError:
                # `check` reports it if it lasts; until then the next interval tries again.
                continue

    def release(self) -> None:
        """Removes the claim, so that the next driver need not wait. A failure only makes it wait."""
        self._released.set()
        if not self._io.acquire(timeout=RELEASE_TIMEOUT):
            return
        try:
            with suppress(DdpmError):
                if self._lost is None and self.is_stored():
                    self.backend.remove([_claim_name(self.generation)])
                self.backend.remove([self.beat_name])
                self.backend.remove_folder(FOLDER)
        finally:
            self._lost = self._lost or Superseded(f"the lease on {self.backend.uri} is released")
            self._io.release()

    @property
    def beat_name(self) -> str:
        """Name of the counter's file."""
        return _beat_name(self.generation, self.holder.token)

    def _superseded_by(self, generation: int) -> Superseded:
        if not generation:
            return Superseded(
                f"{self.backend.uri} was removed, or its folder {FOLDER}/, so this run stops",
                hint=f"{RESUME}, once it is certain that no other run uses that place",
            )
        claim = _read(self.backend, generation)
        own = claim is not None and claim.holder is not None and claim.holder.token == self.holder.token
        by = claim.description if claim and not own else "another driver"
        return Superseded(
            f"{self.backend.uri} was taken over by {by}, so this run stops",
            hint=f"{RESUME}, once that run has ended: whole shards are kept",
        )


@contextmanager
def hold(backend: StorageBackend, attempt: Attempt | None = None, tell: Tell = lambda _: None) -> Iterator[DriverLease]:
    """Holds the lease on a store for the block; releases it at its end, also after an error or a signal.

    Args:
        attempt: the attempt of a DDPMSampling that this driver belongs to.
        tell: called with a sentence if another driver must be waited for.

    Raises:
        OutputInUse: if another driver is at work.
        StorageFailed: if the store cannot be written.
    """
    existed = backend.exists()
    lease = acquire(backend, Holder.of_this_process(attempt), tell)
    thread = threading.Thread(target=lease.beat_until_released, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease.release()
        if not existed:
            # A run that was refused, and stored nothing, leaves nothing.
            backend.remove_folder("")


def acquire(
    backend: StorageBackend, own: Holder, tell: Tell = lambda _: None, timing: Timing | None = None
) -> DriverLease:
    """Takes the place if no driver is at work there. See `hold`.

    A higher attempt of the same DDPMSampling takes it at once, as does any driver if the holder's process has ended on
    this host. Otherwise the holder's counter decides, for which this waits up to `DEAD_AFTER_SECONDS`.
    """
    timing = timing or Timing()
    seen: _Claim | None = None
    seen_at = 0.0
    while True:
        listing = _Listing.of(backend)
        claim = _read(backend, listing.highest) if listing.claims else None
        if listing.claims and claim is None:
            continue  # It was released just now.
        if claim is not None and not _is_free(own, claim):
            _refuse_if_alive(backend, own, claim, seen)
            if seen is None:
                tell(
                    f"{backend.uri} is held by {claim.description}; "
                    f"waiting up to {DEAD_AFTER_SECONDS:g} s to see whether it is still at work"
                )
            if claim != seen:
                seen, seen_at = claim, timing.monotonic()
            if timing.monotonic() - seen_at < DEAD_AFTER_SECONDS:
                timing.sleep(POLL_SECONDS)
                continue
        lease = DriverLease(backend, own, listing.next, timing)
        if backend.reserve(_claim_name(lease.generation), own.to_json()):
            try:
                if _confirm(lease, listing, claim):
                    return lease
            except BaseException:
                lease.release()
                raise
            lease.release()
            # Two drivers that gave way to each other must not meet again.
            timing.sleep(random.uniform(0, POLL_SECONDS))  # noqa: S311 - no secret
        seen = None


def _is_free(own: Holder, claim: _Claim) -> bool:
    """Whether the place may be taken without watching the counter."""
    holder = claim.holder
    return holder is not None and (own.is_newer_attempt(holder) or holder.has_ended())


def _refuse_if_alive(backend: StorageBackend, own: Holder, claim: _Claim, seen: _Claim | None) -> None:
    """Raises OutputInUse if the counter has changed since the last reading, or the holder is a later attempt."""
    beats = seen is not None and seen.data == claim.data and seen.beat != claim.beat
    if beats or (claim.holder is not None and claim.holder.is_newer_attempt(own)):
        raise OutputInUse(
            f"{backend.uri} is in use by {claim.description}",
            hint="wait until that run has ended, or choose another output URI",
        )


def _confirm(lease: DriverLease, listing: _Listing, judged: _Claim | None) -> bool:
    """Checks that a new claim holds the place, and removes the files of the claims that it supersedes.

    The listing that led to the claim may be old: others may have come and gone since. A claim that was not judged may
    be a driver at work, to which this one gives way.

    Args:
        judged: the claim that was found dead or superseded; None if there was none.
    """
    backend = lease.backend
    backend.reserve(lease.beat_name, _beat(0))
    others = _Listing.of(backend).claims - {lease.generation}
    unchanged = judged is None or backend.read(_claim_name(judged.generation), MAX_HOLDER_BYTES) in {None, judged.data}
    if not (others <= listing.claims and unchanged and lease.is_stored()):
        return False
    backend.remove(f"{FOLDER}/{name}" for name in listing.names)
    return True


@dataclass(frozen=True)
class _Claim:
    """A claim as it is stored. If nothing but the counter differs from an earlier reading, its holder is alive."""

    generation: int
    data: bytes
    beat: bytes | None

    @property
    def holder(self) -> Holder | None:
        """None if the claim is invalid, as it is while it is being written."""
        return Holder.parse(self.data)

    @property
    def description(self) -> str:
        return self.holder.description if self.holder else "another driver"


@dataclass(frozen=True)
class _Listing:
    """The files of all leases.

    Attributes:
        names: of all files, below `FOLDER`.
        claims: generations that are claimed; others are those of counters that outlived their claim.
    """

    names: frozenset[str]
    claims: frozenset[int]

    @classmethod
    def of(cls, backend: StorageBackend) -> _Listing:
        matches = [match for name in backend.sizes(FOLDER) if (match := _NAME.fullmatch(name))]
        claims = (int(match["generation"]) for match in matches if not match["token"])
        return cls(frozenset(match[0] for match in matches), frozenset(claims))

    @property
    def highest(self) -> int:
        """The generation that holds the place; 0 if there is none."""
        return max(self.claims, default=0)

    @property
    def next(self) -> int:
        """The generation to claim."""
        return max((int(name[:GENERATION_DIGITS]) for name in self.names), default=0) + 1


def _read(backend: StorageBackend, generation: int) -> _Claim | None:
    data = backend.read(_claim_name(generation), MAX_HOLDER_BYTES)
    if data is None:
        return None
    holder = Holder.parse(data)
    beat = backend.read(_beat_name(generation, holder.token), MAX_BEAT_BYTES) if holder else None
    return _Claim(generation, data, beat)


def _claim_name(generation: int) -> str:
    return f"{FOLDER}/{generation:0{GENERATION_DIGITS}d}.json"


def _beat_name(generation: int, token: str) -> str:
    return f"{FOLDER}/{generation:0{GENERATION_DIGITS}d}.{token}.beat"


def _beat(count: int) -> bytes:
    # Always of one length, so that a folder can write it in place.
    return b"%020d\n" % count
