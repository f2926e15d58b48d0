"""The chart: what it refuses, and what the operator that it installs may do and may not."""

from __future__ import annotations

import subprocess

import pytest

from tests.cluster.operator_release import NAMESPACE, RELEASE, Operator


def test_the_chart_is_in_order(operator: Operator) -> None:
    assert "0 chart(s) failed" in operator.helm_says("lint", "--strict", str(operator.chart))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("image.nmae=operator:1", "nmae"),
        ("image.name=", "image"),
        ("worker.rayVersion=latest", "rayVersion"),
        (r"templates.deployment\.yaml=text", "deployment.yaml"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(operator: Operator, value: str, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        operator.helm_says("template", RELEASE, str(operator.chart), "--set-string", value)


@pytest.mark.parametrize(
    ("may", "verb", "what", "where"),
    [
        (True, "create", "rayclusters.ray.io", "default"),
        (True, "create", "secrets", "default"),
        (True, "patch", "ddpmsamplings.ddpm-ray.io/status", "default"),
        (True, "get", f"secrets/{RELEASE}-operator-key", NAMESPACE),
        (False, "get", "secrets", "default"),
        (False, "list", "secrets", "default"),
        (False, "get", "secrets/another", NAMESPACE),
        (False, "delete", "secrets", "default"),
        (False, "create", "pods", "default"),
        (False, "delete", "pods", "default"),
        (False, "create", "pods/exec", "default"),
        (False, "patch", "ddpmsamplings.ddpm-ray.io", "default"),
        (False, "patch", "rayclusters.ray.io", "default"),
        (False, "delete", "persistentvolumeclaims", "default"),
        (False, "get", "nodes", "default"),
        (False, "escalate", "clusterroles.rbac.authorization.k8s.io", "default"),
    ],
)
def test_the_operator_may_do_what_it_does_and_no_more(
    operator: Operator, may: bool, verb: str, what: str, where: str
) -> None:
    account = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-operator"
    resource, _, subresource = what.partition("/")
    is_subresource = subresource in ("status", "exec")
    asked = [verb, resource, f"--subresource={subresource}"] if is_subresource else [verb, what]
    command = operator.cluster.kubectl("auth", "can-i", *asked, "--namespace", where, "--as", account)
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    assert said == ["yes" if may else "no"]


def test_whoever_may_edit_a_namespace_may_edit_its_samplings(operator: Operator) -> None:
    command = operator.cluster.kubectl("get", "clusterrole", "edit", "-o", "yaml")
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "ddpmsamplings" in said
