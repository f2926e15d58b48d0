"""Helm releases: upgrade and rollback while a sampling runs, a second release, another name."""

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
from tests.cluster.test_chart import OPERATOR_PERMISSIONS

pytestmark = pytest.mark.operator_away
N = 160


@pytest.fixture
def before(operator: Operator, tmp_path: Path) -> Iterator[Operator]:
    """The release before an upgrade: installed from a chart of another version."""
    chart = tmp_path / "ddpm-ray"
    shutil.copytree(operator.chart, chart)
    about = chart / "Chart.yaml"
    about.write_text(re.sub(r"^(version|appVersion): .*", r"\1: 0.0.9", about.read_text(), flags=re.MULTILINE))
    release = replace(operator, chart=chart)
    release.install()
    yield release
    operator.install()


def head_uid(namespace: Namespace) -> str:
    (head,) = namespace.list("v1", "Pod", "ray.io/node-type=head")
    uid: str = head["metadata"]["uid"]
    return uid


def test_upgrade_and_rollback_keep_a_running_sampling(
    namespace: Namespace, operator: Operator, before: Operator
) -> None:
    sampling = Sampling.apply(namespace, "digits", LONG | {"sampler": {"name": "ddpm", "steps": 100}})
    sampling.wait_for("Running")
    head, first = head_uid(namespace), before.pods()

    operator.install()
    second = operator.pods()
    operator.run_helm("rollback", operator.release, "--namespace", operator.namespace_name, "--wait")
    third = operator.pods()
    assert len({*first, *second, *third}) == 3, "upgrade and rollback did not replace the operator's pod"
    drawn = sampling.get()["status"]["progress"]["done"]

    def has_progressed(seen: Manifest) -> bool:
        return has_condition("Running")(seen) and bool(seen["status"]["progress"]["done"] > drawn)

    status = sampling.wait(has_progressed, "digits to draw more")["status"]
    assert (status["attempt"], status["failedAttempts"]) == (1, 0)
    assert head_uid(namespace) == head


@pytest.fixture
def neighbour(namespace: Namespace) -> Iterator[Namespace]:
    with namespace.cluster.namespace(f"{namespace.name}-{secrets.token_hex(2)}") as other:
        yield other


def second_release(operator: Operator, namespace: Namespace) -> Operator:
    """Returns a release of another name, for one namespace, which does not take over objects."""
    watched = f"watchNamespaces={{{namespace.name}}}"
    return replace(operator, release="other", namespace_name=namespace.name, values=(watched,), take_ownership=False)


def test_a_second_release_is_refused_and_changes_nothing(namespace: Namespace, operator: Operator) -> None:
    sampling = Sampling.apply(namespace, "digits", SMALL | {"samples": N})
    sampling.wait_for("Running")
    head, first = head_uid(namespace), operator.pods()
    second = second_release(operator, namespace)
    for take_ownership in (False, True):
        with pytest.raises(AssertionError, match=r"Two releases cannot share it\. Uninstall that release"):
            replace(second, take_ownership=take_ownership).install()
        assert namespace.list("apps/v1", "Deployment") == []
        assert "other" not in second.run_helm("list", "--all", "--short", "--namespace", second.namespace_name)

    assert (head_uid(namespace), operator.pods()) == (head, first)
    assert sampling.wait_until_complete(N)["status"]["attempt"] == 1


@pytest.fixture
def other_release(namespace: Namespace, operator: Operator) -> Iterator[Operator]:
    """A release of another name, for one namespace, not installed yet; the first one is uninstalled."""
    other = second_release(operator, namespace)
    operator.uninstall()
    yield other
    other.run_helm("uninstall", other.release, "--namespace", other.namespace_name, "--wait", "--ignore-not-found")
    operator.take_crd_ownership()
    operator.install()


def test_another_release_takes_over_for_one_namespace(
    namespace: Namespace, neighbour: Namespace, other_release: Operator
) -> None:
    kept = Sampling.apply(namespace, "kept", SMALL | {"suspend": True})
    with pytest.raises(AssertionError, match=f"the CRD {CRD} belongs to the release ddpm-ray") as refused:
        other_release.install()
    hint = re.search(r"kubectl (annotate crd .*)", str(refused.value))
    assert hint
    other_release.run_kubectl(*hint[1].split())  # the documented way to move the ownership
    other_release.install()

    kept.wait_for("Suspended")
    outside = Sampling.apply(neighbour, "outside", SMALL)
    with_account = Sampling.apply(namespace, "account", SMALL | {"podOverrides": {"serviceAccountName": "default"}})
    failed = with_account.wait_for("Failed")
    assert failed["status"]["failure"]["reason"] == "InvalidSpec"
    assert "allowed.serviceAccounts" in failed["status"]["failure"]["hint"]

    output = other_release.run_helm("test", other_release.release, "--namespace", other_release.namespace_name)
    assert "Failed" not in output
    assert output.count("Succeeded") >= 6
    for kind in ("Pod", "PersistentVolumeClaim"):
        namespace.wait_for_none("v1", kind, 60, "app.kubernetes.io/name=ddpm-ray-test")

    assert "status" not in neighbour.get("ddpm-ray.io/v1alpha1", "DDPMSampling", outside.name)
    assert other_release.permissions(neighbour.name) == {}
    key = {("secrets", "other-operator-key"): "get"}
    assert other_release.permissions(namespace.name) == OPERATOR_PERMISSIONS | key
