"""Reads a ``scheduler_config.json``: what it says of the training and of the sampling, or why it cannot be honoured.

Every field that changes a step is honoured, or refused by its name. A key that is missing has the default of the class
that wrote the file (diffusers 0.42, schedulers/); a key that is null is not missing. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, cast

from pydantic import JsonValue, ValidationError

from ddpm_inference.diffusion_spec import (
    SAMPLER_OF_SCHEDULER,
    WITH_BETA_RANGE,
    CurveName,
    SamplingSettings,
    Solver,
    TrainedDiffusion,
    Variance,
)
from ddpm_inference.documents import format_validation_error
from ddpm_inference.errors import ModelRejected

Config = Mapping[str, JsonValue]

MISSING_NOTE = (
    "scheduler_config.json is missing, so DDPMScheduler's defaults are assumed: linear betas from 0.0001 to 0.02, 1000 "
    "timesteps, prediction epsilon (--schedule, --timesteps and --prediction_type if it was trained with others)"
)

_OLD_NAMES: Final = {"GaussianDDPMScheduler": "DDPMScheduler"}
_WIDE: Final = (0.0001, 0.02)
_NARROW: Final = (0.00085, 0.012)
# Schedulers of discrete betas without a sampler here: what they were trained with can be sampled by another.
_BETAS_OF_OTHERS: Final[dict[str, tuple[float, float]]] = {
    "DDIMInverseScheduler": _WIDE,
    "DDIMParallelScheduler": _WIDE,
    "DDPMParallelScheduler": _WIDE,
    "DEISMultistepScheduler": _WIDE,
    "DPMSolverMultistepInverseScheduler": _WIDE,
    "DPMSolverSDEScheduler": _NARROW,
    "DPMSolverSinglestepScheduler": _WIDE,
    "EulerAncestralDiscreteScheduler": _WIDE,
    "EulerDiscreteScheduler": _WIDE,
    "KDPM2AncestralDiscreteScheduler": _NARROW,
    "KDPM2DiscreteScheduler": _NARROW,
    "LMSDiscreteScheduler": _WIDE,
    "PNDMScheduler": _WIDE,
    "SASolverScheduler": _WIDE,
}
_BETAS: Final = _BETAS_OF_OTHERS | dict.fromkeys(SAMPLER_OF_SCHEDULER, _WIDE) | {"HeunDiscreteScheduler": _NARROW}
_REFUSED: Final = (
    (("ScoreSdeVe", "ScoreSdeVp", "KarrasVe"), "of a score SDE, which is no DDPM"),
    (("CMStochastic", "Consistency", "LCM", "TCD"), "of a consistency model, which is no DDPM"),
    (("EDM",), "of an EDM model, whose network needs Karras' preconditioning"),
    (("FlowMatch", "Cosine", "SCM"), "of a flow-matching model, which is no DDPM"),
    (("UnCLIP",), "of unCLIP, which needs the embedding of a text or an image"),
    (("VQDiffusion", "Amused", "RePaint", "IPNDM"), "not of a DDPM of pixels"),
)
_SCHEDULES: Final[dict[str, CurveName]] = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "squaredcos_cap_v2",
    "sigmoid": "sigmoid_betas",
    "laplace": "laplace",
    "exp": "exp",
}
_VARIANCES: Final[dict[str, Variance]] = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "learned_range": "learned_range",
}
# Options of the multistep and of Heun's schedulers that choose other noise levels.
_OTHER_SIGMAS: Final = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
)


def read_scheduler(config: Config | None, pipeline_class: str | None) -> TrainedDiffusion:
    """Returns what a pipeline's files say about its diffusion.

    Args:
        config: scheduler_config.json; None if there is none: then DDPMScheduler's defaults are assumed.
        pipeline_class: of model_index.json; None if there is none.

    Raises:
        ModelRejected: naming the scheduler or the field, if it is no DDPM's or cannot be honoured.
    """
    if config is None:
        return TrainedDiffusion(pipeline=pipeline_class, notes=(MISSING_NOTE,))
    name = _class(config)
    try:
        return _read(config, name, pipeline_class)
    except ValidationError as error:
        raise ModelRejected(f"its scheduler_config.json cannot be used: {format_validation_error(error)}") from error


def _class(config: Config) -> str:
    """Returns the class that wrote the file, by its present name; DDPMScheduler if it does not say."""
    name = config.get("_class_name")
    if isinstance(name, list) and name and isinstance(name[-1], str):
        name = name[-1]
    if name is None and "num_train_timesteps" in config:
        return "DDPMScheduler"
    if not isinstance(name, str):
        raise ModelRejected("its scheduler_config.json is not that of a scheduler: it has no _class_name")
    name = _OLD_NAMES.get(name, name)
    if name in _BETAS:
        return name
    for beginnings, what in _REFUSED:
        if name.startswith(beginnings):
            raise ModelRejected(
                f"its scheduler is {name}, {what}", hint="use a model that was trained with a DDPM scheduler"
            )
    raise ModelRejected(
        f"its scheduler is {name}, which no release of diffusers has",
        hint="only schedulers of diffusers with discrete betas are read: code of a checkpoint is never loaded",
    )


def _read(config: Config, name: str, pipeline: str | None) -> TrainedDiffusion:
    timesteps = config.get("num_train_timesteps", config.get("timesteps", 1000))
    schedule = _schedule(config)
    start, end = _BETAS[name]
    has_range = schedule in WITH_BETA_RANGE
    notes = []
    if "_class_name" not in config:
        notes.append("scheduler_config.json does not say its class, so DDPMScheduler is assumed")
    if pipeline == "DDPMPipeline" and name == "DDIMScheduler":
        notes.append(
            "a DDPMPipeline with a DDIMScheduler, which that pipeline calls for all timesteps: sampler ddim with eta 0"
        )
    unknown = sorted(key for key, value in config.items() if key not in _KNOWN and value not in (None, False))
    if unknown:
        notes.append(f"scheduler_config.json has keys without effect: {', '.join(unknown[:8])}")
    return TrainedDiffusion.model_validate(
        {
            "pipeline": pipeline,
            "scheduler": name,
            "timesteps": timesteps,
            "schedule": schedule,
            "beta_start": config.get("beta_start", start) if has_range else None,
            "beta_end": config.get("beta_end", end) if has_range else None,
            "trained_betas": config.get("trained_betas"),
            "zero_snr": bool(config.get("rescale_betas_zero_snr", False)),
            "prediction": _prediction(config),
            "variance": _variance(config) if name.startswith("DDPM") else None,
            "settings": _settings(config),
            "solver": _solver(config, name),
            "notes": tuple(notes),
        }
    )


def _refuse(field: str, value: JsonValue, hint: str | None = None) -> ModelRejected:
    return ModelRejected(f"its scheduler has {field} {value!r}, which cannot be honoured", hint=hint)


def _schedule(config: Config) -> CurveName:
    if config.get("trained_betas") is not None:
        return "trained"
    value = config.get("beta_schedule", "linear")
    if not isinstance(value, str) or value not in _SCHEDULES:
        raise _refuse("beta_schedule", value, f"known are {', '.join(_SCHEDULES)}, and trained_betas")
    return _SCHEDULES[value]


def _prediction(config: Config) -> JsonValue:
    # Until 0.9 a flag said whether the network predicts the noise or x_0.
    default = "sample" if config.get("predict_epsilon") is False else "epsilon"
    value = config.get("prediction_type", default)
    if value not in ("epsilon", "v_prediction", "sample"):
        raise _refuse("prediction_type", value, "known are epsilon, v_prediction and sample")
    return value


def _variance(config: Config) -> Variance | None:
    if "variance_type" not in config:
        return None
    value = config["variance_type"]
    if value in ("fixed_large_log", "learned"):
        raise _refuse("variance_type", value, "diffusers itself takes the square root of a logarithm there: NaN")
    if not isinstance(value, str) or value not in _VARIANCES:
        raise _refuse("variance_type", value, f"known are {', '.join(_VARIANCES)}")
    return _VARIANCES[value]


def _settings(config: Config) -> SamplingSettings:
    fields = {key: config[key] for key in SamplingSettings.model_fields if key in config}
    for key in ("clip_sample", "thresholding", "set_alpha_to_one"):
        if key in fields:
            fields[key] = bool(fields[key])
    for key, needed in (
        ("clip_sample_range", fields.get("clip_sample", True)),
        ("dynamic_thresholding_ratio", fields.get("thresholding", False)),
        ("sample_max_value", fields.get("thresholding", False)),
        ("timestep_spacing", True),
        ("steps_offset", True),
    ):
        # A value that is not used may be anything; null is not the default.
        if key in fields and not needed:
            del fields[key]
        elif key in fields and fields[key] is None:
            raise _refuse(key, None, "remove the key from scheduler_config.json for its default")
    return SamplingSettings.model_validate(fields)


def _solver(config: Config, name: str) -> Solver | None:
    """Returns the settings of a multistep scheduler, and refuses what is not implemented; None for other schedulers."""
    sampler = SAMPLER_OF_SCHEDULER.get(name)
    if sampler not in ("dpmpp", "unipc", "heun"):
        return None
    for field in _OTHER_SIGMAS:
        if config.get(field):
            raise _refuse(field, config[field], "only the noise levels of the training's timesteps are implemented")
    if sampler == "heun":
        return None
    if config.get("solver_order", 2) not in (1, 2):
        raise _refuse("solver_order", config["solver_order"], "orders 1 and 2 are implemented")
    final = config.get("final_sigmas_type", "zero")
    if final not in ("zero", "sigma_min"):
        raise _refuse("final_sigmas_type", final)
    fields: dict[str, object] = {
        "order": config.get("solver_order", 2),
        "lower_order_final": bool(config.get("lower_order_final", True)),
        "final_sigma": final,
    }
    kind = config.get("solver_type", "midpoint" if sampler == "dpmpp" else "bh2")
    if sampler == "dpmpp":
        if config.get("algorithm_type", "dpmsolver++") not in ("dpmsolver++", "deis"):
            raise _refuse("algorithm_type", config["algorithm_type"], "give --sampler dpmpp to sample by dpmsolver++")
        fields |= {
            "type": "midpoint" if kind in ("logrho", "bh1", "bh2") else kind,
            "euler_at_final": bool(config.get("euler_at_final", False)),
            "lambda_min_clipped": _lambda_min(config),
        }
    else:
        for field, allowed in (("predict_x0", True), ("solver_p", None)):
            if config.get(field, allowed) is not allowed:
                raise _refuse(field, config[field])
        if not fields["lower_order_final"] and final == "zero":
            raise _refuse("lower_order_final", False, "with final_sigmas_type zero the last step is of first order")
        fields |= {
            "type": "bh2" if kind in ("midpoint", "heun", "logrho") else kind,
            "disable_corrector": config.get("disable_corrector") or (),
        }
    return Solver.model_validate(fields)


def _lambda_min(config: Config) -> float | None:
    value = config.get("lambda_min_clipped", -math.inf)
    number = float(cast(float, value)) if isinstance(value, int | float | str) else math.nan
    if math.isnan(number) or number == math.inf:
        raise _refuse("lambda_min_clipped", value)
    return None if number == -math.inf else number


_KNOWN: Final = (
    set(SamplingSettings.model_fields)
    | set(_OTHER_SIGMAS)
    | {
        "_class_name",
        "_diffusers_version",
        "_name_or_path",
        "num_train_timesteps",
        "timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
        "prediction_type",
        "predict_epsilon",
        "variance_type",
        "solver_order",
        "solver_type",
        "algorithm_type",
        "lower_order_final",
        "euler_at_final",
        "final_sigmas_type",
        "lambda_min_clipped",
        "predict_x0",
        "solver_p",
        "disable_corrector",
        "flow_shift",
        "time_shift_type",
        "timestep_values",
    }
)
