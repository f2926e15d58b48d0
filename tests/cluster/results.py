"""Reads the output of a sampling, and draws the same samples on this machine for comparison."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np
from filelock import FileLock

from tests.cluster.kube import Namespace
from tests.cluster.manifests import pod

READ_TIMEOUT = 90.0
SAMPLING_TIMEOUT = 300.0
DIGESTS = """
import fsspec, hashlib, sys
for uri in sys.argv[1:]:
    with fsspec.open(uri) as file:
        print(hashlib.sha256(file.read()).hexdigest())
"""
MAKE_BUCKET = "import s3fs, sys; s3fs.S3FileSystem().mkdir(sys.argv[1])"


def local_samples(number: int, folder: Path, *sampler: str) -> str:
    """Returns the SHA-256 of samples.npy of the shipped checkpoint, drawn by a local Ray.

    Tests share the samples: a smaller number is a prefix of a larger one, and a run in the same folder draws only
    the missing ones.

    Args:
        folder: the test's tmp_path, beside which they are kept.
        sampler: flags; by default those of `SMALL`.
    """
    flags = sampler or ("--sampler", "dpmpp", "--steps", "5")
    # Each process of pytest-xdist adds a folder level.
    session_folder = folder.parents[1 if "PYTEST_XDIST_WORKER" in os.environ else 0]
    out = session_folder / "".join(("local", *flags))
    with FileLock(f"{out}.lock"):
        if _samples_in(out) < number:
            command = [str(Path(sys.executable).with_name("ddpm-sample")), "--ray_address", "None", "--quiet"]
            model = ["--model_path", "builtin://mnist", "--n_samples", str(number)]
            subprocess.run([*command, *model, *flags, "--out_dir", str(out)], check=True, timeout=SAMPLING_TIMEOUT)
        samples = np.load(out / "samples.npy")[:number]
    assert len(samples) == number
    file = io.BytesIO()
    np.save(file, samples)
    return hashlib.sha256(file.getvalue()).hexdigest()


def _samples_in(out: Path) -> int:
    return len(np.load(out / "samples.npy", mmap_mode="r")) if (out / "samples.npy").exists() else 0


def run_python(namespace: Namespace, image: str, code: str, *arguments: str, **mounts: str) -> list[str]:
    """Runs Python code in a pod and returns the words that it prints; a claim is mounted at /out."""
    name = f"reader-{secrets.token_hex(3)}"
    output = namespace.run_pod(pod(name, image, ["python", "-c", code, *arguments], **mounts), READ_TIMEOUT)
    namespace.cluster.core.delete_namespaced_pod(name, namespace.name)
    return output.split()
