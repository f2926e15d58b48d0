"""A pipeline in a folder of an https server, which cannot be listed."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import pytest

from ddpm_inference.checkpoint import load_from
from ddpm_inference.errors import ModelNotFound, ModelRejected
from ddpm_inference.job import ModelRequest
from ddpm_inference.net import https_download
from tests.support.pipelines import nested

URL = "https://host/models/net/"


@pytest.fixture(params=[https_download.NotFound, https_download.Forbidden])
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """URL -> content of a server that answers 404 or 403 for everything else."""
    files: dict[str, bytes] = {}

    def download(uri: str, max_bytes: int) -> bytes:
        if uri not in files:
            raise request.param(f"host answers {HTTPStatus.NOT_FOUND}")
        if len(files[uri]) > max_bytes:
            raise https_download.TooLarge("many bytes")
        return files[uri]

    monkeypatch.setattr(https_download, "download", download)
    return files


def put(served: dict[str, bytes], files: Mapping[str, bytes], query: str = "") -> None:
    served.update({f"{URL}{name}{query}": content for name, content in files.items()})


def test_its_files_are_found_by_their_usual_names(served: dict[str, bytes]) -> None:
    put(served, nested(), "?signature=secret")
    checkpoint = load_from(ModelRequest(uri=f"{URL}?signature=secret"))
    assert checkpoint.source is not None
    assert [file.name for file in checkpoint.source.files] == sorted(nested())
    assert "secret" not in checkpoint.source.model_dump_json()


def test_an_unfinished_upload_is_refused(served: dict[str, bytes]) -> None:
    put(served, {"scheduler_config.json": b"{}"})
    with pytest.raises(ModelRejected, match="its upload is unfinished"):
        load_from(ModelRequest(uri=URL))


def test_nothing_there_is_an_error_without_the_signature(served: dict[str, bytes]) -> None:
    with pytest.raises((ModelRejected, ModelNotFound)) as error:
        load_from(ModelRequest(uri=f"{URL}?signature=secret"))
    assert "secret" not in error.value.message
