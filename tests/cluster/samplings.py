"""DDPMSamplings: specs, apply, wait, delete."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from tests.cluster.kube import FIELD_MANAGER, Condition, Manifest, Namespace, has_condition

API, KIND = "ddpm-ray.io/v1alpha1", "DDPMSampling"
END_TIMEOUT = 180.0
_MERGE = "application/merge-patch+json"
DELETION_TIMEOUT = 60.0

# One pod, small enough for two samplings and both operators on a node with two CPUs.
_POD = {"cpu": "600m", "memory": "2Gi"}
SMALL: dict[str, Any] = {
    "model": {"uri": "builtin://mnist"},
    "samples": 16,
    "sampler": {"name": "dpmpp", "steps": 5},
    "resources": {"head": _POD, "worker": _POD, "maxWorkers": 0},
    "output": {"claim": {"size": "1Gi", "retentionPolicy": "Delete"}},
}
# For samplings that draw little and should be scheduled at once on a small machine.
_PART = {"cpu": "300m", "memory": "2Gi"}
LIGHT: dict[str, Any] = SMALL | {"resources": {"head": _PART, "worker": _PART, "maxWorkers": 0}}
# Minutes of work: still running when the test inspects it.
LONG: dict[str, Any] = SMALL | {"samples": 4096, "sampler": {"name": "ddpm"}}

OPERATOR_SELECTOR = "app.kubernetes.io/managed-by=ddpm-operator"
OWNED_KINDS = (
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

    def wait(self, condition: Condition, what: str, seconds: float = END_TIMEOUT) -> Manifest:
        """Waits for a condition and returns the object. An unexpected failure ends the wait."""
        seen = self.namespace.wait(
            API, KIND, self.name, lambda it: condition(it) or has_condition("Failed")(it), seconds, what
        )
        assert condition(seen), f"waited for {what}, but {self.name} failed: {seen['status'].get('failure')}"
        return seen

    def wait_for(self, condition: str, seconds: float = END_TIMEOUT) -> Manifest:
        return self.wait(has_condition(condition), f"{self.name} to be {condition}", seconds)

    def wait_until_complete(self, samples: int) -> Manifest:
        """Waits until it is Complete with so many samples and its cluster is deleted."""

        def ended(seen: Manifest) -> bool:
            completed = has_condition("Complete")(seen) and has_condition("CleanedUp")(seen)
            return completed and bool(seen["status"]["progress"]["total"] == samples)

        return self.wait(ended, f"{self.name} to be complete with {samples} samples")

    def get(self) -> Manifest:
        return self.namespace.get(API, KIND, self.name)

    def delete(self) -> None:
        self.namespace.cluster.resource(API, KIND).delete(name=self.name, namespace=self.namespace.name)

    def remove_finalizers(self) -> None:
        self.namespace.cluster.resource(API, KIND).patch(
            name=self.name,
            namespace=self.namespace.name,
            body={"metadata": {"finalizers": None}},
            content_type=_MERGE,
        )

    def wait_until_gone(self) -> None:
        def gone(seen: Manifest) -> bool:
            return not seen

        self.namespace.wait(API, KIND, self.name, gone, DELETION_TIMEOUT, f"{self.name} to be gone")


def cluster_of(sampling: Sampling) -> str:
    """Waits for its RayCluster and returns the name."""
    seen = sampling.wait(lambda it: bool(it.get("status", {}).get("cluster")), "a cluster")
    name: str = seen["status"]["cluster"]["name"]
    return name


def token_secret_of(namespace: Namespace, cluster: str) -> str:
    """Returns the unguessable name of the Secret with a RayCluster's tokens."""
    name: str = namespace.get("ray.io/v1", "RayCluster", cluster)["spec"]["authOptions"]["secretName"]
    return name


def token_of(namespace: Namespace, cluster: str, key: str) -> str:
    """Returns a token of a RayCluster: Ray's `auth_token` or the driver's `progress_token`."""
    data = namespace.get("v1", "Secret", token_secret_of(namespace, cluster))["data"]
    return base64.b64decode(data[key]).decode()


def head_of(sampling: Sampling) -> Manifest:
    """Returns the metadata of its head pod, which may be terminating."""
    heads = [it["metadata"] for it in sampling.namespace.list("v1", "Pod", "ray.io/node-type=head")]
    (head,) = [it for it in heads if it["name"].startswith(f"{sampling.name}-")]
    found: Manifest = head
    return found


def suspend_cluster(sampling: Sampling, suspended: bool) -> None:
    """Suspends or resumes its RayCluster, as Kueue does."""
    name, namespace = cluster_of(sampling), sampling.namespace
    namespace.wait("ray.io/v1", "RayCluster", name, bool, DELETION_TIMEOUT, "the RayCluster")
    namespace.cluster.resource("ray.io/v1", "RayCluster").patch(
        name=name,
        namespace=namespace.name,
        body={"spec": {"suspend": suspended}},
        content_type=_MERGE,
    )


def assert_nothing_left(namespace: Namespace) -> None:
    """Waits until no RayCluster, pod, service, secret or policy is left."""
    for api_version, kind in OWNED_KINDS:
        namespace.wait_for_none(api_version, kind, DELETION_TIMEOUT)
    namespace.wait_for_all(
        "v1",
        "Secret",
        lambda seen: all(map(_is_of_the_test, seen)),
        DELETION_TIMEOUT,
        "no other Secret",
    )


def _is_of_the_test(secret: Manifest) -> bool:
    return FIELD_MANAGER in [it["manager"] for it in secret["metadata"].get("managedFields", ())]
