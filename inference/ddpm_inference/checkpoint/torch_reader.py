"""The process that reads a ``.pt`` file: bytes on stdin, safetensors bytes on stdout, or why not. Run by
torch_file.py, after its checks."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pickle import UnpicklingError

import torch
from torch import Tensor

from ddpm_inference.checkpoint.safetensors_file import as_array, encode
from ddpm_inference.checkpoint.torch_file import ALONE, REFUSED
from ddpm_inference.errors import ModelRejected

# For a file that is damaged inside. Anything else ends this process, and the caller refuses the file as well.
TORCH_RAISES = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, EOFError)
DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64}


def read(data: bytes) -> bytes:
    """A ``.pt`` state dict as safetensors bytes; float32, counters int64.

    Raises:
        ModelRejected: if torch does not read it, or it is no flat dict of tensors.
    """
    try:
        state = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # torch's own words recommend weights_only=False; nobody shall read that here.
        raise ModelRejected("torch refuses it: it holds more than weights, or is damaged") from error
    except TORCH_RAISES as error:
        raise ModelRejected(f"torch cannot read it: {str(error).partition('. ')[0]}") from error
    if not isinstance(state, dict):
        raise ModelRejected(f"it holds a {type(state).__name__}, not a state dict")
    for key, value in state.items():
        _check_entry(key, value)
    # Tensors may share a storage or repeat it: without this a few bytes could be copied into gigabytes.
    if sum(value.nbytes for value in state.values()) > len(data):
        raise ModelRejected(f"its tensors claim more values than its {len(data):,} bytes hold")
    return encode({key: as_array(value) for key, value in state.items()}, None)


def _check_entry(key: object, value: object) -> None:
    if not isinstance(key, str) or not isinstance(value, Tensor):
        raise ModelRejected(
            f"it is no flat state dict: under {key if isinstance(key, str) else type(key).__name__} there is a "
            f"{type(value).__name__} instead of a tensor",
            hint=ALONE,
        )
    if value.dtype not in DTYPES or value.layout != torch.strided or value.device.type != "cpu":
        raise ModelRejected(f"tensor {key} is no plain tensor of numbers: {value.dtype}, {value.layout}")


def main() -> int:
    try:
        weights = read(sys.stdin.buffer.read())
    except ModelRejected as error:
        print(json.dumps([error.message, error.hint]))
        return REFUSED
    sys.stdout.buffer.write(weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
