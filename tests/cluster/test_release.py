"""A release's life: upgraded and rolled back while a sampling runs, gone, and back under another name."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.kube import Manifest, Namespace, has_condition
from tests.cluster.operator_release import CRD, Operator
from tests.cluster.samplings import LONG, SMALL, Sampling
from tests.cluster.test_chart import OF_ITS_WORK

pytestmark = pytest.mark.operator_away
N = 160


@pytest.fixture
def before(operator: Operator, tmp_path: Path) -> Iterator[Operator]:
    """The release as it is before an upgrade: of a chart with another version."""
    chart = tmp_path / "ddpm-ray"
    shutil.copytree(operator.chart, chart)
    about = chart / "Chart.yaml"
    about.write_text(re.sub(r"^(version|appVersion): .*", r"\1: 0.0.9", about.read_text(), flags=re.MULTILINE))
    release = replace(operator, chart=chart)
    release.install()
    yield release
    operator.install()


def head_of(namespace: Namespace) -> str:
    (head,) = namespace.list("v1", "Pod", "ray.io/node-type=head")
    uid: str = head["metadata"]["uid"]
    return uid


def test_upgrade_and_rollback_do_not_disturb_a_sampling(
    namespace: Namespace, operator: Operator, before: Operator
) -> None:
    sampling = Sampling.apply(namespace, "digits", LONG | {"sampler": {"name": "ddpm", "steps": 100}})
    sampling.wait_for("Running")
    head, first = head_of(namespace), before.pods()

    operator.install()
    second = operator.pods()
    operator.helm_says("rollback", operator.release, "--namespace", operator.place, "--wait")
    third = operator.pods()
    assert len({*first, *second, *third}) == 3, "upgrade and rollback replace the operator's pod"
    drawn = sampling.now()["status"]["progress"]["done"]

    def goes_on(seen: Manifest) -> bool:
        return has_condition("Running")(seen) and bool(seen["status"]["progress"]["done"] > drawn)

    status = sampling.wait(goes_on, "digits to draw more")["status"]
    assert (status["attempt"], status["failedAttempts"]) == (1, 0)
    assert head_of(namespace) == head


@pytest.fixture
def neighbour(namespace: Namespace) -> Iterator[Namespace]:
    with namespace.cluster.namespace(f"{namespace.name}-{secrets.token_hex(2)}") as other:
        yield other


def beside(operator: Operator, namespace: Namespace) -> Operator:
    """A release of another name, for one namespace only, which does as its user says and takes nothing over."""
    watched = f"watchNamespaces={{{namespace.name}}}"
    return replace(operator, release="other", place=namespace.name, values=(watched,), takes_over=False)


def test_a_second_release_is_refused_and_the_first_goes_on_with_its_work(
    namespace: Namespace, operator: Operator
) -> None:
    sampling = Sampling.apply(namespace, "digits", SMALL | {"samples": N})
    sampling.wait_for("Running")
    head, first = head_of(namespace), operator.pods()
    second = beside(operator, namespace)
    for takes_over in (False, True):
        with pytest.raises(AssertionError, match="Two releases cannot share it: uninstall that one"):
            replace(second, takes_over=takes_over).install()
        assert namespace.list("apps/v1", "Deployment") == []
        assert "other" not in second.helm_says("list", "--all", "--short", "--namespace", second.place)

    assert (head_of(namespace), operator.pods()) == (head, first)
    assert sampling.wait_until_complete(N)["status"]["attempt"] == 1


@pytest.fixture
def other_release(namespace: Namespace, operator: Operator) -> Iterator[Operator]:
    """Not installed yet, as the first one is no more: a release of another name, for one namespace only."""
    other = beside(operator, namespace)
    operator.uninstall()
    yield other
    other.helm_says("uninstall", other.release, "--namespace", other.place, "--wait", "--ignore-not-found")
    operator.take_crd()
    operator.install()


def test_under_another_name_and_for_one_namespace_all_goes_on(
    namespace: Namespace, neighbour: Namespace, other_release: Operator
) -> None:
    kept = Sampling.apply(namespace, "kept", SMALL | {"suspend": True})
    with pytest.raises(AssertionError, match=f"the CRD {CRD} belongs to the release ddpm-ray") as refused:
        other_release.install()
    says = re.search(r"kubectl (annotate crd .*)", str(refused.value))
    assert says
    other_release.kubectl_says(*says[1].split())  # nothing else makes the CRD this release's
    other_release.install()

    kept.wait_for("Suspended")
    outside = Sampling.apply(neighbour, "outside", SMALL)
    with_account = Sampling.apply(namespace, "account", SMALL | {"podOverrides": {"serviceAccountName": "default"}})
    failed = with_account.wait_for("Failed")
    assert failed["status"]["failure"]["reason"] == "InvalidSpec"
    assert "allowed.serviceAccounts" in failed["status"]["failure"]["hint"]

    said = other_release.helm_says("test", other_release.release, "--namespace", other_release.place)
    assert "Failed" not in said
    assert said.count("Succeeded") >= 6
    for kind in ("Pod", "PersistentVolumeClaim"):
        namespace.wait_for_none("v1", kind, 60, "app.kubernetes.io/name=ddpm-ray-test")

    assert "status" not in neighbour.get("ddpm-ray.io/v1alpha1", "DDPMSampling", outside.name)
    assert other_release.rights(neighbour.name) == {}
    key = {("secrets", "other-operator-key"): "get"}
    assert other_release.rights(namespace.name) == OF_ITS_WORK | key
