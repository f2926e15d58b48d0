"""Which pipelines are drawn: reads ``model_index.json`` and class names, and refuses everything that is no DDPM of pixels.

Nothing of a repository is executed: a file of Python beside the weights is never read, and a class name in a file only
decides whether it is one of the known ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from pydantic import JsonValue

from ddpm_inference.errors import ModelRejected

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
UNET_KEYS: Final = ("unet", "model", "noise_predictor")
"""Names of the component that is the network; the second is of google/ncsnpp."""
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
        ModelRejected: with one sentence that says what it is, why it is not drawn, and what would work.
    """
    class_name, components = index.get("_class_name"), _components(index)
    for key, (library, name) in components.items():
        if library == "__main__":
            raise ModelRejected(
                f"its {key} is of the class {name} of __main__: a notebook or script that is not in its files",
                hint=f"its author has to save it with a class of diffusers; {_UNET_HINT}",
            )
    if isinstance(class_name, list):
        name = class_name[-1] if class_name else "?"
        raise ModelRejected(
            f"its pipeline is the class {name} of its own file {class_name[0] if class_name else '?'}.py: code of a "
            "repository is never executed",
            hint=_UNET_HINT,
        )
    if class_name is not None and not isinstance(class_name, str):
        raise ModelRejected("its model_index.json is not that of a pipeline: _class_name is no name")
    classes = [class_name or "", *(name for _, name in components.values())]
    for parts, sentence in NO_DDPM:
        named = next((name for name in classes if any(part in name for part in parts)), None)
        if named is not None:
            raise ModelRejected(f"{sentence} ({named})", hint="sample it with diffusers")
    _refuse_latent(class_name, components)
    _refuse_conditional(class_name, components)
    for key, (library, name) in components.items():
        if any(f"{folder}{library}.py" in names for folder in ("", f"{key}/")):
            raise ModelRejected(
                f"its {key} is the class {name} of its own file {library}.py: code of a repository is never executed",
                hint=_UNET_HINT,
            )
    if class_name is not None and class_name not in PIXEL_PIPELINES:
        raise ModelRejected(
            f"its pipeline is of the class {class_name}, whose way of sampling is unknown here", hint=_UNET_HINT
        )
    if components and not any(key in components for key in UNET_KEYS):
        raise ModelRejected(f"its model_index.json names no UNet, but {', '.join(components)}", hint=_UNET_HINT)


def check_config(config: Json, name: str) -> None:
    """Checks that a ``config.json`` is not that of another kind of model. Families recognise their own configurations.

    Args:
        name: of the file, for messages.

    Raises:
        ModelRejected: naming the kind.
    """
    class_name = config.get("_class_name")
    if isinstance(class_name, str):
        if class_name in _CONDITIONAL_UNETS:
            raise _text_conditional(class_name)
        if class_name.startswith(("Autoencoder", "VQModel", "AsymmetricAutoencoder")):
            raise ModelRejected(f"its {name} is of {class_name}, the decoder of a latent model", hint=_LATENT_HINT)
        if class_name.endswith("Pipeline"):
            raise ModelRejected(f"its {name} is of {class_name}, a pipeline, not of a network")
        return
    if isinstance(class_name, list):
        raise ModelRejected(f"its {name} is of a class of a file of its own: code of a repository is never executed")
    if "model_type" in config or "architectures" in config:
        raise ModelRejected(
            f"its {name} is of a transformers model ({config.get('model_type') or config.get('architectures')}), not of "
            "a UNet"
        )


def _refuse_latent(class_name: str | None, components: Mapping[str, tuple[str, str]]) -> None:
    part = next((key for key in _LATENT_PARTS if key in components), None)
    named = next((name for _, name in components.values() if name.startswith(("Autoencoder", "VQModel"))), None)
    if part or named or any(word in (class_name or "") for word in _LATENT_CLASSES):
        raise ModelRejected(
            f"it is a latent model ({part or named or class_name}): its UNet draws codes for a decoder, not pixels",
            hint=_LATENT_HINT,
        )


def _refuse_conditional(class_name: str | None, components: Mapping[str, tuple[str, str]]) -> None:
    for _, name in components.values():
        if name in _CONDITIONAL_UNETS:
            raise _text_conditional(name)
    part = next((key for key in _TEXT_PARTS if key in components), None)
    if part:
        raise ModelRejected(
            f"it draws from a text or an image (its part {part}), not from noise alone", hint="sample it with diffusers"
        )
    words = [class_name or "", *components]
    if any(part in word for part in _SUPER_RESOLUTION for word in words):
        raise ModelRejected(
            "it enlarges a smaller image, which it needs as a second input", hint="sample it with diffusers"
        )


def _text_conditional(class_name: str) -> ModelRejected:
    return ModelRejected(
        f"its UNet is a {class_name}, which needs the embedding of a text or a class at every step",
        hint="sample it with diffusers; only a UNet2DModel is drawn here",
    )


def _components(index: Json) -> dict[str, tuple[str, str]]:
    """Returns name -> (library, class) of the components; those that are null are left out.

    Raises:
        ModelRejected: if a component is of another form.
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
                raise ModelRejected(f"its model_index.json is damaged: {key} is not a library and a class")
    return components
