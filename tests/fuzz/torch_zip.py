"""``.pt`` files: ModelRejected, or the bytes of a safetensors file.

Every wall before torch, and for what comes through torch itself, in this very process. Most changes are to the
pickle inside, in a zip that is whole.
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
        yield _packed(_unpacked(file.getvalue()))


def mutate(data: bytes, most: int, seed: int) -> bytes:
    dice = random.Random(seed)
    try:
        entries = _unpacked(data)
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
    if not entries or dice.random() < 0.3:
        return atheris.Mutate(data, most)
    pickles = [name for name in entries if name.endswith("data.pkl")]
    name = dice.choice(pickles if pickles and dice.random() < 0.8 else list(entries))
    entries[name] = atheris.Mutate(entries[name], max(len(entries[name]) * 2, 64))
    changed = _packed(entries)
    return changed if len(changed) <= most else atheris.Mutate(data, most)


def one(data: bytes) -> None:
    try:
        check_pickle(read_pickle(data))
        weights, metadata = decode(read(data))
    except ModelRejected:
        return
    assert metadata is None
    assert sum(value.nbytes for value in weights.values()) <= 4 * len(data)


def _unpacked(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _packed(entries: dict[str, bytes]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()
