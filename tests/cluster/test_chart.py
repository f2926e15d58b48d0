"""The chart: invalid values, rendered objects, and the permissions of the operator and of users."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from ddpm_operator.api import ConditionType, FailureReason
from ddpm_operator.controller.metrics import PORT, Metrics, ReconcileResult
from tests.cluster.kube import Cluster, Manifest, Namespace
from tests.cluster.operator_release import CRD, NAMESPACE, RELEASE, Operator
from tests.cluster.samplings import SMALL
from tests.support.policies import Endpoint, reaches

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.draws_nothing]

OPERATOR_PERMISSIONS = {
    ("ddpmsamplings.ddpm-ray.io", ""): "delete get list watch",
    ("ddpmsamplings.ddpm-ray.io/status", ""): "patch",
    ("rayclusters.ray.io", ""): "create delete get list watch",
    ("pods", ""): "list watch",
    ("secrets", ""): "create",
    ("networkpolicies.networking.k8s.io", ""): "create",
    ("persistentvolumeclaims", ""): "create get",
    ("configmaps", ""): "create patch",
    ("events.events.k8s.io", ""): "create",
}
CLUSTER_PERMISSIONS = {
    ("customresourcedefinitions.apiextensions.k8s.io", ""): "list watch",
    ("nodes", ""): "get",
}
KEY_PERMISSIONS = {("secrets", f"{RELEASE}-operator-key"): "get"}

SAMPLINGS = ("ddpm-ray.io", "ddpmsamplings")
VIEWER_PERMISSIONS = {SAMPLINGS: "get list watch"}
EDITOR_PERMISSIONS = {
    SAMPLINGS: "create delete deletecollection get list patch update watch",
    ("", "pods"): "create delete list watch",
    ("", "pods/exec"): "create get",
    ("", "persistentvolumeclaims"): "create list watch",
}

VALUES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "namespaces": {"watchNamespaces": ["NAMESPACE"]},
    "other namespaces": {"watchNamespaces": ["default", "kube-system"]},
    "limits": {
        "allowed": {
            "images": ["registry.example.com/ddpm/"],
            "serviceAccounts": ["sampler"],
            "uriSchemes": ["s3"],
        },
        "atOnce": {"all": 1000000, "perNamespace": 2},
    },
    "no network policy": {"networkPolicy": {"enabled": False}},
    "another API server": {"networkPolicy": {"apiServerPorts": [7443]}},
    "a private registry": {
        "image": {
            "name": "registry.example.com:5000/op@sha256:" + "ab" * 32,
            "pullSecrets": [{"name": "registry"}],
        }
    },
    "own templates": {"templates": {"secret.yaml.j2": "{{ metadata }}: \"quoted\"\n# 'text'\n"}},
    "scheduling": {
        "nodeSelector": {"disk": "fast", "number": "1"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
                }
            }
        },
        "priorityClassName": "system-cluster-critical",
        "podAnnotations": {"note": 'with "quotes", and: colons'},
        "podLabels": {"team": "research"},
    },
    "metrics": {"metrics": {"enabled": True, "from": []}},
    "alerts": {
        "metrics": {
            "enabled": True,
            "serviceMonitor": {"enabled": True, "interval": "1m", "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        }
    },
    "other resources": {"resources": {"requests": {"cpu": 1}, "limits": {"cpu": "2", "memory": "1Gi"}}},
}


# The module with the CRDs of the Prometheus operator, and its hash.
PROMETHEUS = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
PROMETHEUS_SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="


@pytest.fixture(scope="module")
def prometheus(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Installs the CRDs ServiceMonitor and PrometheusRule, unless the cluster has them."""
    download = ["go", "mod", "download", "-json", PROMETHEUS]
    output = subprocess.run(download, cwd=tmp_path_factory.mktemp("go"), stdout=subprocess.PIPE, check=True).stdout
    module = json.loads(output)
    assert module["Sum"] == PROMETHEUS_SUM
    folder = Path(module["Dir"]) / "example" / "prometheus-operator-crd"
    known = operator.run_kubectl("get", "crd", "-o", "name")
    missing = [it for it in ("servicemonitors", "prometheusrules") if f"/{it}.monitoring.coreos.com" not in known]
    files = [f"--filename={folder / f'monitoring.coreos.com_{it}.yaml'}" for it in missing]
    if files:
        operator.run_kubectl("apply", "--server-side", *files)
        operator.run_kubectl("wait", "--for=condition=Established", "--timeout=60s", *files)
    yield
    if files:
        operator.run_kubectl("delete", *files)


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Iterator[Namespace]:
    """A restricted namespace for dry runs."""
    with cluster.namespace(f"ddpm-chart-{secrets.token_hex(4)}") as namespace:
        yield namespace


