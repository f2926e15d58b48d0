"""Refuses pipelines that are no DDPM of pixels, by their configurations.

As `ddpm_inference.checkpoint.pipeline_index` and `ddpm_inference.sampling.scheduler_config`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from ddpm_operator.api.model import JsonValue
from ddpm_operator.client.errors import PipelineRejected
from ddpm_operator.client.pipeline.layout import UNET_KEYS

Json = Mapping[str, JsonValue]

PIXEL_PIPELINES: Final = frozenset(
    {
        "DDPMPipeline",
        "DDIMPipeline",
        "PNDMPipeline",
        "DDPM",
        "DDIM",
        "PNDM",
        "RePaintPipeline",
        "AudioDiffusionPipeline",
    }
)
"""Classes whose images are those of a UNet2DModel without a condition; the short names are of July 2022."""
SCHEDULER_KEYS: Final = ("scheduler", "noise_scheduler")
NO_DDPM: Final = (
    (("ScoreSde", "KarrasVe"), "it is a score SDE model, which needs the sampler of its own noise levels"),
    (("Consistency", "CMStochastic", "LatentConsistency"), "it is a consistency model, which is no DDPM"),
    (("EDM",), "it is an EDM model, whose network needs Karras' preconditioning"),
    (("FlowMatch", "Flux", "StableDiffusion3"), "it is a flow-matching model, which is no DDPM"),
)
_LATENT_PARTS: Final = ("vae", "vqvae", "movq", "vae_decoder", "autoencoder", "first_stage_model")
_LATENT_CLASSES: Final = ("LDM", "LatentDiffusion", "StableDiffusion", "Kandinsky", "AutoencoderKL", "VQModel")
_TEXT_PARTS: Final = ("text_encoder", "text_encoder_2", "tokenizer", "bert", "prior", "image_encoder", "text_proj")
_CONDITIONAL_UNETS: Final = ("UNet2DConditionModel", "UNet3DConditionModel", "UNetFlatConditionModel")
_SUPER_RESOLUTION: Final = ("SuperResolution", "Upscale", "UnCLIP", "super_res")
_LATENT_HINT: Final = "only models of pixels are drawn: sample it with diffusers, which has its decoder"
_UNET_HINT: Final = (
    "if its UNet is a plain UNet2DModel, give the folder of the UNet alone, with the flags of its training "
    "(--schedule, --timesteps)"
)


def check_index(index: Json, names: Collection[str]) -> None:
    """Checks that a pipeline is one of pixels, whose classes are all diffusers'.

    Args:
        index: model_index.json.
        names: the files beside it.

    Raises:
        PipelineRejected: with one sentence that says what it is, why it is not drawn, and what would work.
    """
    class_name, components = index.get("_class_name"), _components(index)
    for key, (library, name) in components.items():
        if library == "__main__":
            raise PipelineRejected(
                f"its {key} is of the class {name} of __main__: a notebook or script that is not in its files",
                f"its author has to save it with a class of diffusers; {_UNET_HINT}",
            )
    if isinstance(class_name, list):
        own = class_name[-1] if class_name else "?"
        raise PipelineRejected(
            f"its pipeline is the class {own} of its own file {class_name[0] if class_name else '?'}.py: code of a "
            "repository is never executed",
            _UNET_HINT,
        )
    if class_name is not None and not isinstance(class_name, str):
        raise PipelineRejected("its model_index.json is not that of a pipeline: _class_name is no name")
    classes = [class_name or "", *(name for _, name in components.values())]
    for parts, sentence in NO_DDPM:
        named = next((name for name in classes if any(part in name for part in parts)), None)
        if named is not None:
            raise PipelineRejected(f"{sentence} ({named})", "sample it with diffusers")
    _refuse_latent(class_name, components)
    _refuse_conditional(class_name, components)
    for key, (library, name) in components.items():
        if any(f"{folder}{library}.py" in names for folder in ("", f"{key}/")):
            raise PipelineRejected(
                f"its {key} is the class {name} of its own file {library}.py: code of a repository is never executed",
                _UNET_HINT,
            )
    if class_name is not None and class_name not in PIXEL_PIPELINES:
        raise PipelineRejected(
            f"its pipeline is of the class {class_name}, whose way of sampling is unknown here", _UNET_HINT
        )
    if components and not any(key in components for key in UNET_KEYS):
        raise PipelineRejected(f"its model_index.json names no UNet, but {', '.join(components)}", _UNET_HINT)


def check_config(config: Json, name: str) -> None:
    """Checks that a ``config.json`` is not that of another kind of model. Families recognise their own configurations.

    Args:
        name: of the file, for messages.

    Raises:
        PipelineRejected: naming the kind.
    """
    class_name = config.get("_class_name")
    if isinstance(class_name, str):
        if class_name in _CONDITIONAL_UNETS:
            raise _text_conditional(class_name)
        if class_name.startswith(("Autoencoder", "VQModel", "AsymmetricAutoencoder")):
            raise PipelineRejected(f"its {name} is of {class_name}, the decoder of a latent model", _LATENT_HINT)
        if class_name.endswith("Pipeline"):
            raise PipelineRejected(f"its {name} is of {class_name}, a pipeline, not of a network")
        return
    if isinstance(class_name, list):
        raise PipelineRejected(f"its {name} is of a class of a file of its own: code of a repository is never executed")
    if "model_type" in config or "architectures" in config:
        raise PipelineRejected(
            f"its {name} is of a transformers model ({config.get('model_type') or config.get('architectures')}), not "
            "of a UNet"
        )


def _refuse_latent(class_name: str | None, components: Mapping[str, tuple[str, str]]) -> None:
    part = next((key for key in _LATENT_PARTS if key in components), None)
    named = next((name for _, name in components.values() if name.startswith(("Autoencoder", "VQModel"))), None)
    if part or named or any(word in (class_name or "") for word in _LATENT_CLASSES):
        raise PipelineRejected(
            f"it is a latent model ({part or named or class_name}): its UNet draws codes for a decoder, not pixels",
            _LATENT_HINT,
        )


def _refuse_conditional(class_name: str | None, components: Mapping[str, tuple[str, str]]) -> None:
    for _, name in components.values():
        if name in _CONDITIONAL_UNETS:
            raise _text_conditional(name)
    part = next((key for key in _TEXT_PARTS if key in components), None)
    if part:
        raise PipelineRejected(
            f"it draws from a text or an image (its part {part}), not from noise alone", "sample it with diffusers"
        )
    words = [class_name or "", *components]
    if any(part in word for part in _SUPER_RESOLUTION for word in words):
        raise PipelineRejected(
            "it enlarges a smaller image, which it needs as a second input", "sample it with diffusers"
        )


def _text_conditional(class_name: str) -> PipelineRejected:
    return PipelineRejected(
        f"its UNet is a {class_name}, which needs the embedding of a text or a class at every step",
        "sample it with diffusers; only a UNet2DModel is drawn here",
    )


def _components(index: Json) -> dict[str, tuple[str, str]]:
    """Returns name -> (library, class) of the components; those that are null are left out.

    Raises:
        PipelineRejected: if a component is of another form.
    """
    components = {}
    for key, value in index.items():
        if not isinstance(value, list) or key.startswith("_"):
            continue
        if all(part is None for part in value):
            continue
        match value:
            case [str(library), str(name), *_]:
                components[key] = (library, name)
            case _:
                raise PipelineRejected(f"its model_index.json is damaged: {key} is not a library and a class")
    return components


_REFUSED: Final = (
    (("ScoreSdeVe", "ScoreSdeVp", "KarrasVe"), "of a score SDE, which is no DDPM"),
    (("CMStochastic", "Consistency", "LCM", "TCD"), "of a consistency model, which is no DDPM"),
    (("EDM", "Cosine"), "of an EDM model, whose network needs Karras' preconditioning"),
    (("FlowMatch", "SCM"), "of a flow-matching model, which is no DDPM"),
    (("UnCLIP",), "of unCLIP, which needs the embedding of a text or an image"),
    (("VQDiffusion", "Amused", "RePaint", "IPNDM"), "not of a DDPM of pixels"),
)
# Schedulers with discrete betas and a sampler; the rest have betas that another sampler can use.
_SAMPLERS: Final = {
    "DDPMScheduler": "ddpm",
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp",
    "HeunDiscreteScheduler": "heun",
    "UniPCMultistepScheduler": "unipc",
}
_WITHOUT_SAMPLER: Final = frozenset(
    {
        "DDIMInverseScheduler",
        "DDIMParallelScheduler",
        "DDPMParallelScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepInverseScheduler",
        "DPMSolverSDEScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "SASolverScheduler",
    }
)
_OLD_NAMES: Final = {"GaussianDDPMScheduler": "DDPMScheduler"}
_KNOWN_VALUES: Final = (
    ("beta_schedule", "linear", ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp")),
    ("prediction_type", "epsilon", ("epsilon", "v_prediction", "sample")),
)
_VARIANCES: Final = ("fixed_small", "fixed_small_log", "fixed_large", "learned_range")
_OTHER_SIGMAS: Final = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
)


def check_scheduler(config: Json, pipeline_class: JsonValue, sampler: str | None) -> None:
    """Checks that the scheduler is a DDPM's, and that there is a sampler for it.

    Args:
        config: scheduler_config.json.
        pipeline_class: of model_index.json.
        sampler: that the user chose.

    Raises:
        PipelineRejected: naming the scheduler or the field.
    """
    name = _scheduler_class(config)
    for field, default, known in _KNOWN_VALUES:
        if field == "beta_schedule" and config.get("trained_betas") is not None:
            continue
        value = config.get(field, default)
        if value not in known:
            raise _unknown_value(field, value, f"known are {', '.join(known)}")
    variance = config.get("variance_type", "fixed_small")
    if name.startswith("DDPM") and variance not in _VARIANCES:
        raise _unknown_value("variance_type", variance, f"known are {', '.join(_VARIANCES)}")
    own = _SAMPLERS.get(name)
    if own in ("dpmpp", "unipc", "heun"):
        for field in _OTHER_SIGMAS:
            if config.get(field):
                raise _unknown_value(field, config[field], "only the noise levels of its timesteps are implemented")
    if own in ("dpmpp", "unipc"):
        orders: tuple[str, JsonValue, tuple[JsonValue, ...]] = ("solver_order", 2, (1, 2))
        finals: tuple[str, JsonValue, tuple[JsonValue, ...]] = ("final_sigmas_type", "zero", ("zero", "sigma_min"))
        for setting, usual, allowed in (orders, finals):
            if config.get(setting, usual) not in allowed:
                raise _unknown_value(setting, config[setting], f"known are {', '.join(map(str, allowed))}")
    if own is None and sampler is None and pipeline_class not in ("DDIMPipeline", "DDIM"):
        raise PipelineRejected(
            f"there is no sampler for its scheduler {name}", "choose one, such as --sampler dpmpp or --sampler ddim"
        )


def _scheduler_class(config: Json) -> str:
    name = config.get("_class_name")
    if isinstance(name, list) and name and isinstance(name[-1], str):
        name = name[-1]
    if name is None and "num_train_timesteps" in config:
        return "DDPMScheduler"
    if not isinstance(name, str):
        raise PipelineRejected("its scheduler_config.json is not that of a scheduler: it has no _class_name")
    name = _OLD_NAMES.get(name, name)
    if name in _SAMPLERS or name in _WITHOUT_SAMPLER:
        return name
    for beginnings, what in _REFUSED:
        if name.startswith(beginnings):
            raise PipelineRejected(
                f"its scheduler is {name}, {what}", "use a model that was trained with a DDPM scheduler"
            )
    raise PipelineRejected(
        f"its scheduler is {name}, which no release of diffusers has",
        "only schedulers of diffusers with discrete betas are read: code of a checkpoint is never loaded",
    )


def _unknown_value(field: str, value: JsonValue, hint: str) -> PipelineRejected:
    return PipelineRejected(f"its scheduler has {field} {value!r}, which cannot be honoured", hint)
