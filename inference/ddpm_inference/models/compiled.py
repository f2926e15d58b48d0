"""A network executed by torch.compile. Imported only when needed, because it imports the compiler."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from ddpm_inference.errors import InvalidSpec


def compiled(module: nn.Module) -> Callable[[Tensor, object], Tensor]:
    """Wraps a module so that its first call compiles it.

    Returns:
        (x, time) -> eps, like the module. Raises InvalidSpec at the first call if this machine cannot compile.
    """
    # Freezing makes the weights constants, which are laid out for the CPU's convolutions only once.
    fast = torch.compile(module, fullgraph=True, dynamic=False, options={"freezing": True})

    def step(x: Tensor, time: object) -> Tensor:
        try:
            eps: Tensor = fast(x, time)
        except TorchDynamoException as error:
            raise InvalidSpec(
                f"the network cannot be compiled on this machine: {str(error).strip().splitlines()[0]}",
                hint="install a C++ compiler (g++) and Python's headers there, or omit --compile",
            ) from error
        return eps

    return step
