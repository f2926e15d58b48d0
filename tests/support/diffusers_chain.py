"""The chain of a pipeline as diffusers itself computes it, with the same noise handed to it as to ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_inference.diffusion_spec import SCHEDULER_OF_SAMPLER
from ddpm_inference.job import SamplerSpec, UNet2DSpec
from ddpm_inference.models.families import family_of
from ddpm_inference.sampling.diffusers_schedule import schedule_of
from ddpm_inference.sampling.noise import NoiseSource
from ddpm_inference.sampling.samplers import sample, visited

SEED = 7


def network_of(spec: UNet2DSpec) -> nn.Module:
    """Builds the network with random weights."""
    torch.manual_seed(5)
    network = family_of(spec).build(spec).eval().requires_grad_(False)
    # Prediction of the size of a trained one: a larger one makes a chain of random weights chaotic.
    network.conv_out.weight.mul_(0.3)
    return network


def noise_of(spec: UNet2DSpec, samples: int) -> NoiseSource:
    return NoiseSource(SEED, torch.arange(samples), spec.image_shape)


def ours(network: nn.Module, spec: UNet2DSpec, sampler: SamplerSpec, samples: int = 2) -> Tensor:
    """Returns x_0 of our chain."""
    schedule, noise = schedule_of(sampler), noise_of(spec, samples)
    predict = family_of(spec).predictor(
        network, spec, visited(schedule, sampler), precision="fp32", execution="folded", device="cpu"
    )
    labels = labels_of(spec, samples)
    with torch.inference_mode():
        return sample(lambda x, t: predict(x, t, labels), noise.initial(), schedule, sampler, noise=noise)


def labels_of(spec: UNet2DSpec, samples: int) -> Tensor | None:
    return None if spec.num_classes is None else torch.arange(samples) % spec.num_classes


def theirs(
    network: nn.Module, spec: UNet2DSpec, config: dict[str, Any], sampler: SamplerSpec, samples: int = 2
) -> Tensor:
    """Returns x_0 of diffusers' network and of its scheduler class for `sampler.name`."""
    labels = labels_of(spec, samples)

    def model(x: Tensor, t: Tensor) -> Tensor:
        prediction: Tensor = network(x, t, labels).sample
        # Only DDPMScheduler splits off a learned variance.
        return prediction if sampler.name == "ddpm" else prediction[:, : spec.in_channels]

    return scheduler_chain(model, config, sampler, noise_of(spec, samples))


def scheduler_chain(
    model: Callable[[Tensor, Tensor], Tensor], config: dict[str, Any], sampler: SamplerSpec, noise: NoiseSource
) -> Tensor:
    """Returns x_0 of diffusers' scheduler class for `sampler.name`, made by ``from_config``, called as in pipelines."""
    import diffusers
    from diffusers.schedulers import scheduling_ddpm

    scheduler = getattr(diffusers, SCHEDULER_OF_SAMPLER[sampler.name]).from_config(config)
    scheduler.set_timesteps(sampler.steps)
    x = noise.initial() * scheduler.init_noise_sigma
    options: dict[str, Any] = {"eta": sampler.eta} if sampler.name == "ddim" else {}
    original = scheduling_ddpm.randn_tensor
    try:
        with torch.inference_mode():
            for t in scheduler.timesteps:
                prediction = model(scheduler.scale_model_input(x, t), t)
                if sampler.eta > 0:
                    options["variance_noise"] = noise(int(t))
                scheduling_ddpm.randn_tensor = lambda *_, t=t, **__: noise(int(t))
                x = scheduler.step(prediction, t, x, **options).prev_sample
    finally:
        scheduling_ddpm.randn_tensor = original
    return x
