"""A placement, merged into the affinity of a user."""

from __future__ import annotations

from typing import Any

from ddpm_operator.api.status import Placement
from ddpm_operator.manifests.node_affinity import with_placement

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
ARCH = {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}
NOT_B = {"key": "metadata.name", "operator": "NotIn", "values": ["node-b"]}
PLACEMENT = Placement(node_labels={"kubernetes.io/arch": ("amd64",)}, nodes=("node-a",), excluded_nodes=("node-b",))
DISK: dict[str, Any] = {"key": "disk", "operator": "In", "values": ["fast"]}
NOT_C: dict[str, Any] = {"key": "metadata.name", "operator": "NotIn", "values": ["node-c"]}


def terms(affinity: Any, placement: Placement = PLACEMENT) -> Any:  # noqa: ANN401
    node_affinity: Any = with_placement(affinity, placement)["nodeAffinity"]
    return node_affinity[REQUIRED]["nodeSelectorTerms"]


def required(*user_terms: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [*user_terms]}}}


def test_labels_and_names_are_required_and_known_nodes_preferred() -> None:
    assert with_placement(None, PLACEMENT) == {
        "nodeAffinity": {
            REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [ARCH], "matchFields": [NOT_B]}]},
            PREFERRED: [
                {
                    "weight": 100,
                    "preference": {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-a"]}]},
                }
            ],
        }
    }


def test_requirements_are_added_to_every_term() -> None:
    user = required({"matchExpressions": [DISK]}, {"matchFields": [NOT_C]})
    assert terms(user) == [
        {"matchExpressions": [DISK, ARCH], "matchFields": [NOT_B]},
        {"matchExpressions": [ARCH], "matchFields": [NOT_C, NOT_B]},
    ]


def test_a_term_that_fits_no_node_stays_so() -> None:
    assert terms(required({}, {"matchExpressions": []}, {"matchExpressions": [DISK]})) == [
        {},
        {"matchExpressions": []},
        {"matchExpressions": [DISK, ARCH], "matchFields": [NOT_B]},
    ]


def test_each_excluded_node_is_a_requirement() -> None:
    # The API server accepts a single value of metadata.name.
    excluded = Placement(excluded_nodes=("node-b", "node-c"))
    assert terms(None, excluded) == [{"matchFields": [NOT_B, NOT_C]}]


def test_the_rest_of_an_affinity_is_kept() -> None:
    preferred = {"weight": 1, "preference": {"matchExpressions": [DISK]}}
    user: Any = {"nodeAffinity": {PREFERRED: [preferred]}, "podAffinity": {PREFERRED: []}}
    merged: Any = with_placement(user, Placement(nodes=("node-a",)))
    assert merged["podAffinity"] == {PREFERRED: []}
    assert merged["nodeAffinity"][PREFERRED][0] == preferred
    assert len(merged["nodeAffinity"][PREFERRED]) == 2
    assert REQUIRED not in merged["nodeAffinity"]
    assert user["nodeAffinity"] == {PREFERRED: [preferred]}


def test_a_placement_without_nodes_changes_nothing() -> None:
    assert with_placement(None, Placement()) == {}
