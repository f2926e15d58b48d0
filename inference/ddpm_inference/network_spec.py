"""The architecture of a network as a document: enough to build it, and to know its images, classes and outputs.

Every family of networks (`models.families`) has one class of spec, which its `read` makes from a checkpoint's files.
The spec is part of the identity, so it holds every value that decides what the network computes.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from ddpm_inference.documents import CompactModel

ModelName = Literal["Unet", "SimpleUnet"]
"""The networks of the guide, whose files do not say how they were trained."""
TimeEmbedding = Literal["step", "row"]

Downs = Annotated[tuple[Annotated[int, Field(ge=2, le=4096)], ...], Field(min_length=1, max_length=8)]
TimeEmbDim = Annotated[int, Field(ge=2, le=4096)]
ImgSize = Annotated[int, Field(ge=1, le=1024)]
Channels = Annotated[int, Field(ge=1, le=64)]

UNET2D_MODEL = "UNet2DModel"
NAME_PATTERN = "^[A-Za-z][A-Za-z0-9_.-]{0,63}$"

DownBlock = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
UpBlock = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]
Resampling = Literal["conv", "resnet"]
Activation = Literal["silu", "swish", "mish", "gelu", "relu"]
Width = Annotated[int, Field(ge=1, le=8192)]
MAX_LEVELS = 10


class NetworkSpec(CompactModel):
    """What all specs have in common.

    Attributes:
        name: of the family, which alone decides the code that builds and executes the network.
    """

    name: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        raise NotImplementedError

    @property
    def num_classes(self) -> int | None:
        """The number of classes if the network needs a label for each sample, else None."""
        return None

    @property
    def learned_variance(self) -> bool:
        """Whether the prediction has 2C channels, of which the last C are the variance's."""
        return False


class ModelSpec(NetworkSpec):
    """The architecture of the guide's networks.

    Attributes:
        downs: channels of each level, outermost first.
        time_embedding: ``step`` encodes the timestep. ``row`` encodes the row of the batch instead, as the original
            code does, where the batch size is 1 and the row always 0.
        attention_norm: whether the Unet's attention block applies its BatchNorm. Two versions of the original code
            differ in this, with the same keys in the state dict.
    """

    name: ModelName
    downs: Downs
    time_emb_dim: TimeEmbDim
    img_size: ImgSize
    channels: Channels = 1
    time_embedding: TimeEmbedding
    attention_norm: bool = True

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.channels, self.img_size, self.img_size)


class UNet2DSpec(NetworkSpec):
    """The architecture of a ``UNet2DModel`` of diffusers: its configuration, complete.

    The fields are those of the configuration, with the defaults of diffusers 0.42 where it lacks them. Exceptions:
    ``sample_size`` is always (H, W), and ``class_embed_type`` is one that can be built from the configuration.
    """

    name: Literal["UNet2DModel"] = UNET2D_MODEL
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
    def _check(self) -> UNet2DSpec:
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
    def image_shape(self) -> tuple[int, int, int]:
        return (self.in_channels, *self.sample_size)

    @property
    def num_classes(self) -> int | None:
        return self.num_class_embeds

    @property
    def learned_variance(self) -> bool:
        return self.out_channels == 2 * self.in_channels

    @property
    def size_multiple(self) -> int:
        """What the height and width of an image must be a multiple of: every level but the last halves them."""
        return 1 << (len(self.block_out_channels) - 1)


class ExternalSpec(NetworkSpec):
    """The architecture of a network of another package's family (entry-point group `ddpm_inference.networks`).

    Attributes:
        size: (H, W) of one sample.
        classes: the number of classes if the network needs a label for each sample.
        predicts_variance: whether the prediction has 2C channels.
        options: the family's own configuration. It decides pixels, so it is part of the identity.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset({"classes", "predicts_variance"})

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    channels: Channels
    size: tuple[ImgSize, ImgSize]
    classes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    predicts_variance: bool = False
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.channels, *self.size)

    @property
    def num_classes(self) -> int | None:
        return self.classes

    @property
    def learned_variance(self) -> bool:
        return self.predicts_variance


def _kind(value: object) -> str:
    name = value.get("name", "Unet") if isinstance(value, dict) else getattr(value, "name", None)
    if name == UNET2D_MODEL:
        return "<UNet2DModel>"
    known = name in get_args(ModelName) or not isinstance(name, str) or not re.match(NAME_PATTERN, name)
    return "<guide>" if known else "<external>"


AnyNetworkSpec = Annotated[
    Annotated[ModelSpec, Tag("<guide>")]
    | Annotated[UNet2DSpec, Tag("<UNet2DModel>")]
    | Annotated[ExternalSpec, Tag("<external>")],
    Discriminator(_kind),
]
"""A spec of any family, told by its name. `documents` leaves the tags out of messages."""
