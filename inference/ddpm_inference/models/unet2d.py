"""The family of diffusers' ``UNet2DModel``: recognised by its config.json, which is read with diffusers' defaults.

Imports no torch and no diffusers: the driver reads configurations without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import JsonValue, ValidationError

from ddpm_inference.documents import format_validation_error
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import Cost, Execution, ModelRequest, Precision
from ddpm_inference.models.families import Config, ModelFiles, Predictor
from ddpm_inference.models.unet2d_layout import shapes_and_cost
from ddpm_inference.network_spec import UNET2D_MODEL, NetworkSpec, UNet2DSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

SUPERSEDED = ("UNetModel", "UNetUnconditionalModel")
"""Names that the class had until July 2022, with other keys in its configuration."""

_RENAMED = {
    "block_channels": "block_out_channels",
    "down_blocks": "down_block_types",
    "up_blocks": "up_block_types",
    "num_res_blocks": "layers_per_block",
    "image_size": "sample_size",
    "resolution": "sample_size",
    "resnet_eps": "norm_eps",
    "downscale_freq_shift": "freq_shift",
    "num_head_channels": "attention_head_dim",
    "resnet_num_groups": "norm_num_groups",
}
"""Key of a superseded class -> key of UNet2DModel."""

_SINCE_THE_FIRST = (
    "sample_size",
    "in_channels",
    "out_channels",
    "center_input_sample",
    "time_embedding_type",
    "freq_shift",
    "flip_sin_to_cos",
    "down_block_types",
    "up_block_types",
    "block_out_channels",
    "layers_per_block",
    "mid_block_scale_factor",
    "downsample_padding",
    "act_fn",
    "attention_head_dim",
    "norm_num_groups",
    "norm_eps",
)
"""Keys that every release has written. One that is missing was left out or deleted by hand."""

_LATER = {
    "add_attention": (0, 12),
    "resnet_time_scale_shift": (0, 12),
    "class_embed_type": (0, 15),
    "num_class_embeds": (0, 15),
    "downsample_type": (0, 19),
    "upsample_type": (0, 19),
    "dropout": (0, 22),
    "attn_norm_num_groups": (0, 24),
    "num_train_timesteps": (0, 24),
}
"""Later keys -> the release from which on every file has them."""

# Of averaged weights (EMAModel) and of files in general; none of them changes the network.
_WITHOUT_EFFECT = {
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
}


class UNet2DFamily:
    """See `families.Family`."""

    name = UNET2D_MODEL

    def recognises(self, files: ModelFiles) -> bool:
        """Returns whether config.json is a UNet2DModel's; without a class name it must have its widths."""
        if files.config is None:
            return False
        name = files.config.get("_class_name")
        return name in (UNET2D_MODEL, *SUPERSEDED) or (name is None and "block_out_channels" in files.config)

    def read(self, files: ModelFiles, request: ModelRequest) -> UNet2DSpec:
        """Reads config.json; a key that it lacks has diffusers' default.

        Raises:
            InvalidSpec: if the request contradicts the configuration.
            ModelRejected: if it describes a network that is no DDPM's, or that diffusers cannot build either.
        """
        config = _config(files)
        _refuse_foreign(config)
        fields = {key: value for key, value in config.items() if key in UNet2DSpec.model_fields}
        fields["name"] = UNET2D_MODEL
        fields["sample_size"] = _sample_size(config, request)
        try:
            spec = UNet2DSpec.model_validate(fields)
        except ValidationError as error:
            raise ModelRejected(f"its config.json cannot be used: {format_validation_error(error)}") from error
        _refuse_request(request, spec)
        self.check(spec)
        return spec

    def notes(self, files: ModelFiles, request: ModelRequest) -> list[str]:
        """Returns which keys are filled in with defaults, and which have no effect."""
        config = _config(files)
        notes = []
        if files.config is not None and files.config.get("_class_name") in SUPERSEDED:
            notes.append(
                f"config.json is of the class {files.config['_class_name']} of 2022, whose keys are read as those of "
                f"{UNET2D_MODEL}"
            )
        missing = _missing(config)
        if missing:
            defaults = {key: UNet2DSpec.model_fields[key].default for key in missing}
            filled = ", ".join(f"{key} {_printable(value)}" for key, value in defaults.items())
            notes.append(
                f"config.json lacks {filled}: these are diffusers' defaults, and another network if keys were deleted "
                "from the file"
            )
        unknown = sorted(set(config) - set(UNet2DSpec.model_fields) - _WITHOUT_EFFECT)
        if unknown and files.config is not None and files.config.get("_class_name") not in SUPERSEDED:
            notes.append(f"config.json has keys without effect: {', '.join(unknown[:8])}")
        classes = self.read(files, request).num_classes
        if classes is not None:
            notes.append(f"the network has {classes} classes: sample i is of class i mod {classes}")
        return notes

    def shapes(self, spec: NetworkSpec) -> Mapping[str, tuple[int, ...]]:
        """Returns key -> shape of the state dict."""
        return _shapes_and_cost(_unet2d(spec))[0]

    def check(self, spec: NetworkSpec) -> None:
        """Raises ModelRejected if the levels do not divide the image."""
        spec = _unet2d(spec)
        multiple = spec.size_multiple
        if any(side % multiple for side in spec.sample_size):
            height, width = spec.sample_size
            raise ModelRejected(
                f"images of {height}x{width} do not fit its {len(spec.block_out_channels)} levels, which need a "
                f"multiple of {multiple}",
                hint="the sample_size in config.json must be that of the training",
            )

    def describe(self, spec: NetworkSpec) -> str:
        """Returns the architecture in words."""
        spec = _unet2d(spec)
        widths = " ".join(map(str, spec.block_out_channels))
        return f"{UNET2D_MODEL} with block_out_channels {widths}, layers_per_block {spec.layers_per_block}"

    def cost(self, spec: NetworkSpec) -> Cost:
        """Returns the cost of one evaluation for one sample."""
        return _shapes_and_cost(_unet2d(spec))[1]

    def build(self, spec: NetworkSpec) -> nn.Module:
        """Builds diffusers' class with random weights, on torch's default device."""
        from ddpm_inference.models.unet2d_network import build

        return build(_unet2d(spec))

    def predictor(
        self,
        network: nn.Module,
        spec: NetworkSpec,
        timesteps: Sequence[float],
        *,
        precision: Precision,
        execution: Execution,
        device: torch.device | str,
    ) -> Predictor:
        """Prepares the network for sampling; see `unet2d_network.predictor`."""
        from ddpm_inference.models.unet2d_network import predictor

        return predictor(network, _unet2d(spec), timesteps, precision=precision, execution=execution, device=device)


