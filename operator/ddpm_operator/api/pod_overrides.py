"""spec.podOverrides: the pod fields that users may set, named and typed as in the Kubernetes pod API.

This is an allow-list. No field in it can add a container, mount a volume, or weaken the pods' security settings.
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
    """A node selector requirement on one label or field of a node."""

    key: QualifiedName = Field(description="The label key that the selector applies to, or the name of a node field.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="The relationship of the key to the values."
    )
    values: Values | None = Field(
        default=None, description="The values to compare with. Must be empty for Exists and DoesNotExist."
    )


Requirements = Annotated[tuple[NodeSelectorRequirement, ...], Field(max_length=16)]


class NodeSelectorTerm(Model):
    """Requirements that a node must meet. The requirements are ANDed."""

    match_expressions: Requirements | None = Field(
        default=None, description="Node selector requirements on the node's labels."
    )
    match_fields: Requirements | None = Field(
        default=None, description="Node selector requirements on the node's fields."
    )


class NodeSelector(Model):
    """A union of node selector terms."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=16)] = Field(
        description="Node selector terms. The terms are ORed."
    )


Weight = Annotated[int, Field(ge=1, le=100)]


class PreferredSchedulingTerm(Model):
    """A node selector term with a weight."""

    weight: Weight = Field(description="The weight of a matching node, from 1 to 100.")
    preference: NodeSelectorTerm = Field(description="The node selector term that the weight belongs to.")


class NodeAffinity(Model):
    """Node affinity scheduling rules."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = Field(
        default=None, description="The node selector that a node must match for a pod to be scheduled onto it."
    )
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PreferredSchedulingTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="Weighted terms. The scheduler prefers nodes with the greatest sum of weights.")


class LabelSelectorRequirement(Model):
    """A label selector requirement on one label of a pod."""

    key: QualifiedName = Field(description="The label key that the selector applies to.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="The relationship of the key to the values."
    )
    values: Values | None = Field(
        default=None, description="The values to compare with. Must be empty for Exists and DoesNotExist."
    )


class LabelSelector(Model):
    """A label selector. Its matchLabels and matchExpressions are ANDed; an empty selector matches all pods."""

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=32), KEYS] | None = Field(
        default=None, description="Label keys and the values that they must have."
    )
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=16)] | None = Field(
        default=None, description="Label selector requirements. The requirements are ANDed."
    )


class PodAffinityTerm(Model):
    """A set of pods in the sampling's namespace, and the topology within which to co-locate with or avoid them.

    Unlike in Kubernetes, other namespaces cannot be selected. The scheduler enforces a required podAntiAffinity in both
    directions, so a sampling could keep the pods of other namespaces off a node or out of a zone.
    """

    topology_key: QualifiedName = Field(
        description="The node label that defines the topology. Nodes with the same value are co-located."
    )
    label_selector: LabelSelector | None = Field(
        default=None, description="A label query over the pods in the sampling's namespace."
    )


class WeightedPodAffinityTerm(Model):
    """A pod affinity term with a weight."""

    weight: Weight = Field(description="The weight of a matching node, from 1 to 100.")
    pod_affinity_term: PodAffinityTerm = Field(description="The pod affinity term that the weight belongs to.")


class PodAffinity(Model):
    """Inter-pod affinity or anti-affinity scheduling rules."""

    required_during_scheduling_ignored_during_execution: (
        Annotated[tuple[PodAffinityTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="Terms that must all be satisfied for a pod to be scheduled onto a node.")
    preferred_during_scheduling_ignored_during_execution: (
        Annotated[tuple[WeightedPodAffinityTerm, ...], Field(max_length=16)] | None
    ) = Field(default=None, description="Weighted terms. The scheduler prefers nodes with the greatest sum of weights.")


class Affinity(Model):
    """Scheduling constraints of the pods."""

    node_affinity: NodeAffinity | None = Field(default=None, description="Node affinity scheduling rules.")
    pod_affinity: PodAffinity | None = Field(default=None, description="Pod affinity scheduling rules.")
    pod_anti_affinity: PodAffinity | None = Field(default=None, description="Pod anti-affinity scheduling rules.")


class Toleration(Model):
    """A toleration for taints that match the triple of key, value and effect."""

    key: QualifiedName | None = Field(
        default=None, description="The taint key to match. If empty, the operator must be Exists, and all taints match."
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="Exists ignores the value. Defaults to Equal."
    )
    value: LabelValue | None = Field(default=None, description="The taint value to match.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint effect to match. If empty, all effects match."
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        default=None, description="How long a NoExecute taint is tolerated. By default, forever."
    )


class TopologySpreadConstraint(Model):
    """How to spread the pods among topology domains such as nodes or zones."""

    max_skew: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="The maximum difference in the number of pods between two topology domains."
    )
    topology_key: QualifiedName = Field(
        description="The node label that defines the topology domains, such as kubernetes.io/hostname."
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        default="ScheduleAnyway", description="What to do with a pod that would violate the constraint."
    )
    label_selector: LabelSelector | None = Field(
        default=None, description="The pods to count. Defaults to the pods of the attempt."
    )
    min_domains: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="The minimum number of eligible topology domains. Requires DoNotSchedule."
    )
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="How nodeAffinity and nodeSelector affect the skew. Defaults to Honor."
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="How node taints affect the skew. Defaults to Ignore."
    )


class LocalReference(Model):
    """A reference to an object in the sampling's namespace."""

    name: ObjectName = Field(description="The name of the object.")


