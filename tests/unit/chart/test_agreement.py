"""What the chart and the operator say of the same thing."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from ddpm_operator.api import Spec
from ddpm_operator.metrics import PORT as METRICS_PORT
from ddpm_operator.naming import MANAGED_BY, MANAGER
from ddpm_operator.ray_jobs import JOBS_PORT
from ddpm_operator.render import PROGRESS_PORT
from ddpm_operator.templating import shipped
from tests.chart_readme import CHART

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())


def template(name: str) -> str:
    return (CHART / "templates" / name).read_text()


def closed_objects(schema: dict[str, Any], where: str = "") -> list[tuple[str, bool]]:
    """Every object of a schema that lists its fields, and whether others are refused."""
    found = [(where, schema.get("additionalProperties") is False)] if "properties" in schema else []
    for name, below in schema.get("properties", {}).items():
        found += closed_objects(below, f"{where}.{name}")
    return found


def test_every_value_is_in_the_schema_and_every_typo_is_refused() -> None:
    assert VALUES.keys() == SCHEMA["properties"].keys() - {"global"}
    objects = closed_objects(SCHEMA)
    assert len(objects) >= 5
    assert [where for where, closed in objects if not closed] == []


def test_every_value_is_used() -> None:
    texts = "".join(path.read_text() for path in (CHART / "templates").rglob("*.*"))
    for name, schema in SCHEMA["properties"].items():
        if name != "global":
            groups = ("image", "worker", "allowed", "atOnce", "networkPolicy")
            nested = schema.get("properties", {}) if name in groups else {}
            for path in [f"{name}.{below}" for below in nested] or [name]:
                assert f".Values.{path}" in texts, f"no template uses {path}"


def test_the_schemes_that_can_be_allowed_are_those_there_are() -> None:
    offered = SCHEMA["properties"]["allowed"]["properties"]["uriSchemes"]["items"]["enum"]
    assert offered == ["*", *VALUES["allowed"]["uriSchemes"]]
    for scheme in VALUES["allowed"]["uriSchemes"]:
        uri = {"builtin": "builtin://mnist"}.get(scheme, f"{scheme}://bucket/folder/model.safetensors")
        Spec.from_document({"model": {"uri": uri}, "samples": 1})


def test_the_templates_that_can_be_replaced_are_those_there_are() -> None:
    assert SCHEMA["properties"]["templates"]["properties"].keys() == {path.name for path in shipped().glob("*.j2")}


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
