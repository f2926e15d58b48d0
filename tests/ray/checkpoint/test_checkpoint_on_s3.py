"""Checkpoints in a bucket of a real S3 server."""

from __future__ import annotations

import pytest
import s3fs

from ddpm_inference.checkpoint import fetch
from ddpm_inference.checkpoint import source as source_module
from ddpm_inference.errors import ModelNotFound, ModelRejected
from tests.support.s3 import Reconnect

pytestmark = pytest.mark.s3


def test_an_object_is_read_whole(bucket: str) -> None:
    data = bytes(range(256)) * 50_000
    s3fs.S3FileSystem().pipe_file(f"{bucket}/models/unet.pt", data)
    assert fetch(f"s3://{bucket}/models/unet.pt") == data


@pytest.mark.parametrize("location", ["{}/models/none.pt", "no-such-bucket/unet.pt", "{}/models"])
def test_a_missing_object_is_not_found(location: str, bucket: str) -> None:
    s3fs.S3FileSystem().pipe_file(f"{bucket}/models/unet.pt", b"weights")
    with pytest.raises(ModelNotFound, match="is not there"):
        fetch(f"s3://{location.format(bucket)}")


def test_an_object_beyond_the_limit_is_rejected(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs.S3FileSystem().pipe_file(f"{bucket}/unet.pt", b"weights")
    monkeypatch.setattr(source_module, "MAX_CHECKPOINT_BYTES", 6)
    with pytest.raises(ModelRejected, match="has 7 bytes; a checkpoint may have 6"):
        fetch(f"s3://{bucket}/unet.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"AWS_SECRET_ACCESS_KEY": "wrong"},
        {"AWS_ACCESS_KEY_ID": "unknown-key"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
    ],
)
def test_an_unusable_server_is_named(
    change: dict[str, str], bucket: str, monkeypatch: pytest.MonkeyPatch, reconnect: Reconnect
) -> None:
    s3fs.S3FileSystem().pipe_file(f"{bucket}/unet.pt", b"weights")
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    reconnect()
    with pytest.raises(ModelNotFound, match="cannot be read") as error:
        fetch(f"s3://{bucket}/unet.pt")
    assert "AWS_ENDPOINT_URL" in error.value.hint
