"""``ddpm-sample verify``: hashes everything that is stored at an output URI, and repairs it on request.

`cli` calls `verify` and, with ``--repair``, `repair`. Verifying needs neither Ray nor the checkpoint, and writes
nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ddpm_inference.checkpoint import fetch
from ddpm_inference.checkpoint.location import BUILTIN_NAMES
from ddpm_inference.errors import InvalidSpec, OutputConflict
from ddpm_inference.job import (
    FILE_OF_FORMAT,
    Format,
    Identity,
    Job,
    ModelRequest,
    OutputRequest,
    ResourceRequest,
    request_of,
)
from ddpm_inference.outputs import write_outputs
from ddpm_inference.progress import Progress, View
from ddpm_inference.store import DamagedFile, Manifest, Store
from ddpm_inference.store.lease import hold

if TYPE_CHECKING:
    from ddpm_inference.ray_backend.worker import MakeSampler

MAX_PROBLEMS_SHOWN = 20


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        uri: the output URI.
        manifest: None if there is no valid one: the run is unfinished, or its manifest is damaged.
        manifest_sha256: of the stored file.
        samples: N of the manifest; without one, the number of samples in intact shards.
        problems: empty if everything is whole.
    """

    uri: str
    manifest: Manifest | None
    manifest_sha256: str | None
    samples: int
    problems: Sequence[DamagedFile]

    @property
    def is_whole(self) -> bool:
        return not self.problems

    def summary(self) -> dict[str, object]:
        """Returns the fields of the JSON event ``verified``."""
        files = len(self.manifest.shards) + len(self.manifest.files) if self.manifest else 0
        return {
            "output": self.uri,
            "whole": self.is_whole,
            "samples": self.samples,
            "files": files,
            "manifestSha256": self.manifest_sha256,
            "problems": [{"file": problem.name, "problem": problem.problem} for problem in self.problems],
        }

    def lines(self) -> list[str]:
        """Returns the report as text, one problem a line."""
        shown = [f"{self.uri}/{file.name} {file.problem}" for file in self.problems[:MAX_PROBLEMS_SHOWN]]
        if len(self.problems) > len(shown):
            shown.append(f"{len(self.problems) - len(shown)} more files are missing or damaged")
        if self.manifest is None:
            return [*shown, f"{self.uri}: unfinished, {self.samples} samples are stored"]
        count = len(self.manifest.shards) + len(self.manifest.files)
        verdict = "is not whole" if self.problems else f"all {count} files have the sha256 of the manifest"
        return [*shown, f"{self.uri}: {self.samples} samples, {verdict}"]


def verify(uri: str) -> Report:
    """Hashes every file of the run that is stored at a path, ``file://`` URI or ``s3://bucket/prefix``.

    Raises:
        InvalidSpec: if the URI is not supported, or no run is stored there.
        StorageFailed: if a file cannot be read.
    """
    store = Store.open(uri)
    manifest = store.read_manifest()
    try:
        identity, identity_problem = store.read_identity(), "is missing"
    except OutputConflict as error:
        identity, identity_problem = None, f"is damaged: {error.message}"
    if manifest is None:
        return _verify_unfinished(store, identity, identity_problem)
    problems = store.inspect(manifest, hash_all=True).damaged
    if identity is None:
        problems.append(DamagedFile("job.json", identity_problem, None))
    elif identity != manifest.identity:
        differences = "; ".join(identity.differences(manifest.identity))
        problems.append(DamagedFile("job.json", f"is damaged: it is not that of the manifest: {differences}", None))
    return Report(store.uri, manifest, store.manifest_sha256(), manifest.n_samples, problems)


