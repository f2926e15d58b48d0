"""Every setting of a scheduler's configuration has the effect that it has in diffusers, given the same noise.

The network is a function of x and t, so that hundreds of steps take no time. `test_hub_configs` has real networks.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_inference.diffusion_spec import SAMPLER_OF_SCHEDULER, Solver, TrainedDiffusion
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import SamplerRequest, request_of, resolve_sampler
from ddpm_inference.sampling.diffusers_schedule import schedule_of
from ddpm_inference.sampling.noise import NoiseSource
from ddpm_inference.sampling.samplers import sample
from ddpm_inference.sampling.scheduler_config import read_scheduler
from tests.support.diffusers_chain import scheduler_chain

TOLERANCE = 2e-5
SHAPE = (3, 8, 6)
T = 60
ROOTS = [0.003 * (i + 1) ** 0.7 for i in range(T)]


def network(x: Tensor, t: float | Tensor) -> Tensor:
    """Predicts something that depends on every pixel of a sample and on t, and is of the size of noise."""
    turned = x.roll(1, dims=-1) * 0.3 + x.flip(1) * 0.2
    return torch.sin(turned * 1.7 + float(t) * 0.05) + 0.5 * x


def with_variance(x: Tensor, t: float | Tensor) -> Tensor:
    return torch.cat([network(x, t), torch.tanh(x.flip(2))], dim=1)


def chains(name: str, config: dict[str, Any], steps: int, fields: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Returns (ours, theirs)."""
    full = {"num_train_timesteps": T, **config}
    trained = read_scheduler({"_class_name": f"{name}Scheduler", **full}, None)
    learned = config.get("variance_type") == "learned_range"
    sampler = resolve_sampler(SamplerRequest(steps=steps, **fields), None, trained, learned_variance=learned)
    model = with_variance if learned else network
    schedule, noise = schedule_of(sampler), NoiseSource(3, torch.arange(2), SHAPE)
    ours = sample(model, noise.initial(), schedule, sampler, noise=noise)
    return ours, scheduler_chain(model, full, sampler, noise)


