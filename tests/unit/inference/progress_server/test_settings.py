"""When the progress server starts, and which settings are refused."""

from __future__ import annotations

import pytest

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.progress_server.settings import Settings, settings_from

TOKEN = "0123456789abcdef" * 2


def test_without_a_port_there_are_no_settings() -> None:
    assert settings_from({}) is None
    assert settings_from({"DDPM_PROGRESS_TOKEN": TOKEN}) is None


def test_settings_come_from_the_environment_and_hide_the_token() -> None:
    settings = settings_from({"DDPM_PROGRESS_PORT": "8500", "DDPM_PROGRESS_TOKEN": TOKEN})
    assert settings == Settings(8500, TOKEN)
    assert TOKEN not in repr(settings)


@pytest.mark.parametrize("port", ["", "0", "65536", "-1", "tcp://10.0.0.1:8500", "8500 ", "٨٥٠٠"])
def test_an_invalid_port_is_refused(port: str) -> None:
    with pytest.raises(InvalidSpec, match="DDPM_PROGRESS_PORT is") as refused:
        settings_from({"DDPM_PROGRESS_PORT": port, "DDPM_PROGRESS_TOKEN": TOKEN})
    assert "1 to 65535" in refused.value.hint


@pytest.mark.parametrize("token", [None, "", TOKEN[:31], TOKEN + "\n", TOKEN + " x", TOKEN + "é"])
def test_a_weak_token_is_refused_and_not_shown(token: str | None) -> None:
    environment = {"DDPM_PROGRESS_PORT": "8500"} | ({} if token is None else {"DDPM_PROGRESS_TOKEN": token})
    with pytest.raises(InvalidSpec, match="DDPM_PROGRESS_TOKEN is not a token of at least 32 characters") as refused:
        settings_from(environment)
    assert refused.value.exit_code == 2
    assert TOKEN[:31] not in refused.value.message + refused.value.hint
