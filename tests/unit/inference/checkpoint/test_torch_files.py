"""``.pt`` files: what is rejected before torch reads them, what the reader rejects, and round trips."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddpm_inference.checkpoint import load, torch_file, torch_reader
from ddpm_inference.checkpoint.safetensors_file import Weights, decode, encode
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import ModelRequest, ModelSpec
from ddpm_inference.models import build

AsPt = Callable[[object], bytes]


class Hostile:
    """Creates a file when it is unpickled, which `load` must never do."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def rewrite_zip(
    file: bytes,
    change: Callable[[str, bytes], bytes],
    compression: int = zipfile.ZIP_STORED,
    *more: tuple[str, bytes],
) -> bytes:
    """Returns the zip with changed contents and correct checksums."""
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(file)) as source, zipfile.ZipFile(out, "w", compression) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, change(entry.filename, source.read(entry)))
        for name, data in more:
            target.writestr(name, data)
    return out.getvalue()


def convert_in_process(file: bytes) -> bytes:
    """Does what `torch_file.to_safetensors` does without the subprocess, which imports torch each time."""
    torch_file.check_pickle(torch_file.read_pickle(file))
    return torch_reader.read(file)


@pytest.mark.slow
def test_loading_does_not_import_torch(tmp_path: Path) -> None:
    spec = ModelSpec(
        name="Unet", downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="row", attention_norm=False
    )
    network = build(spec)
    network.get_buffer("bnorm.num_batches_tracked").add_(1)  # as if it had been trained
    torch.save(network.state_dict(), tmp_path / "Unet.pt")
    program = """if True:
        import pickle, sys
        from pathlib import Path
        from ddpm_inference.checkpoint import load
        from ddpm_inference.job import ModelRequest
        checkpoint = load(Path(sys.argv[1]), ModelRequest(uri="x"))
        assert "torch" not in sys.modules
        sys.stdout.buffer.write(pickle.dumps(checkpoint))
    """
    # A torch.py in the working directory must not be imported as torch.
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch')")
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, tmp_path / "Unet.pt"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        check=True,
    )
    checkpoint = pickle.loads(done.stdout)  # noqa: S301 - of this test's own making
    assert checkpoint.spec == spec
    assert checkpoint.trained is None
    assert [note.partition(":")[0] for note in checkpoint.notes] == [
        "time embedding",
        "image size",
        "attention without its BatchNorm",
        "noise schedule",
    ]
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(checkpoint.weights[key], value.numpy(), strict=True)


@pytest.mark.slow
def test_an_error_of_the_reader_is_passed_on(as_pt: AsPt, weights: Weights, request_: ModelRequest) -> None:
    file = as_pt({"epoch": 3, "state_dict": {"a": torch.zeros(1)}})
    with pytest.raises(ModelRejected, match="not a flat state dict: epoch is a int") as error:
        load(file, request_)
    assert "save only model.state_dict()" in error.value.hint


def test_a_reader_that_hangs_times_out(
    as_pt: AsPt, weights: Weights, request_: ModelRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_file, "READER_TIMEOUT", 0.01)
    with pytest.raises(ModelRejected, match=r"could not read it within 0.01 s"):
        load(as_pt(weights), request_)


@pytest.mark.slow
def test_a_file_that_crashes_the_reader_is_rejected(as_pt: AsPt, request_: ModelRequest) -> None:
    depth = 1_000_000
    bomb = b"\x80\x02}" + b")" + b"\x85" * depth + b"K\x01s."  # {(((...))): 1}: hashing it overflows the stack
    file = rewrite_zip(as_pt({}), lambda name, data: bomb if name.endswith("data.pkl") else data)
    with pytest.raises(ModelRejected, match="its reader exited with code"):
        load(file, request_)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_become_float32(dtype: torch.dtype, as_pt: AsPt) -> None:
    value = torch.tensor([1.5, -2.0], dtype=dtype)
    decoded, _ = decode(convert_in_process(as_pt({"a": value})))
    np.testing.assert_array_equal(decoded["a"], np.array([1.5, -2], np.float32), strict=True)


def test_non_contiguous_parameters_are_loaded_in_order(as_pt: AsPt) -> None:
    value = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    decoded, _ = decode(convert_in_process(as_pt(OrderedDict(a=value))))
    np.testing.assert_array_equal(decoded["a"], value.detach().numpy())


@pytest.mark.parametrize("name", ["Unet", "SimpleUnet"])
def test_the_architecture_is_inferred_from_the_shapes(
    name: str, as_pt: AsPt, weights_of: Callable[[ModelSpec], Weights]
) -> None:
    spec = ModelSpec.model_validate(
        {
            "name": name,
            "downs": (4, 6, 10),
            "time_emb_dim": 3,
            "img_size": 28,
            "channels": 2,
            "time_embedding": "row",
        }
    )
    assert load(convert_in_process(as_pt(weights_of(spec))), ModelRequest(uri="x")).spec == spec


