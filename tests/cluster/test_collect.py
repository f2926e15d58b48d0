"""What is kept of a cluster on which a test failed."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.cluster.collect import collect
from tests.cluster.kube import Cluster, Namespace, has_condition
from tests.cluster.manifests import pod

pytestmark = [pytest.mark.no_operator, pytest.mark.draws_nothing]

RUNS_WITHIN = 120.0
SAYS_AND_SLEEPS = "import time; print('still here', flush=True); open('/tmp/said', 'w'); time.sleep(600)"
HAS_SAID = {"exec": {"command": ["test", "-e", "/tmp/said"]}, "periodSeconds": 1}


def test_of_every_namespace_of_tests_it_keeps_objects_events_and_logs_and_kuberays_words_beside_them(
    cluster: Cluster, namespace: Namespace, worker_image: str, tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "of-yesterday.txt").touch()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "pods"},
        "spec": {"hard": {"pods": "5"}},
    }
    sleeper = pod("sleeper", worker_image, ["python", "-c", SAYS_AND_SLEEPS])
    sleeper["spec"]["containers"][0]["readinessProbe"] = HAS_SAID
    namespace.apply(quota, sleeper)
    namespace.wait("v1", "Pod", "sleeper", has_condition("Ready"), RUNS_WITHIN, "the pod to speak")
    with cluster.namespace(f"ddpm-module-{secrets.token_hex(4)}") as of_a_module:
        collect(cluster, folder)

    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    own = {"events.txt", "log-sleeper-main.txt", "pod-sleeper.yaml", "resourcequota-pods.yaml"}
    assert {name.removeprefix(f"{namespace.name}/") for name in kept} >= own
    assert "still here" in (folder / namespace.name / "log-sleeper-main.txt").read_text()
    assert "Pod/sleeper Started" in (folder / namespace.name / "events.txt").read_text()
    assert f"{of_a_module.name}/events.txt" in kept
    nodes = cluster.core.list_node().items
    assert {f"node-{node.metadata.name}.yaml" for node in nodes} <= kept
    assert [name for name in kept if name.startswith("log-kuberay-operator-")]
    assert "of-yesterday.txt" not in kept
