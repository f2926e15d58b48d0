"""Runs one convolution with a limit on GPU memory; prints its hash and the number of allocations that failed.

If cuDNN's workspace does not fit, PyTorch tries the next engine, which may compute other bits. `check.py` starts this
script once for each limit, because a limit holds for a whole process.
"""

from __future__ import annotations

import hashlib
import sys

import torch

MIB = 2**20


def main(extra_mib: float) -> None:
    """Limits memory to the input and the output plus `extra_mib`; 0 sets no limit."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    generator = torch.Generator("cuda").manual_seed(0)
    x, weight = (
        torch.randn(shape, device="cuda", generator=generator).contiguous(memory_format=torch.channels_last)
        for shape in ((64, 128, 64, 64), (128, 128, 3, 3))
    )
    if extra_mib:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((2 * x.nbytes + extra_mib * MIB) / total)
    try:
        y = torch.nn.functional.conv2d(x, weight, padding=1)
        outcome = hashlib.sha256(y.cpu().numpy().tobytes()).hexdigest()[:16]
    except RuntimeError as error:
        outcome = f"{type(error).__name__}: {str(error)[:80]}"
    print(outcome, torch.cuda.memory_stats()["num_ooms"])


if __name__ == "__main__":
    main(float(sys.argv[1]))
