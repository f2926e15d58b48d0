"""A real cluster as tests use it: apply, wait by watch, logs, port-forward, namespaces that leave nothing."""

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
GONE_WITHIN = 90.0


class NotInTime(AssertionError):
    """What was waited for did not come about; holds the last status seen."""


@dataclass(frozen=True)
class Cluster:
    """One API server. `kubeconfig` None is the user's own.

    Attributes:
        open: namespaces that tests have made and still use.
        going: namespaces that were deleted and may not be gone yet.
    """

    kubeconfig: Path | None
    dynamic: DynamicClient
    open: list[str] = field(default_factory=list)
    going: list[str] = field(default_factory=list)

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
        """A namespace that takes only pods of the restricted Pod Security level; everything in it goes with it.

        It is deleted at the end and not waited for: even an empty one takes five seconds to go.
        """
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name, labels=labels)))
        self.open.append(name)
        try:
            yield Namespace(self, name)
        finally:
            self.open.remove(name)
            self.core.delete_namespace(name)
            self.going.append(name)

    def present(self) -> list[str]:
        """Of the namespaces that tests have made those that are still there."""
        there = {each.metadata.name for each in self.core.list_namespace().items}
        return [name for name in (*self.open, *self.going) if name in there]

    def wait_for_namespaces_to_go(self) -> None:
        """Waits until all that were deleted are gone.

        Raises:
            NotInTime: if something keeps one.
        """
        while self.going:
            name = self.going.pop()
            self.wait("v1", "Namespace", name, operator.not_, GONE_WITHIN, f"namespace {name} to be gone")

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
        """Watches one object until `condition` holds of it, and returns it. An object that is not there is {}.

        Raises:
            NotInTime: if it does not within `seconds`.
        """
        resource = self.resource(api_version, kind)
        this_one = {"namespace": namespace, "field_selector": f"metadata.name={name}"}
        deadline = time.monotonic() + seconds
        seen: Manifest = {}
        while (left := deadline - time.monotonic()) > 0:
            listed = resource.get(**this_one).to_dict()
            seen = listed["items"][0] if listed["items"] else {}
            if condition(seen):
                return seen
            version = listed["metadata"]["resourceVersion"]
            for event in resource.watch(**this_one, resource_version=version, timeout=int(left) + 1):
                seen = {} if event["type"] == "DELETED" else event["raw_object"]
                if condition(seen):
                    return seen
        raise NotInTime(f"waited {seconds:g} s for {what}; last seen:\n{yaml.safe_dump(seen.get('status'))}")

    def kubectl(self, *arguments: str) -> list[str]:
        """The command line, as a user of this cluster would type it."""
        return ["kubectl", *(["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []), *arguments]


@dataclass(frozen=True)
class Namespace:
    """One test's own place on the cluster."""

    cluster: Cluster
    name: str

    def apply(self, *manifests: Manifest) -> None:
        """Server-side apply; a field that the API does not know is an error."""
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
        """Waits until no object of a kind is left.

        Raises:
            NotInTime: with the names of those that are.
        """
        self.wait_for_all(api_version, kind, operator.not_, seconds, "none to be left", selector)

    def wait_for_all(
        self,
        api_version: str,
        kind: str,
        condition: Callable[[list[Manifest]], bool],
        seconds: float,
        what: str,
        selector: str = "",
    ) -> list[Manifest]:
        """Watches the objects of a kind until `condition` holds of all of them together, and returns them.

        Raises:
            NotInTime: with the names of those that there are.
        """
        resource = self.cluster.resource(api_version, kind)
        these = {"namespace": self.name, "label_selector": selector}
        deadline = time.monotonic() + seconds
        while True:
            listed = resource.get(**these).to_dict()
            items: list[Manifest] = listed["items"]
            left = deadline - time.monotonic()
            if condition(items):
                return items
            if left <= 0:
                names = ", ".join(item["metadata"]["name"] for item in items) or "none"
                raise NotInTime(f"waited {seconds:g} s for {what}; of {kind} there is: {names}")
            version = listed["metadata"]["resourceVersion"]
            next(resource.watch(**these, resource_version=version, timeout=int(left) + 1), None)

    def run_pod(self, manifest: Manifest, seconds: float) -> str:
        """Runs a pod to its end and returns what it said.

        Raises:
            AssertionError: if it failed, with what it said.
            NotInTime: if it did not end within `seconds`.
        """
        name = manifest["metadata"]["name"]
        self.apply(manifest)
        pod = self.wait(
            "v1", "Pod", name, lambda seen: phase(seen) in ("Succeeded", "Failed"), seconds, f"pod {name} to end"
        )
        said = self.logs(name)
        assert pod["status"]["phase"] == "Succeeded", f"pod {name} failed and said:\n{said}"
        return said

    def exec(self, pod: str, container: str, *command: str) -> list[str]:
        """``kubectl exec`` of a command, to be run."""
        return self.cluster.kubectl("-n", self.name, "exec", pod, "-c", container, "--", *command)

    def logs(self, pod: str, container: str | None = None, *, previous: bool = False) -> str:
        """What a container said, or why that cannot be known."""
        try:
            said: str | None = self.cluster.core.read_namespaced_pod_log(
                pod, self.name, container=container, previous=previous
            )
        except ApiException as error:
            return f"no log: {error.reason}: {error.body}"
        return said or ""  # an empty answer is None

    @contextmanager
    def port_forward(self, target: str, *ports: str) -> Iterator[dict[int, int]]:
        """``kubectl port-forward TARGET PORTS`` for the time of the block; remote port -> local port.

        A port ``:8265`` takes a free local one, ``8265`` that very one.
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
    """Whether status.conditions has `name` as True."""

    def holds(seen: Manifest) -> bool:
        conditions = seen.get("status", {}).get("conditions") or []
        return any(item["type"] == name and item["status"] == "True" for item in conditions)

    return holds


def _forwarded(process: subprocess.Popen[str], count: int) -> dict[int, int]:
    """Reads kubectl's lines until every port is open; it says so itself, or ends."""
    assert process.stdout is not None
    ports: dict[int, int] = {}
    said = ""
    for line in process.stdout:
        said += line
        if match := re.fullmatch(r"Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)\n", line):
            ports[int(match[2])] = int(match[1])
        if len(ports) == count:
            return ports
    raise AssertionError(f"kubectl port-forward ended: {said}")
