"""A board that is served on the loopback, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ddpm_inference.progress_server.run_state import RunState
from ddpm_inference.progress_server.server import served
from ddpm_inference.progress_server.settings import Settings
from tests.support.asking import TOKEN, Client


@pytest.fixture
def board() -> RunState:
    return RunState()


@pytest.fixture
def client(board: RunState) -> Iterator[Client]:
    with served(board, Settings(0, TOKEN)) as port:
        yield Client(port)
