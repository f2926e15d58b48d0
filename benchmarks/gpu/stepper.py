"""A prototype of sampling with CUDA graphs: the whole step (network, noise, update) replayed from static memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from noise_kernel import FusedStep, ddpm_table
from torch import Tensor, nn

from ddpm_inference.models.folded import FoldedUnet
from ddpm_inference.models.unet import Unet
from ddpm_inference.sampling.noise import NoiseSource
from ddpm_inference.sampling.schedule import schedule, spaced

TIMESTEPS = 1000
WARM_UP_STEPS = 3
GraphNetwork = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x, counter (1,), timesteps (steps,)) -> eps; reads its timestep on the device."""


class GraphStepper:
    """Samples a batch with DDPM, on the linear schedule, one call a step. On CUDA each call replays one graph."""

    def __init__(
        self,
        network: GraphNetwork,
        shape: tuple[int, int, int],
        batch: int,
        dtype: torch.dtype,
        device: str,
        *,
        steps: int = TIMESTEPS,
    ) -> None:
        timesteps, table = ddpm_table(schedule("linear", TIMESTEPS), steps, "large")
        indices = torch.arange(batch)
        self._fused = FusedStep(0, indices, shape, timesteps, table, device)
        self._initial = NoiseSource(0, indices, shape, device).initial().contiguous(memory_format=torch.channels_last)
        self.x = self._initial.clone()
        self._network, self._dtype, self._nhwc = network, dtype, shape[0] > 1
        self._steps, self._done = steps, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        if device == "cuda":
            self._capture()
        self.reset()

    def reset(self) -> None:
        """Starts again from x_T."""
        self.x.copy_(self._initial)
        self._fused.counter.zero_()
        self._done = 0

    def __call__(self) -> None:
        """Performs the next step."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._step()
        self._done += 1

    def step_or_rewind(self) -> None:
        """Performs the next step, without an end: for timing. Rewinds the chain, but keeps x."""
        self()
        if self._done == self._steps - 1:
            self._fused.counter.zero_()
            self._done = 0

    def _step(self) -> None:
        eps = self._network(self.x.to(self._dtype), self._fused.counter, self._fused.steps)
        self._fused.update(self.x, eps.contiguous(memory_format=torch.channels_last), nhwc=self._nhwc)
        self._fused.counter.add_(1)

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._step()
            # The warm-up must not run past the tables of a short chain.
            self._fused.counter.zero_()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step()


def folded_network(
    network: Unet, dtype: torch.dtype, device: str, *, steps: int = TIMESTEPS, compile_with: str | None = None
) -> GraphNetwork:
    """Wraps a folded Unet so that it reads its row of biases on the device.

    Args:
        compile_with: a backend of torch.compile; None executes it eagerly.
    """
    folded = FoldedUnet(network, spaced(TIMESTEPS, steps)).to(device, dtype)
    rows = folded.rows()
    widths = [len(bias) for bias in rows[0]]
    table = torch.stack([torch.cat(row) for row in rows])

    def forward(x: Tensor, biases: Tensor) -> Tensor:
        eps: Tensor = folded(x.contiguous(memory_format=torch.channels_last), biases.squeeze(0).split(widths))
        return eps

    if compile_with is not None:
        forward = torch.compile(forward, fullgraph=True, dynamic=False, backend=compile_with)
    return lambda x, counter, timesteps: forward(x, table.index_select(0, counter))


def diffusers_network(network: nn.Module, batch: int) -> GraphNetwork:
    """Wraps a UNet2DModel so that it reads its timestep on the device."""

    def forward(x: Tensor, counter: Tensor, timesteps: Tensor) -> Tensor:
        eps: Tensor = network(x, timesteps.index_select(0, counter).expand(batch), return_dict=False)[0]
        return eps

    return forward
