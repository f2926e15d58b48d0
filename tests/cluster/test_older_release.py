"""An upgrade from a release of before and back, with its own programs, chart and CRD, while samplings run."""

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
from tests.cluster.samplings import SMALL, Sampling, head_of, nothing_is_left

ROOT = Path(__file__).resolve().parents[2]
# The evening of 2026-11-23: an operator without metrics. Its CRD has a field that is gone since, and lacks rules.
OLDER = "8b9917aeb47f6b364b113f0a2dbd0056bfd59ed1"
GONE = "namespaceSelector"

N = 160
SAMPLER = ("--sampler", "ddpm", "--steps", "200")
SPEC: dict[str, Any] = SMALL | {"samples": N, "sampler": {"name": "ddpm", "steps": 200}}
AWAY_FROM = {
    "weight": 1,
    "podAffinityTerm": {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "other"}},
        GONE: {"matchLabels": {"team": "other"}},
    },
}
AFFINITY = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [AWAY_FROM]}}

pytestmark = [pytest.mark.alone, pytest.mark.long, pytest.mark.node]


def of_before(folder: Path) -> None:
    """Lays the older tree into a folder, with today's locks, whose layers are there, and way of building."""
    known = subprocess.run(["git", "cat-file", "-e", f"{OLDER}^{{commit}}"], cwd=ROOT, check=False).returncode == 0
    assert known, f"this clone lacks the commit {OLDER}, from which the upgrade is: git fetch --unshallow"
    archive = subprocess.run(["git", "archive", OLDER], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    for part in ("tests", "requirements"):
        shutil.rmtree(folder / part)
        shutil.copytree(ROOT / part, folder / part)


def built(tree: Path, image: str) -> str:
    """The name of an image of the tree, which is on the node."""
    command = [tree / "hack/images/build", image]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@pytest.fixture
def older(operator: Operator, tmp_path: Path) -> Iterator[Operator]:
    """The release of before, in the place of today's, which comes back."""
    tree = tmp_path / "older"
    of_before(tree)
    release = replace(
        operator,
        chart=tree / "charts/ddpm-ray",
        image=built(tree, "operator"),
        worker_image=built(tree, "worker"),
    )
    release.install()
    yield release
    for image in ("operator", "worker"):  # the newest again, which the examples go by
        built(ROOT, image)
    operator.install()


def crd_has(operator: Operator, field: str) -> bool:
    return f'"{field}":' in operator.kubectl_says("get", "crd", CRD, "-o", "json")


def test_from_an_older_release_and_back_no_sampling_is_disturbed(
    namespace: Namespace, operator: Operator, older: Operator, worker_image: str, tmp_path: Path
) -> None:
    namespace.apply(claim("results"))
    assert older.image != operator.image
    assert crd_has(operator, GONE)
    spec = SPEC | {"output": {"uri": "pvc://results/before"}, "podOverrides": {"affinity": AFFINITY}}
    before = Sampling.apply(namespace, "before", spec)
    before.wait_for("Running")
    heads = [head_of(before)["uid"]]

    operator.install()
    assert not crd_has(operator, GONE)
    after = Sampling.apply(namespace, "after", SPEC | {"output": {"uri": "pvc://results/after"}})
    after.wait_for("Running")
    heads.append(head_of(after)["uid"])
    assert head_of(before)["uid"] == heads[0]

    operator.helm_says("rollback", operator.release, "--namespace", operator.place, "--wait")
    assert crd_has(operator, GONE)
    assert [head_of(it)["uid"] for it in (before, after)] == heads
    ended = [it.wait_until_complete(N)["status"] for it in (before, after)]
    assert [(it["attempt"], it["failedAttempts"]) for it in ended] == [(1, 0), (1, 0)]
    nothing_is_left(namespace)

    files = [f"/out/{folder}/{file}" for folder in ("before", "after") for file in ("samples.npy", "manifest.json")]
    made = run_python(namespace, worker_image, DIGESTS, *files, claim="results")
    samples = local_samples(N, tmp_path / "local", *SAMPLER)
    assert made == [it for one in ended for it in (samples, one["output"]["manifestSha256"])]
