"""Reads the config.json of a ``UNet2DModel`` with diffusers' defaults, as `ddpm_inference.models.unet2d` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ddpm_operator.api.model import JsonValue
from ddpm_operator.client.errors import PipelineRejected

Config = Mapping[str, JsonValue]

UNET2D_MODEL = "UNet2DModel"
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


ImgSize = Annotated[int, Field(ge=1, le=1024)]
Channels = Annotated[int, Field(ge=1, le=64)]
DownBlock = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
UpBlock = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]
Resampling = Literal["conv", "resnet"]
Activation = Literal["silu", "swish", "mish", "gelu", "relu"]
Width = Annotated[int, Field(ge=1, le=8192)]
MAX_LEVELS = 10


class UNet2DSpec(BaseModel):
    """The configuration of a ``UNet2DModel``, complete; as `ddpm_inference.network_spec.UNet2DSpec`."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    sample_size: tuple[ImgSize, ImgSize]
    in_channels: Channels = 3
    out_channels: Annotated[int, Field(ge=1, le=128)] = 3
    center_input_sample: bool = False
    time_embedding_type: Literal["positional", "learned"] = "positional"
    time_embedding_dim: Width | None = None
    freq_shift: Annotated[float, Field(ge=-1024, le=1024)] = 0
    flip_sin_to_cos: bool = True
    down_block_types: Annotated[tuple[DownBlock, ...], Field(min_length=1, max_length=MAX_LEVELS)] = (
        "DownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
    )
    mid_block_type: Literal["UNetMidBlock2D"] | None = "UNetMidBlock2D"
    up_block_types: Annotated[tuple[UpBlock, ...], Field(min_length=1, max_length=MAX_LEVELS)] = (
        "AttnUpBlock2D",
        "AttnUpBlock2D",
        "AttnUpBlock2D",
        "UpBlock2D",
    )
    block_out_channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=MAX_LEVELS)] = (224, 448, 672, 896)
    layers_per_block: Annotated[int, Field(ge=1, le=16)] = 2
    mid_block_scale_factor: Annotated[float, Field(gt=0, le=1024)] = 1
    downsample_padding: Annotated[int, Field(ge=0, le=1)] = 1
    downsample_type: Resampling = "conv"
    upsample_type: Resampling = "conv"
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    act_fn: Activation = "silu"
    attention_head_dim: Width | None = 8
    norm_num_groups: Width = 32
    attn_norm_num_groups: Width | None = None
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: bool = True
    class_embed_type: Literal["timestep"] | None = None
    num_class_embeds: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    num_train_timesteps: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        levels = len(self.block_out_channels)
        for field in ("down_block_types", "up_block_types"):
            blocks = getattr(self, field)
            if len(blocks) != levels:
                raise ValueError(f"{field} has {len(blocks)} blocks, but block_out_channels {levels} widths")
        if self.out_channels not in (self.in_channels, 2 * self.in_channels):
            raise ValueError(f"{self.in_channels} input channels and {self.out_channels} predicted ones do not fit")
        if self.time_embedding_type == "learned" and self.num_train_timesteps is None:
            raise ValueError("time_embedding_type learned needs num_train_timesteps")
        if self.class_embed_type == "timestep" and self.num_class_embeds is None:
            raise ValueError("class_embed_type timestep needs num_class_embeds: the number of classes is unknown")
        if self.class_embed_type == "timestep" and self.time_embedding_type == "learned":
            raise ValueError("class_embed_type timestep does not fit time_embedding_type learned")
        for width in self.block_out_channels:
            for groups in {self.norm_num_groups, self.attn_norm_num_groups or self.norm_num_groups}:
                if width % groups:
                    raise ValueError(f"a width of {width} channels is no multiple of {groups} groups of a norm")
            if (self.attention_head_dim or width) > width:
                raise ValueError(f"attention_head_dim {self.attention_head_dim} is larger than a width of {width}")
        return self

    @property
    def size_multiple(self) -> int:
        """What the height and width of an image must be a multiple of: every level but the last halves them."""
        return 1 << (len(self.block_out_channels) - 1)


