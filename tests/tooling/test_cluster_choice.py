"""Which cluster tests are deselected on which cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.cluster import conftest
from tests.cluster.local_node import without_proxies


class Item:
    """A collected test, as pytest's hook sees it."""

    def __init__(self, name: str, *marks: str) -> None:
        self.path, self.fixturenames = Path(name), ()
        self._marks = marks

    def get_closest_marker(self, name: str) -> bool:
        return name in self._marks


def selected(monkeypatch: pytest.MonkeyPatch, node: Path | None, kubeconfig: str | None) -> list[str]:
    monkeypatch.setattr(conftest, "node_kubeconfig", lambda: node)
    if kubeconfig is None:
        monkeypatch.delenv("KUBECONFIG", raising=False)
    else:
        monkeypatch.setenv("KUBECONFIG", kubeconfig)
    items = [Item("test_anywhere.py"), Item("test_on_the_node.py", "node")]
    deselected: list[Any] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
    conftest.pytest_collection_modifyitems(cast(Any, SimpleNamespace(hook=hook)), cast(Any, items))
    assert len(items) + len(deselected) == 2
    return [item.path.stem for item in items]


@pytest.mark.parametrize("kubeconfig", [None, "", "/cache/node/kubeconfig", "/cache/node/../node/kubeconfig"])
def test_node_tests_run_on_the_node(monkeypatch: pytest.MonkeyPatch, kubeconfig: str | None) -> None:
    node = Path("/cache/node/kubeconfig")
    assert selected(monkeypatch, node, kubeconfig) == ["test_anywhere", "test_on_the_node"]


@pytest.mark.parametrize(
    ("node", "kubeconfig"),
    [(None, None), (None, "/home/me/.kube/config"), (Path("/cache/node/kubeconfig"), "/home/me/.kube/config")],
)
def test_node_tests_are_deselected_on_other_clusters(
    monkeypatch: pytest.MonkeyPatch, node: Path | None, kubeconfig: str | None
) -> None:
    assert selected(monkeypatch, node, kubeconfig) == ["test_anywhere"]


def test_the_node_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "corp.example")
    monkeypatch.setenv("no_proxy", "corp.example")
    environment = without_proxies()
    assert environment["NO_PROXY"] == environment["no_proxy"] == "corp.example,198.18.0.0/16,198.18.0.2,.svc"