RESERVED_KEYS = KeysAvoid(
    "keys of ray.io, ddpm-ray.io, kueue.x-k8s.io and app.kubernetes.io are reserved for the operator, "
    "and AppArmor, seccomp and Multus annotations are not allowed",
    r"(?:ray\.io|(?:[^/]*\.)?ddpm-ray\.io|kueue\.x-k8s\.io|app\.kubernetes\.io"
    # With these annotations, Multus attaches a pod to further networks, to which no NetworkPolicy applies.
    r"|k8s\.v1\.cni\.cncf\.io|v1\.multus-cni\.io"
    r"|(?:container\.)?(?:apparmor\.security\.beta|seccomp\.security\.alpha)\.kubernetes\.io)/.*",
)


class PodOverrides(Model):
    """The pod fields that users may set. They apply to the head and to all workers."""

    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32), KEYS] | None = Field(
        default=None, description="Labels that a node must have for the pods to be scheduled onto it."
    )
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] | None = Field(
        default=None, description="Tolerations of the pods."
    )
    affinity: Affinity | None = Field(default=None, description="Affinity of the pods.")
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=8)] | None = Field(
        default=None, description="How to spread the pods among topology domains."
    )
    labels: Annotated[dict[str, LabelValue], Field(max_length=32), KEYS, RESERVED_KEYS] | None = Field(
        default=None, description="Additional labels of the pods."
    )
    annotations: (
        Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32), KEYS, RESERVED_KEYS] | None
    ) = Field(default=None, description="Additional annotations of the pods.")
    priority_class_name: ObjectName | None = Field(default=None, description="The PriorityClass of the pods.")
    runtime_class_name: ObjectName | None = Field(
        default=None, description="The RuntimeClass of the pods, such as nvidia."
    )
    scheduler_name: ObjectName | None = Field(default=None, description="The scheduler that dispatches the pods.")
    image_pull_secrets: Annotated[tuple[LocalReference, ...], Field(max_length=8)] | None = Field(
        default=None, description="Secrets with the credentials of a private image registry."
    )
    service_account_name: ObjectName | None = Field(
        default=None,
        description="The ServiceAccount of the pods, one of those that the administrator allows. Its token is never "
        "mounted.",
    )

    @rule(
        "!has(self.imagePullSecrets) || self.imagePullSecrets.all(one, "
        "self.imagePullSecrets.exists_one(other, other.name == one.name))",
        "imagePullSecrets must not contain duplicate names",
        field="imagePullSecrets",
    )
    def _pull_secrets_are_unique(self) -> bool:
        return _all_unique([secret.name for secret in self.image_pull_secrets or ()])

    @rule(
        "!has(self.topologySpreadConstraints) || self.topologySpreadConstraints.all(one, "
        "self.topologySpreadConstraints.exists_one(other, "
        "other.topologyKey == one.topologyKey && other.whenUnsatisfiable == one.whenUnsatisfiable))",
        "topologySpreadConstraints must not contain duplicate pairs of topologyKey and whenUnsatisfiable",
        field="topologySpreadConstraints",
    )
    def _spread_constraints_are_unique(self) -> bool:
        constraints = self.topology_spread_constraints or ()
        return _all_unique([(constraint.topology_key, constraint.when_unsatisfiable) for constraint in constraints])


def _all_unique(values: Sequence[object]) -> bool:
    return len(set(values)) == len(values)
