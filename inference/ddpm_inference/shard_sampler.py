"""Draws the samples of shards on one device, in one process. Used by the Ray worker; knows neither Ray nor storage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.errors import Incomplete, OutOfMemory, ResourcesUnavailable
from ddpm_inference.hardware import find_hardware
from ddpm_inference.job import Identity, Shard
from ddpm_inference.models.families import family_of
from ddpm_inference.sampling.diffusers_schedule import schedule_of
from ddpm_inference.sampling.noise import NoiseSource
from ddpm_inference.sampling.samplers import sample, visited
from ddpm_inference.store.shard_file import Samples


class ShardSampler:
    """Draws shards with one network, built once.

    Changes torch's settings for the whole process: its threads, and deterministic arithmetic.

    Args:
        checkpoint: the weights.
        identity: of the job; decides the bits of every sample.
        threads: CPU threads to use, at least 1, where `identity` does not say: on cuda, and in version 1.
        allow_mixed_hardware: whether this machine may differ from the hardware in `identity`.

    Raises:
        ResourcesUnavailable: if the device is missing, the installed torch is not the version in `identity`, or this
            machine not its hardware.
        OutOfMemory: if the network does not fit.
    """

    def __init__(
        self, checkpoint: Checkpoint, identity: Identity, threads: int, *, allow_mixed_hardware: bool = False
    ) -> None:
        _check_torch(identity)
        if not allow_mixed_hardware:
            _check_hardware(identity)
        # The bits of a sum may depend on how many threads share it, so the identity decides.
        make_deterministic(identity.threads if identity.version > 1 and identity.device == "cpu" else threads)
        self._identity = identity
        self._schedule = schedule_of(identity.sampler)
        family = family_of(identity.model)
        network = family.build(identity.model)
        network.load_state_dict(checkpoint.state_dict())
        with _out_of_memory_errors(identity):
            self._predict = family.predictor(
                network,
                identity.model,
                visited(self._schedule, identity.sampler),
                precision=identity.precision,
                execution=identity.execution,
                device=identity.device,
            )

    def sample(self, shard: Shard, callback: Callable[[int, int], None]) -> Samples:
        """Draws the samples of a shard, float32 (shard.size, C, H, W) in [0, 1].

        A full batch is computed even for a short shard, and the surplus discarded, so the bits of a sample depend
        neither on N nor on the rest of its batch.

        Args:
            callback: called as (steps done, steps) after each step.

        Raises:
            OutOfMemory: if the batch does not fit.
            Incomplete: if the samples are not finite numbers.
        """
        identity = self._identity
        indices = torch.arange(shard.first, shard.first + identity.batch_size)
        with torch.inference_mode(), _out_of_memory_errors(identity):
            noise = NoiseSource(identity.seed, indices, identity.model.image_shape, identity.device)
            classes = identity.model.num_classes
            labels = None if classes is None else (indices % classes).to(identity.device)
            x0 = sample(
                lambda x, t: self._predict(x, t, labels),
                noise.initial(),
                self._schedule,
                identity.sampler,
                noise=noise,
                callback=callback,
            )
            # Without a clamp of x_0 a pixel may be outside [-1, 1]; NaN stays NaN.
            samples: Samples = x0[: shard.size].add(1.0).mul_(0.5).clamp_(0.0, 1.0).cpu().numpy()
        if not (samples.min() >= 0 and samples.max() <= 1):
            raise Incomplete(
                f"samples {shard.first} to {shard.last} are NaN",
                hint="the network overflows: "
                + ("use another checkpoint" if identity.precision == "fp32" else "try --precision fp32"),
            )
        return samples


def _check_torch(identity: Identity) -> None:
    if torch.__version__ != identity.torch:
        raise ResourcesUnavailable(
            f"a worker has torch {torch.__version__}, but this run uses torch {identity.torch}",
            hint="install the same torch version on every node: other versions compute other bits",
        )
    if identity.device == "cuda" and not torch.cuda.is_available():
        raise ResourcesUnavailable(
            f"Ray assigned a GPU to a worker, but torch {torch.__version__} does not see it",
            hint="install a CUDA build of torch and its driver on that node, or sample on device cpu",
        )


def _check_hardware(identity: Identity) -> None:
    if identity.hardware is None:
        return
    own = find_hardware(identity.device)
    if own != identity.hardware:
        raise ResourcesUnavailable(
            f"a worker has {own.description if own else 'unknown hardware'}, but this run uses "
            f"{identity.hardware.description}",
            hint="use nodes of one kind, or give --allow_mixed_hardware: other hardware computes other bits",
        )


def make_deterministic(threads: int) -> None:
    """Makes torch deterministic; see the notes on reproducibility in PyTorch's documentation."""
    torch.set_num_threads(threads)
    # cuBLAS reads it when it creates its first handle.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def _out_of_memory_errors(identity: Identity) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(identity, error) from error
    except RuntimeError as error:
        # On a CPU torch has no error class for this.
        if "can't allocate memory" not in str(error):
            raise
        raise _out_of_memory(identity, error) from error


def _out_of_memory(identity: Identity, error: Exception) -> OutOfMemory:
    detail = str(error).strip().splitlines()
    return OutOfMemory(
        f"a batch of {identity.batch_size} does not fit into the memory of a worker on {identity.device}"
        + (f": {detail[0]}" if detail else ""),
        hint="use a smaller --batch_size (it draws other samples, so choose another output URI), "
        "or run fewer workers on a device (a larger --num_gpus_per_task)",
    )
