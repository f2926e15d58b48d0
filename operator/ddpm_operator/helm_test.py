"""The chart's `helm test`: waits for the sampling that the chart creates, and checks its stored files.

Usage: `python -m ddpm_operator.helm_test NAMESPACE NAME [FOLDER]`, in a pod whose ServiceAccount may read that
sampling. FOLDER is the mounted output; without it, the files are not checked.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from kubernetes import config
from kubernetes.client import ApiClient, Configuration

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.api.conditions import holds_for_current_spec
from ddpm_operator.client import Client, ClientError, Damaged
from ddpm_operator.client.conditions import has_ended, status_message
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.output_manifest import MANIFEST_NAME, OutputManifest, is_whole
from ddpm_operator.text import count

_USAGE_ERROR = 2


def wait_until_ended(client: Client, name: str) -> DDPMSampling:
    """Waits until a sampling is complete or has failed, and prints its status message whenever that changes."""
    printed = ""
    for sampling in client.watch(name):
        message = status_message(sampling)
        if message != printed:
            print(f"{name}: {message}", flush=True)
        printed = message
        if has_ended(sampling):
            return sampling
    raise AssertionError("a watch never ends by itself")


def check_output(sampling: DDPMSampling, folder: Path) -> str:
    """Checks that a folder holds all requested samples, as its manifest lists them.

    Returns:
        a summary of the output.

    Raises:
        Damaged: if the manifest or a file is missing or wrong.
    """
    expected_sha256 = sampling.status.output.manifest_sha256 if sampling.status and sampling.status.output else None
    if expected_sha256 is None:
        raise Damaged("the status names no manifest", "look at the operator's log")
    try:
        text = (folder / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise Damaged(f"there is no manifest: {error}", "check that the mounted claim is the sampling's") from error
    manifest = OutputManifest.parse(text, expected_sha256)
    requested = sampling.spec.samples
    if manifest.n_samples != requested:
        stored = count(manifest.n_samples, "sample")
        raise Damaged(f"the manifest has {stored}, not {requested}", "look at the driver's log")
    for file in manifest.wanted:
        if not is_whole(folder / file.path, file):
            raise Damaged(f"{file.path} differs from the manifest", "check whether another process writes there")
    stored = f"{count(requested, 'sample')} in {count(len(manifest.wanted), 'file')}"
    return f"{stored} match the manifest {hashlib.sha256(text).hexdigest()}"


def main(arguments: Sequence[str]) -> int:
    """Runs the test; returns 0 if it passes, 1 if it fails and 2 for wrong usage."""
    match arguments:
        case [namespace, name, *folder] if len(folder) <= 1:
            return _run(namespace, name, Path(folder[0]) if folder else None)
        case _:
            print("usage: python -m ddpm_operator.helm_test NAMESPACE NAME [FOLDER]", file=sys.stderr)
            return _USAGE_ERROR


def _run(namespace: str, name: str, folder: Path | None) -> int:
    try:
        sampling = wait_until_ended(Client(_connection(namespace)), name)
        if holds_for_current_spec(sampling, ConditionType.FAILED):
            hint = sampling.status.failure.hint if sampling.status and sampling.status.failure else ""
            print(f"error: {status_message(sampling)}\n  {hint}", file=sys.stderr)
            return 1
        if folder:
            print(check_output(sampling, folder))
    except ClientError as error:
        print(f"error: {error.message}\n  {error.hint}", file=sys.stderr)
        return 1
    return 0


def _connection(namespace: str) -> Connection:
    configuration = Configuration()
    config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return Connection(ApiClient(configuration), namespace)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
