"""The generated CRD: the committed file is it, and every corner of it is described and bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ddpm_operator.crd import as_yaml, crd

ROOT = Path(__file__).parents[4]
SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
GIVEN_BY_KUBERNETES = {"apiVersion", "kind", "metadata"}

Schema = dict[str, Any]


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every value's schema with its path, but what Kubernetes gives."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        if path or name not in GIVEN_BY_KUBERNETES:
            yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


NODES = dict(nodes(SCHEMA))


def test_the_file_of_the_chart_is_the_generated_one() -> None:
    committed = (ROOT / "charts" / "ddpm-ray" / "templates" / "crd.yaml").read_text()
    assert committed == as_yaml(), "run `python -m ddpm_operator.crd > charts/ddpm-ray/templates/crd.yaml`"


def test_the_schema_reaches_every_part() -> None:
    for path in (
        ".spec.model.downs[]",
        ".spec.resources.tasksPerGPU",
        ".spec.podOverrides.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].topologyKey",
        ".spec.podOverrides.nodeSelector{}",
        ".status.conditions[].lastTransitionTime",
        ".status.failure.logTail",
    ):
        assert path in NODES


def test_every_field_is_described() -> None:
    fields = [path for path in NODES if path and path[-1] not in "]}"]
    assert [path for path in fields if not NODES[path].get("description")] == []


@pytest.mark.parametrize(
    ("kind", "limit"), [("string", "maxLength"), ("array", "maxItems"), ("object", "maxProperties")]
)
def test_every_text_list_and_map_has_a_maximum(kind: str, limit: str) -> None:
    bounded_otherwise = {"string": ("enum", "format"), "array": (), "object": ("properties",)}[kind]
    unbounded = [
        path
        for path, node in NODES.items()
        if node.get("type") == kind and limit not in node and not any(key in node for key in bounded_otherwise)
    ]
    assert unbounded == []


def test_every_number_has_a_minimum_and_no_number_of_a_spec_is_a_float() -> None:
    kinds = {path: node.get("type") for path, node in NODES.items()}
    assert "number" not in kinds.values()
    assert [path for path, kind in kinds.items() if kind == "integer" and "minimum" not in NODES[path]] == []


def test_a_default_inside_of_a_default_comes_through() -> None:
    for path, node in NODES.items():
        if path.startswith(".spec.") and node.get("type") == "object" and "properties" in node:
            has_inner = any("default" in child for child in node["properties"].values())
            optional = path.rpartition(".")[2] not in NODES[path.rpartition(".")[0]].get("required", [])
            in_list = "[]" in path
            if has_inner and optional and not in_list and path != ".spec.output.claim":
                assert node.get("default") == {}, path


def test_only_what_kubernetes_takes_is_left_of_the_json_schema() -> None:
    foreign = {"$ref", "$defs", "anyOf", "title", "const", "propertyNames", "prefixItems"}
    assert [path for path, node in NODES.items() if foreign & node.keys()] == []
    assert [path for path, node in NODES.items() if node.get("additionalProperties") in (True, False)] == []


def test_conditions_merge_by_their_type() -> None:
    conditions = NODES[".status.conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
