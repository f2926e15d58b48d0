"""The worker on the hardware of the identity, and on other hardware. Without Ray."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ddpm_inference.errors import OtherHardware
from ddpm_inference.ray_backend import worker as worker_module
from ddpm_inference.ray_backend.worker import SamplingContext, Worker
from ddpm_inference.store import Store
from tests.support.storing import an_identity

CONTEXT: Any = SamplingContext(an_identity(), [object()])


@pytest.fixture(autouse=True)
def ray_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for Ray on a node with the address 10.0.0.7."""
    util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.7")
    monkeypatch.setattr(worker_module, "ray", SimpleNamespace(get=lambda ref: ref, util=util))


def a_worker(tmp_path: Path, make_sampler: Any) -> Worker:  # noqa: ANN401
    return Worker(make_sampler, (), Store.open(str(tmp_path)), 1)


def test_a_worker_that_can_draw_returns_its_address(tmp_path: Path) -> None:
    assert a_worker(tmp_path, lambda *_: object()).start(CONTEXT) == "10.0.0.7"


def test_an_error_about_hardware_has_the_address_and_survives_pickling(tmp_path: Path) -> None:
    def refuse(*_: object) -> object:
        raise OtherHardware("a worker has aten AVX2", hint="use nodes of one kind")

    with pytest.raises(OtherHardware) as error:
        a_worker(tmp_path, refuse).start(CONTEXT)
    twin = copy.copy(error.value)
    assert (twin.message, twin.hint, twin.other_hardware_ips) == (
        "a worker has aten AVX2",
        "use nodes of one kind",
        ("10.0.0.7",),
    )
