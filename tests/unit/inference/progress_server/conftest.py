"""A run state, and a client of the progress server that serves it on the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ddpm_inference.progress_server.run_state import RunState
from ddpm_inference.progress_server.server import serve_progress
from ddpm_inference.progress_server.settings import Settings
from tests.support.progress_client import TOKEN, ProgressClient


@pytest.fixture
def run_state() -> RunState:
    return RunState()


@pytest.fixture
def client(run_state: RunState) -> Iterator[ProgressClient]:
    with serve_progress(run_state, Settings(0, TOKEN)) as port:
        yield ProgressClient(port)
