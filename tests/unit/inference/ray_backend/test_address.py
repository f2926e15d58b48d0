"""Which Ray an address means. The servers are plain sockets: finding a Ray asks only whether something answers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpm_inference.errors import InvalidSpec, ResourcesUnavailable
from ddpm_inference.ray_backend import address
from ddpm_inference.ray_backend.address import Target, find, prepare


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: str) -> Path:
    """A machine without any Ray; returns where `ray start` would write down its address."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(address, "FORWARDED", closed)
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    return note


def test_none_is_a_ray_of_its_own_whatever_runs(monkeypatch: pytest.MonkeyPatch, listening: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", listening)
    assert find("None").address is None
    assert find("none").address is None


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_is_taken_as_it_is(listening: str, scheme: str) -> None:
    assert find(scheme + listening).address == scheme + listening


def test_auto_prefers_the_environment_then_this_machine_then_the_port_forward(
    monkeypatch: pytest.MonkeyPatch, nothing_runs: Path, listening: str
) -> None:
    assert find("auto").address is None
    monkeypatch.setattr(address, "FORWARDED", listening)
    assert find("auto").address == f"ray://{listening}"
    nothing_runs.write_text(listening)
    assert find("auto").address == listening
    monkeypatch.setenv("RAY_ADDRESS", f"ray://{listening}")
    assert find("auto").address == f"ray://{listening}"


def test_a_ray_that_has_ended_is_not_found(nothing_runs: Path, closed: str) -> None:
    nothing_runs.write_text(closed)
    assert find("auto").address is None


@pytest.mark.parametrize("wrong", ["head", "ray://", "ray://head", "http://head:8265", "head:port", "a:1/b", "::"])
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidSpec, match="is not an address of Ray"):
        find(wrong)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_answers_is_refused_at_once(closed: str, scheme: str) -> None:
    with pytest.raises(ResourcesUnavailable, match=f"no Ray answers at {scheme}{closed}"):
        find(scheme + closed)


def test_a_name_that_does_not_resolve_is_refused() -> None:
    with pytest.raises(ResourcesUnavailable, match="no Ray answers"):
        find("ray://no-such-host.invalid:10001")


ELSEWHERE = Target("ray://no-such-host.invalid:10001", "as asked")


def test_an_exported_token_is_sent_where_it_cannot_be_told_whether_one_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token")
    monkeypatch.setenv("RAY_AUTH_MODE", "to be restored")
    monkeypatch.delenv("RAY_AUTH_MODE")
    prepare(ELSEWHERE)
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_what_the_user_says_about_tokens_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    prepare(ELSEWHERE)
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_the_token_of_this_machine_goes_to_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("this machine's")
    prepare(ELSEWHERE)
    assert "RAY_AUTH_MODE" not in os.environ
