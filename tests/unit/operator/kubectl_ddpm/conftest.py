"""The recorded cluster that the commands connect to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.fakes.recorded_api import RecordedApi

UseCluster = Callable[[RecordedApi], AbstractContextManager[None]]


@pytest.fixture
def default_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Sets the kubeconfig that the kubernetes package loads by default."""

    def use(path: Path) -> None:
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))

    return use


@pytest.fixture
def use_cluster(tmp_path: Path, default_kubeconfig: Callable[[Path], None]) -> UseCluster:
    """For the duration of the block, a recorded API server is the default cluster of this process."""

    @contextmanager
    def use(api: RecordedApi) -> Iterator[None]:
        with api.kubeconfig(tmp_path) as kubeconfig:
            default_kubeconfig(kubeconfig)
            yield

    return use
