"""Runs one Job from request to manifest: finds what is stored, has Ray sample the rest, and writes the outputs.

`cli` calls `run`. The stages are the phases of `progress`: preparing, connecting, starting, sampling, writing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ddpm_inference.checkpoint import Checkpoint, fetch, load
from ddpm_inference.errors import Incomplete, Interrupted, OutOfMemory, WorkerLost
from ddpm_inference.job import FILE_OF_FORMAT, Identity, Job, Shard, resolve_sampler, shard_count
from ddpm_inference.outputs import write_outputs
from ddpm_inference.plan import device_without_cluster, require_same_job, resolve_identity
from ddpm_inference.progress import Phase, Plan, Progress, View
from ddpm_inference.ray_backend.address import configure_environment, resolve_address
from ddpm_inference.ray_backend.shard_queue import ShardQueue, format_ranges
from ddpm_inference.store import Manifest, ShardRecord, Store, select

if TYPE_CHECKING:
    from ddpm_inference.ray_backend.worker import MakeSampler, ShardResult

Error = TypeVar("Error", bound=Exception)
OnStored = Callable[[Store, Iterable[ShardRecord]], None]


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
    """

    n_samples: int
    usable: Sequence[ShardRecord]
    missing: Sequence[Shard]
    complete: Manifest | None


