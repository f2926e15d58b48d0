"""What a user may change of the pods: an allow-list, in Kubernetes' own words.

Nothing here can start another container, mount anything, or weaken the pods' security.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from ddpm_operator.api.model import Model
from ddpm_operator.api.names import KEYS, LabelValue, ObjectName, QualifiedName
from ddpm_operator.api.rules import KeysAvoid, rule

Values = Annotated[tuple[LabelValue, ...], Field(max_length=32)]


class NodeSelectorRequirement(Model):
    """A condition on one label or field of a node."""

    key: QualifiedName = Field(description="The label's key, or the field's name.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="How values are compared."
    )
    values: Values | None = Field(
        default=None, description="What the label is compared with; absent for Exists and DoesNotExist."
    )


Requirements = Annotated[tuple[NodeSelectorRequirement, ...], Field(max_length=16)]


class NodeSelectorTerm(Model):
    """Conditions that must all hold."""

    match_expressions: Requirements | None = Field(default=None, description="Conditions on the node's labels.")
    match_fields: Requirements | None = Field(default=None, description="Conditions on the node's fields.")


class NodeSelector(Model):
    """Terms of which one must hold."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=16)] = Field(
        description="Terms of which one must hold."
    )


Weight = Annotated[int, Field(ge=1, le=100)]


class PreferredSchedulingTerm(Model):
    """A term that counts for a node."""

    weight: Weight = Field(description="How much it counts, 1 to 100.")
    preference: NodeSelectorTerm = Field(description="The term.")


class NodeAffinity(Model):
    """Which nodes the pods may or should run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None, description="What a node must fulfil."
    )
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PreferredSchedulingTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="What is better on a node.")


class LabelSelectorRequirement(Model):
    """A condition on one label of a pod."""

    key: QualifiedName = Field(description="The label's key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How values are compared.")
    values: Values | None = Field(
        default=None, description="What the label is compared with; absent for Exists and DoesNotExist."
    )


class LabelSelector(Model):
    """Labels that must all match."""

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=32), KEYS] | None = Field(
        default=None, description="Labels and their values."
    )
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=16)] | None = Field(
        default=None, description="Conditions on labels."
    )


class PodAffinityTerm(Model):
    """Pods of the sampling's own namespace, and the part of the cluster within which they count as near.

    Kubernetes knows terms over other namespaces, too. The scheduler keeps a required antiAffinity both ways, so by
    one of those a sampling would shut the pods of its neighbours out of a node, or a zone.
    """

    topology_key: QualifiedName = Field(description="The nodes' label whose equal values mean near.")
    label_selector: LabelSelector | None = Field(
        default=None, description="Which pods of the sampling's own namespace are meant."
    )


class WeightedPodAffinityTerm(Model):
    """A term that counts for a node."""

    weight: Weight = Field(description="How much it counts, 1 to 100.")
    pod_affinity_term: PodAffinityTerm = Field(description="The term.")


class PodAffinity(Model):
    """Which pods these pods should run near to, or apart from."""

    required_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PodAffinityTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="What must hold.")
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[WeightedPodAffinityTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="What is better.")


class Affinity(Model):
    """Near what the pods run, and apart from what."""

    node_affinity: NodeAffinity | None = Field(default=None, description="Which nodes.")
    pod_affinity: PodAffinity | None = Field(default=None, description="Near which pods.")
    pod_anti_affinity: PodAffinity | None = Field(default=None, description="Apart from which pods.")


class Toleration(Model):
    """A taint the pods do not mind."""

    key: QualifiedName | None = Field(
        default=None, description="The taint's key; absent with operator Exists: every taint."
    )
    operator: Literal["Exists", "Equal"] | None = Field(default=None, description="Equal compares the value too.")
    value: LabelValue | None = Field(default=None, description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint's effect; absent: every effect."
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        default=None, description="For NoExecute: how long the taint is tolerated; absent: for ever."
    )


class TopologySpreadConstraint(Model):
    """How the pods spread over nodes or zones."""

    max_skew: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="By how many pods two places may differ at most."
    )
    topology_key: QualifiedName = Field(
        description="The nodes' label that tells places apart, such as kubernetes.io/hostname."
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        default="ScheduleAnyway", description="Whether the spread is a condition or a wish."
    )
    label_selector: LabelSelector | None = Field(
        default=None, description="Which pods are counted; absent: this sampling's own."
    )
    min_domains: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="The least number of places, for DoNotSchedule."
    )
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="Whether nodes outside the affinity count."
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="Whether tainted nodes count."
    )


class LocalReference(Model):
    """An object of the sampling's own namespace."""

    name: ObjectName = Field(description="Its name.")