COMMON: list[dict[str, Any]] = [
    {},
    {"beta_start": 0.001, "beta_end": 0.05},
    {"beta_schedule": "scaled_linear"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"trained_betas": ROOTS},
    {"prediction_type": "v_prediction"},
    {"prediction_type": "sample"},
    {"timestep_spacing": "leading"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
]
THRESHOLDS: list[dict[str, Any]] = [
    {"thresholding": True},
    {"thresholding": True, "sample_max_value": 3.0, "dynamic_thresholding_ratio": 0.9},
]
CLIPS: list[dict[str, Any]] = [{"clip_sample": False}, {"clip_sample": True, "clip_sample_range": 2.0}]
ZERO_SNR: list[dict[str, Any]] = [
    {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    {"rescale_betas_zero_snr": True, "prediction_type": "sample", "timestep_spacing": "linspace"},
]
CONFIGS: dict[str, list[dict[str, Any]]] = {
    "DDPM": [
        *COMMON,
        *THRESHOLDS,
        *CLIPS,
        *ZERO_SNR,
        *({"variance_type": kind} for kind in ("fixed_small", "fixed_small_log", "fixed_large", "learned_range")),
        {"variance_type": "fixed_large", "timestep_spacing": "trailing"},
        {"variance_type": "learned_range", "timestep_spacing": "trailing", "clip_sample": False},
        {"beta_schedule": "sigmoid"},
        {"beta_schedule": "laplace"},
    ],
    "DDIM": [
        *COMMON,
        *THRESHOLDS,
        *CLIPS,
        *ZERO_SNR,
        {"set_alpha_to_one": False},
        {"set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False, "beta_schedule": "scaled_linear"},
    ],
    "DPMSolverMultistep": [
        *COMMON,
        *THRESHOLDS,
        ZERO_SNR[0],
        {"solver_type": "heun"},
        {"solver_order": 1},
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "euler_at_final": True},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -2.0},
        {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -2.0, "timestep_spacing": "trailing"},
    ],
    "HeunDiscrete": [*COMMON, *CLIPS],
    "UniPCMultistep": [
        *COMMON,
        *THRESHOLDS,
        ZERO_SNR[0],
        # With the final sigma zero diffusers' bh1 is NaN.
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"solver_order": 1},
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
        {"disable_corrector": [0, 1]},
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("steps", [20, 7])
@pytest.mark.parametrize(
    ("name", "config"), [(name, config) for name, configs in CONFIGS.items() for config in configs], ids=str
)
def test_a_setting_has_the_effect_that_it_has_in_diffusers(name: str, config: dict[str, Any], steps: int) -> None:
    ours, there = chains(name, config, steps, {})
    assert torch.isfinite(there).all()
    torch.testing.assert_close(ours, there, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_eta_adds_the_noise_of_diffusers(eta: float) -> None:
    ours, there = chains("DDIM", {}, 20, {"eta": eta, "name": "ddim"})
    torch.testing.assert_close(ours, there, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DDPM", "DDIM"])
def test_all_steps_of_a_chain(name: str) -> None:
    ours, there = chains(name, {}, T, {})
    torch.testing.assert_close(ours, there, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp", "heun", "unipc"])
def test_another_sampler_gets_the_configuration_as_from_config_hands_it_over(sampler: str) -> None:
    config = {"beta_schedule": "squaredcos_cap_v2", "clip_sample": True, "timestep_spacing": "leading"}
    ours, there = chains("DDPM", config, 12, {"name": sampler})
    torch.testing.assert_close(ours, there, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
def test_missing_keys_have_the_defaults_of_their_class() -> None:
    import diffusers

    fields = {"timesteps": "num_train_timesteps", "beta_start": "beta_start", "beta_end": "beta_end"}
    for name, sampler in SAMPLER_OF_SCHEDULER.items():
        defaults = {
            key: value.default for key, value in inspect.signature(getattr(diffusers, name).__init__).parameters.items()
        }
        trained = read_scheduler({"_class_name": name}, None)
        assert {field: getattr(trained, field) for field in fields} == {
            field: defaults[key] for field, key in fields.items()
        }
        spec = resolve_sampler(SamplerRequest(), None, trained)
        assert spec.name == sampler
        assert spec.diffusion is not None
        assert spec.diffusion.spacing == defaults["timestep_spacing"]
        assert spec.diffusion.prediction == defaults["prediction_type"]
        clips = defaults.get("clip_sample", False)
        assert spec.diffusion.clip_range == (defaults["clip_sample_range"] if clips else None)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"_class_name": "DDPMScheduler", "variance_type": "fixed_large_log"}, "variance_type 'fixed_large_log'"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "variance_type 'learned'"),
        ({"_class_name": "DDPMScheduler", "beta_schedule": "quadratic"}, "beta_schedule 'quadratic'"),
        ({"_class_name": "DDPMScheduler", "prediction_type": "flow_prediction"}, "prediction_type 'flow_prediction'"),
        ({"_class_name": "DDPMScheduler", "timestep_spacing": None}, "timestep_spacing None"),
        ({"_class_name": "DDPMScheduler", "trained_betas": [0.1, 0.2]}, "trained_betas has 2 values for 1000"),
        ({"_class_name": "DDPMScheduler", "num_train_timesteps": 0}, "timesteps"),
        ({"_class_name": "HeunDiscreteScheduler", "use_karras_sigmas": True}, "use_karras_sigmas True"),
        ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}, "algorithm_type"),
        ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}, "solver_order 3"),
        ({"_class_name": "UniPCMultistepScheduler", "predict_x0": False}, "predict_x0 False"),
        ({"_class_name": "ScoreSdeVeScheduler"}, "score SDE"),
        ({"_class_name": "CMStochasticIterativeScheduler"}, "consistency model"),
        ({"_class_name": "UnCLIPScheduler"}, "unCLIP"),
        ({"_class_name": "ADMDDIMScheduler"}, "no release of diffusers has"),
        ({"sigma_max": 90.0}, "no _class_name"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(config: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelRejected) as error:
        read_scheduler(config, None)
    assert named in error.value.message


@pytest.mark.parametrize("name", ["PNDMScheduler", "EulerDiscreteScheduler", "LMSDiscreteScheduler"])
def test_a_scheduler_without_a_sampler_names_the_samplers_that_work(name: str) -> None:
    trained = read_scheduler({"_class_name": name}, "DDPMPipeline")
    with pytest.raises(InvalidSpec, match=name) as error:
        resolve_sampler(SamplerRequest(), None, trained)
    assert "--sampler" in str(error.value.hint)
    assert resolve_sampler(SamplerRequest(name="ddim"), None, trained).steps == 50


@pytest.mark.parametrize(
    ("pipeline", "scheduler", "sampler", "steps"),
    [
        ("DDPMPipeline", "DDPMScheduler", "ddpm", 200),
        (None, None, "ddpm", 1000),
        ("DDPMPipeline", None, "ddpm", 1000),
        ("DDIMPipeline", "DDIMScheduler", "ddim", 50),
        ("DDIMPipeline", "DDPMScheduler", "ddim", 50),
        ("DDIMPipeline", "PNDMScheduler", "ddim", 50),
        (None, "DDIMScheduler", "ddim", 50),
        ("DDPMPipeline", "DDIMScheduler", "ddim", 200),
        (None, "DPMSolverMultistepScheduler", "dpmpp", 20),
        (None, "HeunDiscreteScheduler", "heun", 20),
        (None, "UniPCMultistepScheduler", "unipc", 20),
    ],
)
def test_the_default_sampler_is_the_pipelines(
    pipeline: str | None, scheduler: str | None, sampler: str, steps: int
) -> None:
    config = {"_class_name": scheduler, "num_train_timesteps": 200} if scheduler else None
    spec = resolve_sampler(SamplerRequest(), None, read_scheduler(config, pipeline))
    assert (spec.name, spec.steps, spec.eta) == (sampler, steps, 0.0)


def test_a_learned_variance_and_the_channels_must_fit() -> None:
    fixed = read_scheduler({"_class_name": "DDPMScheduler", "variance_type": "fixed_small"}, None)
    learned = read_scheduler({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, None)
    assert resolve_sampler(SamplerRequest(), None, learned, learned_variance=True).variance == "learned_range"
    assert resolve_sampler(SamplerRequest(), None, read_scheduler(None, None), learned_variance=True).variance == (
        "learned_range"
    )
    with pytest.raises(ModelRejected, match="fixed_small"):
        resolve_sampler(SamplerRequest(), None, fixed, learned_variance=True)
    with pytest.raises(ModelRejected, match="learned_range"):
        resolve_sampler(SamplerRequest(), None, learned)
    with pytest.raises(InvalidSpec, match="--variance learned_range"):
        resolve_sampler(SamplerRequest(variance="learned_range"), None, fixed)


def test_a_prediction_of_other_channels_is_never_broadcast() -> None:
    trained = read_scheduler({"_class_name": "DDPMScheduler"}, None)
    sampler = resolve_sampler(SamplerRequest(steps=2), None, trained)
    noise = NoiseSource(3, torch.arange(1), (2, 4, 4))
    with pytest.raises(InvalidSpec, match="predicts 1 channels of an image with 2"):
        sample(lambda x, t: x[:, :1], noise.initial(), schedule_of(sampler), sampler, noise=noise)


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"timesteps": 500}, "--timesteps 500"),
        ({"beta_start": 0.001}, "--beta_start 0.001"),
        ({"prediction_type": "sample"}, "--prediction_type sample"),
        ({"rescale_betas_zero_snr": True}, "--rescale_betas_zero_snr True"),
    ],
)
def test_facts_of_the_training_cannot_be_contradicted(fields: dict[str, Any], flag: str) -> None:
    trained = read_scheduler({"_class_name": "DDPMScheduler"}, None)
    with pytest.raises(InvalidSpec, match=f"{flag} contradicts"):
        resolve_sampler(SamplerRequest(**fields), None, trained)
    assert resolve_sampler(SamplerRequest(**fields), None, read_scheduler(None, None))


