"""Which tests of the cluster are part of a run on which cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.cluster import conftest
from tests.cluster.local_node import past_proxies


class Item:
    """A test as pytest's hook sees it."""

    def __init__(self, name: str, *marks: str) -> None:
        self.path, self.fixturenames = Path(name), ()
        self._marks = marks

    def get_closest_marker(self, name: str) -> bool:
        return name in self._marks


def kept(monkeypatch: pytest.MonkeyPatch, node: Path | None, kubeconfig: str | None) -> list[str]:
    monkeypatch.setattr(conftest, "nodes_kubeconfig", lambda: node)
    if kubeconfig is None:
        monkeypatch.delenv("KUBECONFIG", raising=False)
    else:
        monkeypatch.setenv("KUBECONFIG", kubeconfig)
    items = [Item("test_anywhere.py"), Item("test_on_the_node.py", "node")]
    left_out: list[Any] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    conftest.pytest_collection_modifyitems(cast(Any, SimpleNamespace(hook=hook)), cast(Any, items))
    assert len(items) + len(left_out) == 2
    return [item.path.stem for item in items]


@pytest.mark.parametrize("kubeconfig", [None, "", "/cache/node/kubeconfig", "/cache/node/../node/kubeconfig"])
def test_on_the_node_its_own_tests_run(monkeypatch: pytest.MonkeyPatch, kubeconfig: str | None) -> None:
    node = Path("/cache/node/kubeconfig")
    assert kept(monkeypatch, node, kubeconfig) == ["test_anywhere", "test_on_the_node"]


@pytest.mark.parametrize(
    ("node", "kubeconfig"),
    [(None, None), (None, "/home/me/.kube/config"), (Path("/cache/node/kubeconfig"), "/home/me/.kube/config")],
)
def test_on_kind_and_on_any_other_cluster_they_do_not(
    monkeypatch: pytest.MonkeyPatch, node: Path | None, kubeconfig: str | None
) -> None:
    assert kept(monkeypatch, node, kubeconfig) == ["test_anywhere"]


def test_for_the_one_node_cluster_no_proxy_of_this_machine_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "corp.example")
    monkeypatch.setenv("no_proxy", "corp.example")
    said = past_proxies()
    assert said["NO_PROXY"] == said["no_proxy"] == "corp.example,198.18.0.0/16,198.18.0.2,.svc"
