"""``hf://`` with the real huggingface_hub client, against a hub on loopback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpm_inference.checkpoint import Checkpoint, hub_uri, load_from
from ddpm_inference.errors import DdpmError, InvalidSpec, ModelNotFound, ModelRejected
from ddpm_inference.job import ModelRequest
from ddpm_inference.net import hub as hub_module
from tests.fakes.hub_server import Hub, Repository, running_hub
from tests.support.pipelines import WEIGHTS, encoded, nested, weights

TOKEN = "hf_secretsecretsecret"
URI = "hf://org/net"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "")
        monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(hub_module, "RETRY_DELAYS", (0.0, 0.0))
        running.repositories["org/net"] = Repository()
        running.repositories["org/net"].commit({**nested(), "README.md": b"#", "samples/a.png": b"x" * 5000})
        yield running


def load(uri: str = URI, revision: str | None = None) -> Checkpoint:
    return load_from(ModelRequest(uri=uri), revision=revision)


def failure(uri: str = URI) -> DdpmError:
    with pytest.raises(DdpmError) as error:
        load(uri)
    return error.value


def test_only_the_needed_files_are_fetched_at_one_commit_which_is_recorded(hub: Hub) -> None:
    checkpoint = load()
    source = checkpoint.source
    assert source is not None
    assert source.revision == hub.repositories["org/net"].revisions["main"]
    assert source.uri == URI
    assert {file.name for file in source.files} == set(nested())
    assert set(hub.downloads()) == set(nested())
    assert all("/main/" not in path for _, _, path, _ in hub.requests if "resolve" in path)


def test_a_local_copy_has_the_same_sha256(hub: Hub, tmp_path: Path) -> None:
    from tests.support.pipelines import write

    assert load_from(ModelRequest(uri=str(write(tmp_path / "copy", nested())))).sha256 == load().sha256


@pytest.mark.parametrize(
    ("uri", "revision"),
    [(f"{URI}@v2", "v2"), (f"{URI}@feature%2Fx", "feature/x"), (f"{URI}@refs/pr/3", "refs/pr/3"),
     (f"{URI}@refs%2Fpr%2F3", "refs/pr/3")],
)
def test_a_revision_is_resolved_to_its_commit(hub: Hub, uri: str, revision: str) -> None:
    commit = hub.repositories["org/net"].commit(nested(7), revision)
    for address in (uri, f"{URI}@{commit}"):
        source = load(address).source
        assert source is not None
        assert source.revision == commit


def test_a_subfolder_and_a_file_of_it(hub: Hub) -> None:
    files = {f"models/small/{name}": content for name, content in nested().items()}
    hub.repositories["org/net"].commit({**files, "models/large/config.json": b"{}"})
    source = load(f"{URI}/models/small").source
    assert source is not None
    assert {file.name for file in source.files} == set(nested())
    assert "give the folder instead" in failure(f"{URI}/models/small/unet/{WEIGHTS}").hint
    assert isinstance(failure(f"{URI}/models/absent"), ModelNotFound)


def test_a_run_that_is_resumed_keeps_its_commit(hub: Hub) -> None:
    first = load()
    hub.repositories["org/net"].commit(nested(5))
    assert first.source is not None
    assert load().sha256 != first.sha256
    assert load(revision=first.source.revision).sha256 == first.sha256


def test_the_token_is_sent_to_the_hub_alone_and_stands_in_no_message(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repositories["org/net"].token = TOKEN
    load()
    assert hub.tokens("hub") == {f"Bearer {TOKEN}"}
    assert hub.tokens("storage") == {""}
    hub.answer = lambda *_: (500, {"X-Error-Message": f"no, {TOKEN}"})
    error = failure(f"{URI}@other")
    assert TOKEN not in caplog.text + error.message + error.hint + str(error.__cause__)
    assert "topsecret" not in caplog.text


@pytest.mark.parametrize(
    ("uri", "message", "hint"),
    [
        ("hf://org/absent", "is not on the hub, or is private", "HF_TOKEN"),
        (f"{URI}@absent", "has no revision absent", "what follows the @"),
        (f"{URI}/absent", "has no absent", "check the subfolder"),
    ],
)
def test_what_is_not_there_is_named(hub: Hub, uri: str, message: str, hint: str) -> None:
    error = failure(uri)
    assert isinstance(error, ModelNotFound)
    assert message in error.message
    assert hint in error.hint


def test_a_gated_repository_names_its_conditions(hub: Hub) -> None:
    hub.repositories["org/net"].gated = True
    error = failure()
    assert "is gated" in error.message
    assert "accept its conditions" in error.hint


def test_a_rate_limit_is_waited_for_and_a_long_one_is_not(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [2]

    def limited(server: str, method: str, path: str) -> tuple[int, dict[str, str]] | None:
        left[0] -= 1
        return (429, {"Retry-After": "0"}) if left[0] >= 0 else None

    hub.answer = limited
    assert load().spec.name == "UNet2DModel"
    hub.answer = lambda *_: (429, {"Retry-After": "86400"})
    error = failure(f"{URI}@main")
    assert "asks to wait for 86,400 s" in error.message
    assert "HF_TOKEN" in error.hint


def test_a_connection_that_is_cut_half_way_is_continued(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.file_download as file_download

    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    hub.cut = 2
    assert load().weights.keys()
    assert hub.cut == 0


@pytest.mark.parametrize("extra", [1, 100_000])
def test_a_file_that_is_larger_than_stated_is_refused(hub: Hub, extra: int) -> None:
    hub.extra = extra
    error = failure()
    assert isinstance(error, ModelRejected)
    assert "not the size that its server stated" in error.message


def test_a_file_with_another_sha256_than_stated_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    [blob] = [path for path in Path(hub_module._cache()).rglob(WEIGHTS)]
    data = blob.read_bytes()
    blob.resolve().write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    error = failure()
    assert isinstance(error, ModelRejected)
    assert "but its server states" in error.message


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest", "http://[fe80::1]/x", "http://100.100.100.200/x"])
def test_a_redirect_to_a_blocked_address_is_not_followed(hub: Hub, target: str) -> None:
    hub.redirect = target
    error = failure()
    assert isinstance(error, ModelNotFound)
    assert "link-local or cloud metadata address, which is blocked" in error.message


def test_offline_mode_uses_the_cache_and_no_connection(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    online = load()
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = load()
    assert offline.source == online.source
    assert offline.sha256 == online.sha256
    assert hub.requests == []
    assert "is not in the cache" in failure("hf://org/other").message


def test_a_second_run_downloads_nothing_again(hub: Hub) -> None:
    load()
    hub.requests.clear()
    load()
    assert hub.downloads() == []


def test_code_beside_the_weights_is_not_even_fetched(hub: Hub) -> None:
    code = {"pipeline.py": b"raise SystemExit(9)", "unet/unet_model.py": b"raise SystemExit(9)"}
    hub.repositories["org/net"].commit({**nested(), **code})
    load()
    assert not any(path.endswith(".py") for path in hub.downloads())


def test_a_refused_model_is_refused_before_its_weights_are_fetched(hub: Hub) -> None:
    index = encoded({"_class_name": "LDMPipeline", "unet": ["diffusers", "UNet2DModel"], "vqvae": ["diffusers", "VQModel"]})
    hub.repositories["org/net"].commit({**nested(), "model_index.json": index})
    assert "a latent model" in failure().message
    hub.repositories["org/net"].commit({**nested(), "unet/config.json": b"{}"})
    assert "not that of a known network" in failure().message
    assert not any(WEIGHTS in path for path in hub.downloads())


def test_a_cache_that_cannot_be_written_is_replaced(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    assert load().spec.name == "UNet2DModel"


@pytest.mark.parametrize(
    ("uri", "repo_id", "revision", "path"),
    [
        ("hf://org/name", "org/name", None, ""),
        ("hf://org/name/", "org/name", None, ""),
        ("hf://org/name@v1/a/b", "org/name", "v1", "a/b"),
        ("hf://org/name/a@b", "org/name", None, "a@b"),
        ("hf://org/name@a%2Fb/c", "org/name", "a/b", "c"),
        ("hf://org/name@refs/pr/12/c", "org/name", "refs/pr/12", "c"),
        ("hf://org/name@refs/convert/parquet", "org/name", "refs/convert/parquet", ""),
    ],
)
def test_the_parts_of_a_uri(uri: str, repo_id: str, revision: str | None, path: str) -> None:
    assert hub_uri.parse(uri) == hub_uri.HubUri(repo_id, revision, path)


@pytest.mark.parametrize(
    "uri",
    ["hf://", "hf://org", "hf://org/", "hf:///name", "hf://datasets/org/name", "hf://org/name@", "hf://org/na me",
     "hf://org/name@..%2F..%2Fx", "hf://org/name/../x", "hf://org/name@a b", "hf://org/name?x=1", "hf://-/name",
     "hf://user:pw@org/name", "hf://org/name//x", "hf://org/name@%00"],
)
def test_a_malformed_uri_is_refused_without_a_request(hub: Hub, uri: str) -> None:
    assert isinstance(failure(uri), InvalidSpec)
    assert hub.requests == []


def test_weights_that_changed_alone_are_another_model(hub: Hub) -> None:
    first = load()
    hub.repositories["org/net"].commit({**nested(), f"unet/{WEIGHTS}": weights(3)})
    assert load().sha256 != first.sha256