def test_a_bare_checkpoint_has_the_original_time_embedding(weights: Weights) -> None:
    silent = load(encode(weights, None), ModelRequest(uri="x", img_size=8))
    assert silent.spec.time_embedding == "row"
    assert any(note.startswith("time embedding: row") for note in silent.notes)
    told = load(encode(weights, None), ModelRequest(uri="x", img_size=8, time_embedding="step"))
    assert told.spec.time_embedding == "step"
    assert not any("time embedding" in note for note in told.notes)


@pytest.mark.parametrize(
    ("requested", "both"),
    [
        ({"name": "SimpleUnet"}, "--model_name SimpleUnet contradicts the checkpoint, whose weights say Unet"),
        ({"downs": (8, 16, 32)}, "--downs 8 16 32 contradicts the checkpoint, whose weights say 4 6"),
        ({"time_emb_dim": 4}, "--time_emb_dim 4 contradicts the checkpoint, whose weights say 2"),
        ({"channels": 3}, "model.channels 3 contradicts the checkpoint, whose weights say 1"),
    ],
)
def test_a_flag_contradicting_the_weights_names_both(requested: dict[str, object], both: str, weights: Weights) -> None:
    with pytest.raises(InvalidSpec) as error:
        load(encode(weights, None), ModelRequest.model_validate({"uri": "x", **requested}))
    assert both in error.value.message


@pytest.mark.parametrize("form", ["zip", "zip, beside weights", "legacy", "bare pickle", "bare pickle, protocol 5"])
def test_a_pickle_with_code_is_rejected_unexecuted(
    form: str, tmp_path: Path, weights: Weights, as_pt: AsPt, request_: ModelRequest
) -> None:
    mark = tmp_path / "it-ran"
    hostile = Hostile(mark)
    legacy = BytesIO()
    torch.save(hostile, legacy, _use_new_zipfile_serialization=False)
    file = {
        "zip": as_pt(hostile),
        "zip, beside weights": as_pt({**weights, "extra": hostile}),
        "legacy": legacy.getvalue(),
        "bare pickle": pickle.dumps(hostile, protocol=2),
        "bare pickle, protocol 5": pickle.dumps(hostile, protocol=5),
    }[form]
    with pytest.raises(ModelRejected, match=r"posix.system, which does not belong|bare pickle, which may carry code"):
        load(file, request_)
    assert not mark.exists()


def test_the_reader_executes_no_code_either(tmp_path: Path, as_pt: AsPt) -> None:
    mark = tmp_path / "it-ran"
    with pytest.raises(ModelRejected, match="torch refuses it") as error:
        torch_reader.read(as_pt(Hostile(mark)))
    assert not mark.exists()
    assert "weights_only" not in error.value.message


