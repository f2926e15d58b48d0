"""Subprocess that reads a ``.pt`` file, started by `torch_file` after its checks.

Reads the file on stdin; writes safetensors bytes, or the error as JSON, to stdout.
"""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pickle import UnpicklingError

import torch
from torch import Tensor

from ddpm_inference.checkpoint.safetensors_file import as_array, encode
from ddpm_inference.checkpoint.torch_file import EXIT_REJECTED, STATE_DICT_HINT
from ddpm_inference.errors import ModelRejected

# Errors of a damaged file. Any other error ends this process, and the caller rejects the file as well.
LOAD_ERRORS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, EOFError)
DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64}


def read(data: bytes) -> bytes:
    """Returns a ``.pt`` state dict as safetensors bytes; float32, counters int64.

    Raises:
        ModelRejected: if torch cannot load it, or it is not a flat dict of tensors.
    """
    try:
        state = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # torch's own message recommends weights_only=False, so it is not passed on.
        raise ModelRejected("torch refuses it: it contains more than weights, or is damaged") from error
    except LOAD_ERRORS as error:
        raise ModelRejected(f"torch cannot read it: {str(error).partition('. ')[0]}") from error
    if not isinstance(state, dict):
        raise ModelRejected(f"it contains a {type(state).__name__}, not a state dict")
    for key, value in state.items():
        _check_entry(key, value)
    # Tensors may share or repeat a storage: without this check a few bytes could be copied into gigabytes.
    if sum(value.nbytes for value in state.values()) > len(data):
        raise ModelRejected(f"its tensors claim more values than its {len(data):,} bytes can hold")
    return encode({key: as_array(value) for key, value in state.items()}, None)


def _check_entry(key: object, value: object) -> None:
    if not isinstance(key, str) or not isinstance(value, Tensor):
        raise ModelRejected(
            f"it is not a flat state dict: {key if isinstance(key, str) else type(key).__name__} is a "
            f"{type(value).__name__} instead of a tensor",
            hint=STATE_DICT_HINT,
        )
    if value.dtype not in DTYPES or value.layout != torch.strided or value.device.type != "cpu":
        raise ModelRejected(f"tensor {key} is not a plain tensor of numbers: {value.dtype}, {value.layout}")


def main() -> int:
    try:
        weights = read(sys.stdin.buffer.read())
    except ModelRejected as error:
        print(json.dumps([error.message, error.hint]))
        return EXIT_REJECTED
    sys.stdout.buffer.write(weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
