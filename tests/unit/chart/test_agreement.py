"""The chart against the operator: values and schema, ports, templates, and permissions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from ddpm_operator.api import Spec
from ddpm_operator.controller.metrics import PORT as METRICS_PORT
from ddpm_operator.manifests.naming import MANAGED_BY, MANAGER
from ddpm_operator.manifests.render import PROGRESS_PORT
from ddpm_operator.manifests.templating import shipped_templates
from ddpm_operator.ray.head_client import JOBS_PORT
from hack.chart_readme import CHART

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def template(name: str) -> str:
    return (CHART / "templates" / name).read_text()


def objects(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (path, schema) of every object, including definitions and list items; `global` belongs to Helm."""
    if schema.get("type") == "object":
        yield path, schema
    for name, child in (*schema.get("properties", {}).items(), *schema.get("$defs", {}).items()):
        if name != "global":
            yield from objects(child, f"{path}.{name}")
    if "items" in schema:
        yield from objects(schema["items"], f"{path}[]")


def value_paths(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yields the path of every value; a map from file name to content counts as one value."""
    fields = {name: child for name, child in schema.get("properties", {}).items() if "." not in name}
    if not fields:
        yield path
    for name, child in fields.items():
        if name != "global":
            yield from value_paths(child, (*path, name))


def uses(text: str, value: tuple[str, ...]) -> bool:
    """Returns whether a template uses a value: by full path, through a parent, or inside a `with` of a parent."""
    if re.search(rf"\.Values\.{re.escape('.'.join(value))}(?![\w.])", text):
        return True
    for end in range(1, len(value)):
        parent, child = re.escape(".".join(value[:end])), re.escape(".".join(value[end:]))
        if re.search(rf"toYaml \.Values\.{parent}(?![\w.])", text):
            return True
        _, *blocks = re.split(rf"with \.Values\.{parent} }}}}", text)
        if any(re.search(rf"[\s(]\.{child}(?![\w.])", block.split("with .Values")[0]) for block in blocks):
            return True
    return False


def test_schema_covers_all_values_and_rejects_unknown_ones() -> None:
    assert VALUES.keys() == SCHEMA["properties"].keys() - {"global"}
    schemas = dict(objects(SCHEMA))
    assert {
        "",
        ".image.pullSecrets[]",
        ".metrics.serviceMonitor",
        ".toleration",
        ".requirements[]",
    } <= schemas.keys()
    # A map of strings has a schema for additionalProperties, and no fixed keys.
    assert [path for path, schema in schemas.items() if schema.get("additionalProperties", True) is True] == []


def test_templates_use_every_value() -> None:
    texts = [path.read_text() for path in (CHART / "templates").rglob("*.*")]
    values = list(value_paths(SCHEMA))
    assert ("metrics", "serviceMonitor", "interval") in values
    unused = [".".join(value) for value in values if not any(uses(text, value) for text in texts)]
    assert unused == []


def test_allowed_uri_schemes_are_valid_in_the_api() -> None:
    enum = SCHEMA["properties"]["allowed"]["properties"]["uriSchemes"]["items"]["enum"]
    assert enum == ["*", *VALUES["allowed"]["uriSchemes"]]
    for scheme in VALUES["allowed"]["uriSchemes"]:
        uri = {"builtin": "builtin://mnist"}.get(scheme, f"{scheme}://bucket/folder/model.safetensors")
        Spec.from_document({"model": {"uri": uri}, "samples": 1})


def test_replaceable_templates_are_the_shipped_ones() -> None:
    assert SCHEMA["properties"]["templates"]["properties"].keys() == {
        path.name for path in shipped_templates().glob("*.j2")
    }


def test_network_policy_opens_the_ports_that_the_operator_uses() -> None:
    policy = template("networkpolicy.yaml")
    ingress, _, egress = policy.partition("egress:")
    assert re.findall(r"port: (\d+), protocol: TCP", egress) == ["53", str(JOBS_PORT), str(PROGRESS_PORT)]
    assert re.findall(r"port: (\d+), protocol: TCP", ingress) == [str(METRICS_PORT)]
    assert f"{MANAGED_BY}: {MANAGER}" in policy


def test_metrics_service_uses_the_metrics_port() -> None:
    assert f"{{name: metrics, containerPort: {METRICS_PORT}}}" in template("deployment.yaml")
    assert f"port: {METRICS_PORT}, targetPort: metrics" in template("metrics.yaml")


def test_helm_test_sampling_is_valid() -> None:
    text = re.sub(r"\{\{.*?\}\}", "x", template("tests/sampling.yaml").partition("kind: DDPMSampling")[2])
    spec = Spec.from_document(yaml.safe_load(text.partition("\nspec:")[2]))
    assert (spec.samples, spec.model.uri) == (4, "builtin://mnist")


def test_nodes_can_only_be_read_one_by_one_and_cluster_wide() -> None:
    rules = template("rbac.yaml")
    assert re.findall(r"resources: \[nodes\]\n  verbs: (.*)", rules) == ["[get]"]
    cluster_wide = rules.partition("if not .Values.watchNamespaces")[2].partition("{{- end }}")[0]
    assert "resources: [nodes]" in cluster_wide


def test_rbac_rules_have_no_wildcard() -> None:
    rules = template("rbac.yaml") + template("users.yaml") + template("tests/account.yaml")
    assert "*" not in rules
    assert not {"escalate", "bind", "impersonate"} & set(re.findall(r"\w+", rules))
