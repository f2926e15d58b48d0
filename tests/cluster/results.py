"""What a sampling has made, read where it is, and what the same makes on this machine."""

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

READ_WITHIN = 90.0
SAMPLED_WITHIN = 300.0
DIGESTS = """
import fsspec, hashlib, sys
for uri in sys.argv[1:]:
    with fsspec.open(uri) as file:
        print(hashlib.sha256(file.read()).hexdigest())
"""
MAKE_BUCKET = "import s3fs, sys; s3fs.S3FileSystem().mkdir(sys.argv[1])"


def local_samples(number: int, folder: Path, *sampler: str) -> str:
    """sha256 of samples.npy of the shipped checkpoint, from a Ray of this machine's own.

    They are drawn once for all tests of a run: few are the first of many, and a run in the same folder draws only
    those that are missing.

    Args:
        folder: the test's own, beside which they are kept.
        sampler: flags; those of `SMALL` if there are none.
    """
    how = sampler or ("--sampler", "dpmpp", "--steps", "5")
    # Each of pytest-xdist's processes has a folder of its own in between.
    of_the_run = folder.parents[1 if "PYTEST_XDIST_WORKER" in os.environ else 0]
    out = of_the_run / "".join(("local", *how))
    with FileLock(f"{out}.lock"):
        if _number_in(out) < number:
            command = [str(Path(sys.executable).with_name("ddpm-sample")), "--ray_address", "None", "--quiet"]
            flags = ["--model_path", "builtin://mnist", "--n_samples", str(number)]
            subprocess.run([*command, *flags, *how, "--out_dir", str(out)], check=True, timeout=SAMPLED_WITHIN)
        samples = np.load(out / "samples.npy")[:number]
    assert len(samples) == number
    file = io.BytesIO()
    np.save(file, samples)
    return hashlib.sha256(file.getvalue()).hexdigest()


def _number_in(out: Path) -> int:
    return len(np.load(out / "samples.npy", mmap_mode="r")) if (out / "samples.npy").exists() else 0


def run_python(namespace: Namespace, image: str, code: str, *arguments: str, **mounts: str) -> list[str]:
    """What a reader pod prints; a claim would be at /out."""
    name = f"reader-{secrets.token_hex(3)}"
    said = namespace.run_pod(pod(name, image, ["python", "-c", code, *arguments], **mounts), READ_WITHIN)
    namespace.cluster.core.delete_namespaced_pod(name, namespace.name)
    return said.split()
