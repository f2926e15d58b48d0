"""What the chart and the operator say of the same thing."""

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


def objects(schema: dict[str, Any], where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a schema but `global`, which is helm's own, with its definitions and what is in lists."""
    if schema.get("type") == "object":
        yield where, schema
    for name, below in (*schema.get("properties", {}).items(), *schema.get("$defs", {}).items()):
        if name != "global":
            yield from objects(below, f"{where}.{name}")
    if "items" in schema:
        yield from objects(schema["items"], f"{where}[]")


def values_of(schema: dict[str, Any], where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every value, by its path; those that hold a file by its name are one."""
    fields = {name: below for name, below in schema.get("properties", {}).items() if "." not in name}
    if not fields:
        yield where
    for name, below in fields.items():
        if name != "global":
            yield from values_of(below, (*where, name))


def uses(text: str, value: tuple[str, ...]) -> bool:
    """Whether a template names a value, gives it on within a larger one, or within a `with` of that."""
    if re.search(rf"\.Values\.{re.escape('.'.join(value))}(?![\w.])", text):
        return True
    for end in range(1, len(value)):
        above, below = re.escape(".".join(value[:end])), re.escape(".".join(value[end:]))
        if re.search(rf"toYaml \.Values\.{above}(?![\w.])", text):
            return True
        _, *opened = re.split(rf"with \.Values\.{above} }}}}", text)
        if any(re.search(rf"[\s(]\.{below}(?![\w.])", rest.split("with .Values")[0]) for rest in opened):
            return True
    return False


def test_every_value_is_in_the_schema_and_every_typo_is_refused() -> None:
    assert VALUES.keys() == SCHEMA["properties"].keys() - {"global"}
    found = dict(objects(SCHEMA))
    assert {
        "",
        ".image.pullSecrets[]",
        ".metrics.serviceMonitor",
        ".toleration",
        ".requirements[]",
    } <= found.keys()
    # A map of texts has no keys to mistype.
    assert [where for where, one in found.items() if one.get("additionalProperties", True) is True] == []


def test_every_value_is_used() -> None:
    texts = [path.read_text() for path in (CHART / "templates").rglob("*.*")]
    values = list(values_of(SCHEMA))
    assert ("metrics", "serviceMonitor", "interval") in values
    unused = [".".join(value) for value in values if not any(uses(text, value) for text in texts)]
    assert unused == []


def test_the_schemes_that_can_be_allowed_are_those_there_are() -> None:
    offered = SCHEMA["properties"]["allowed"]["properties"]["uriSchemes"]["items"]["enum"]
    assert offered == ["*", *VALUES["allowed"]["uriSchemes"]]
    for scheme in VALUES["allowed"]["uriSchemes"]:
        uri = {"builtin": "builtin://mnist"}.get(scheme, f"{scheme}://bucket/folder/model.safetensors")
        Spec.from_document({"model": {"uri": uri}, "samples": 1})


def test_the_templates_that_can_be_replaced_are_those_there_are() -> None:
    assert SCHEMA["properties"]["templates"]["properties"].keys() == {
        path.name for path in shipped_templates().glob("*.j2")
    }


def test_the_operator_may_reach_the_ports_it_asks_at() -> None:
    policy = template("networkpolicy.yaml")
    ingress, _, egress = policy.partition("egress:")
    assert re.findall(r"port: (\d+), protocol: TCP", egress) == ["53", str(JOBS_PORT), str(PROGRESS_PORT)]
    assert re.findall(r"port: (\d+), protocol: TCP", ingress) == [str(METRICS_PORT)]
    assert f"{MANAGED_BY}: {MANAGER}" in policy


def test_prometheus_asks_at_the_port_where_the_metrics_are() -> None:
    assert f"{{name: metrics, containerPort: {METRICS_PORT}}}" in template("deployment.yaml")
    assert f"port: {METRICS_PORT}, targetPort: metrics" in template("metrics.yaml")


def test_the_chart_makes_a_sampling_that_the_operators_types_take() -> None:
    text = re.sub(r"\{\{.*?\}\}", "x", template("tests/sampling.yaml").partition("kind: DDPMSampling")[2])
    spec = Spec.from_document(yaml.safe_load(text.partition("\nspec:")[2]))
    assert (spec.samples, spec.model.uri) == (4, "builtin://mnist")


def test_no_rule_of_the_chart_has_a_wildcard() -> None:
    rules = template("rbac.yaml") + template("users.yaml") + template("tests/account.yaml")
    assert "*" not in rules
    assert not {"escalate", "bind", "impersonate"} & set(re.findall(r"\w+", rules))
