"""What NetworkPolicies mean, for clusters whose network enforces none: who could reach whom, where one does.

As networking.k8s.io/v1 says it: a pod that no policy selects is open; one that some select is reached only as one
of them allows; and both ends have to agree. A field that is not known here is an error, not an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal

Document = Mapping[str, Any]
Direction = Literal["ingress", "egress"]
OTHER_END = {"ingress": "from", "egress": "to"}


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, or an address outside of the cluster, which is in no namespace."""

    address: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


def reaches(policies: Iterable[Document], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies of a cluster let one end connect to another."""
    known = list(policies)
    return _lets(known, "egress", source, target, port, protocol) and _lets(
        known, "ingress", target, source, port, protocol
    )


def _lets(policies: list[Document], direction: Direction, pod: End, other: End, port: int, protocol: str) -> bool:
    selecting = [it for it in policies if _selects(it, direction, pod)]
    rules = [rule for it in selecting for rule in it["spec"].get(direction) or ()]
    return not selecting or any(_allows(rule, direction, pod, other, port, protocol) for rule in rules)


def _selects(policy: Document, direction: Direction, pod: End) -> bool:
    spec = _only(policy["spec"], "podSelector", "policyTypes", "ingress", "egress")
    ours = pod.namespace != "" and policy["metadata"]["namespace"] == pod.namespace
    return ours and direction.capitalize() in spec["policyTypes"] and matches(spec["podSelector"], pod.labels)


def _allows(rule: Document, direction: Direction, pod: End, other: End, port: int, protocol: str) -> bool:
    _only(rule, "ports", OTHER_END[direction])
    peers, ports = rule.get(OTHER_END[direction]), rule.get("ports")
    return (not ports or any(_is_port(it, port, protocol) for it in ports)) and (
        not peers or any(_is_peer(it, pod, other) for it in peers)
    )


def _is_port(asked: Document, port: int, protocol: str) -> bool:
    _only(asked, "port", "endPort", "protocol")
    if asked.get("protocol", "TCP") != protocol:
        return False
    first = asked.get("port")
    if first is None:
        return True
    assert isinstance(first, int), f"a port by its name, {first}, is not known here"
    return bool(first <= port <= asked.get("endPort", first))


def _is_peer(peer: Document, pod: End, other: End) -> bool:
    _only(peer, "podSelector", "namespaceSelector", "ipBlock")
    if "ipBlock" in peer:
        return _within(peer["ipBlock"], other.address)
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        there = matches(peer["namespaceSelector"], other.namespace_labels)
    else:
        there = other.namespace == pod.namespace
    return there and matches(peer.get("podSelector", {}), other.labels)


def _within(block: Document, address: str) -> bool:
    _only(block, "cidr", "except")
    found = ip_address(address)
    return found in ip_network(block["cidr"]) and not any(found in ip_network(it) for it in block.get("except") or ())


def matches(selector: Document, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects what has these labels; an empty one selects everything."""
    _only(selector, "matchLabels", "matchExpressions")
    wanted = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == value for key, value in wanted) and all(
        _holds(it, labels) for it in selector.get("matchExpressions") or ()
    )


def _holds(expression: Document, labels: Mapping[str, str]) -> bool:
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
            raise AssertionError(f"{other} is no operator of a label selector")


def _only(document: Document, *known: str) -> Document:
    assert document.keys() <= set(known), f"{sorted(document.keys() - set(known))} is not known here"
    return document
