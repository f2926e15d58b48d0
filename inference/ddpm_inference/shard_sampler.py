"""From the weights to the samples of a shard, on one device, in one process. Knows no Ray and no storage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.errors import Incomplete, OutOfMemory, ResourcesUnavailable
from ddpm_inference.job import Identity, Shard
from ddpm_inference.models import build
from ddpm_inference.models.predictor import predictor
from ddpm_inference.sampling.noise import NoiseSource
from ddpm_inference.sampling.samplers import sample
from ddpm_inference.sampling.schedule import schedule, spaced
from ddpm_inference.store.shard_file import Samples


class ShardSampler:
    """Samples shards with one network, built once.

    Changes torch's settings of the whole process: threads, and arithmetic that gives the same bits every time.

    Args:
        checkpoint: the weights.
        identity: what decides the pixels.
        threads: CPU threads to use, at least 1.

    Raises:
        ResourcesUnavailable: if the device is not there, or another torch is installed than `identity` says.
        OutOfMemory: if the network does not fit.
    """

    def __init__(self, checkpoint: Checkpoint, identity: Identity, threads: int) -> None:
        _refuse_other_torch(identity)
        _make_repeatable(threads)
        self._identity = identity
        self._schedule = schedule(identity.sampler.schedule, identity.sampler.timesteps)
        network = build(identity.model)
        network.load_state_dict(checkpoint.state_dict())
        with _memory_named(identity):
            self._eps_model = predictor(
                network,
                identity.model,
                spaced(identity.sampler.timesteps, identity.sampler.steps),
                precision=identity.precision,
                execution=identity.execution,
                device=identity.device,
            )

    def sample(self, shard: Shard, callback: Callable[[int, int], None]) -> Samples:
        """The samples of a shard, float32 (shard.size, C, H, W) in [0, 1].

        A full batch is computed however short the shard is, and what lies beyond it is thrown away: the bits of
        a sample then depend neither on N nor on what shares its batch.

        Args:
            callback: called as (steps done, steps) after each step.

        Raises:
            OutOfMemory: if the batch does not fit.
            Incomplete: if the samples are not finite numbers.
        """
        identity = self._identity
        indices = torch.arange(shard.first, shard.first + identity.batch_size)
        with torch.inference_mode(), _memory_named(identity):
            noise = NoiseSource(identity.seed, indices, identity.model.image_shape, identity.device)
            x0 = sample(
                self._eps_model,
                noise.initial(),
                self._schedule,
                identity.sampler,
                noise=noise,
                callback=callback,
            )
            samples: Samples = x0[: shard.size].add(1.0).mul_(0.5).cpu().numpy()
        if not (samples.min() >= 0 and samples.max() <= 1):
            raise Incomplete(
                f"samples {shard.first} to {shard.last} came out as NaN",
                hint="the network overflows: try --precision fp32, or another checkpoint",
            )
        return samples


def _refuse_other_torch(identity: Identity) -> None:
    if torch.__version__ != identity.torch:
        raise ResourcesUnavailable(
            f"a worker has torch {torch.__version__}, but this run is one of torch {identity.torch}",
            hint="install the same torch on every node: other versions make other bits",
        )
    if identity.device == "cuda" and not torch.cuda.is_available():
        raise ResourcesUnavailable(
            f"Ray gave a worker its share of a GPU, but torch {torch.__version__} sees none there",
            hint="install a torch built for CUDA and the driver it needs on that node, or sample on device cpu",
        )


def _make_repeatable(threads: int) -> None:
    """Numbers that are the same every time: PyTorch documentation, notes on reproducibility."""
    torch.set_num_threads(threads)
    # cuBLAS reads it when its first handle is made.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def _memory_named(identity: Identity) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _too_large(identity, error) from error
    except RuntimeError as error:
        # torch has no class of its own for this on a CPU.
        if "can't allocate memory" not in str(error):
            raise
        raise _too_large(identity, error) from error


def _too_large(identity: Identity, error: Exception) -> OutOfMemory:
    said = str(error).strip().splitlines()
    return OutOfMemory(
        f"a batch of {identity.batch_size} does not fit into the memory of a worker on {identity.device}"
        + (f": {said[0]}" if said else ""),
        hint="give a smaller --batch_size (it makes other samples, so choose another output place), "
        "or put fewer workers on a device (a larger --num_gpus_per_task)",
    )
