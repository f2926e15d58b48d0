"""One run, from a Job to its manifest: what is there already, who samples the rest, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ddpm_inference.checkpoint import Checkpoint, fetch, load
from ddpm_inference.errors import Incomplete, Interrupted, OutOfMemory, WorkerLost
from ddpm_inference.job import Identity, Job, Shard, resolve_sampler, shard_count
from ddpm_inference.outputs import FILES, finish
from ddpm_inference.plan import known_device, refuse_another, resolve
from ddpm_inference.progress import Phase, Plan, Progress, View
from ddpm_inference.ray_backend.address import find, prepare
from ddpm_inference.ray_backend.shard_queue import ShardQueue, ranges
from ddpm_inference.store import Manifest, ShardRecord, Store, select

if TYPE_CHECKING:
    from ddpm_inference.ray_backend.worker import MakeSampler, ShardResult

Error = TypeVar("Error", bound=Exception)
OnStored = Callable[[Store, Iterable[ShardRecord]], None]


class Outcome(NamedTuple):
    """How a run ended that found or made all samples.

    Attributes:
        manifest_sha256: of ``manifest.json`` as it is stored.
        place: URI of the output place.
        sampled: samples that this run drew; 0 if all was there.
    """

    manifest: Manifest
    manifest_sha256: str
    place: str
    sampled: int


class Found(NamedTuple):
    """What is stored already of the samples wanted.

    Attributes:
        n_samples: N; more than was asked for where a former run drew more.
        finished: the manifest, if nothing at all is left to do.
    """

    n_samples: int
    usable: Sequence[ShardRecord]
    missing: Sequence[Shard]
    finished: Manifest | None


def run(
    job: Job,
    *,
    ray_address: str,
    view: View,
    progress: Progress,
    on_stored: OnStored | None = None,
    make_sampler: MakeSampler | None = None,
) -> Outcome:
    """Draws what is missing of a job's samples, on Ray, and makes the files of them. Blocks until it is done.

    Whatever can be refused is refused before anything is written. If an error ends the run, whole shards stay
    stored, and the error carries a note that says how many.

    Args:
        ray_address: see `address.find`.
        progress: kept up to date for the caller to look at.
        on_stored: told of the shards that are found and of each that is stored; some may be told twice.
        make_sampler: another sampler than the one of torch.

    Raises:
        DdpmError: with the exit code and the reason of what went wrong.
    """
    run = _Run(job, ray_address, view, progress, on_stored, make_sampler, Store.open(job.output.uri))
    try:
        return run.all()
    except KeyboardInterrupt as error:
        run.enter("interrupted")
        raise run.with_note(Interrupted("stopped by a signal")) from error
    except Exception as error:
        run.enter("failed")
        run.with_note(error)
        raise


@dataclass
class _Run:
    job: Job
    ray_address: str
    view: View
    progress: Progress
    on_stored: OnStored | None
    make_sampler: MakeSampler | None
    store: Store
    new_records: list[ShardRecord] = field(default_factory=list)

    def all(self) -> Outcome:
        checkpoint = load(fetch(self.job.model.uri), self.job.model)
        for note in checkpoint.notes:
            self.view.say(note)
        # Part of `resolve`, which has to wait for the cluster; a flag that contradicts the checkpoint need not.
        resolve_sampler(self.job.sampler, checkpoint.trained)
        there = None if self.job.output.overwrite else self.store.read_identity()
        found = None
        if there is not None:
            # What only the cluster could tell, a stored identity has told: the rest may need no Ray at all.
            device = known_device(self.job, there) or there.device
            identity = resolve(self.job, checkpoint, there, device=device, torch=there.torch)
            refuse_another(identity, there, self.store.uri)
            found = self.look(identity)
            self.choose(identity, found)
            if found.finished is not None:
                self.begin(found)
                sha256 = self.store.manifest_sha256()
                self.enter("complete")
                return Outcome(found.finished, sha256, self.store.uri, 0)
        if found is None or found.missing:
            identity, found = self.sample(checkpoint, there, found)
        return self.finish(identity, found)

    def look(self, identity: Identity) -> Found:
        """What is stored already."""
        n_samples = self.job.n_samples
        manifest = self.store.finished(identity, n_samples)
        if manifest is not None:
            wanted = {FILES[form] for form in self.job.output.formats}
            whole = wanted <= self.store.intact_files(manifest)
            return Found(manifest.n_samples, manifest.shards, [], manifest if whole else None)
        scan = self.store.scan(identity)
        for warning in scan.warnings:
            self.view.say(warning)
        return Found(n_samples, *select(scan.records, n_samples, identity.batch_size), None)

    def sample(self, checkpoint: Checkpoint, there: Identity | None, found: Found | None) -> tuple[Identity, Found]:
        """Has the missing shards sampled; what is then found lacks none."""
        self.enter("connecting")
        target = find(self.ray_address)
        prepare(target)
        # Imported here: Ray reads the environment then, and takes a second that a refusal need not wait for.
        from ddpm_inference.ray_backend.actor_pool import ActorPool
        from ddpm_inference.ray_backend.cluster import ActorResources, connected
        from ddpm_inference.ray_backend.worker import spawner

        with connected(target) as cluster:
            device = known_device(self.job, there) or ("cuda" if cluster.has_gpus else "cpu")
            share = ActorResources.of(self.job.resources, device)
            dispatch = ActorPool(
                cluster,
                share,
                spawner(share, self.store, self.make_sampler),
                checkpoint,
                self.progress,
                self.view,
                self.job.resources,
            )
            # A worker is a second or two away; what decides the samples is asked of it, or meanwhile of another.
            found_there = dispatch.prepare()
            torch = cluster.torch_version(self.job.resources.startup_timeout, found_there)
            identity = resolve(self.job, checkpoint, there, device=device, torch=torch)
            refuse_another(identity, there, self.store.uri)
            if found is None:
                found = Found(self.job.n_samples, *select([], self.job.n_samples, identity.batch_size), None)
            self.choose(identity, found)
            self.view.say(f"{cluster.words}; device {device}; {len(found.missing)} shards to sample")
            self.enter("starting")
            dispatch.start(identity, len(found.missing))
            self.store.claim(identity, overwrite=self.job.output.overwrite)
            self.begin(found)
            self.enter("sampling")
            try:
                ledger = dispatch.run(found.missing, partial(self.keep, identity))
            except KeyboardInterrupt:
                dispatch.store_arrived()
                raise
            except ConnectionError as error:
                raise WorkerLost(f"the connection to {cluster.words} is lost: {error}") from error
            self.enter("writing")
        refuse_failed(ledger)
        records = sorted([*found.usable, *self.new_records], key=lambda record: record.first)
        return identity, found._replace(usable=records, missing=[])

    def keep(self, identity: Identity, receipt: ShardResult) -> None:
        """Stores what the worker could not store itself."""
        record = receipt.record
        if receipt.samples is not None:
            record = self.store.write_shard(receipt.shard, receipt.samples, identity.fingerprint)
        if record is not None:
            self.new_records.append(record)
            self.tell([record])

    def finish(self, identity: Identity, found: Found) -> Outcome:
        """Makes the files of the shards."""
        self.begin(found)
        self.enter("writing")
        now = datetime.now().astimezone()
        finished = finish(self.store, identity, found.n_samples, found.usable, self.job.output.formats, now)
        self.enter("complete")
        return Outcome(*finished, self.store.uri, sum(record.size for record in self.new_records))

    def with_note(self, error: Error) -> Error:
        """The error, with a note of what is kept if anything was begun."""
        if self.progress.total:
            error.add_note(
                f"{self.progress.done} of {self.progress.total} samples are kept in {self.store.uri}; "
                "run the same command again to resume"
            )
        return error

    def choose(self, identity: Identity, found: Found) -> None:
        """Says what was chosen."""
        shards = shard_count(found.n_samples, identity.batch_size)
        self.progress.plan = Plan(device=identity.device, batchSize=identity.batch_size, shards=shards)

    def begin(self, found: Found) -> None:
        done = sum(record.size for record in found.usable)
        self.progress.begin(found.n_samples, done, len(found.missing))
        self.tell(found.usable)

    def tell(self, records: Iterable[ShardRecord]) -> None:
        if self.on_stored is not None:
            self.on_stored(self.store, records)

    def enter(self, phase: Phase) -> None:
        self.progress.phase = phase
        self.view.show(self.progress)


def refuse_failed(ledger: ShardQueue) -> None:
    """Raises an error that names what could not be sampled and why, if there is any such."""
    if not ledger.failed:
        return
    cause = next(iter(ledger.failed.values()))
    kinds = {type(each) for each in ledger.failed.values()}
    kind = kinds.pop() if len(kinds) == 1 and issubclass(type(cause), (OutOfMemory, WorkerLost)) else Incomplete
    which = f"samples {ranges(ledger.failed)} could not be sampled"
    if ledger.hopeless:
        which += ", nor could any other, so the run ends"
    raise kind(f"{which}: {cause.message}", hint=cause.hint)
