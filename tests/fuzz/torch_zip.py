"""``.pt`` files: rejected with ModelRejected, or converted to the bytes of a safetensors file.

Covers all checks before torch and, for an input that passes them, torch itself, in this process. Most mutations change
the pickle and keep the zip archive valid.
"""

from __future__ import annotations

import random
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO

import atheris
import torch

from ddpm_inference.checkpoint.safetensors_file import decode
from ddpm_inference.checkpoint.torch_file import check_pickle, read_pickle
from ddpm_inference.checkpoint.torch_reader import read
from ddpm_inference.errors import ModelRejected


def seeds() -> Iterator[bytes]:
    for state in (
        {"a": torch.zeros(2, 3), "b": torch.tensor(7)},
        {"p": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))},
        {"nested": {"a": torch.zeros(1)}},
    ):
        file = BytesIO()
        torch.save(state, file)
        yield _zip(_unzip(file.getvalue()))


def mutate(data: bytes, max_length: int, seed: int) -> bytes:
    rng = random.Random(seed)
    try:
        entries = _unzip(data)
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        ValueError,
        EOFError,
        KeyError,
        OSError,
        zlib.error,
    ):
        entries = {}
    if not entries or rng.random() < 0.3:
        return atheris.Mutate(data, max_length)
    pickles = [name for name in entries if name.endswith("data.pkl")]
    name = rng.choice(pickles if pickles and rng.random() < 0.8 else list(entries))
    entries[name] = atheris.Mutate(entries[name], max(len(entries[name]) * 2, 64))
    changed = _zip(entries)
    return changed if len(changed) <= max_length else atheris.Mutate(data, max_length)


def fuzz_one(data: bytes) -> None:
    try:
        check_pickle(read_pickle(data))
        weights, metadata = decode(read(data))
    except ModelRejected:
        return
    assert metadata is None
    assert sum(value.nbytes for value in weights.values()) <= 4 * len(data)


def _unzip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(entries: dict[str, bytes]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()
