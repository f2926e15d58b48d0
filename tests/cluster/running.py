"""A running sampling with a head and a worker, shared by the tests that inspect it."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from tests.cluster.kube import Cluster, Manifest, Namespace
from tests.cluster.manifests import secret
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import LONG, Sampling, token_secret_of

_POD = {"cpu": "300m", "memory": "2Gi"}
_WITH_A_WORKER = LONG | {"resources": {"device": "cpu", "maxWorkers": 1, "head": _POD, "worker": _POD}}
_PRINT_LISTENING_PORTS = """
for name in ("tcp", "tcp6"):
    for line in open("/proc/net/" + name).read().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        host, port = local.split(":")
        if state == "0A" and not host.endswith("0100007F") and host != "0" * 24 + "01000000":
            print(int(port, 16))
"""


@dataclass(frozen=True)
class Running:
    """A sampling with a head and a worker.

    Attributes:
        pods: role -> pod.
        ports: role -> ports that other machines can connect to.
        tokens: the tokens of the attempt, Ray's and the driver's.
        planted: secret values that must not be readable anywhere.
        delete_namespace: deletes the namespace without waiting. Idempotent.
    """

    sampling: Sampling
    pods: dict[str, Manifest]
    ports: dict[str, list[int]]
    tokens: dict[str, str]
    planted: tuple[str, ...]
    delete_namespace: Callable[[], None]

    @property
    def namespace(self) -> Namespace:
        return self.sampling.namespace

    @property
    def addresses(self) -> dict[str, str]:
        return {pod["status"]["podIP"]: role for role, pod in self.pods.items()}


@contextmanager
def running_sampling(cluster: Cluster, operator: Operator, slot: AbstractContextManager[None]) -> Iterator[Running]:
    """Runs a sampling during the block, unless `delete_namespace` ends it.

    Args:
        slot: a slot for drawing, held during the block.
    """
    marker = f"planted-{secrets.token_hex(12)}"
    with ExitStack() as stack:
        stack.enter_context(slot)
        namespace = stack.enter_context(cluster.namespace(f"ddpm-running-{secrets.token_hex(4)}"))
        namespace.apply(secret("s3", {"AWS_SECRET_ACCESS_KEY": marker}))
        sampling = Sampling.apply(namespace, "digits", _WITH_A_WORKER | {"credentialsSecretRef": {"name": "s3"}})
        sampling.wait_for("Running")
        pods = {it["metadata"]["labels"]["ray.io/node-type"]: it for it in namespace.list("v1", "Pod")}
        assert pods.keys() == {"head", "worker"}
        ports = {role: _listening_ports(operator, pod) for role, pod in pods.items()}
        tokens = _secret_values(
            namespace, token_secret_of(namespace, pods["head"]["metadata"]["labels"]["ray.io/cluster"])
        )
        key = _secret_values(operator.namespace, f"{operator.release}-operator-key")
        planted = (marker, *tokens.values(), *key.values())
        yield Running(sampling, pods, ports, tokens, planted, stack.close)


def _listening_ports(operator: Operator, pod: Manifest) -> list[int]:
    target = [pod["metadata"]["name"], "--namespace", pod["metadata"]["namespace"]]
    output = operator.run_kubectl("exec", *target, "--", "python", "-c", _PRINT_LISTENING_PORTS)
    return sorted({int(word) for word in output.split() if word.isdecimal()})


def _secret_values(namespace: Namespace, name: str) -> dict[str, str]:
    """Returns the values of a Secret; those that are not ASCII in base64."""
    found: dict[str, str] = {}
    for key, value in namespace.get("v1", "Secret", name)["data"].items():
        data = base64.b64decode(value)
        found[key] = data.decode() if data.isascii() else value
    return found