def rendered(operator: Operator, namespace: Namespace, values: dict[str, Any], folder: Path) -> list[Manifest]:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values).replace("NAMESPACE", namespace.name))
    where = ["--namespace", namespace.name, "--values", str(file), "--kube-version", "1.30.0"]
    text = operator.run_helm("template", RELEASE, str(operator.chart), *where)
    return [document for document in yaml.safe_load_all(text) if document]


def test_the_chart_passes_lint(operator: Operator) -> None:
    assert "0 chart(s) failed" in operator.run_helm("lint", "--strict", str(operator.chart))


@pytest.mark.usefixtures("prometheus")
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_api_server_accepts_the_rendered_chart(
    operator: Operator, shared: Namespace, values: dict[str, Any], tmp_path: Path
) -> None:
    documents = rendered(operator, shared, values, tmp_path)
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    metadata = {**template["metadata"], "name": "operator", "namespace": shared.name}
    # Pod Security rejects pods only, so the Deployment's pod is tested too.
    documents.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    assert len({one["kind"] for one in documents}) >= 8
    for one in documents:
        if one["kind"] == "Pod":
            del one["spec"]["serviceAccountName"]  # a dry run does not create the account
    apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"]
    stdin = yaml.safe_dump_all(documents)
    output = operator.run_kubectl(*apply, "--warnings-as-errors", "--filename", "-", stdin=stdin)
    assert output.count("serverside-applied (server dry run)") == len(documents), output


def test_alerts_are_valid_and_use_existing_metrics(operator: Operator, shared: Namespace, tmp_path: Path) -> None:
    documents = rendered(operator, shared, VALUES["alerts"], tmp_path)
    (rule,) = [one for one in documents if one["kind"] == "PrometheusRule"]
    (service,) = [one for one in documents if one["kind"] == "Service"]
    alerts = {one["alert"]: one["expr"] for group in rule["spec"]["groups"] for one in group["rules"]}
    assert len(alerts) >= 4
    metrics = {sample.name for family in Metrics(set).registry.collect() for sample in family.samples}
    values = {*FailureReason, *ReconcileResult, ConditionType.COMPLETE}
    for expression in alerts.values():
        promql_parser.parse(expression)
        assert set(re.findall(r"\bddpm_\w+", expression)) <= metrics
        named = re.findall(r'(?:reason|result)[!=]~"([^"]*)"', expression)
        assert {word for one in named for word in one.split("|")} <= values
        job, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        assert expression.count(f'job="{job}", namespace="{namespace}"') == expression.count("{")