def repair(
    report: Report,
    model_uri: str | None,
    *,
    resources: ResourceRequest,
    ray_address: str,
    view: View,
    make_sampler: MakeSampler | None = None,
) -> Report:
    """Draws damaged shards and writes damaged files again, under the same identity; returns the report afterwards.

    Args:
        model_uri: the checkpoint, which only damaged shards need. If None, a shipped one is used if it is the same.
        make_sampler: replaces the sampler of torch in tests.

    Raises:
        InvalidSpec: if there is no manifest, or the checkpoint is needed and not known.
        DdpmError: as from `driver.run`.
    """
    if report.is_whole:
        return report
    manifest = report.manifest
    if manifest is None:
        raise InvalidSpec(
            f"{report.uri} is unfinished, so it is not known how many samples it should have",
            hint="run the command that began it again: it resumes, and draws damaged shards again",
        )
    if not any(problem.shard for problem in report.problems):
        _write_files_again(report.uri, manifest, view)
        return verify(report.uri)

    from ddpm_inference.driver import run

    job = job_of(manifest, report.uri, model_uri or shipped_model(manifest.identity), resources)
    run(job, ray_address=ray_address, view=view, progress=Progress(), make_sampler=make_sampler, hash_all=True)
    return verify(report.uri)


def job_of(manifest: Manifest, output_uri: str, model_uri: str, resources: ResourceRequest) -> Job:
    """Returns the job whose samples a manifest accounts for: the same identity, N and output files."""
    identity = manifest.identity
    architecture = identity.model.model_dump(include=set(ModelRequest.model_fields))
    _, height, width = identity.model.image_shape
    if height == width:
        # A configuration may leave it open.
        architecture["img_size"] = height
    return Job(
        model=ModelRequest(uri=model_uri, sha256=identity.model_sha256, **architecture),
        n_samples=manifest.n_samples,
        seed=identity.seed,
        sampler=request_of(identity.sampler),
        precision=identity.precision,
        compile=identity.execution == "compiled",
        batch_size=identity.batch_size,
        device=identity.device,
        output=OutputRequest(uri=output_uri, formats=_formats(manifest)),
        resources=resources,
    )


def shipped_model(identity: Identity) -> str:
    """Returns the URI of the shipped checkpoint that an identity was drawn with.

    Raises:
        InvalidSpec: if it was another checkpoint.
    """
    for name in BUILTIN_NAMES:
        uri = f"builtin://{name}"
        if hashlib.sha256(fetch(uri)).hexdigest() == identity.model_sha256:
            return uri
    raise InvalidSpec(
        f"drawing damaged shards again needs the checkpoint with the sha256 {identity.model_sha256}",
        hint="give it with --model_path",
    )


def _verify_unfinished(store: Store, identity: Identity | None, problem: str) -> Report:
    """Checks the shards of a run without a manifest by their own checksums."""
    if identity is None:
        if not store.shards() and problem == "is missing":
            raise InvalidSpec(f"no run is stored at {store.uri}", hint="check the path or URI")
        return Report(store.uri, None, None, 0, [DamagedFile("job.json", problem, None)])
    scan = store.scan(identity)
    intact = {record.shard for record in scan.records}
    problems = [
        DamagedFile(f"shards/{shard.name}", "is damaged: it is not an intact shard of this job", shard)
        for shard in sorted(store.shards() - intact, key=lambda shard: shard.name)
    ]
    samples = sum(record.size for record in scan.records)
    return Report(
        store.uri, None, None, samples, [*problems, DamagedFile("manifest.json", "is missing or damaged", None)]
    )


def _write_files_again(uri: str, manifest: Manifest, view: View) -> None:
    """Writes job.json and the output files again, whose content follows from manifest and shards."""
    store = Store.open(uri)
    with hold(store.backend, tell=view.show_message) as lease:
        if store.read_manifest() != manifest:
            raise OutputConflict(f"{uri} was changed by another run meanwhile", hint="run the same command again")
        store.restore_identity(manifest.identity)
        now, formats = datetime.now().astimezone(), _formats(manifest)
        write_outputs(store, manifest.identity, manifest.n_samples, manifest.shards, formats, now, lease.verify)


def _formats(manifest: Manifest) -> tuple[Format, ...]:
    return tuple(form for form, name in FILE_OF_FORMAT.items() if name in manifest.files)