def test_a_network_of_the_guide_takes_the_same_settings() -> None:
    plain = resolve_sampler(SamplerRequest(), None)
    assert plain.diffusion is None
    spec = resolve_sampler(SamplerRequest(prediction_type="v_prediction", clip_sample_range=2.0), None)
    assert spec.diffusion is not None
    assert (spec.variance, spec.diffusion.spacing, spec.diffusion.clip_range) == ("large", "trailing", 2.0)
    assert resolve_sampler(SamplerRequest(name="unipc"), None).diffusion is not None
    with pytest.raises(InvalidSpec, match="--set_alpha_to_one"):
        resolve_sampler(SamplerRequest(set_alpha_to_one=False), None)


def test_settings_that_a_sampler_does_not_use_do_not_count() -> None:
    one = {"_class_name": "DDPMScheduler"}
    other = {**one, "set_alpha_to_one": False, "thresholding": False, "sample_max_value": 9.0}
    specs = [resolve_sampler(SamplerRequest(), None, read_scheduler(config, None)) for config in (one, other)]
    assert specs[0] == specs[1]


def test_a_solver_is_that_of_the_file_only_for_its_own_sampler() -> None:
    trained = TrainedDiffusion(scheduler="DPMSolverMultistepScheduler", solver=Solver(order=1, type="heun"))
    own = resolve_sampler(SamplerRequest(), None, trained).diffusion
    other = resolve_sampler(SamplerRequest(name="unipc"), None, trained).diffusion
    assert own is not None
    assert other is not None
    assert own.solver == Solver(order=1, type="heun")
    assert other.solver == Solver(type="bh2")


@pytest.mark.parametrize("sampler", [None, "ddpm", "ddim", "dpmpp", "heun", "unipc"])
def test_a_resolved_sampler_can_be_asked_for_again(sampler: str | None) -> None:
    """As `verify --repair` does with the identity of a stored run."""
    for name, configs in CONFIGS.items():
        for config in configs:
            trained = read_scheduler({"_class_name": f"{name}Scheduler", "num_train_timesteps": T, **config}, None)
            learned = config.get("variance_type") == "learned_range"
            request = SamplerRequest.model_validate({"name": sampler, "steps": 5})
            spec = resolve_sampler(request, None, trained, learned_variance=learned)
            assert resolve_sampler(request_of(spec), None, trained, learned_variance=learned) == spec
    for request in (SamplerRequest(name="unipc"), SamplerRequest(trained_betas=(0.1, 0.2)), SamplerRequest()):
        plain = resolve_sampler(request, None)
        assert resolve_sampler(request_of(plain), None) == plain


def test_zero_snr_with_epsilon_is_refused() -> None:
    trained = read_scheduler({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}, None)
    with pytest.raises(ModelRejected, match="rescale_betas_zero_snr with prediction_type epsilon"):
        resolve_sampler(SamplerRequest(), None, trained)
