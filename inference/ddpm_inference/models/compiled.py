"""A network through torch.compile. Only who compiles imports this: it brings the compiler with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from ddpm_inference.errors import InvalidSpec


def compiled(module: nn.Module) -> Callable[[Tensor, object], Tensor]:
    """The module, compiled at its first call.

    Returns:
        (x, time) -> eps, as the module. Raises InvalidSpec at the first call if this machine cannot compile.
    """
    # Freezing takes the weights for constants, so that they are laid out for the CPU's convolutions once.
    fast = torch.compile(module, fullgraph=True, dynamic=False, options={"freezing": True})

    def step(x: Tensor, time: object) -> Tensor:
        try:
            eps: Tensor = fast(x, time)
        except TorchDynamoException as error:
            raise InvalidSpec(
                f"the network cannot be compiled on this machine: {str(error).strip().splitlines()[0]}",
                hint="install a C++ compiler (g++) and Python's headers there, or leave --compile out",
            ) from error
        return eps

    return step