FOREIGN_KEYS = KeysAvoid(
    "keys of ray.io, ddpm-ray.io, kueue.x-k8s.io and app.kubernetes.io belong to the operator, "
    "and a pod's AppArmor, seccomp and Multus annotations are not for users",
    r"(?:ray\.io|(?:[^/]*\.)?ddpm-ray\.io|kueue\.x-k8s\.io|app\.kubernetes\.io"
    # By these Multus gives a pod further networks, which no NetworkPolicy of Kubernetes knows of.
    r"|k8s\.v1\.cni\.cncf\.io|v1\.multus-cni\.io"
    r"|(?:container\.)?(?:apparmor\.security\.beta|seccomp\.security\.alpha)\.kubernetes\.io)/.*",
)


class PodOverrides(Model):
    """What is changed of the head's and the workers' pods: this list and no more."""

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32), KEYS] | None = Field(
        default=None, description="Labels a node must have."
    )
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] | None = Field(
        default=None, description="Taints the pods do not mind."
    )
    affinity: Affinity | None = Field(default=None, description="Near what the pods run, and apart from what.")
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=8)] | None = Field(
        default=None, description="How the pods spread over nodes or zones."
    )
    labels: Annotated[dict[str, LabelValue], Field(max_length=32), KEYS, FOREIGN_KEYS] | None = Field(
        default=None, description="Labels the pods get beside the operator's own."
    )
    annotations: (
        Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32), KEYS, FOREIGN_KEYS] | None
    ) = Field(default=None, description="Annotations the pods get beside the operator's own.")
    priority_class_name: ObjectName | None = Field(default=None, description="The pods' PriorityClass.")
    runtime_class_name: ObjectName | None = Field(default=None, description="The pods' RuntimeClass, such as nvidia.")
    scheduler_name: ObjectName | None = Field(default=None, description="The scheduler that places the pods.")
    image_pull_secrets: Annotated[tuple[LocalReference, ...], Field(max_length=8)] | None = Field(
        default=None, description="Secrets for a private registry."
    )
    service_account_name: ObjectName | None = Field(
        default=None,
        description="The pods' ServiceAccount, among those the administrator allows. Its token is never mounted.",
    )

    @rule(
        "!has(self.imagePullSecrets) || self.imagePullSecrets.all(one, "
        "self.imagePullSecrets.exists_one(other, other.name == one.name))",
        "each of imagePullSecrets is named once",
        field="imagePullSecrets",
    )
    def _pull_secrets_once(self) -> bool:
        return _differ([it.name for it in self.image_pull_secrets or ()])

    @rule(
        "!has(self.topologySpreadConstraints) || self.topologySpreadConstraints.all(one, "
        "self.topologySpreadConstraints.exists_one(other, "
        "other.topologyKey == one.topologyKey && other.whenUnsatisfiable == one.whenUnsatisfiable))",
        "topologySpreadConstraints has one constraint for each topologyKey and whenUnsatisfiable",
        field="topologySpreadConstraints",
    )
    def _constraints_once(self) -> bool:
        return _differ([(it.topology_key, it.when_unsatisfiable) for it in self.topology_spread_constraints or ()])


def _differ(values: Sequence[object]) -> bool:
    return len(set(values)) == len(values)
