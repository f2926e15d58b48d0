"""The chart: what it refuses, what it makes, and what the operator that it installs may do and may not."""

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
from ddpm_operator.controller.metrics import PORT, Metrics, Result
from tests.cluster.kube import Cluster, Manifest, Namespace
from tests.cluster.operator_release import CRD, NAMESPACE, RELEASE, Operator
from tests.cluster.samplings import SMALL
from tests.support.policies import End, reaches

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.draws_nothing]

OF_ITS_WORK = {
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
OF_THE_WHOLE_CLUSTER = {("customresourcedefinitions.apiextensions.k8s.io", ""): "list watch"}
OF_ITS_KEY = {("secrets", f"{RELEASE}-operator-key"): "get"}

SAMPLINGS = ("ddpm-ray.io", "ddpmsamplings")
OF_A_VIEWER = {SAMPLINGS: "get list watch"}
OF_AN_EDITOR = {
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
    "a place": {
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


# The Prometheus operator's CRDs, and what Go says of the module that they are in.
PROMETHEUS = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
PROMETHEUS_SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="


@pytest.fixture(scope="module")
def prometheus(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster that knows ServiceMonitors and PrometheusRules. Where it does anyway, they are left alone."""
    download = ["go", "mod", "download", "-json", PROMETHEUS]
    said = subprocess.run(download, cwd=tmp_path_factory.mktemp("go"), stdout=subprocess.PIPE, check=True).stdout
    module = json.loads(said)
    assert module["Sum"] == PROMETHEUS_SUM
    folder = Path(module["Dir"]) / "example" / "prometheus-operator-crd"
    known = operator.kubectl_says("get", "crd", "-o", "name")
    lacking = [it for it in ("servicemonitors", "prometheusrules") if f"/{it}.monitoring.coreos.com" not in known]
    files = [f"--filename={folder / f'monitoring.coreos.com_{it}.yaml'}" for it in lacking]
    if files:
        operator.kubectl_says("apply", "--server-side", *files)
        operator.kubectl_says("wait", "--for=condition=Established", "--timeout=60s", *files)
    yield
    if files:
        operator.kubectl_says("delete", *files)


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Iterator[Namespace]:
    """A restricted namespace for what is only tried."""
    with cluster.namespace(f"ddpm-chart-{secrets.token_hex(4)}") as namespace:
        yield namespace


def rendered(operator: Operator, namespace: Namespace, values: dict[str, Any], folder: Path) -> list[Manifest]:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values).replace("NAMESPACE", namespace.name))
    where = ["--namespace", namespace.name, "--values", str(file), "--kube-version", "1.30.0"]
    text = operator.helm_says("template", RELEASE, str(operator.chart), *where)
    return [document for document in yaml.safe_load_all(text) if document]


def test_the_chart_is_in_order(operator: Operator) -> None:
    assert "0 chart(s) failed" in operator.helm_says("lint", "--strict", str(operator.chart))


@pytest.mark.usefixtures("prometheus")
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_api_server_takes_all_that_the_chart_makes(
    operator: Operator, shared: Namespace, values: dict[str, Any], tmp_path: Path
) -> None:
    documents = rendered(operator, shared, values, tmp_path)
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    metadata = {**template["metadata"], "name": "operator", "namespace": shared.name}
    # Pod Security refuses pods, of which a Deployment is none yet.
    documents.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    assert len({one["kind"] for one in documents}) >= 8
    for one in documents:
        if one["kind"] == "Pod":
            del one["spec"]["serviceAccountName"]  # that is made only in earnest
    apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"]
    given = yaml.safe_dump_all(documents)
    said = operator.kubectl_says(*apply, "--warnings-as-errors", "--filename", "-", given=given)
    assert said.count("serverside-applied (server dry run)") == len(documents), said


def test_the_alerts_are_read_by_prometheus_and_ask_for_what_the_operator_tells(
    operator: Operator, shared: Namespace, tmp_path: Path
) -> None:
    documents = rendered(operator, shared, VALUES["alerts"], tmp_path)
    (rule,) = [one for one in documents if one["kind"] == "PrometheusRule"]
    (service,) = [one for one in documents if one["kind"] == "Service"]
    alerts = {one["alert"]: one["expr"] for group in rule["spec"]["groups"] for one in group["rules"]}
    assert len(alerts) >= 4
    told = {sample.name for family in Metrics(set).registry.collect() for sample in family.samples}
    words = {*FailureReason, *Result, ConditionType.COMPLETE}
    for expression in alerts.values():
        promql_parser.parse(expression)
        assert set(re.findall(r"\bddpm_\w+", expression)) <= told
        named = re.findall(r'(?:reason|result)[!=]~"([^"]*)"', expression)
        assert {word for one in named for word in one.split("|")} <= words
        job, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        assert expression.count(f'job="{job}", namespace="{namespace}"') == expression.count("{")


@pytest.mark.parametrize(
    ("name", "reached"), [("metrics", {"monitoring", "elsewhere"}), ("alerts", {"monitoring"}), ("nothing", set())]
)
def test_who_may_read_the_metrics_is_whom_the_values_name(
    operator: Operator, shared: Namespace, name: str, reached: set[str], tmp_path: Path
) -> None:
    documents = rendered(operator, shared, VALUES[name], tmp_path)
    (policy,) = [one for one in documents if one["kind"] == "NetworkPolicy"]
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    of_operator = End("10.0.0.1", shared.name, labels)
    ends = {it: End("10.0.0.2", it, {}, {"kubernetes.io/metadata.name": it}) for it in ("monitoring", "elsewhere")}
    assert {it for it, end in ends.items() if reaches([policy], end, of_operator, PORT)} == reached
    assert not any(reaches([policy], end, of_operator, 8080) for end in ends.values())
    (host,) = [
        it["value"]
        for it in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        if it["name"] == "METRICS_HOST"
    ]
    assert host == ("0.0.0.0" if reached else "127.0.0.1")  # noqa: S104 - it is what is asked for


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("metrics.serviceMonitor.enabled=true", "metrics.serviceMonitor.enabled requires metrics.enabled"),
        (
            "metrics.enabled=true,metrics.prometheusRule.enabled=true",
            "metrics.prometheusRule.enabled requires metrics.serviceMonitor.enabled",
        ),
    ],
)
def test_what_prometheus_could_not_use_is_refused(operator: Operator, values: str, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        operator.helm_says("template", RELEASE, str(operator.chart), "--set", values, "--kube-version", "1.30.0")


@pytest.mark.parametrize("values", [VALUES["namespaces"], VALUES["other namespaces"]], ids=["its own", "others"])
def test_an_operator_of_some_namespaces_has_rights_there_only(
    operator: Operator, shared: Namespace, values: dict[str, Any], tmp_path: Path
) -> None:
    documents = rendered(operator, shared, values, tmp_path)
    watched = {name.replace("NAMESPACE", shared.name) for name in values["watchNamespaces"]}
    bound = [one for one in documents if one["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    of_operator = [one for one in bound if one["subjects"][0]["name"] == f"{RELEASE}-operator"]
    assert {one["kind"] for one in of_operator} == {"RoleBinding"}
    assert {one["metadata"]["namespace"] for one in of_operator} == watched | {shared.name}
    (told,) = [
        json.loads(env["value"])
        for one in documents
        if one["kind"] == "Deployment"
        for env in one["spec"]["template"]["spec"]["containers"][0]["env"]
        if env["name"] == "WATCH_NAMESPACES"
    ]
    assert set(told) == watched


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("image.nmae=operator:1", "nmae"),
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
def test_a_wrong_value_is_refused_by_its_name(operator: Operator, value: str, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        operator.helm_says("template", RELEASE, str(operator.chart), "--set-string", value)


@pytest.mark.parametrize("replicas", [0, 2])
def test_other_than_one_operator_is_refused_with_the_reason(operator: Operator, replicas: int) -> None:
    values = ["--set", f"replicas={replicas}", "--kube-version", "1.30.0"]
    with pytest.raises(AssertionError, match=f"replicas is {replicas}, but must be 1: there is no leader election"):
        operator.helm_says("template", RELEASE, str(operator.chart), *values)


def test_the_notes_say_whether_kuberay_is_there(operator: Operator, tmp_path: Path) -> None:
    place = ["--namespace", NAMESPACE, "--reuse-values", "--dry-run=server"]
    there = operator.helm_says("upgrade", RELEASE, str(operator.chart), *place).partition("NOTES:")[2]
    assert "watches DDPMSamplings in all namespaces." in there
    assert "KubeRay" not in there

    chart = tmp_path / "ddpm-ray"
    shutil.copytree(operator.chart, chart)
    notes = chart / "templates" / "NOTES.txt"
    # As if there were none: no cluster has this version of it.
    notes.write_text(notes.read_text().replace("ray.io/v1/RayCluster", "ray.io/v99/RayCluster"))
    without = operator.helm_says("upgrade", RELEASE, str(chart), *place)
    assert "KubeRay is not installed. Until KubeRay 1.6 or newer is installed" in without

    shutil.copy(operator.chart / "templates" / "NOTES.txt", notes)
    # As if its CRD were of before tokens: this one knows of none.
    notes.write_text(notes.read_text().replace('"rayclusters.ray.io"', f'"{CRD}"'))
    too_old = operator.helm_says("upgrade", RELEASE, str(chart), *place)
    assert "KubeRay is too old, because it does not support token authentication" in too_old
    assert "Until KubeRay 1.6 or newer and its CRDs are installed" in too_old


def test_the_notes_say_which_image_no_registry_has(operator: Operator) -> None:
    for name, said in (("ddpm-ray-operator:dev", True), ("registry.example.com/ddpm-ray-operator:1", False)):
        place = [
            "--namespace",
            NAMESPACE,
            "--dry-run=server",
            "--set",
            f"image.name={name},worker.image=team/worker:1",
        ]
        notes = operator.helm_says("upgrade", RELEASE, str(operator.chart), *place).partition("NOTES:")[2]
        assert (f"have no registry: {name}. The images must already be on the nodes" in notes) is said
        assert "team/worker:1" not in notes


def test_the_operator_may_do_what_it_does_and_no_more(operator: Operator) -> None:
    assert operator.rights("default") == OF_ITS_WORK | OF_THE_WHOLE_CLUSTER
    assert operator.rights(NAMESPACE) == OF_ITS_WORK | OF_THE_WHOLE_CLUSTER | OF_ITS_KEY


def granted(operator: Operator, role: str) -> dict[tuple[str, str], str]:
    """What a ClusterRole lets people do: (API group, resource) -> verbs, sorted."""
    found: dict[tuple[str, str], set[str]] = {}
    for rule in json.loads(operator.kubectl_says("get", "clusterrole", role, "-o", "json"))["rules"]:
        for group in rule.get("apiGroups", ()):
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return {what: " ".join(sorted(verbs)) for what, verbs in found.items()}


def test_whoever_may_view_or_edit_a_namespace_may_do_so_with_its_samplings_and_no_more(operator: Operator) -> None:
    assert granted(operator, f"{RELEASE}-operator-viewer") == OF_A_VIEWER
    assert granted(operator, f"{RELEASE}-operator-editor") == OF_A_VIEWER | OF_AN_EDITOR
    for role, own in (("view", OF_A_VIEWER), ("edit", OF_AN_EDITOR), ("admin", OF_AN_EDITOR)):
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
    """Who asks for strictness is told; of who does not, the API server drops the field."""
    resource = shared.cluster.resource("ddpm-ray.io/v1alpha1", "DDPMSampling")
    document = {
        "apiVersion": "ddpm-ray.io/v1alpha1",
        "kind": "DDPMSampling",
        "metadata": {"name": "digits"},
        "spec": SMALL | {"podOverrides": {"nodeSelector": {"disk": "fast"}, **field}},
    }
    query = [("dryRun", "All"), ("fieldValidation", "Ignore")]
    taken = resource.create(body=document, namespace=shared.name, query_params=query).to_dict()
    assert taken["spec"]["podOverrides"] == {"nodeSelector": {"disk": "fast"}}
    query = [("dryRun", "All"), ("fieldValidation", "Strict")]
    with pytest.raises(Exception, match=f"unknown field.*{next(iter(field))}"):
        resource.create(body=document, namespace=shared.name, query_params=query)
