"""Converts ``.pt`` state dicts to safetensors bytes without executing any code in them.

A file passes three checks. First its zip: stored entries only, no larger in total than the file, correct checksums.
Then its pickle, as a list of opcodes: only those of a flat dict of plain tensors are allowed. Only then is it read by
``torch.load(weights_only=True)``, in a subprocess (`torch_reader`): a file that crashes the reader does not crash the
run, and the caller never imports torch.
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

MAX_ZIP_ENTRIES = 10_000
MAX_PICKLE_BYTES = 1 << 20
READER_TIMEOUT = 300
EXIT_REJECTED = 65
STATE_DICT_HINT = "save only model.state_dict(), with a current torch.save"
CENTRAL_DIRECTORY_SIGNATURE = b"PK\x01\x02"

ALLOWED_CALLS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
)
ALLOWED_STORAGES = frozenset(
    f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long")
)  # one for every dtype that decode() supports
ALLOWED_OPCODES = (
    {"PROTO", "STOP", "MARK", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
    | {"GLOBAL", "REDUCE", "BUILD", "BINPERSID"}
    | {"EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "NEWTRUE", "NEWFALSE", "NONE"}
)


def to_safetensors(data: bytes) -> bytes:
    """Returns the tensors of a ``.pt`` state dict as safetensors bytes without metadata; float32, counters int64.

    Raises:
        ModelRejected: if it is damaged, carries code, unpacks to more than its size, or is not a flat dict of tensors.
    """
    check_pickle(read_pickle(data))
    # -P: a torch.py in the user's working directory must not be imported as torch.
    try:
        reader = subprocess.run(
            [sys.executable, "-P", "-m", "ddpm_inference.checkpoint.torch_reader"],
            input=data,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=READER_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelRejected(f"torch could not read it within {READER_TIMEOUT} s") from error
    if reader.returncode == EXIT_REJECTED:
        message, hint = json.loads(reader.stdout)
        raise ModelRejected(message, hint=hint)
    if reader.returncode:
        output = reader.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        raise ModelRejected(f"its reader exited with code {reader.returncode}: {output[-1]}")
    return reader.stdout


def read_pickle(data: bytes) -> bytes:
    """Returns the pickle in a zip file of torch.save, after checking the whole zip.

    Raises:
        ModelRejected: if the zip is damaged, compressed, oversized, or not of torch.save.
    """
    if data.count(CENTRAL_DIRECTORY_SIGNATURE) > MAX_ZIP_ENTRIES:
        raise ModelRejected(f"its zip directory lists more than {MAX_ZIP_ENTRIES:,} entries")
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entry = _pickle_entry(archive, len(data))
            damaged = archive.testzip()
            if damaged is not None:
                raise ModelRejected(f"its entry {damaged} does not match its checksum, so it is damaged")
            return archive.read(entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error) as error:
        raise ModelRejected(
            f"it is a truncated or damaged .pt file: {error}", hint="download or copy it again"
        ) from error


def _pickle_entry(archive: zipfile.ZipFile, length: int) -> zipfile.ZipInfo:
    entries = archive.infolist()
    compressed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1]
    unpacked = sum(entry.file_size for entry in entries)
    if compressed:
        raise ModelRejected(
            f"its entry {compressed[0].filename} is compressed or encrypted and would unpack to "
            f"{compressed[0].file_size:,} bytes; torch.save does not compress"
        )
    if unpacked > length:
        raise ModelRejected(f"its {length:,} bytes claim to unpack to {unpacked:,}")
    names = [entry.filename for entry in entries]
    roots = {name.partition("/")[0] for name in names}
    if len(set(names)) != len(names) or len(roots) != 1 or f"{min(roots)}/data.pkl" not in names:
        raise ModelRejected("it is a zip archive, but not one from torch.save")
    root = min(roots)
    if f"{root}/constants.pkl" in names:
        raise ModelRejected("it is a TorchScript program, not a state dict", hint=STATE_DICT_HINT)
    pickle = archive.getinfo(f"{root}/data.pkl")
    if pickle.file_size > MAX_PICKLE_BYTES:
        raise ModelRejected(f"its pickle has {pickle.file_size:,} bytes of at most {MAX_PICKLE_BYTES:,}")
    return pickle


def check_pickle(pickle: bytes) -> None:
    """Checks, without executing it, that a pickle can only create dicts of plain tensors.

    Raises:
        ModelRejected: naming the forbidden call or opcode.
    """
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name == "GLOBAL" and argument not in ALLOWED_CALLS | ALLOWED_STORAGES:
                raise ModelRejected(_forbidden_call(str(argument).replace(" ", ".")), hint=STATE_DICT_HINT)
            if opcode.name not in ALLOWED_OPCODES:
                raise ModelRejected(
                    f"its pickle contains more than a flat dict of tensors ({opcode.name}); it was not loaded",
                    hint=STATE_DICT_HINT,
                )
    except (ValueError, UnicodeError, IndexError, struct.error) as error:
        raise ModelRejected(f"its pickle is damaged: {error}") from error


def _forbidden_call(called: str) -> str:
    if called.startswith("torch."):
        return f"it contains {called}, which is not a plain tensor of numbers"
    return f"its pickle would call {called}, which does not belong in a state dict and may be code; it was not loaded"
