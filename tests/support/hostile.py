"""DDPMSamplings that nobody would write: from the CRD's schema, up to its bounds, and beyond it."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import strategies as st

from ddpm_operator.crd import crd

Schema = dict[str, Any]
Value = st.SearchStrategy[Any]

SPEC: Schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
MANY = int(os.environ.get("HOSTILE_SAMPLINGS", "400"))
"""How many are tried; the figure to be told is that of HOSTILE_SAMPLINGS=10000."""

NAMES = ["a", "mnist", "a-b.c", "other-namespace", "a" * 63, "nvidia.com/gpu", "example.com/key", "0"]
QUANTITIES = ["1", "100m", "2Gi", "64Ti", "1e3", "0.5", "-1Gi", "1Zi", "999999999999E", "0"]
PLACES = [
    *("builtin://mnist", "pvc://claim/folder/m.safetensors", "s3://bucket/key", "gs://bucket/key"),
    *("https://example.com/m.pt", "https://169.254.169.254/latest", "https://localhost/m", "file:///etc/passwd"),
    *(
        "pvc://kube-system/secret/../../etc",
        "pvc://../other/m",
        "s3://bucket/../../key",
        "http://[fd00:ec2::254]/",
    ),
]
CODE = [
    *("{{ 7 * 7 }}", "{% for x in ().__class__.__bases__ %}", "$(id)", "`id`", "'; rm -rf / #", '"}\n- a: b'),
    *("!!python/object/apply:os.system [id]", "&a [*a]", "---\nkind: Pod", "../../etc/passwd", "\u2028", "\x00"),
    *("%s%n%d", "\r\nAuthorization: x", "<script>", "é" * 40, "👾", "yes", "null", "0x1F", "1:30", "a" * 5000),
]
TEXTS = st.sampled_from([*NAMES, *NAMES, *NAMES, *QUANTITIES, *QUANTITIES, *PLACES, *CODE, "0" * 64, ""])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9) | TEXTS | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def within(schema: Schema) -> Value:
    """What a schema without its rules takes, up to its bounds."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.sampled_from(QUANTITIES) | st.integers(0, 4096)
    match schema.get("type"):
        case "boolean":
            return st.booleans()
        case "integer":
            least, most = schema["minimum"], schema.get("maximum", 2**31)
            return st.sampled_from([least, most, min(least + 1, most)]) | st.integers(least, most)
        case "array":
            most = min(schema.get("maxItems", 3), 3)
            return st.lists(within(schema["items"]), min_size=schema.get("minItems", 0), max_size=most)
        case "object" if "properties" in schema:
            fields = {name: within(inner) for name, inner in schema["properties"].items()}
            required = {name: fields[name] for name in schema.get("required", ())}
            optional = {name: value for name, value in fields.items() if name not in required}
            return st.fixed_dictionaries(required, optional=optional)
        case "object":
            return st.dictionaries(TEXTS, within(schema["additionalProperties"]), max_size=3)
        case _:
            return TEXTS


def paths(schema: Schema, above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Schema]]:
    """Every field at every depth but those within lists."""
    found = []
    for name, inner in schema.get("properties", {}).items():
        found += [((*above, name), inner), *paths(inner, (*above, name))]
    return found


FIELDS = paths(SPEC)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """A small spec of which a few fields are what their schema takes, or are not."""
    spec: dict[str, Any] = {
        "model": {"uri": draw(st.sampled_from(PLACES[:5]))},
        "samples": draw(st.integers(1, 9999)),
    }
    for path, schema in draw(st.lists(st.sampled_from(FIELDS), max_size=3, unique_by=lambda it: it[0])):
        *above, last = path
        place: Any = spec
        for name in above:
            inner = place.get(name)
            place[name] = place = inner if isinstance(inner, dict) else {}
        place[last] = draw(within(schema) if draw(st.integers(0, 5)) else ANYTHING)
    if not draw(st.integers(0, 9)):
        spec[draw(TEXTS)] = draw(ANYTHING)
    return spec