def is_unet2d(config: Config) -> bool:
    """Returns whether config.json is a UNet2DModel's; without a class name it must have its widths."""
    name = config.get("_class_name")
    return name in (UNET2D_MODEL, *SUPERSEDED) or (name is None and "block_out_channels" in config)


def read_unet2d(stored: Config, img_size: int | None) -> UNet2DSpec:
    """Reads config.json; a key that it lacks has diffusers' default.

    Args:
        img_size: height and width, for a configuration without sample_size.

    Raises:
        PipelineRejected: if it describes a network that is no DDPM's, or that diffusers cannot build either.
    """
    config = _renamed(stored)
    _refuse_foreign(config)
    size = config.get("sample_size")
    if size is None and img_size is None:
        raise PipelineRejected(
            "its config.json has no sample_size, so the size of its images is unknown",
            "give --img_size, the height and width it was trained with",
        )
    side = img_size if size is None else size
    try:
        spec = UNet2DSpec.model_validate(config | {"sample_size": [side, side] if isinstance(side, int) else side})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise PipelineRejected(
            f"its config.json cannot be used: {f'{field}: ' if field else ''}{first['msg']}",
            "compare it with the config.json of the training",
        ) from error
    height, width = spec.sample_size
    if height % spec.size_multiple or width % spec.size_multiple:
        raise PipelineRejected(
            f"images of {height}x{width} do not fit its {len(spec.block_out_channels)} levels, which need a multiple "
            f"of {spec.size_multiple}",
            "the sample_size in config.json must be that of the training",
        )
    return spec


def _renamed(stored: Config) -> dict[str, JsonValue]:
    """Returns config.json with the keys of UNet2DModel.

    Raises:
        PipelineRejected: if it is of a superseded class, and lacks its blocks.
    """
    config = dict(stored)
    if config.get("_class_name") not in SUPERSEDED:
        return config
    for old, new in _RENAMED.items():
        if old in config and new not in config:
            config[new] = config[old]
    if not {"down_block_types", "up_block_types", "block_out_channels"} <= config.keys():
        raise PipelineRejected(
            f"its config.json is of the class {config['_class_name']} of 2022, and lacks its blocks",
            "write down_block_types, up_block_types and block_out_channels of UNet2DModel into config.json",
        )
    for field in ("down_block_types", "up_block_types"):
        blocks = config[field]
        if isinstance(blocks, list):
            config[field] = [str(block).replace("UNetRes", "").replace("UNet", "") for block in blocks]
    return config


def _refuse_foreign(config: Config) -> None:
    """Refuses, by name, networks of this class that are no DDPM's, or that no release of diffusers can build."""
    kind = config.get("time_embedding_type", "positional")
    if kind == "fourier":
        raise PipelineRejected(
            "its time_embedding_type is fourier: it is a score network of a variance-exploding SDE, not a DDPM",
            "use a model that was trained with a DDPM scheduler",
        )
    if kind == "adm" or config.get("attention_legacy_order"):
        raise PipelineRejected(
            "it is a guided-diffusion (ADM) network that needs a patched diffusers: time_embedding_type adm and "
            "attention_legacy_order are in no release",
            "use a conversion that a release of diffusers loads",
        )
    blocks = [*_strings(config.get("down_block_types")), *_strings(config.get("up_block_types"))]
    foreign = sorted({block for block in blocks if "Skip" in block or "CrossAttn" in block or block.startswith("K")})
    if foreign:
        raise PipelineRejected(
            f"it has blocks of {foreign[0]}, which belong to "
            + ("score networks of SDEs" if "Skip" in foreign[0] else "networks with text or image conditions")
            + ", not to an unconditional DDPM"
        )
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if isinstance(inputs, int) and isinstance(outputs, int) and outputs < inputs:
        raise PipelineRejected(
            f"it takes {inputs} channels and predicts {outputs}, so it needs a condition that is joined to the image, "
            "as for super-resolution or image-to-image",
            "only networks that take nothing but the noisy image, the timestep and a class can be sampled here",
        )
    if config.get("class_embed_type") == "identity":
        raise PipelineRejected(
            "its class_embed_type is identity: it needs an embedding for each sample, which no label says"
        )


def _strings(value: JsonValue) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
