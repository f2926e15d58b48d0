"""The generated CRD: it equals the file in the chart, and every field has a description and bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ddpm_operator.crd import as_yaml, crd

ROOT = Path(__file__).parents[4]
SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
KUBERNETES_FIELDS = {"apiVersion", "kind", "metadata"}

Schema = dict[str, Any]


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yields (path, schema) of every value, except for the fields that Kubernetes defines."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        if path or name not in KUBERNETES_FIELDS:
            yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


NODES = dict(nodes(SCHEMA))


def test_chart_file_is_up_to_date() -> None:
    committed = (ROOT / "charts" / "ddpm-ray" / "templates" / "crd.yaml").read_text()
    assert committed == as_yaml(), "run `python -m ddpm_operator.crd > charts/ddpm-ray/templates/crd.yaml`"


def test_schema_contains_nested_fields() -> None:
    for path in (
        ".spec.model.downs[]",
        ".spec.resources.tasksPerGPU",
        ".spec.podOverrides.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].topologyKey",
        ".spec.podOverrides.nodeSelector{}",
        ".status.conditions[].lastTransitionTime",
        ".status.failure.logTail",
    ):
        assert path in NODES


def test_every_field_has_a_description() -> None:
    fields = [path for path in NODES if path and path[-1] not in "]}"]
    assert [path for path in fields if not NODES[path].get("description")] == []


@pytest.mark.parametrize(
    ("kind", "limit"), [("string", "maxLength"), ("array", "maxItems"), ("object", "maxProperties")]
)
def test_strings_lists_and_maps_are_bounded(kind: str, limit: str) -> None:
    bounded_otherwise = {"string": ("enum", "format"), "array": (), "object": ("properties",)}[kind]
    unbounded = [
        path
        for path, node in NODES.items()
        if node.get("type") == kind and limit not in node and not any(key in node for key in bounded_otherwise)
    ]
    assert unbounded == []


def test_numbers_are_integers_with_a_minimum() -> None:
    kinds = {path: node.get("type") for path, node in NODES.items()}
    assert "number" not in kinds.values()
    assert [path for path, kind in kinds.items() if kind == "integer" and "minimum" not in NODES[path]] == []


def test_objects_with_defaulted_fields_default_to_empty() -> None:
    for path, node in NODES.items():
        if path.startswith(".spec.") and node.get("type") == "object" and "properties" in node:
            has_inner = any("default" in child for child in node["properties"].values())
            optional = path.rpartition(".")[2] not in NODES[path.rpartition(".")[0]].get("required", [])
            in_list = "[]" in path
            if has_inner and optional and not in_list and path != ".spec.output.claim":
                assert node.get("default") == {}, path


def test_schema_is_structural() -> None:
    unsupported = {"$ref", "$defs", "anyOf", "title", "const", "propertyNames", "prefixItems"}
    assert [path for path, node in NODES.items() if unsupported & node.keys()] == []
    assert [path for path, node in NODES.items() if node.get("additionalProperties") in (True, False)] == []


def test_conditions_merge_by_type() -> None:
    conditions = NODES[".status.conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
