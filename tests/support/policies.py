"""An evaluator for NetworkPolicies, for tests without a cluster network that enforces them.

It follows networking.k8s.io/v1: a pod that no policy selects is not isolated; a selected pod allows only connections
that one of its policies allows; and a connection must be allowed at both ends. An unsupported field is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal

Json = Mapping[str, Any]
Direction = Literal["ingress", "egress"]
PEER_FIELD = {"ingress": "from", "egress": "to"}


@dataclass(frozen=True)
class Endpoint:
    """One end of a connection: a pod, or an external address, whose namespace is ""."""

    address: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


def reaches(policies: Iterable[Json], source: Endpoint, target: Endpoint, port: int, protocol: str = "TCP") -> bool:
    """Returns whether the policies allow a connection from `source` to a port of `target`."""
    all_policies = list(policies)
    return _allowed(all_policies, "egress", source, target, port, protocol) and _allowed(
        all_policies, "ingress", target, source, port, protocol
    )


def _allowed(
    policies: list[Json], direction: Direction, pod: Endpoint, other: Endpoint, port: int, protocol: str
) -> bool:
    selecting = [policy for policy in policies if _selects(policy, direction, pod)]
    rules = [rule for policy in selecting for rule in policy["spec"].get(direction) or ()]
    return not selecting or any(_rule_allows(rule, direction, pod, other, port, protocol) for rule in rules)


def _selects(policy: Json, direction: Direction, pod: Endpoint) -> bool:
    spec = _require_known(policy["spec"], "podSelector", "policyTypes", "ingress", "egress")
    same_namespace = pod.namespace != "" and policy["metadata"]["namespace"] == pod.namespace
    return same_namespace and direction.capitalize() in spec["policyTypes"] and matches(spec["podSelector"], pod.labels)


def _rule_allows(rule: Json, direction: Direction, pod: Endpoint, other: Endpoint, port: int, protocol: str) -> bool:
    _require_known(rule, "ports", PEER_FIELD[direction])
    peers, ports = rule.get(PEER_FIELD[direction]), rule.get("ports")
    return (not ports or any(_matches_port(entry, port, protocol) for entry in ports)) and (
        not peers or any(_matches_peer(peer, pod, other) for peer in peers)
    )


def _matches_port(entry: Json, port: int, protocol: str) -> bool:
    _require_known(entry, "port", "endPort", "protocol")
    if entry.get("protocol", "TCP") != protocol:
        return False
    first = entry.get("port")
    if first is None:
        return True
    assert isinstance(first, int), f"named port {first} is not supported"
    return bool(first <= port <= entry.get("endPort", first))


def _matches_peer(peer: Json, pod: Endpoint, other: Endpoint) -> bool:
    _require_known(peer, "podSelector", "namespaceSelector", "ipBlock")
    if "ipBlock" in peer:
        return _in_block(peer["ipBlock"], other.address)
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        in_namespace = matches(peer["namespaceSelector"], other.namespace_labels)
    else:
        in_namespace = other.namespace == pod.namespace
    return in_namespace and matches(peer.get("podSelector", {}), other.labels)


def _in_block(block: Json, address: str) -> bool:
    _require_known(block, "cidr", "except")
    parsed = ip_address(address)
    exceptions = block.get("except") or ()
    return parsed in ip_network(block["cidr"]) and not any(parsed in ip_network(cidr) for cidr in exceptions)


def matches(selector: Json, labels: Mapping[str, str]) -> bool:
    """Returns whether a label selector matches the labels; an empty selector matches everything."""
    _require_known(selector, "matchLabels", "matchExpressions")
    match_labels = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == value for key, value in match_labels) and all(
        _matches_expression(expression, labels) for expression in selector.get("matchExpressions") or ()
    )


def _matches_expression(expression: Json, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", ())
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case other:
            raise AssertionError(f"{other} is not a label selector operator")


def _require_known(document: Json, *supported: str) -> Json:
    assert document.keys() <= set(supported), f"{sorted(document.keys() - set(supported))} is not supported"
    return document