@pytest.mark.parametrize(
    ("name", "reached"), [("metrics", {"monitoring", "elsewhere"}), ("alerts", {"monitoring"}), ("nothing", set())]
)
def test_metrics_are_reachable_from_configured_sources(
    operator: Operator, shared: Namespace, name: str, reached: set[str], tmp_path: Path
) -> None:
    documents = rendered(operator, shared, VALUES[name], tmp_path)
    (policy,) = [one for one in documents if one["kind"] == "NetworkPolicy"]
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    operator_end = Endpoint("10.0.0.1", shared.name, labels)
    ends = {it: Endpoint("10.0.0.2", it, {}, {"kubernetes.io/metadata.name": it}) for it in ("monitoring", "elsewhere")}
    assert {it for it, end in ends.items() if reaches([policy], end, operator_end, PORT)} == reached
    assert not any(reaches([policy], end, operator_end, 8080) for end in ends.values())
    (host,) = [
        it["value"]
        for it in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        if it["name"] == "METRICS_HOST"
    ]
    assert host == ("0.0.0.0" if reached else "127.0.0.1")  # noqa: S104 - the expected value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("metrics.serviceMonitor.enabled=true", "metrics.serviceMonitor.enabled requires metrics.enabled"),
        (
            "metrics.enabled=true,metrics.prometheusRule.enabled=true",
            "metrics.prometheusRule.enabled requires metrics.serviceMonitor.enabled",
        ),
    ],
)
def test_monitoring_without_metrics_is_refused(operator: Operator, values: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        operator.run_helm("template", RELEASE, str(operator.chart), "--set", values, "--kube-version", "1.30.0")


@pytest.mark.parametrize("values", [VALUES["namespaces"], VALUES["other namespaces"]], ids=["its own", "others"])
def test_watch_namespaces_limit_the_permissions(
    operator: Operator, shared: Namespace, values: dict[str, Any], tmp_path: Path
) -> None:
    documents = rendered(operator, shared, values, tmp_path)
    watched = {name.replace("NAMESPACE", shared.name) for name in values["watchNamespaces"]}
    bound = [one for one in documents if one["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    of_operator = [one for one in bound if one["subjects"][0]["name"] == f"{RELEASE}-operator"]
    assert {one["kind"] for one in of_operator} == {"RoleBinding"}
    assert {one["metadata"]["namespace"] for one in of_operator} == watched | {shared.name}
    (watch_namespaces,) = [
        json.loads(env["value"])
        for one in documents
        if one["kind"] == "Deployment"
        for env in one["spec"]["template"]["spec"]["containers"][0]["env"]
        if env["name"] == "WATCH_NAMESPACES"
    ]
    assert set(watch_namespaces) == watched


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("image.repository=operator:1", "repository"),
        ("image.name=", "image"),
        ("worker.rayVersion=latest", "rayVersion"),
        ("worker.rayVersion=2.53.9", "rayVersion"),
        (r"templates.deployment\.yaml=text", "deployment.yaml"),
        ("watchNamespaces={Research}", "watchNamespaces"),
        ("watchNamespaces={a,a}", "watchNamespaces"),
        ("allowed.uriSchemes={http}", "uriSchemes"),
        ("allowed.image={worker}", "image"),
        ("networkPolicy.apiServerPorts={}", "apiServerPorts"),
        ("replica=1", "replica"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("metrics.from[0].namespaceSelektor=all", "namespaceSelektor"),
        ("tolerations[0].ky=gpu", "ky"),
        ("affinity.podAffinity.required=true", "required"),
        ("allowed.podLabels={a b}", "podLabels"),
        ("allowed.gpuResourceNames={gpu}", "gpuResourceNames"),
        ("worker.pullPolicy=Sometimes", "pullPolicy"),
    ],
)
def test_an_invalid_value_is_refused_by_name(operator: Operator, value: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        operator.run_helm("template", RELEASE, str(operator.chart), "--set-string", value)


@pytest.mark.parametrize("replicas", [0, 2])
def test_replicas_other_than_one_are_refused(operator: Operator, replicas: int) -> None:
    values = ["--set", f"replicas={replicas}", "--kube-version", "1.30.0"]
    with pytest.raises(AssertionError, match=f"replicas is {replicas}, but must be 1: there is no leader election"):
        operator.run_helm("template", RELEASE, str(operator.chart), *values)


def test_notes_report_a_missing_or_old_kuberay(operator: Operator, tmp_path: Path) -> None:
    flags = ["--namespace", NAMESPACE, "--reuse-values", "--dry-run=server"]
    notes_text = operator.run_helm("upgrade", RELEASE, str(operator.chart), *flags).partition("NOTES:")[2]
    assert "watches DDPMSamplings in all namespaces." in notes_text
    assert "KubeRay" not in notes_text

    chart = tmp_path / "ddpm-ray"
    shutil.copytree(operator.chart, chart)
    notes = chart / "templates" / "NOTES.txt"
    # Simulates a missing KubeRay: no cluster has this version.
    notes.write_text(notes.read_text().replace("ray.io/v1/RayCluster", "ray.io/v99/RayCluster"))
    without = operator.run_helm("upgrade", RELEASE, str(chart), *flags)
    assert "KubeRay is not installed. Until KubeRay 1.6 or newer is installed" in without

    shutil.copy(operator.chart / "templates" / "NOTES.txt", notes)
    # Simulates a KubeRay without token authentication: this CRD has no such field.
    notes.write_text(notes.read_text().replace('"rayclusters.ray.io"', f'"{CRD}"'))
    too_old = operator.run_helm("upgrade", RELEASE, str(chart), *flags)
    assert "KubeRay is too old, because it does not support token authentication" in too_old
    assert "Until KubeRay 1.6 or newer and its CRDs are installed" in too_old


def test_notes_name_images_without_a_registry(operator: Operator) -> None:
    for name, listed in (("ddpm-ray-operator:dev", True), ("registry.example.com/ddpm-ray-operator:1", False)):
        flags = [
            "--namespace",
            NAMESPACE,
            "--dry-run=server",
            "--set",
            f"image.name={name},worker.image=team/worker:1",
        ]
        notes = operator.run_helm("upgrade", RELEASE, str(operator.chart), *flags).partition("NOTES:")[2]
        assert (f"have no registry: {name}. The images must already be on the nodes" in notes) is listed
        assert "team/worker:1" not in notes


def test_the_operator_has_exactly_its_permissions(operator: Operator) -> None:
    assert operator.permissions("default") == OPERATOR_PERMISSIONS | CLUSTER_PERMISSIONS
    assert operator.permissions(NAMESPACE) == OPERATOR_PERMISSIONS | CLUSTER_PERMISSIONS | KEY_PERMISSIONS


def granted(operator: Operator, role: str) -> dict[tuple[str, str], str]:
    """Returns the permissions of a ClusterRole: (API group, resource) -> sorted verbs."""
    found: dict[tuple[str, str], set[str]] = {}
    for rule in json.loads(operator.run_kubectl("get", "clusterrole", role, "-o", "json"))["rules"]:
        for group in rule.get("apiGroups", ()):
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return {what: " ".join(sorted(verbs)) for what, verbs in found.items()}


def test_view_and_edit_roles_include_samplings(operator: Operator) -> None:
    assert granted(operator, f"{RELEASE}-operator-viewer") == VIEWER_PERMISSIONS
    assert granted(operator, f"{RELEASE}-operator-editor") == VIEWER_PERMISSIONS | EDITOR_PERMISSIONS
    for role, own in (("view", VIEWER_PERMISSIONS), ("edit", EDITOR_PERMISSIONS), ("admin", EDITOR_PERMISSIONS)):
        ours = {what: verbs for what, verbs in granted(operator, role).items() if what[0] == "ddpm-ray.io"}
        assert ours == {SAMPLINGS: own[SAMPLINGS]}, role
    assert ("", "pods/exec") not in granted(operator, "view")


@pytest.mark.parametrize(
    "field",
    [
        {"hostNetwork": True},
        {"hostPID": True},
        {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": "other", "image": "other:1"}]},
        {"securityContext": {"runAsUser": 0}},
        {"automountServiceAccountToken": True},
        {"nodeName": "node1"},
    ],
    ids=lambda field: next(iter(field)),
)
def test_pod_overrides_are_an_allow_list(shared: Namespace, field: dict[str, Any]) -> None:
    """With strict validation other fields are an error; otherwise the API server drops them."""
    resource = shared.cluster.resource("ddpm-ray.io/v1alpha1", "DDPMSampling")
    document = {
        "apiVersion": "ddpm-ray.io/v1alpha1",
        "kind": "DDPMSampling",
        "metadata": {"name": "digits"},
        "spec": SMALL | {"podOverrides": {"nodeSelector": {"disk": "fast"}, **field}},
    }
    query = [("dryRun", "All"), ("fieldValidation", "Ignore")]
    created = resource.create(body=document, namespace=shared.name, query_params=query).to_dict()
    assert created["spec"]["podOverrides"] == {"nodeSelector": {"disk": "fast"}}
    query = [("dryRun", "All"), ("fieldValidation", "Strict")]
    with pytest.raises(Exception, match=f"unknown field.*{next(iter(field))}"):
        resource.create(body=document, namespace=shared.name, query_params=query)
