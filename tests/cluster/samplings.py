"""DDPMSamplings as users apply them, and what they wait for."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from tests.cluster.kube import FIELD_MANAGER, Condition, Manifest, Namespace, has_condition

API, KIND = "ddpm-ray.io/v1alpha1", "DDPMSampling"
ENDS_WITHIN = 180.0
_MERGE = "application/merge-patch+json"
GONE_WITHIN = 60.0

# One pod each, small enough for two samplings at once beside the two operators on a node of two CPUs.
_POD = {"cpu": "600m", "memory": "2Gi"}
SMALL: dict[str, Any] = {
    "model": {"uri": "builtin://mnist"},
    "samples": 16,
    "sampler": {"name": "dpmpp", "steps": 5},
    "resources": {"head": _POD, "worker": _POD, "maxWorkers": 0},
    "output": {"claim": {"size": "1Gi", "retentionPolicy": "Delete"}},
}
# A small share of a CPU, for what hardly samples and shall not wait for its turn on a small machine.
_PART = {"cpu": "300m", "memory": "2Gi"}
LIGHT: dict[str, Any] = SMALL | {"resources": {"head": _PART, "worker": _PART, "maxWorkers": 0}}
# Minutes of work: long enough to be met while it runs.
LONG: dict[str, Any] = SMALL | {"samples": 4096, "sampler": {"name": "ddpm"}}

OF_THE_OPERATOR = "app.kubernetes.io/managed-by=ddpm-operator"
LEFT_OVERS = (
    ("ray.io/v1", "RayCluster"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)


@dataclass(frozen=True)
class Sampling:
    """One DDPMSampling."""

    namespace: Namespace
    name: str

    @classmethod
    def apply(cls, namespace: Namespace, name: str, spec: Manifest) -> Sampling:
        namespace.apply({"apiVersion": API, "kind": KIND, "metadata": {"name": name}, "spec": spec})
        return cls(namespace, name)

    def wait(self, condition: Condition, what: str, seconds: float = ENDS_WITHIN) -> Manifest:
        """Its document, once a condition holds. One that has failed and was not to is not waited for."""
        seen = self.namespace.wait(
            API, KIND, self.name, lambda it: condition(it) or has_condition("Failed")(it), seconds, what
        )
        assert condition(seen), f"waited for {what}, and {self.name} failed: {seen['status'].get('failure')}"
        return seen

    def wait_for(self, condition: str, seconds: float = ENDS_WITHIN) -> Manifest:
        return self.wait(has_condition(condition), f"{self.name} to be {condition}", seconds)

    def wait_until_complete(self, samples: int) -> Manifest:
        """Complete, with so many samples, and nothing left of the cluster."""

        def ended(seen: Manifest) -> bool:
            both = has_condition("Complete")(seen) and has_condition("CleanedUp")(seen)
            return both and bool(seen["status"]["progress"]["total"] == samples)

        return self.wait(ended, f"{self.name} to be complete with {samples} samples")

    def now(self) -> Manifest:
        return self.namespace.get(API, KIND, self.name)

    def delete(self) -> None:
        self.namespace.cluster.resource(API, KIND).delete(name=self.name, namespace=self.namespace.name)

    def let_go(self) -> None:
        """Takes the finalizers away that keep it."""
        self.namespace.cluster.resource(API, KIND).patch(
            name=self.name,
            namespace=self.namespace.name,
            body={"metadata": {"finalizers": None}},
            content_type=_MERGE,
        )

    def wait_until_gone(self) -> None:
        def gone(seen: Manifest) -> bool:
            return not seen

        self.namespace.wait(API, KIND, self.name, gone, GONE_WITHIN, f"{self.name} to be gone")


def cluster_of(sampling: Sampling) -> str:
    """The name of its RayCluster, once it has one."""
    seen = sampling.wait(lambda it: bool(it.get("status", {}).get("cluster")), "a cluster")
    name: str = seen["status"]["cluster"]["name"]
    return name


def token_secret_of(namespace: Namespace, cluster: str) -> str:
    """The name of the Secret with a RayCluster's tokens, which cannot be guessed."""
    name: str = namespace.get("ray.io/v1", "RayCluster", cluster)["spec"]["authOptions"]["secretName"]
    return name


def token_of(namespace: Namespace, cluster: str, whose: str) -> str:
    """A token of a RayCluster: Ray's, which is the `auth_token`, or the driver's `progress_token`."""
    data = namespace.get("v1", "Secret", token_secret_of(namespace, cluster))["data"]
    return base64.b64decode(data[whose]).decode()


def head_of(sampling: Sampling) -> Manifest:
    """The metadata of its head pod, also of one that goes."""
    heads = [it["metadata"] for it in sampling.namespace.list("v1", "Pod", "ray.io/node-type=head")]
    (head,) = [it for it in heads if it["name"].startswith(f"{sampling.name}-")]
    found: Manifest = head
    return found


def suspend_cluster(sampling: Sampling, suspended: bool) -> None:
    """Plays Kueue."""
    name, namespace = cluster_of(sampling), sampling.namespace
    namespace.wait("ray.io/v1", "RayCluster", name, bool, GONE_WITHIN, "the RayCluster")
    namespace.cluster.resource("ray.io/v1", "RayCluster").patch(
        name=name,
        namespace=namespace.name,
        body={"spec": {"suspend": suspended}},
        content_type=_MERGE,
    )


def nothing_is_left(namespace: Namespace) -> None:
    """No RayCluster, pod, service, secret or policy; they may take a moment."""
    for api_version, kind in LEFT_OVERS:
        namespace.wait_for_none(api_version, kind, GONE_WITHIN)
    namespace.wait_for_all(
        "v1", "Secret", lambda seen: all(map(_is_the_tests, seen)), GONE_WITHIN, "no Secret but the test's own"
    )


def _is_the_tests(secret: Manifest) -> bool:
    return FIELD_MANAGER in [it["manager"] for it in secret["metadata"].get("managedFields", ())]
