"""Merges a placement into the affinity of a pod, as Kubernetes documents have it. Pure."""

from __future__ import annotations

from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.status import Placement
from ddpm_operator.manifests.templating import Manifest

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_MAX_WEIGHT = 100


def with_placement(affinity: JsonValue, placement: Placement) -> Manifest:
    """Returns the affinity of a pod, limited to the nodes of a placement.

    A term of a node selector fits a node if all of its requirements do, and the selector if one of its terms does. So
    the requirements of the placement are added to every term of the user's.

    Args:
        affinity: `spec.podOverrides.affinity` as a document; None if it is unset.
    """
    merged = _object(affinity)
    node_affinity = _object(merged.get("nodeAffinity"))
    expressions = [
        _requirement(label, "In", *values) for label, values in sorted(placement.node_labels.items()) if values
    ]
    # By name, as a node's label kubernetes.io/hostname may differ from it. A field takes a single value.
    fields = [_requirement("metadata.name", "NotIn", node) for node in placement.excluded_nodes]
    if expressions or fields:
        terms = _list(_object(node_affinity.get(_REQUIRED)).get("nodeSelectorTerms")) or [None]
        limited: list[JsonValue] = [_limited(term, expressions, fields) for term in terms]
        node_affinity[_REQUIRED] = {"nodeSelectorTerms": limited}
    preferred: list[JsonValue] = [
        {"weight": _MAX_WEIGHT, "preference": {"matchFields": [_requirement("metadata.name", "In", node)]}}
        for node in placement.nodes
        if node not in placement.excluded_nodes
    ]
    if preferred:
        node_affinity[_PREFERRED] = [*_list(node_affinity.get(_PREFERRED)), *preferred]
    return {**merged, "nodeAffinity": node_affinity} if node_affinity else merged


def _limited(term: JsonValue, expressions: list[JsonValue], fields: list[JsonValue]) -> JsonValue:
    """Returns a term with further requirements.

    Args:
        term: None for a new one. A term without requirements fits no node, and is returned as it is.
    """
    own = _object(term)
    if term is not None and not (own.get("matchExpressions") or own.get("matchFields")):
        return term
    limited = dict(own)
    for key, more in (("matchExpressions", expressions), ("matchFields", fields)):
        if more:
            limited[key] = [*_list(own.get(key)), *more]
    return limited


def _requirement(key: str, operator: str, *values: str) -> JsonValue:
    return {"key": key, "operator": operator, "values": [*values]}


def _object(value: JsonValue) -> Manifest:
    return dict(value) if isinstance(value, dict) else {}


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