UNET2D = UNet2DFamily()


@lru_cache(maxsize=16)
def _shapes_and_cost(spec: UNet2DSpec) -> tuple[dict[str, tuple[int, ...]], Cost]:
    return shapes_and_cost(spec)


def _unet2d(spec: NetworkSpec) -> UNet2DSpec:
    if not isinstance(spec, UNet2DSpec):
        raise InvalidSpec(f"{spec.name} is not a {UNET2D_MODEL}")
    return spec


def _config(files: ModelFiles) -> Config:
    """Returns config.json with the keys of UNet2DModel.

    Raises:
        ModelRejected: if it is of a superseded class, and lacks its blocks.
    """
    config = dict(files.config or {})
    if config.get("_class_name") not in SUPERSEDED:
        return config
    for old, new in _RENAMED.items():
        if old in config and new not in config:
            config[new] = config[old]
    if not {"down_block_types", "up_block_types", "block_out_channels"} <= config.keys():
        raise ModelRejected(
            f"its config.json is of the class {config['_class_name']} of 2022, and lacks its blocks",
            hint="write down_block_types, up_block_types and block_out_channels of UNet2DModel into config.json",
        )
    for field in ("down_block_types", "up_block_types"):
        blocks = config[field]
        if isinstance(blocks, list):
            config[field] = [str(block).replace("UNetRes", "").replace("UNet", "") for block in blocks]
    return {key: value for key, value in config.items() if key in UNet2DSpec.model_fields or key in _WITHOUT_EFFECT}


