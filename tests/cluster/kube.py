"""Access to a real cluster for tests: apply, wait with a watch, logs, port-forward, temporary namespaces."""

from __future__ import annotations

import operator
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kubernetes import config
from kubernetes.client import ApiException, CoreV1Api, V1Namespace, V1ObjectMeta
from kubernetes.dynamic import DynamicClient, Resource

Manifest = dict[str, Any]
Condition = Callable[[Manifest], bool]

FIELD_MANAGER = "ddpm-ray-tests"
DELETION_TIMEOUT = 90.0


class WaitTimeout(AssertionError):
    """A condition did not become true in time; the message has the last status seen."""


@dataclass(frozen=True)
class Cluster:
    """One API server; `kubeconfig` None is kubectl's default.

    Attributes:
        active: namespaces of tests that are in use.
        terminating: namespaces of tests that were deleted and may still exist.
    """

    kubeconfig: Path | None
    dynamic: DynamicClient
    active: list[str] = field(default_factory=list)
    terminating: list[str] = field(default_factory=list)

    @classmethod
    def connect(cls, kubeconfig: Path | None) -> Cluster:
        return cls(kubeconfig, DynamicClient(config.new_client_from_config(kubeconfig and str(kubeconfig))))

    @property
    def core(self) -> CoreV1Api:
        return CoreV1Api(self.dynamic.client)

    def resource(self, api_version: str, kind: str) -> Resource:
        resource: Resource = self.dynamic.resources.get(api_version=api_version, kind=kind)
        return resource

    @contextmanager
    def namespace(self, name: str) -> Iterator[Namespace]:
        """A temporary namespace that enforces the Pod Security level `restricted`.

        It is deleted at the end without waiting: even an empty one takes five seconds.
        """
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name, labels=labels)))
        self.active.append(name)
        try:
            yield Namespace(self, name)
        finally:
            self.active.remove(name)
            self.core.delete_namespace(name)
            self.terminating.append(name)

    def present(self) -> list[str]:
        """Returns the namespaces of tests that still exist."""
        existing = {each.metadata.name for each in self.core.list_namespace().items}
        return [name for name in (*self.active, *self.terminating) if name in existing]

    def wait_for_namespaces_to_go(self) -> None:
        """Waits until all terminating namespaces are deleted.

        Raises:
            WaitTimeout: if one still exists.
        """
        while self.terminating:
            name = self.terminating.pop()
            self.wait("v1", "Namespace", name, operator.not_, DELETION_TIMEOUT, f"namespace {name} to be gone")

    def wait(
        self,
        api_version: str,
        kind: str,
        name: str,
        condition: Condition,
        seconds: float,
        what: str,
        namespace: str | None = None,
    ) -> Manifest:
        """Watches one object until `condition` is true of it, and returns it. A missing object is {}.

        Raises:
            WaitTimeout: if it is not within `seconds`.
        """
        resource = self.resource(api_version, kind)
        selected = {"namespace": namespace, "field_selector": f"metadata.name={name}"}
        deadline = time.monotonic() + seconds
        seen: Manifest = {}
        while (left := deadline - time.monotonic()) > 0:
            listed = resource.get(**selected).to_dict()
            seen = listed["items"][0] if listed["items"] else {}
            if condition(seen):
                return seen
            version = listed["metadata"]["resourceVersion"]
            for event in resource.watch(**selected, resource_version=version, timeout=int(left) + 1):
                seen = {} if event["type"] == "DELETED" else event["raw_object"]
                if condition(seen):
                    return seen
        raise WaitTimeout(f"waited {seconds:g} s for {what}; last seen:\n{yaml.safe_dump(seen.get('status'))}")

    def kubectl(self, *arguments: str) -> list[str]:
        """Returns the command line of kubectl for this cluster."""
        return ["kubectl", *(["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []), *arguments]


@dataclass(frozen=True)
class Namespace:
    """A namespace of the cluster, usually that of one test."""

    cluster: Cluster
    name: str

    def apply(self, *manifests: Manifest) -> None:
        """Applies manifests on the server's side; unknown fields are an error."""
        for manifest in manifests:
            resource = self.cluster.resource(manifest["apiVersion"], manifest["kind"])
            self.cluster.dynamic.server_side_apply(
                resource,
                body=manifest,
                name=manifest["metadata"]["name"],
                namespace=self.name,
                field_manager=FIELD_MANAGER,
                field_validation="Strict",
            )

    def get(self, api_version: str, kind: str, name: str) -> Manifest:
        found: Manifest = self.cluster.resource(api_version, kind).get(name=name, namespace=self.name).to_dict()
        return found

    def list(self, api_version: str, kind: str, selector: str = "") -> list[Manifest]:
        found = self.cluster.resource(api_version, kind).get(namespace=self.name, label_selector=selector)
        items: list[Manifest] = found.to_dict()["items"]
        return items

    def wait(self, api_version: str, kind: str, name: str, condition: Condition, seconds: float, what: str) -> Manifest:
        """`Cluster.wait` in this namespace."""
        return self.cluster.wait(api_version, kind, name, condition, seconds, what, self.name)

    def wait_for_none(self, api_version: str, kind: str, seconds: float, selector: str = "") -> None:
        """Waits until no object of a kind exists.

        Raises:
            WaitTimeout: names the remaining objects.
        """
        self.wait_for_all(api_version, kind, operator.not_, seconds, "none to remain", selector)

    def wait_for_all(
        self,
        api_version: str,
        kind: str,
        condition: Callable[[list[Manifest]], bool],
        seconds: float,
        what: str,
        selector: str = "",
    ) -> list[Manifest]:
        """Watches the objects of a kind until `condition` is true of their list, and returns it.

        Raises:
            WaitTimeout: names the existing objects.
        """
        resource = self.cluster.resource(api_version, kind)
        selected = {"namespace": self.name, "label_selector": selector}
        deadline = time.monotonic() + seconds
        while True:
            listed = resource.get(**selected).to_dict()
            items: list[Manifest] = listed["items"]
            left = deadline - time.monotonic()
            if condition(items):
                return items
            if left <= 0:
                names = ", ".join(item["metadata"]["name"] for item in items) or "none"
                raise WaitTimeout(f"waited {seconds:g} s for {what}; existing {kind} objects: {names}")
            version = listed["metadata"]["resourceVersion"]
            next(resource.watch(**selected, resource_version=version, timeout=int(left) + 1), None)

    def run_pod(self, manifest: Manifest, seconds: float) -> str:
        """Runs a pod to its end and returns its log.

        Raises:
            AssertionError: if it failed; contains its log.
            WaitTimeout: if it did not end within `seconds`.
        """
        name = manifest["metadata"]["name"]
        self.apply(manifest)
        pod = self.wait(
            "v1", "Pod", name, lambda seen: phase(seen) in ("Succeeded", "Failed"), seconds, f"pod {name} to end"
        )
        log = self.logs(name)
        assert pod["status"]["phase"] == "Succeeded", f"pod {name} failed; its log:\n{log}"
        return log

    def exec(self, pod: str, container: str, *command: str) -> list[str]:
        """Returns the command line of ``kubectl exec``."""
        return self.cluster.kubectl("-n", self.name, "exec", pod, "-c", container, "--", *command)

    def logs(self, pod: str, container: str | None = None, *, previous: bool = False) -> str:
        """Returns the log of a container, or why it cannot be read."""
        try:
            log: str | None = self.cluster.core.read_namespaced_pod_log(
                pod, self.name, container=container, previous=previous
            )
        except ApiException as error:
            return f"no log: {error.reason}: {error.body}"
        return log or ""  # an empty log is None

    @contextmanager
    def port_forward(self, target: str, *ports: str) -> Iterator[dict[int, int]]:
        """Runs ``kubectl port-forward TARGET PORTS`` during the block; yields remote port -> local port.

        ``:8265`` selects a free local port, ``8265`` the same one.
        """
        command = self.cluster.kubectl("-n", self.name, "port-forward", target, *ports)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield _forwarded(process, len(ports))
            finally:
                process.terminate()


def phase(seen: Manifest) -> str:
    return str(seen.get("status", {}).get("phase"))


def has_condition(name: str) -> Condition:
    """Whether the condition `name` is True."""

    def holds(seen: Manifest) -> bool:
        conditions = seen.get("status", {}).get("conditions") or []
        return any(item["type"] == name and item["status"] == "True" for item in conditions)

    return holds


def _forwarded(process: subprocess.Popen[str], count: int) -> dict[int, int]:
    """Reads kubectl's output until every port is forwarded."""
    assert process.stdout is not None
    ports: dict[int, int] = {}
    output = ""
    for line in process.stdout:
        output += line
        if match := re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)\n", line):
            ports[int(match[2])] = int(match[1])
        if len(ports) == count:
            return ports
    raise AssertionError(f"kubectl port-forward ended: {output}")
