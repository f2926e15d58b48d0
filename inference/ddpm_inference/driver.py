"""Runs one Job from request to manifest: finds what is stored, has Ray sample the rest, and writes the outputs.

`cli` calls `run`. The stages are the phases of `progress`: preparing, connecting, starting, sampling, writing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ddpm_inference.checkpoint import Checkpoint, load_from
from ddpm_inference.errors import RESUME, DdpmError, Incomplete, Interrupted, OutOfMemory, OutputConflict, WorkerLost
from ddpm_inference.job import FILE_OF_FORMAT, Format, Identity, Job, Shard, resolve_sampler, shard_count
from ddpm_inference.outputs import write_outputs
from ddpm_inference.plan import (
    device_without_cluster,
    notes_for,
    pinned_note,
    pinned_revision,
    require_possible,
    require_possible_shards,
    require_same_job,
    resolve_identity,
    resources_for,
    unknown_fields_note,
)
from ddpm_inference.progress import Phase, Plan, Progress, View
from ddpm_inference.ray_backend.address import configure_environment, resolve_address
from ddpm_inference.ray_backend.shard_queue import ShardQueue, format_ranges
from ddpm_inference.store import DamagedFile, Inspection, Manifest, ShardRecord, Store, select
from ddpm_inference.store.lease import DriverLease, hold
from ddpm_inference.store.lease_holder import Attempt
from ddpm_inference.store.shard_file import Samples
from ddpm_inference.store.shard_writer import ShardWriter
from ddpm_inference.text import count

if TYPE_CHECKING:
    from ddpm_inference.ray_backend.actor_pool import ActorPool
    from ddpm_inference.ray_backend.worker import MakeSampler, ShardResult

Error = TypeVar("Error", bound=Exception)
OnStored = Callable[[Store, Iterable[ShardRecord]], None]

MAX_DESCRIBED = 10
"""Damaged files that are named in messages."""


class Outcome(NamedTuple):
    """The result of a complete run.

    Attributes:
        manifest_sha256: sha256 of ``manifest.json`` as it is stored.
        output_uri: where the samples are.
        sampled: samples that this run drew; 0 if all were stored already.
    """

    manifest: Manifest
    manifest_sha256: str
    output_uri: str
    sampled: int


class StoredSamples(NamedTuple):
    """The samples that are stored already, and what is missing.

    Attributes:
        n_samples: N; more than requested if an earlier run drew more.
        usable: records of the stored shards that count, in order.
        missing: the shards to sample.
        complete: the manifest, if nothing is left to do.
        damaged: those of `missing` that are stored and damaged.
        formats: the output files to write.
    """

    n_samples: int
    usable: Sequence[ShardRecord]
    missing: Sequence[Shard]
    complete: Manifest | None
    damaged: frozenset[Shard]
    formats: Sequence[Format]


class Found(NamedTuple):
    """What is known of the job before Ray is needed. All is None if nothing is stored, or it is to be overwritten.

    Attributes:
        outcome: of a run that has nothing to do.
    """

    stored_identity: Identity | None
    identity: Identity | None
    stored: StoredSamples | None
    outcome: Outcome | None


def run(
    job: Job,
    *,
    ray_address: str,
    view: View,
    progress: Progress,
    on_stored: OnStored | None = None,
    make_sampler: MakeSampler | None = None,
    hash_all: bool = False,
) -> Outcome:
    """Draws the missing samples of a job on Ray, and writes its output files. Blocks until it is complete.

    Everything that can be rejected is rejected before anything is written. Files that were damaged after the job was
    complete are drawn or written again. If an error ends the run, whole shards stay stored, and a note on the error
    says how many samples there are.

    Args:
        job: the request.
        ray_address: see `address.resolve_address`.
        view: shows messages and progress to the user.
        progress: kept up to date; the caller may read it from another thread.
        on_stored: called with the shards that are stored already, and with each new one; a record may be passed more
            than once.
        make_sampler: replaces the sampler of torch in tests and benchmarks.
        hash_all: look for damage also in files that have not changed since they were last hashed.

    Raises:
        DdpmError: with reason and exit code.
    """
    run = _Run(job, ray_address, view, progress, on_stored, make_sampler, Store.open(job.output.uri), hash_all)
    try:
        return run.execute()
    except KeyboardInterrupt as error:
        run.enter_phase("interrupted")
        raise run.with_note(Interrupted("stopped by a signal")) from error
    except Exception as error:
        run.enter_phase("failed")
        run.with_note(error)
        raise


@dataclass
class _Run:
    """The state of one call of `run`, and its stages."""

    job: Job
    ray_address: str
    view: View
    progress: Progress
    on_stored: OnStored | None
    make_sampler: MakeSampler | None
    store: Store
    hash_all: bool = False
    new_records: list[ShardRecord] = field(default_factory=list)
    identity: Identity | None = None
    lease: DriverLease | None = None
    inspected: tuple[Manifest, Inspection] | None = None
    writer: ShardWriter = field(default_factory=ShardWriter)

    def execute(self) -> Outcome:
        self.store.require_folder()
        revision = None
        if self.job.model.uri.startswith("hf://") and not self.job.output.overwrite:
            revision = pinned_revision(self.job, self.store.recover_identity())
        checkpoint = load_from(self.job.model, revision=revision)
        for note in [pinned_note(self.job, checkpoint, revision), *notes_for(self.job, checkpoint)]:
            if note is not None:
                self.view.show_message(note)
        # Checked again in `resolve_identity`, once the device is known; done here so that flags that contradict the
        # checkpoint fail before a cluster is needed.
        resolve_sampler(self.job.sampler, checkpoint.trained)
        if self.seems_complete():
            # Reading needs no lease.
            outcome = self.find(checkpoint).outcome
            if outcome is not None:
                return outcome
        require_possible(self.job, checkpoint, None if self.job.output.overwrite else self.store.recover_identity())
        with hold(self.store.backend, Attempt.from_environment(os.environ), self.view.show_message) as self.lease:
            stored_identity, identity, stored, outcome = self.find(checkpoint)
            if outcome is not None:
                return outcome
            if identity is None or stored is None or stored.missing:
                identity, stored = self.sample(checkpoint, stored_identity, stored)
            return self.finish(identity, stored)

    def seems_complete(self) -> bool:
        """Whether the manifest accounts for enough samples, and no file looks damaged."""
        manifest = None if self.job.output.overwrite or self.hash_all else self.store.read_manifest()
        if manifest is None or manifest.n_samples < self.job.n_samples:
            return False
        found = self.store.inspect(manifest, hash_all=False)
        self.inspected = (manifest, found)
        return not found.damaged

    def find(self, checkpoint: Checkpoint) -> Found:
        """Looks for the job in the store."""
        stored_identity = None if self.job.output.overwrite else self.store.recover_identity()
        if stored_identity is not None:
            # The stored identity has the values that otherwise depend on the cluster, so Ray may not be needed at all.
            device = device_without_cluster(self.job, stored_identity) or stored_identity.device  # `or` is for mypy
            identity = resolve_identity(
                self.job, checkpoint, stored_identity, device=device, torch=stored_identity.torch
            )
            require_same_job(identity, stored_identity, self.store.uri)
            stored = self.find_stored(identity)
            self.set_plan(identity, stored)
            if not stored.missing:
                self.restore_identity(stored_identity)
            if stored.complete is not None:
                self.begin(identity, stored)
                sha256 = self.store.manifest_sha256()
                self.enter_phase("complete")
                return Found(stored_identity, identity, stored, Outcome(stored.complete, sha256, self.store.uri, 0))
            return Found(stored_identity, identity, stored, None)
        return Found(None, None, None, None)

    def find_stored(self, identity: Identity) -> StoredSamples:
        """Returns what is stored of an identity. A damaged file of a complete job counts as missing."""
        manifest = self.store.read_manifest()
        if manifest is not None and manifest.fingerprint != identity.fingerprint:
            manifest = None
        if manifest is not None and manifest.n_samples >= self.job.n_samples:
            return self.inspect(manifest)
        listed = self.store.shards()
        scan = self.store.scan(identity)
        for warning in scan.warnings:
            self.view.show_message(warning)
        records, differing = agreeing(scan.records, manifest)
        for record in differing:
            self.view.show_message(
                f"{self.store.uri}/shards/{record.name} is ignored: its sha256 is not that of the manifest"
            )
        selection = select(records, self.job.n_samples, identity.batch_size)
        damaged = listed & set(selection.missing)
        return StoredSamples(self.job.n_samples, *selection, None, frozenset(damaged), self.job.output.formats)

    def inspect(self, manifest: Manifest) -> StoredSamples:
        """Returns what is stored of a job whose manifest accounts for enough samples."""
        formats: Sequence[Format] = self.job.output.formats
        inspected, self.inspected = self.inspected, None
        if inspected is not None and inspected[0] == manifest:
            # By `seems_complete`, just now. Hashing takes long where verified.json is missing.
            found = inspected[1]
        else:
            found = self.store.inspect(manifest, hash_all=self.hash_all)
        lacks_files = {FILE_OF_FORMAT[form] for form in formats} - set(manifest.files)
        if (found.damaged or lacks_files) and not self.hash_all:
            # The output files are written again from the shards, each of which must have its sha256 for that.
            found = self.store.inspect(manifest, hash_all=True)
        for message in described(found.damaged):
            self.view.show_message(f"{self.store.uri}/{message}")
        if not found.damaged and not lacks_files:
            if found.hashed:
                self.store.write_verified(manifest, self.store.dated_copies())
            return StoredSamples(manifest.n_samples, manifest.shards, [], manifest, frozenset(), formats)
        # Files that only an earlier run asked for stay part of the job.
        formats = [form for form, name in FILE_OF_FORMAT.items() if form in formats or name in manifest.files]
        damaged = {file.shard for file in found.damaged if file.shard is not None}
        usable = [record for record in manifest.shards if record.shard not in damaged]
        missing = [record.shard for record in manifest.shards if record.shard in damaged]
        return StoredSamples(manifest.n_samples, usable, missing, None, frozenset(damaged), formats)

    def sample(
        self, checkpoint: Checkpoint, stored_identity: Identity | None, stored: StoredSamples | None
    ) -> tuple[Identity, StoredSamples]:
        """Samples the missing shards on Ray; returns the identity, and the samples with none missing."""
        self.store.require_writable()
        self.enter_phase("connecting")
        target = resolve_address(self.ray_address)
        configure_environment(target)
        # Imported here: Ray reads the environment on import, and the import takes a second that a rejection need not.
        from ddpm_inference.ray_backend.actor_pool import ActorPool
        from ddpm_inference.ray_backend.actor_resources import ActorResources
        from ddpm_inference.ray_backend.connection import connected
        from ddpm_inference.ray_backend.worker import actor_factory

        with connected(target) as cluster:
            device = device_without_cluster(self.job, stored_identity) or ("cuda" if cluster.has_gpus else "cpu")
            resources = resources_for(self.job, stored_identity)
            actor_resources = ActorResources.of(resources, device)
            mixed = resources.allow_mixed_hardware
            pool = ActorPool(
                cluster,
                actor_resources,
                actor_factory(actor_resources, self.store, self.make_sampler, allow_mixed_hardware=mixed),
                checkpoint,
                self.progress,
                self.view,
                resources,
            )
            # The first actor takes seconds to start. The torch version it will use and its hardware are part of the
            # identity, so the identity is resolved while it starts.
            worker_packages = pool.create_first_actor()
            torch = cluster.torch_version(resources.startup_timeout, worker_packages)
            self.enter_phase("starting")
            hardware = pool.find_hardware(device)
            identity = resolve_identity(
                self.job, checkpoint, stored_identity, device=device, torch=torch, hardware=hardware
            )
            require_same_job(identity, stored_identity, self.store.uri)
            if stored_identity is not None and (note := unknown_fields_note(stored_identity)):
                self.view.show_message(note)
            if hardware and identity.hardware and hardware != identity.hardware:
                self.view.show_message(
                    f"samples stored there were drawn on {identity.hardware.description}, and this run uses "
                    f"{hardware.description}: the manifest says which shards are which"
                )
            if stored is None:
                missing = select([], self.job.n_samples, identity.batch_size)
                stored = StoredSamples(self.job.n_samples, *missing, None, frozenset(), self.job.output.formats)
            require_possible_shards(stored.n_samples, identity.batch_size)
            self.set_plan(identity, stored)
            self.view.show_message(
                f"{cluster.description}; device {device}; {count(len(stored.missing), 'shard')} to sample"
            )
            pool.start(identity, len(stored.missing))
            self.verify_lease()
            if stored_identity is not None:
                self.restore_identity(stored_identity)
            self.store.initialize(identity, overwrite=self.job.output.overwrite)
            self.store.remove_shards(stored.damaged)
            self.begin(identity, stored)
            self.enter_phase("sampling")
            try:
                with self.writer:
                    queue = self.run_pool(pool, identity, stored.missing)
            except ConnectionError as error:
                raise WorkerLost(f"the connection to {cluster.description} is lost: {error}") from error
            self.enter_phase("writing")
        raise_if_failed(queue)
        records = sorted([*stored.usable, *self.new_records], key=lambda record: record.first)
        return identity, stored._replace(usable=records, missing=[])

    def run_pool(self, pool: ActorPool, identity: Identity, missing: Sequence[Shard]) -> ShardQueue:
        """Samples the shards; returns when all are stored, or failed permanently."""
        try:
            return pool.run(missing, partial(self.store_result, identity))
        except KeyboardInterrupt:
            pool.store_completed()
            raise
        finally:
            self.record(self.writer.drain())

    def store_result(self, identity: Identity, result: ShardResult) -> None:
        """Stores the samples of a result, in another thread, unless the worker did; records what is stored."""
        self.check_lease()
        if result.record is not None:
            self.record([result.record])
        if result.samples is not None:
            self.record(self.writer.put(partial(self.write_shard, identity, result, result.samples)))

    def write_shard(self, identity: Identity, result: ShardResult, samples: Samples) -> ShardRecord:
        self.check_lease()
        return self.store.write_shard(result.shard, samples, identity.fingerprint, result.hardware)

    def record(self, records: Sequence[ShardRecord]) -> None:
        """Records shards that are stored."""
        self.new_records += records
        if records:
            self.notify_stored(records)

    def check_lease(self) -> None:
        if self.lease is not None:
            self.lease.check()

    def verify_lease(self) -> None:
        if self.lease is not None:
            self.lease.verify()

    def finish(self, identity: Identity, stored: StoredSamples) -> Outcome:
        """Writes the output files and the manifest."""
        self.begin(identity, stored)
        self.enter_phase("writing")
        now = datetime.now().astimezone()
        self.verify_lease()
        written = write_outputs(
            self.store, identity, stored.n_samples, stored.usable, stored.formats, now, self.verify_lease
        )
        self.enter_phase("complete")
        return Outcome(*written, self.store.uri, sum(record.size for record in self.new_records))

    def restore_identity(self, identity: Identity) -> None:
        """Writes ``job.json`` again if it was lost or damaged after the job was complete."""
        if self.store.restore_identity(identity):
            self.view.show_message(f"{self.store.uri}/job.json was lost or damaged; it is written again")

    def with_note(self, error: Error) -> Error:
        """Returns the error, with a note of how many samples are stored now, and of the command that keeps them.

        There is no note if the run did not get as far as preparing the store.
        """
        if self.identity is None:
            return error
        command = RESUME
        if self.job.output.overwrite:
            # The same command would remove what this one has stored.
            command = f"{RESUME} without --overwrite"
            if isinstance(error, DdpmError):
                error.hint = error.hint.replace(RESUME, command)
        try:
            kept = self.count_kept(self.identity)
        except DdpmError as cause:
            error.add_note(f"how many samples are kept is unknown: {cause.message}; {command} to resume")
        else:
            error.add_note(f"{kept} of {self.progress.total} samples are kept in {self.store.uri}; {command} to resume")
        return error

    def count_kept(self, identity: Identity) -> int:
        """Returns how many samples of this run are stored now.

        Raises:
            OutputConflict: if another job is stored there by now.
            StorageFailed: if the store cannot be listed.
        """
        stored = self.store.read_identity()
        if stored is not None and stored.fingerprint != identity.fingerprint:
            raise OutputConflict(f"{self.store.uri} holds another job by now")
        kept = self.store.count_samples(identity, self.progress.total)
        if kept and stored is None:
            # The folder was removed during the run. Without job.json the next run would refuse the shards stored since.
            self.store.restore_identity(identity)
        return kept

    def set_plan(self, identity: Identity, stored: StoredSamples) -> None:
        shards = shard_count(stored.n_samples, identity.batch_size)
        self.progress.plan = Plan(device=identity.device, batchSize=identity.batch_size, shards=shards)
        if identity.hardware is not None:
            self.progress.plan["hardware"] = identity.hardware.model_dump()

    def begin(self, identity: Identity, stored: StoredSamples) -> None:
        self.identity = identity
        done = sum(record.size for record in stored.usable)
        self.progress.begin(stored.n_samples, done, len(stored.missing))
        self.notify_stored(stored.usable)

    def notify_stored(self, records: Iterable[ShardRecord]) -> None:
        if self.on_stored is not None:
            self.on_stored(self.store, records)

    def enter_phase(self, phase: Phase) -> None:
        self.progress.phase = phase
        self.view.show_progress(self.progress)


def agreeing(records: Iterable[ShardRecord], manifest: Manifest | None) -> tuple[list[ShardRecord], list[ShardRecord]]:
    """Splits intact shards into those that a manifest does not contradict, and those with another sha256."""
    listed = {(record.first, record.last): record.sha256 for record in manifest.shards} if manifest else {}
    split: tuple[list[ShardRecord], list[ShardRecord]] = ([], [])
    for record in records:
        differs = listed.get((record.first, record.last), record.sha256) != record.sha256
        split[differs].append(record)
    return split


def described(damaged: Sequence[DamagedFile]) -> list[str]:
    """Returns a sentence for each of the first damaged files, and one for the rest."""
    sentences = [
        f"{file.name} {file.problem}; it is {'written' if file.shard is None else 'drawn'} again"
        for file in damaged[:MAX_DESCRIBED]
    ]
    rest = len(damaged) - len(sentences)
    return [*sentences, f"{count(rest, 'more file')} missing or damaged"] if rest else sentences


def raise_if_failed(queue: ShardQueue) -> None:
    """Raises an error that names the samples of all failed shards and the cause of the first, if any failed."""
    if not queue.failed:
        return
    cause = next(iter(queue.failed.values()))
    kinds = {type(each) for each in queue.failed.values()}
    kind = kinds.pop() if len(kinds) == 1 and issubclass(type(cause), (OutOfMemory, WorkerLost)) else Incomplete
    failed = f"samples {format_ranges(queue.failed)} could not be sampled"
    if queue.is_hopeless:
        failed += ", and no other shard succeeded, so the run ends"
    raise kind(f"{failed}: {cause.message}", hint=cause.hint)