def _refuse_foreign(config: Config) -> None:
    """Refuses, by name, networks of this class that are no DDPM's, or that no release of diffusers can build."""
    kind = config.get("time_embedding_type", "positional")
    if kind == "fourier":
        raise ModelRejected(
            "its time_embedding_type is fourier: it is a score network of a variance-exploding SDE, not a DDPM",
            hint="use a model that was trained with a DDPM scheduler",
        )
    if kind == "adm" or config.get("attention_legacy_order"):
        raise ModelRejected(
            "it is a guided-diffusion (ADM) network that needs a patched diffusers: time_embedding_type adm and "
            "attention_legacy_order are in no release",
            hint="use a conversion that a release of diffusers loads",
        )
    blocks = [*_strings(config.get("down_block_types")), *_strings(config.get("up_block_types"))]
    foreign = sorted({block for block in blocks if "Skip" in block or "CrossAttn" in block or block.startswith("K")})
    if foreign:
        raise ModelRejected(
            f"it has blocks of {foreign[0]}, which belong to "
            + ("score networks of SDEs" if "Skip" in foreign[0] else "networks with text or image conditions")
            + ", not to an unconditional DDPM"
        )
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if isinstance(inputs, int) and isinstance(outputs, int) and outputs < inputs:
        raise ModelRejected(
            f"it takes {inputs} channels and predicts {outputs}, so it needs a condition that is joined to the image, "
            "as for super-resolution or image-to-image",
            hint="only networks that take nothing but the noisy image, the timestep and a class can be sampled here",
        )
    if config.get("class_embed_type") == "identity":
        raise ModelRejected(
            "its class_embed_type is identity: it needs an embedding for each sample, which no label says"
        )


def _strings(value: JsonValue) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _sample_size(config: Config, request: ModelRequest) -> JsonValue:
    size = config.get("sample_size")
    if size is None:
        if request.img_size is None:
            raise ModelRejected(
                "its config.json has no sample_size, so the size of its images is unknown",
                hint="give --img_size, the height and width it was trained with",
            )
        return [request.img_size, request.img_size]
    return [size, size] if isinstance(size, int) else size


def _refuse_request(request: ModelRequest, spec: UNet2DSpec) -> None:
    """Refuses the fields of a request that are the guide's, or contradict the configuration."""
    height, width = spec.sample_size
    if request.img_size is not None and (request.img_size, request.img_size) != spec.sample_size:
        raise InvalidSpec(
            f"--img_size {request.img_size} contradicts the checkpoint, whose config.json says {height}x{width}",
            hint="omit --img_size, or use another checkpoint",
        )
    if request.channels is not None and request.channels != spec.in_channels:
        raise InvalidSpec(f"model.channels {request.channels} contradicts config.json, which says {spec.in_channels}")
    for field in ("downs", "time_emb_dim", "time_embedding", "attention_norm"):
        if getattr(request, field) is not None:
            raise InvalidSpec(
                f"--{field} is for the guide's networks, and this is a {UNET2D_MODEL}", hint=f"omit --{field}"
            )


def _missing(config: Config) -> list[str]:
    version = _version(config.get("_diffusers_version"))
    later = [key for key, since in _LATER.items() if version is not None and version >= since]
    return [key for key in (*_SINCE_THE_FIRST, *later) if key not in config and key != "sample_size"]


def _version(value: JsonValue) -> tuple[int, int] | None:
    parts = value.split(".") if isinstance(value, str) else []
    return (int(parts[0]), int(parts[1])) if len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit() else None


def _printable(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