def test_the_hostile_pickle_runs_when_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    pickle.loads(pickle.dumps(Hostile(mark)))  # noqa: S301 - of this test's own making
    assert mark.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"a": torch.zeros(1), "loss": np.float64(1)},
            "core.multiarray.scalar, which does not belong in a state dict",
        ),
        ({"a": bytearray(3)}, "__builtin__.bytearray, which does not belong in a state dict"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear, which is not a plain tensor"),
        ({"a": torch.zeros(3).to_sparse()}, "_rebuild_sparse_tensor, which is not a plain tensor"),
        ({"a": torch.zeros(3, dtype=torch.complex64)}, "ComplexFloatStorage, which is not a plain tensor"),
        ({"a": torch.zeros(3, dtype=torch.int8)}, "CharStorage, which is not a plain tensor"),
        ({"a": torch.zeros(3, device="meta")}, "_rebuild_meta_tensor_no_storage, which is not a plain tensor"),
        ([torch.zeros(1)], "more than a flat dict of tensors (EMPTY_LIST)"),
        (torch.zeros(1), "it contains a Tensor, not a state dict"),
        ({"model": {"a": torch.zeros(1)}}, "not a flat state dict: model is a dict"),
        ({1: torch.zeros(1)}, "not a flat state dict: int is a Tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_only_a_flat_dict_of_plain_tensors_is_accepted(value: object, message: str, as_pt: AsPt) -> None:
    with pytest.raises(ModelRejected) as error:
        convert_in_process(as_pt(value))
    assert message in error.value.message


@pytest.mark.parametrize(
    "state",
    [
        {"init_conv2.weight": torch.zeros(1).expand(10**6, 10**6)},
        dict.fromkeys(map(str, range(1000)), torch.zeros(1000)),
        {"a": torch.zeros(64).as_strided((60, 5), (1, 1)), "b": torch.zeros(64).as_strided((10**9,), (0,))},
    ],
    ids=["one value, terabytes", "one storage, a thousand times", "overlapping windows"],
)
def test_tensors_larger_than_the_file_are_rejected(state: dict[str, torch.Tensor], as_pt: AsPt) -> None:
    with pytest.raises(ModelRejected, match=r"its tensors claim more values than its [0-9,]+ bytes can hold"):
        convert_in_process(as_pt(state))


def test_a_zip_bomb_is_rejected(as_pt: AsPt, weights: Weights, request_: ModelRequest) -> None:
    bomb = rewrite_zip(
        as_pt(weights), lambda _, data: data, zipfile.ZIP_DEFLATED, ("archive/data/999", bytes(64 << 20))
    )
    with pytest.raises(ModelRejected, match="is compressed or encrypted and would unpack to"):
        load(bomb, request_)


def test_overlapping_zip_entries_are_rejected(as_pt: AsPt, weights: Weights, request_: ModelRequest) -> None:
    file = as_pt(weights)
    with zipfile.ZipFile(BytesIO(file)) as archive:
        start = archive.start_dir
    # The directory three times over: every entry is listed thrice, under names of its own.
    directory = file[start : file.rindex(b"PK\x06\x06")]
    end = file[file.rindex(b"PK\x05\x06") :]
    tripled = directory + directory.replace(b"archive/", b"brchive/") + directory.replace(b"archive/", b"crchive/")
    count = 3 * int.from_bytes(end[8:10], "little")
    forged = b"".join(
        [
            file[:start],
            tripled,
            end[:8],
            2 * count.to_bytes(2, "little"),
            len(tripled).to_bytes(4, "little"),
            start.to_bytes(4, "little"),
            end[20:],
        ]
    )
    with pytest.raises(ModelRejected, match="claim to unpack to"):
        load(forged, request_)


def test_too_many_zip_entries_are_rejected(request_: ModelRequest) -> None:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for index in range(torch_file.MAX_ZIP_ENTRIES + 1):
            archive.writestr(f"archive/{index}", b"")
    with pytest.raises(ModelRejected, match="lists more than 10,000 entries"):
        load(out.getvalue(), request_)


def test_a_zip_of_another_program_is_rejected(request_: ModelRequest) -> None:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("word/document.xml", b"<w/>")
    with pytest.raises(ModelRejected, match=r"a zip archive, but not one from torch.save"):
        load(out.getvalue(), request_)


def test_a_torchscript_program_is_rejected(tmp_path: Path, as_pt: AsPt, request_: ModelRequest) -> None:
    program = rewrite_zip(as_pt({}), lambda _, data: data, zipfile.ZIP_STORED, ("archive/constants.pkl", b"."))
    with pytest.raises(ModelRejected, match="a TorchScript program, not a state dict"):
        load(program, request_)


def test_a_truncated_file_is_rejected(as_pt: AsPt, weights: Weights, request_: ModelRequest) -> None:
    file = as_pt(weights)
    for cut in [*range(20), *range(20, len(file), 5003), *range(len(file) - 120, len(file))]:
        with pytest.raises(ModelRejected):
            load(file[:cut], request_)


def test_a_corrupted_weight_fails_its_checksum(as_pt: AsPt, weights: Weights, request_: ModelRequest) -> None:
    file = bytearray(as_pt(weights))
    at = file.index(weights["out_conv.weight"].tobytes())
    file[at] ^= 1
    with pytest.raises(ModelRejected, match=r"Bad CRC|does not match its checksum"):
        load(bytes(file), request_)


def test_missing_and_truncated_records_are_rejected(as_pt: AsPt) -> None:
    file = as_pt({"a": torch.arange(1000.0)})
    with pytest.raises(ModelRejected, match="torch cannot read it"):
        convert_in_process(rewrite_zip(file, lambda name, data: data[:8] if name.endswith("data/0") else data))
    with pytest.raises(ModelRejected, match="torch cannot read it"):
        convert_in_process(file.replace(b"archive/data/0", b"archive/data/9"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_rejected_or_unchanged(data: st.DataObject, as_pt: AsPt) -> None:
    state = {"a": torch.arange(3.0), "b": torch.tensor(5)}
    file = as_pt(state)
    damaged = bytearray(file)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded, _ = decode(convert_in_process(bytes(damaged[: data.draw(st.integers(len(file) // 2, len(file)))])))
    except ModelRejected:
        return
    for key, value in state.items():
        np.testing.assert_array_equal(decoded[key], value.numpy())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:invalid escape sequence")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_forged_pickle_creates_only_tensors(data: st.DataObject, as_pt: AsPt) -> None:
    def forge(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        forged = bytearray(content)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(forged) - 1))
            forged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        return bytes(forged)

    file = rewrite_zip(as_pt({"a": torch.arange(3.0), "b": torch.tensor(5)}), forge)
    try:
        decoded, _ = decode(convert_in_process(file))
    except ModelRejected:
        return
    assert sum(value.nbytes for value in decoded.values()) <= 2 * len(file)
