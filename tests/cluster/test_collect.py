"""The collection of objects and logs after a failed test."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.cluster.collect import collect
from tests.cluster.kube import Cluster, Namespace, has_condition
from tests.cluster.manifests import pod

pytestmark = [pytest.mark.no_operator, pytest.mark.draws_nothing]

RUN_TIMEOUT = 120.0
PRINT_AND_SLEEP = "import time; print('still here', flush=True); open('/tmp/printed', 'w'); time.sleep(600)"
HAS_PRINTED = {"exec": {"command": ["test", "-e", "/tmp/printed"]}, "periodSeconds": 1}


def test_collects_objects_events_and_logs(
    cluster: Cluster, namespace: Namespace, worker_image: str, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "from-an-earlier-failure.txt").touch()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "pods"},
        "spec": {"hard": {"pods": "5"}},
    }
    sleeper = pod("sleeper", worker_image, ["python", "-c", PRINT_AND_SLEEP])
    sleeper["spec"]["containers"][0]["readinessProbe"] = HAS_PRINTED
    namespace.apply(quota, sleeper)
    namespace.wait("v1", "Pod", "sleeper", has_condition("Ready"), RUN_TIMEOUT, "the pod to print")
    with cluster.namespace(f"ddpm-module-{secrets.token_hex(4)}") as other:
        collect(cluster, folder)

    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    own = {"events.txt", "log-sleeper-main.txt", "pod-sleeper.yaml", "resourcequota-pods.yaml"}
    assert {name.removeprefix(f"{namespace.name}/") for name in kept} >= own
    assert "still here" in (folder / namespace.name / "log-sleeper-main.txt").read_text()
    assert "Pod/sleeper Started" in (folder / namespace.name / "events.txt").read_text()
    assert f"{other.name}/events.txt" in kept
    nodes = cluster.core.list_node().items
    assert {f"node-{node.metadata.name}.yaml" for node in nodes} <= kept
    assert [name for name in kept if name.startswith("log-kuberay-operator-")]
    assert "from-an-earlier-failure.txt" not in kept
