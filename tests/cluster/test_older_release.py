"""An upgrade from an older release and a rollback, with its images, chart and CRD, while samplings run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kube import Namespace
from tests.cluster.manifests import claim
from tests.cluster.operator_release import CRD, Operator
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import SMALL, Sampling, assert_nothing_left, head_of

ROOT = Path(__file__).resolve().parents[2]
# 2026-11-23: an operator without metrics. Its CRD has a field that was removed since, and lacks rules.
OLDER = "8b9917aeb47f6b364b113f0a2dbd0056bfd59ed1"
REMOVED_FIELD = "namespaceSelector"

N = 160
SAMPLER = ("--sampler", "ddpm", "--steps", "200")
SPEC: dict[str, Any] = SMALL | {"samples": N, "sampler": {"name": "ddpm", "steps": 200}}
AWAY_FROM = {
    "weight": 1,
    "podAffinityTerm": {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "other"}},
        REMOVED_FIELD: {"matchLabels": {"team": "other"}},
    },
}
AFFINITY = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [AWAY_FROM]}}

pytestmark = [pytest.mark.alone, pytest.mark.long, pytest.mark.node]


def extract_older_tree(folder: Path) -> None:
    """Extracts the older tree into a folder, with today's locks, whose layers are cached, and build scripts."""
    known = subprocess.run(["git", "cat-file", "-e", f"{OLDER}^{{commit}}"], cwd=ROOT, check=False).returncode == 0
    assert known, f"this clone lacks the commit {OLDER}, which this test upgrades from: git fetch --unshallow"
    archive = subprocess.run(["git", "archive", OLDER], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    for part in ("hack", "requirements"):
        shutil.rmtree(folder / part, ignore_errors=True)
        shutil.copytree(ROOT / part, folder / part)


def build(tree: Path, image: str) -> str:
    """Builds an image of the tree and pushes it to the node; returns its name."""
    command = [tree / "hack/images/build", image]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@pytest.fixture
def older(operator: Operator, tmp_path: Path) -> Iterator[Operator]:
    """The older release, installed in place of today's, which is reinstalled at the end."""
    tree = tmp_path / "older"
    extract_older_tree(tree)
    release = replace(
        operator,
        chart=tree / "charts/ddpm-ray",
        image=build(tree, "operator"),
        worker_image=build(tree, "worker"),
    )
    release.install()
    yield release
    for image in ("operator", "worker"):  # moves the tag `dev` back, which the examples use
        build(ROOT, image)
    operator.install()


def crd_has(operator: Operator, field: str) -> bool:
    return f'"{field}":' in operator.run_kubectl("get", "crd", CRD, "-o", "json")


def test_upgrade_from_an_older_release_and_rollback(
    namespace: Namespace, operator: Operator, older: Operator, worker_image: str, tmp_path: Path
) -> None:
    namespace.apply(claim("results"))
    assert older.image != operator.image
    assert crd_has(operator, REMOVED_FIELD)
    spec = SPEC | {"output": {"uri": "pvc://results/before"}, "podOverrides": {"affinity": AFFINITY}}
    before = Sampling.apply(namespace, "before", spec)
    before.wait_for("Running")
    heads = [head_of(before)["uid"]]

    operator.install()
    assert not crd_has(operator, REMOVED_FIELD)
    after = Sampling.apply(namespace, "after", SPEC | {"output": {"uri": "pvc://results/after"}})
    after.wait_for("Running")
    heads.append(head_of(after)["uid"])
    assert head_of(before)["uid"] == heads[0]

    operator.run_helm("rollback", operator.release, "--namespace", operator.namespace_name, "--wait")
    assert crd_has(operator, REMOVED_FIELD)
    assert [head_of(it)["uid"] for it in (before, after)] == heads
    ended = [it.wait_until_complete(N)["status"] for it in (before, after)]
    assert [(it["attempt"], it["failedAttempts"]) for it in ended] == [(1, 0), (1, 0)]
    assert_nothing_left(namespace)

    files = [f"/out/{folder}/{file}" for folder in ("before", "after") for file in ("samples.npy", "manifest.json")]
    made = run_python(namespace, worker_image, DIGESTS, *files, claim="results")
    samples = local_samples(N, tmp_path / "local", *SAMPLER)
    assert made == [it for one in ended for it in (samples, one["output"]["manifestSha256"])]
