"""What the chart's `helm test` runs: waits for the sampling that the chart has made, and checks what is stored.

`python -m ddpm_operator.helm_test NAMESPACE NAME [FOLDER]`, in a pod whose account may read that one sampling. FOLDER
is where its output is mounted; without it, there is only the waiting.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from kubernetes import config
from kubernetes.client import ApiClient, Configuration

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.client import Client, ClientError, Damaged
from ddpm_operator.client.conditions import has_ended, holds, status_message
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.manifest import NAME, Manifest, is_whole

_USAGE = 2


def ended(client: Client, name: str) -> DDPMSampling:
    """Waits until a sampling is complete or has failed, and says meanwhile what it does."""
    said = ""
    for sampling in client.watch(name):
        says = status_message(sampling)
        if says != said:
            print(f"{name}: {says}", flush=True)
        said = says
        if has_ended(sampling):
            return sampling
    raise AssertionError("a watch has no end of its own")


def check(sampling: DDPMSampling, folder: Path) -> str:
    """Whether a folder holds all that was asked for, by its manifest; returns what there is, in a sentence.

    Raises:
        Damaged: if it does not.
    """
    told = sampling.status.output.manifest_sha256 if sampling.status and sampling.status.output else None
    if told is None:
        raise Damaged("the status names no manifest", "look at the operator's log")
    try:
        text = (folder / NAME).read_bytes()
    except OSError as error:
        raise Damaged(f"there is no manifest: {error}", "look whether the claim is the sampling's") from error
    manifest = Manifest.read(text, told)
    asked = sampling.spec.samples
    if manifest.n_samples != asked:
        raise Damaged(f"the manifest tells of {manifest.n_samples} samples, not {asked}", "look at the driver's log")
    for file in manifest.wanted:
        if not is_whole(folder / file.path, file):
            raise Damaged(f"{file.path} is not as the manifest says", "look who else writes there")
    return f"{asked} samples in {len(manifest.wanted)} files, as the manifest {hashlib.sha256(text).hexdigest()} says"


def main(arguments: Sequence[str]) -> int:
    """0: all is well. 1: it is not. 2: bad usage."""
    match arguments:
        case [namespace, name, *folder] if len(folder) <= 1:
            return _run(namespace, name, Path(folder[0]) if folder else None)
        case _:
            print("usage: python -m ddpm_operator.helm_test NAMESPACE NAME [FOLDER]", file=sys.stderr)
            return _USAGE


def _run(namespace: str, name: str, folder: Path | None) -> int:
    try:
        sampling = ended(Client(_connection(namespace)), name)
        if holds(sampling, ConditionType.FAILED):
            hint = sampling.status.failure.hint if sampling.status and sampling.status.failure else ""
            print(f"error: {status_message(sampling)}\n  {hint}", file=sys.stderr)
            return 1
        if folder:
            print(check(sampling, folder))
    except ClientError as fault:
        print(f"error: {fault.message}\n  {fault.hint}", file=sys.stderr)
        return 1
    return 0


def _connection(namespace: str) -> Connection:
    configuration = Configuration()
    config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return Connection(ApiClient(configuration), namespace)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
