"""safetensors checkpoints: round trips, metadata, verification of weights, and hostile headers."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddpm_inference.checkpoint import load
from ddpm_inference.checkpoint.safetensors_file import METADATA_KEY, Metadata, Weights, encode
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import ModelRequest, ModelSpec, TrainedSchedule


def raw_file(header: dict[str, object], body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def with_metadata(weights: Weights, text: str) -> bytes:
    return safetensors.numpy.save(weights, {METADATA_KEY: text})


def test_a_checkpoint_is_loaded_as_saved(
    file: bytes, weights: Weights, spec: ModelSpec, trained: TrainedSchedule, request_: ModelRequest
) -> None:
    checkpoint = load(file, request_)
    assert checkpoint.spec == spec
    assert checkpoint.trained == trained
    assert checkpoint.sha256 == hashlib.sha256(file).hexdigest()
    assert checkpoint.notes == ()
    assert checkpoint.weights.keys() == weights.keys()
    for key, value in checkpoint.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), weights[key], strict=True)


def test_equal_checkpoints_are_equal_bytes(
    file: bytes, weights: Weights, spec: ModelSpec, trained: TrainedSchedule
) -> None:
    backwards = dict(reversed(weights.items()))
    assert encode(backwards, Metadata(model=spec, trained=trained)) == file


def test_non_contiguous_weights_are_saved_in_order(weights: Weights, spec: ModelSpec, request_: ModelRequest) -> None:
    key = "init_conv2.weight"
    turned = {**weights, key: np.ascontiguousarray(weights[key].T).T}
    checkpoint = load(encode(turned, Metadata(model=spec)), request_)
    np.testing.assert_array_equal(checkpoint.weights[key], weights[key])


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_floating_types_become_float32(
    dtype: str, weights: Weights, spec: ModelSpec, request_: ModelRequest
) -> None:
    key = "init_conv.bias"
    other = weights[key].astype(dtype)
    checkpoint = load(encode({**weights, key: other}, Metadata(model=spec)), request_)
    np.testing.assert_array_equal(checkpoint.weights[key], other.astype(np.float32), strict=True)


def test_bfloat16_becomes_float32(request_: ModelRequest, weights: Weights) -> None:
    import torch
    from safetensors.torch import save

    tensors = {key: torch.tensor(value) for key, value in weights.items()}
    tensors["init_conv.bias"] = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    checkpoint = load(save(tensors), ModelRequest(uri="x", img_size=8))
    np.testing.assert_array_equal(checkpoint.weights["init_conv.bias"], np.array([1.5, -2], np.float32), strict=True)


@pytest.mark.parametrize(
    ("requested", "both"),
    [
        ({"name": "SimpleUnet"}, ("--model_name SimpleUnet", "Unet")),
        ({"downs": (8, 16, 32)}, ("--downs 8 16 32", "4 6")),
        ({"time_emb_dim": 4}, ("--time_emb_dim 4", "2")),
        ({"img_size": 28}, ("--img_size 28", "8")),
        ({"channels": 3}, ("model.channels 3", "1")),
        ({"time_embedding": "row"}, ("--time_embedding row", "step")),
    ],
)
def test_a_flag_contradicting_the_metadata_names_both(
    requested: dict[str, object], both: tuple[str, str], file: bytes
) -> None:
    with pytest.raises(InvalidSpec) as error:
        load(file, ModelRequest.model_validate({"uri": "some/model", **requested}))
    flag, known = both
    assert f"{flag} contradicts the checkpoint, whose metadata says {known}" in error.value.message


def test_flags_may_repeat_the_metadata(file: bytes, spec: ModelSpec) -> None:
    repeated = spec.model_dump(exclude={"attention_norm"})
    assert load(file, ModelRequest.model_validate({"uri": "x", **repeated})).spec == spec


def test_a_missing_schedule_is_noted(weights: Weights, spec: ModelSpec, request_: ModelRequest) -> None:
    checkpoint = load(encode(weights, Metadata(model=spec)), request_)
    assert checkpoint.trained is None
    assert [note.partition(",")[0] for note in checkpoint.notes] == ["noise schedule: not in the checkpoint"]


def test_null_metadata_counts_as_absent(weights: Weights) -> None:
    file = encode(weights, None)
    length = int.from_bytes(file[:8], "little")
    header = {"__metadata__": None} | json.loads(file[8 : 8 + length])
    checkpoint = load(raw_file(header, file[8 + length :]), ModelRequest(uri="x", img_size=8))
    assert checkpoint.weights.keys() == weights.keys()
    assert checkpoint.trained is None


def test_the_architecture_is_inferred_from_the_weights(weights: Weights) -> None:
    checkpoint = load(encode(weights, None), ModelRequest(uri="x", img_size=8))
    assert checkpoint.spec == ModelSpec(
        name="Unet", downs=(4, 6), time_emb_dim=2, img_size=8, time_embedding="row", attention_norm=True
    )
    assert checkpoint.trained is None
    assert "time embedding: row" in checkpoint.notes[0]


def test_the_pinned_sha256_is_checked_first(file: bytes) -> None:
    digest = hashlib.sha256(file).hexdigest()
    assert load(file, ModelRequest(uri="x", sha256=digest)).sha256 == digest
    with pytest.raises(
        ModelRejected, match=f"its sha256 is {hashlib.sha256(b'').hexdigest()}, not the pinned {digest}"
    ):
        load(b"", ModelRequest(uri="x", sha256=digest))


def test_missing_and_unknown_keys_are_counted_and_named(
    weights: Weights, spec: ModelSpec, request_: ModelRequest
) -> None:
    for key in ("bnorm.bias", "out_conv.bias", "resint1.bnorm1.bias", "resint2.bnorm1.bias"):
        del weights[key]
    weights["head.weight"] = np.zeros(3, np.float32)
    with pytest.raises(ModelRejected) as error:
        load(encode(weights, Metadata(model=spec)), request_)
    assert "4 missing (bnorm.bias, out_conv.bias, resint1.bnorm1.bias, ...)" in error.value.message
    assert "1 unknown (head.weight)" in error.value.message


def test_a_mismatched_shape_names_both_shapes(weights: Weights, spec: ModelSpec, request_: ModelRequest) -> None:
    weights["resint1.conv1.weight"] = np.zeros((6, 6, 5, 5), np.float32)
    with pytest.raises(ModelRejected, match=r"resint1.conv1.weight is 6x6x5x5 instead of 6x6x3x3"):
        load(encode(weights, Metadata(model=spec)), request_)


def test_metadata_of_another_network_is_rejected(weights: Weights, spec: ModelSpec, request_: ModelRequest) -> None:
    wider = spec.model_copy(update={"downs": (4, 8)})
    with pytest.raises(ModelRejected, match="not a Unet with downs 4 8"):
        load(encode(weights, Metadata(model=wider)), request_)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(
    value: float, weights: Weights, spec: ModelSpec, request_: ModelRequest
) -> None:
    weights["resint2.conv1.bias"][[1, 3]] = value
    with pytest.raises(ModelRejected, match=r"resint2.conv1.bias holds 2 values that are NaN or infinite"):
        load(encode(weights, Metadata(model=spec)), request_)


def test_a_float64_overflow_counts_as_infinite(weights: Weights, spec: ModelSpec, request_: ModelRequest) -> None:
    huge = {**weights, "out_conv.bias": np.array([1e300])}
    with pytest.raises(ModelRejected, match=r"out_conv.bias holds 1 values that are NaN or infinite"):
        load(encode(huge, Metadata(model=spec)), request_)


def test_negative_variances_are_refused(weights: Weights, spec: ModelSpec, request_: ModelRequest) -> None:
    weights["bnorm.running_var"][0] = -1
    with pytest.raises(ModelRejected, match=r"bnorm.running_var holds negative variances"):
        load(encode(weights, Metadata(model=spec)), request_)


@pytest.mark.parametrize("key", ["out_conv.bias", "bnorm.num_batches_tracked"])
def test_wrong_dtypes_are_rejected(key: str, weights: Weights, spec: ModelSpec, request_: ModelRequest) -> None:
    swapped = weights[key].astype(np.float32 if weights[key].dtype == np.int64 else np.int64)
    with pytest.raises(ModelRejected, match=f"{key} holds {swapped.dtype} values instead of {weights[key].dtype}"):
        load(encode({**weights, key: swapped}, Metadata(model=spec)), request_)


def test_unsupported_dtypes_are_rejected(request_: ModelRequest) -> None:
    with pytest.raises(ModelRejected, match="tensor a holds values of type U8"):
        load(safetensors.numpy.save({"a": np.zeros(3, np.uint8)}), request_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version must be 1"),
        ({"normalisation": [0, 1]}, "normalisation"),
        ({"model": None}, "model"),
        ({"surprise": 1}, "surprise is not a known field"),
    ],
)
def test_invalid_metadata_is_rejected(
    change: dict[str, object], message: str, weights: Weights, spec: ModelSpec, request_: ModelRequest
) -> None:
    text = json.dumps({**Metadata(model=spec).model_dump(mode="json"), **change})
    with pytest.raises(ModelRejected, match="its metadata is not valid") as error:
        load(with_metadata(weights, text), request_)
    assert message in error.value.message


def test_an_image_size_must_fit_the_levels(
    weights_of: Callable[[ModelSpec], Weights],
) -> None:
    deep = ModelSpec(name="Unet", downs=(4, 4, 4, 4), time_emb_dim=2, img_size=32, time_embedding="row")
    file = encode(weights_of(deep), None)
    with pytest.raises(ModelRejected, match=r"image size 28 does not fit .* which needs a multiple of 8"):
        load(file, ModelRequest(uri="x"))
    assert load(file, ModelRequest(uri="x", img_size=32)).spec.img_size == 32


def test_a_truncated_file_is_rejected(file: bytes, request_: ModelRequest) -> None:
    cuts = [*range(20), *range(20, len(file), 5003), len(file) - 1]
    for cut in cuts:
        with pytest.raises(ModelRejected):
            load(file[:cut], request_)


def test_trailing_bytes_are_rejected(file: bytes, request_: ModelRequest) -> None:
    with pytest.raises(ModelRejected):
        load(file + b"\0", request_)


@pytest.mark.parametrize(
    "hostile",
    [
        raw_file({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}),
        raw_file({"a": {"dtype": "F32", "shape": [1 << 32, 1 << 32], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw_file({"a": {"dtype": "F32", "shape": [1 << 63, 2], "data_offsets": [0, 0]}}),
        raw_file({"a": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}}),
        raw_file({"a": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}, b"\0" * 4),
        raw_file({key: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for key in "ab"}, b"\0" * 4),
        raw_file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
        raw_file({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
        struct.pack("<Q", 1 << 62) + b"{",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 1 << 19) + b"{" * (1 << 19),
    ],
    ids=[
        "terabytes",
        "more values than bytes",
        "a product that overflows",
        "an absurd empty shape",
        "more dimensions than numpy has",
        "overlapping tensors",
        "a hole before the first",
        "a negative size",
        "an endless header",
        "no tensors at all",
        "a deep header",
    ],
)
def test_a_lying_header_is_rejected(hostile: bytes, request_: ModelRequest) -> None:
    with pytest.raises(ModelRejected):
        load(hostile, request_)


def test_a_long_header_is_rejected_unread(file: bytes, request_: ModelRequest) -> None:
    length = struct.unpack("<Q", file[:8])[0]
    padded = struct.pack("<Q", length + (1 << 20)) + file[8 : 8 + length] + b" " * (1 << 20) + file[8 + length :]
    with pytest.raises(ModelRejected, match=r"its safetensors header claims 1,[0-9,]+ bytes of at most 1,048,576"):
        load(padded, request_)


def test_names_in_a_hostile_file_are_escaped(weights: Weights, spec: ModelSpec, request_: ModelRequest) -> None:
    weights["\x1b[2J\n" + "x" * 5000] = weights["out_conv.bias"]
    with pytest.raises(ModelRejected, match="1 unknown") as error:
        load(encode(weights, Metadata(model=spec)), request_)
    assert "?[2J?xxx" in error.value.message
    assert error.value.message.isprintable()
    assert len(error.value.message) < 1200


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_rejected_or_still_valid(data: st.DataObject, file: bytes, request_: ModelRequest) -> None:
    header = struct.unpack("<Q", file[:8])[0]
    damaged = bytearray(file)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, header + 200))] = data.draw(st.integers(0, 255))
    try:
        checkpoint = load(bytes(damaged[: data.draw(st.integers(header, len(damaged)))]), request_)
    except ModelRejected:
        return
    assert all(np.isfinite(value).all() for value in checkpoint.weights.values())