def run(
    job: Job,
    *,
    ray_address: str,
    view: View,
    progress: Progress,
    on_stored: OnStored | None = None,
    make_sampler: MakeSampler | None = None,
) -> Outcome:
    """Draws the missing samples of a job on Ray, and writes its output files. Blocks until it is complete.

    Everything that can be rejected is rejected before anything is written. If an error ends the run, whole shards stay
    stored, and a note on the error says how many samples there are.

    Args:
        job: the request.
        ray_address: see `address.resolve_address`.
        view: shows messages and progress to the user.
        progress: kept up to date; the caller may read it from another thread.
        on_stored: called with the shards that are stored already, and with each new one; a record may be passed more
            than once.
        make_sampler: replaces the sampler of torch in tests and benchmarks.

    Raises:
        DdpmError: with reason and exit code.
    """
    run = _Run(job, ray_address, view, progress, on_stored, make_sampler, Store.open(job.output.uri))
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
    new_records: list[ShardRecord] = field(default_factory=list)

    def execute(self) -> Outcome:
        checkpoint = load(fetch(self.job.model.uri), self.job.model)
        for note in checkpoint.notes:
            self.view.show_message(note)
        # Checked again in `resolve_identity`, once the device is known; done here so that flags that contradict the
        # checkpoint fail before a cluster is needed.
        resolve_sampler(self.job.sampler, checkpoint.trained)
        stored_identity = None if self.job.output.overwrite else self.store.read_identity()
        stored = None
        if stored_identity is not None:
            # The stored identity has the values that otherwise depend on the cluster, so Ray may not be needed at all.
            device = device_without_cluster(self.job, stored_identity) or stored_identity.device  # `or` is for mypy
            identity = resolve_identity(
                self.job, checkpoint, stored_identity, device=device, torch=stored_identity.torch
            )
            require_same_job(identity, stored_identity, self.store.uri)
            stored = self.find_stored(identity)
            self.set_plan(identity, stored)
            if stored.complete is not None:
                self.begin(stored)
                sha256 = self.store.manifest_sha256()
                self.enter_phase("complete")
                return Outcome(stored.complete, sha256, self.store.uri, 0)
        if stored is None or stored.missing:
            identity, stored = self.sample(checkpoint, stored_identity, stored)
        return self.finish(identity, stored)

    def find_stored(self, identity: Identity) -> StoredSamples:
        """Returns what is stored of an identity."""
        n_samples = self.job.n_samples
        manifest = self.store.complete_manifest(identity, n_samples)
        if manifest is not None:
            wanted = {FILE_OF_FORMAT[form] for form in self.job.output.formats}
            is_complete = wanted <= self.store.intact_files(manifest)
            return StoredSamples(manifest.n_samples, manifest.shards, [], manifest if is_complete else None)
        scan = self.store.scan(identity)
        for warning in scan.warnings:
            self.view.show_message(warning)
        return StoredSamples(n_samples, *select(scan.records, n_samples, identity.batch_size), None)

    def sample(
        self, checkpoint: Checkpoint, stored_identity: Identity | None, stored: StoredSamples | None
    ) -> tuple[Identity, StoredSamples]:
        """Samples the missing shards on Ray; returns the identity, and the samples with none missing."""
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
            actor_resources = ActorResources.of(self.job.resources, device)
            pool = ActorPool(
                cluster,
                actor_resources,
                actor_factory(actor_resources, self.store, self.make_sampler),
                checkpoint,
                self.progress,
                self.view,
                self.job.resources,
            )
            # The first actor takes seconds to start. The torch version it will use is part of the identity, so the
            # identity is resolved while it starts.
            worker_packages = pool.create_first_actor()
            torch = cluster.torch_version(self.job.resources.startup_timeout, worker_packages)
            identity = resolve_identity(self.job, checkpoint, stored_identity, device=device, torch=torch)
            require_same_job(identity, stored_identity, self.store.uri)
            if stored is None:
                missing = select([], self.job.n_samples, identity.batch_size)
                stored = StoredSamples(self.job.n_samples, *missing, None)
            self.set_plan(identity, stored)
            self.view.show_message(f"{cluster.description}; device {device}; {len(stored.missing)} shards to sample")
            self.enter_phase("starting")
            pool.start(identity, len(stored.missing))
            self.store.initialize(identity, overwrite=self.job.output.overwrite)
            self.begin(stored)
            self.enter_phase("sampling")
            try:
                queue = pool.run(stored.missing, partial(self.store_result, identity))
            except KeyboardInterrupt:
                pool.store_completed()
                raise
            except ConnectionError as error:
                raise WorkerLost(f"the connection to {cluster.description} is lost: {error}") from error
            self.enter_phase("writing")
        raise_if_failed(queue)
        records = sorted([*stored.usable, *self.new_records], key=lambda record: record.first)
        return identity, stored._replace(usable=records, missing=[])

    def store_result(self, identity: Identity, result: ShardResult) -> None:
        """Stores the samples of a result unless the worker did, and records the shard."""
        record = result.record
        if result.samples is not None:
            record = self.store.write_shard(result.shard, result.samples, identity.fingerprint)
        if record is not None:
            self.new_records.append(record)
            self.notify_stored([record])

    def finish(self, identity: Identity, stored: StoredSamples) -> Outcome:
        """Writes the output files and the manifest."""
        self.begin(stored)
        self.enter_phase("writing")
        now = datetime.now().astimezone()
        written = write_outputs(self.store, identity, stored.n_samples, stored.usable, self.job.output.formats, now)
        self.enter_phase("complete")
        return Outcome(*written, self.store.uri, sum(record.size for record in self.new_records))

    def with_note(self, error: Error) -> Error:
        """Returns the error, with a note of how many samples are kept if the run got as far as that."""
        if self.progress.total:
            error.add_note(
                f"{self.progress.done} of {self.progress.total} samples are kept in {self.store.uri}; "
                "run the same command again to resume"
            )
        return error

    def set_plan(self, identity: Identity, stored: StoredSamples) -> None:
        shards = shard_count(stored.n_samples, identity.batch_size)
        self.progress.plan = Plan(device=identity.device, batchSize=identity.batch_size, shards=shards)

    def begin(self, stored: StoredSamples) -> None:
        done = sum(record.size for record in stored.usable)
        self.progress.begin(stored.n_samples, done, len(stored.missing))
        self.notify_stored(stored.usable)

    def notify_stored(self, records: Iterable[ShardRecord]) -> None:
        if self.on_stored is not None:
            self.on_stored(self.store, records)

    def enter_phase(self, phase: Phase) -> None:
        self.progress.phase = phase
        self.view.show_progress(self.progress)


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
