"""``.pt`` state dicts, made into safetensors bytes without ever running what they hold.

Three walls. The zip is looked at first: stored entries only, no more than the file is long, checksums right. Then
its pickle is read as a list of opcodes, of which only those of a flat dict of plain tensors are let through. Only
then does ``torch.load(weights_only=True)`` see it, in a process of its own: what kills the reader does not kill
the run, and the caller never holds torch in memory.
"""

from __future__ import annotations

import json
import os
import pickletools
import struct
import subprocess
import sys
import zipfile
from io import BytesIO

from ddpm_inference.errors import ModelRejected

ENTRY_LIMIT = 10_000
PICKLE_LIMIT = 1 << 20
READ_SECONDS = 300
REFUSED = 65
ALONE = "save model.state_dict() alone, with a current torch.save"
CENTRAL_ENTRY = b"PK\x01\x02"

TENSOR_CALLS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
)
STORAGES = frozenset(
    f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long")
)  # one for every dtype that decode() knows
OPCODES = (
    {"PROTO", "STOP", "MARK", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
    | {"GLOBAL", "REDUCE", "BUILD", "BINPERSID"}
    | {"EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "NEWTRUE", "NEWFALSE", "NONE"}
)


def to_safetensors(data: bytes) -> bytes:
    """The tensors of a ``.pt`` state dict as safetensors bytes without metadata; float32, counters int64.

    Raises:
        ModelRejected: if it is damaged, carries code, unpacks to more than it is, or is no flat dict of tensors.
    """
    check_pickle(read_pickle(data))
    # -P: a torch.py in the user's working folder must not be taken for torch.
    try:
        reader = subprocess.run(
            [sys.executable, "-P", "-m", "ddpm_inference.checkpoint.torch_reader"],
            input=data,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=READ_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelRejected(f"torch could not read it within {READ_SECONDS} s") from error
    if reader.returncode == REFUSED:
        message, hint = json.loads(reader.stdout)
        raise ModelRejected(message, hint=hint)
    if reader.returncode:
        said = reader.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
        raise ModelRejected(f"its reader ended with code {reader.returncode}: {said[-1]}")
    return reader.stdout


def read_pickle(data: bytes) -> bytes:
    """The pickle inside a zip by torch.save, after the zip as a whole was found sound.

    Raises:
        ModelRejected: if it is not.
    """
    if data.count(CENTRAL_ENTRY) > ENTRY_LIMIT:
        raise ModelRejected(f"its zip directory lists more than {ENTRY_LIMIT:,} entries")
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entry = _checked(archive, len(data))
            damaged = archive.testzip()
            if damaged is not None:
                raise ModelRejected(f"its entry {damaged} does not match its checksum, so it is damaged")
            return archive.read(entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error) as error:
        raise ModelRejected(
            f"it is a .pt file that is cut short or damaged: {error}", hint="download or copy it again"
        ) from error


def _checked(archive: zipfile.ZipFile, length: int) -> zipfile.ZipInfo:
    entries = archive.infolist()
    packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1]
    unpacked = sum(entry.file_size for entry in entries)
    if packed:
        raise ModelRejected(
            f"its entry {packed[0].filename} is compressed or encrypted and would unpack to "
            f"{packed[0].file_size:,} bytes; torch.save stores plainly"
        )
    if unpacked > length:
        raise ModelRejected(f"its {length:,} bytes claim to unpack to {unpacked:,}")
    names = [entry.filename for entry in entries]
    roots = {name.partition("/")[0] for name in names}
    if len(set(names)) != len(names) or len(roots) != 1 or f"{min(roots)}/data.pkl" not in names:
        raise ModelRejected("it is a zip archive, but none that torch.save made")
    root = min(roots)
    if f"{root}/constants.pkl" in names:
        raise ModelRejected("it is a TorchScript program, not a state dict", hint=ALONE)
    pickle = archive.getinfo(f"{root}/data.pkl")
    if pickle.file_size > PICKLE_LIMIT:
        raise ModelRejected(f"its pickle has {pickle.file_size:,} bytes of at most {PICKLE_LIMIT:,}")
    return pickle


def check_pickle(pickle: bytes) -> None:
    """Lets a pickle through that can only make dicts of plain tensors; runs nothing.

    Raises:
        ModelRejected: naming what it would call, or that it is no such pickle.
    """
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name == "GLOBAL" and argument not in TENSOR_CALLS | STORAGES:
                raise ModelRejected(_forbidden(str(argument).replace(" ", ".")), hint=ALONE)
            if opcode.name not in OPCODES:
                raise ModelRejected(
                    f"its pickle holds more than a flat dict of tensors ({opcode.name}); it was not loaded",
                    hint=ALONE,
                )
    except (ValueError, UnicodeError, IndexError, struct.error) as error:
        raise ModelRejected(f"its pickle is damaged: {error}") from error


def _forbidden(called: str) -> str:
    if called.startswith("torch."):
        return f"it holds {called}, which is no plain tensor of numbers"
    return f"its pickle would call {called}, which is no part of a state dict and may be code; it was not loaded"
