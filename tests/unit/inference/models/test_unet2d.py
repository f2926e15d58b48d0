"""The family of diffusers' UNet2DModel: its layout, its execution, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import ModelRequest, UNet2DSpec
from ddpm_inference.models import expected_shapes
from ddpm_inference.models.families import family_of, recognised
from tests.support.hub_configs import Files, drawn, reduced

REQUEST = ModelRequest(uri="x")
SMALL: dict[str, Any] = {
    "sample_size": (8, 8),
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
RESNET: dict[str, Any] = {
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "block_out_channels": (8, 16, 16),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "google": {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6},
    "one head": {"attention_head_dim": None},
    "heads that do not divide": {"attention_head_dim": 5},
    "resnet sampling": RESNET,
    "scale and shift": {"resnet_time_scale_shift": "scale_shift"},
    "scale and shift, norm in the middle": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 2},
    "no attention in the middle": {"add_attention": False},
    "no middle": {"mid_block_type": None},
    "scaled middle": {"mid_block_scale_factor": 1.41421356237},
    "learned time": {"time_embedding_type": "learned", "num_train_timesteps": 50},
    "wider time": {"time_embedding_dim": 24},
    "classes": {"num_class_embeds": 5},
    "classes by timestep": {"num_class_embeds": 5, "class_embed_type": "timestep"},
    "classes with scale and shift": {"num_class_embeds": 5, "resnet_time_scale_shift": "scale_shift"},
    "learned variance": {"out_channels": 6},
    "centred": {"center_input_sample": True},
    "grey": {"in_channels": 1, "out_channels": 1},
    "RGBA": {"in_channels": 4, "out_channels": 4},
    "not square": {"sample_size": (8, 12)},
    "mish": {"act_fn": "mish"},
    "gelu, two layers": {"act_fn": "gelu", "layers_per_block": 2},
}


def spec_of(**fields: Any) -> UNet2DSpec:  # noqa: ANN401
    return UNet2DSpec.model_validate({**SMALL, **fields})


def read(**fields: Any) -> UNet2DSpec:  # noqa: ANN401
    files = Files({"_class_name": "UNet2DModel", **SMALL, **fields})
    spec = recognised(files, REQUEST).read(files, REQUEST)
    assert isinstance(spec, UNet2DSpec)
    return spec


@pytest.mark.slow
@pytest.mark.parametrize("spec", dict.fromkeys(entry.read()[0] for entry in drawn()), ids=lambda spec: str(hash(spec)))
def test_the_layout_is_that_of_diffusers(spec: UNet2DSpec) -> None:
    assert family_of(spec).shapes(spec) == expected_shapes(spec)


@pytest.mark.slow
@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_has_diffusers_layout_and_result(fields: dict[str, Any]) -> None:
    spec = spec_of(**fields)
    family = family_of(spec)
    assert family.shapes(spec) == expected_shapes(spec)
    torch.manual_seed(1)
    network = family.build(spec).eval()
    times = [40, 7.5, 0] if spec.time_embedding_type == "positional" else [40, 7, 0]
    predict = family.predictor(network, spec, times, precision="fp32", execution="folded", device="cpu")
    x = torch.randn(3, *spec.image_shape)
    labels = None if spec.num_classes is None else torch.tensor([0, 4, 2])
    for t in times:
        with torch.inference_mode():
            expected = network(x, torch.tensor(t), labels).sample
        torch.testing.assert_close(predict(x, t, labels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_reduced_networks_are_executed_as_diffusers_does() -> None:
    for spec in dict.fromkeys(reduced(entry.read()[0]) for entry in drawn()):
        torch.manual_seed(1)
        network = family_of(spec).build(spec).eval()
        predict = family_of(spec).predictor(network, spec, [3], precision="fp32", execution="folded", device="cpu")
        x = torch.randn(2, *spec.image_shape)
        with torch.inference_mode():
            expected = network(x, 3).sample
        torch.testing.assert_close(predict(x, 3), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.slow
def test_a_network_with_classes_needs_labels() -> None:
    spec = spec_of(num_class_embeds=3)
    predict = family_of(spec).predictor(
        family_of(spec).build(spec), spec, [3], precision="fp32", execution="folded", device="cpu"
    )
    with pytest.raises(InvalidSpec, match="3 classes"):
        predict(torch.zeros(1, *spec.image_shape), 3)


def test_a_missing_key_has_the_default_and_null_has_not() -> None:
    without = {key: value for key, value in SMALL.items() if key != "norm_num_groups"}
    wide = {**without, "block_out_channels": [32, 64]}
    assert read(**{**wide, "norm_num_groups": 32}).attention_head_dim == 8
    assert read(attention_head_dim=None).attention_head_dim is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"time_embedding_type": "fourier"}, "variance-exploding SDE"),
        ({"time_embedding_type": "adm"}, "patched diffusers"),
        ({"attention_legacy_order": True}, "patched diffusers"),
        ({"in_channels": 6}, "takes 6 channels and predicts 3"),
        ({"out_channels": 5}, "3 input channels and 5 predicted"),
        ({"class_embed_type": "identity"}, "class_embed_type is identity"),
        ({"class_embed_type": "timestep"}, "number of classes is unknown"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "SkipDownBlock2D"),
        ({"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"]}, "text or image conditions"),
        ({"down_block_types": ["DownBlock2D"]}, "down_block_types has 1 blocks"),
        ({"sample_size": None}, "no sample_size"),
        ({"sample_size": 9}, "9x9 do not fit its 2 levels, which need a multiple of 2"),
        ({"sample_size": [8, 9]}, "8x9 do not fit"),
        ({"norm_num_groups": 3}, "no multiple of 3 groups"),
        ({"norm_num_groups": None}, "norm_num_groups"),
        ({"attention_head_dim": 64}, "attention_head_dim 64 is larger"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift"),
        ({"block_out_channels": [8, -16]}, "block_out_channels"),
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
    ],
)
def test_what_is_no_ddpm_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelRejected) as error:
        read(**fields)
    assert named in error.value.message


def test_a_config_of_something_else_is_no_default_network() -> None:
    files = Files({"in_channels": 1, "out_channels": 1, "time_embedding_dim": 32})
    with pytest.raises(ModelRejected, match="not that of a known network"):
        recognised(files, REQUEST)


def test_keys_that_were_deleted_are_said_to_be_filled_in() -> None:
    files = Files({"_class_name": "UNet2DModel", "_diffusers_version": "0.29.2", **SMALL})
    notes = " ".join(recognised(files, REQUEST).notes(files, REQUEST))
    for key in ("downsample_padding 1", "flip_sin_to_cos True", "freq_shift 0", "norm_eps 1e-05", "dropout 0.0"):
        assert key in notes
    assert " norm_num_groups" not in notes


def test_flags_that_contradict_a_configuration_are_refused() -> None:
    files = Files({"_class_name": "UNet2DModel", **SMALL})
    for fields, named in (
        ({"img_size": 16}, "--img_size 16"),
        ({"downs": (8, 16)}, "--downs"),
        ({"name": "Unet"}, "--model_name Unet"),
    ):
        request = ModelRequest.model_validate({"uri": "x", **fields})
        with pytest.raises(InvalidSpec, match=named):
            recognised(files, request).read(files, request)
    unsized = Files({"_class_name": "UNet2DModel", **SMALL, "sample_size": None})
    request = ModelRequest(uri="x", img_size=16)
    assert recognised(unsized, request).read(unsized, request).image_shape == (3, 16, 16)


def test_the_superseded_class_is_read_with_its_old_keys() -> None:
    files = Files(
        {
            "_class_name": "UNetUnconditionalModel",
            "block_channels": [8, 16],
            "down_blocks": ["UNetResDownBlock2D", "UNetResAttnDownBlock2D"],
            "up_blocks": ["UNetResAttnUpBlock2D", "UNetResUpBlock2D"],
            "image_size": 8,
            "num_res_blocks": 1,
            "resnet_eps": 1e-6,
            "resnet_num_groups": 4,
            "num_head_channels": None,
            "downscale_freq_shift": 1,
        }
    )
    spec = recognised(files, REQUEST).read(files, REQUEST)
    assert spec == spec_of(norm_eps=1e-6, attention_head_dim=None, freq_shift=1)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, RESNET, {"num_class_embeds": 5}, {"sample_size": (16, 24)}], ids=str)
def test_the_bits_of_a_row_do_not_depend_on_the_other_rows(fields: dict[str, Any]) -> None:
    spec = spec_of(**fields)
    torch.manual_seed(1)
    predict = family_of(spec).predictor(
        family_of(spec).build(spec), spec, [3], precision="fp32", execution="folded", device="cpu"
    )
    x = torch.randn(5, *spec.image_shape)
    labels = None if spec.num_classes is None else torch.arange(5)
    whole = predict(x, 3, labels)
    for row in range(5):
        others = torch.randn_like(x)
        others[row] = x[row]
        assert torch.equal(predict(others, 3, labels)[row], whole[row])


@pytest.mark.slow
def test_bf16_is_near_fp32() -> None:
    spec = spec_of()
    torch.manual_seed(1)
    family, network, x = family_of(spec), family_of(spec).build(spec_of()), torch.randn(2, *spec.image_shape)
    one, other = (
        family.predictor(network, spec, [3], precision=precision, execution="folded", device="cpu")(x, 3)
        for precision in ("fp32", "bf16")
    )
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
