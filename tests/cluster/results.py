"""What a sampling has made, read where it is, and what the same makes on this machine."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.cluster.kube import Namespace
from tests.cluster.manifests import pod

READ_WITHIN = 90.0
DIGESTS = """
import fsspec, hashlib, sys
for uri in sys.argv[1:]:
    with fsspec.open(uri) as file:
        print(hashlib.sha256(file.read()).hexdigest())
"""
MAKE_BUCKET = "import s3fs, sys; s3fs.S3FileSystem().mkdir(sys.argv[1])"


def local_samples(number: int, folder: Path, *sampler: str) -> str:
    """sha256 of samples.npy of the shipped checkpoint, from a Ray of this machine's own.

    Args:
        sampler: flags; those of `SMALL` if there are none.
    """
    command = [str(Path(sys.executable).with_name("ddpm-sample")), "--ray_address", "None", "--quiet"]
    flags = ["--model_path", "builtin://mnist", "--n_samples", str(number)]
    how = sampler or ("--sampler", "dpmpp", "--steps", "5")
    subprocess.run([*command, *flags, *how, "--out_dir", str(folder)], check=True)
    assert len(np.load(folder / "samples.npy")) == number
    return hashlib.sha256((folder / "samples.npy").read_bytes()).hexdigest()


def run_python(namespace: Namespace, image: str, code: str, *arguments: str, **mounts: str) -> list[str]:
    """What a reader pod prints; a claim would be at /out."""
    name = f"reader-{secrets.token_hex(3)}"
    said = namespace.run_pod(pod(name, image, ["python", "-c", code, *arguments], **mounts), READ_WITHIN)
    namespace.cluster.core.delete_namespaced_pod(name, namespace.name)
    return said.split()
