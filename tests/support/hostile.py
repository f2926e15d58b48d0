"""Hypothesis strategies for hostile DDPMSamplings: values up to the bounds of the CRD's schema, and outside it."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import strategies as st

from ddpm_operator.crd import crd

Schema = dict[str, Any]
Value = st.SearchStrategy[Any]

SPEC: Schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
MAX_EXAMPLES = int(os.environ.get("HOSTILE_SAMPLINGS", "150"))
"""The number of generated specs. `make hostile` sets it to 10,000."""

NAMES = ["a", "mnist", "a-b.c", "other-namespace", "a" * 63, "nvidia.com/gpu", "example.com/key", "0"]
QUANTITIES = ["1", "100m", "2Gi", "64Ti", "1e3", "0.5", "-1Gi", "1Zi", "999999999999E", "0"]
URIS = [
    *("builtin://mnist", "pvc://claim/folder/m.safetensors", "s3://bucket/key", "gs://bucket/key"),
    *("https://example.com/m.pt", "https://169.254.169.254/latest", "https://localhost/m", "file:///etc/passwd"),
    *(
        "pvc://kube-system/secret/../../etc",
        "pvc://../other/m",
        "s3://bucket/../../key",
        "http://[fd00:ec2::254]/",
    ),
]
INJECTIONS = [
    *("{{ 7 * 7 }}", "{% for x in ().__class__.__bases__ %}", "$(id)", "`id`", "'; rm -rf / #", '"}\n- a: b'),
    *("!!python/object/apply:os.system [id]", "&a [*a]", "---\nkind: Pod", "../../etc/passwd", "\u2028", "\x00"),
    *("%s%n%d", "\r\nAuthorization: x", "<script>", "é" * 40, "👾", "yes", "null", "0x1F", "1:30", "a" * 5000),
]
STRINGS = st.sampled_from([*NAMES, *NAMES, *NAMES, *QUANTITIES, *QUANTITIES, *URIS, *INJECTIONS, "0" * 64, ""])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9) | STRINGS | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=6,
)


def within(schema: Schema) -> Value:
    """Generates values that the schema accepts, up to its bounds; CEL rules are ignored."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.sampled_from(QUANTITIES) | st.integers(0, 4096)
    match schema.get("type"):
        case "boolean":
            return st.booleans()
        case "integer":
            minimum, maximum = schema["minimum"], schema.get("maximum", 2**31)
            return st.sampled_from([minimum, maximum, min(minimum + 1, maximum)]) | st.integers(minimum, maximum)
        case "array":
            max_size = min(schema.get("maxItems", 3), 3)
            return st.lists(within(schema["items"]), min_size=schema.get("minItems", 0), max_size=max_size)
        case "object" if "properties" in schema:
            fields = {name: within(inner) for name, inner in schema["properties"].items()}
            required = {name: fields[name] for name in schema.get("required", ())}
            optional = {name: value for name, value in fields.items() if name not in required}
            return st.fixed_dictionaries(required, optional=optional)
        case "object":
            return st.dictionaries(STRINGS, within(schema["additionalProperties"]), max_size=3)
        case _:
            return STRINGS


def paths(schema: Schema, parent: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Schema]]:
    """Returns (path, schema) of all fields at any depth, except inside lists."""
    found = []
    for name, inner in schema.get("properties", {}).items():
        found += [((*parent, name), inner), *paths(inner, (*parent, name))]
    return found


FIELDS = paths(SPEC)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Generates a minimal spec with up to three fields set to valid or arbitrary values."""
    spec: dict[str, Any] = {
        "model": {"uri": draw(st.sampled_from(URIS[:5]))},
        "samples": draw(st.integers(1, 9999)),
    }
    for path, schema in draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique_by=lambda field: field[0])):
        *parents, last = path
        target: Any = spec
        for name in parents:
            inner = target.get(name)
            target[name] = target = inner if isinstance(inner, dict) else {}
        target[last] = draw(within(schema) if draw(st.integers(0, 5)) else ANYTHING)
    if not draw(st.integers(0, 9)):
        spec[draw(STRINGS)] = draw(ANYTHING)
    return spec
