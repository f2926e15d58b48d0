"""A real S3 server for clusters without one: versitygw in a pod of its own namespace."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.kube import Cluster, Namespace, has_condition, phase
from tests.cluster.manifests import pod, secret, service

PORT = 7070
READY_TIMEOUT = 120.0

# `kubectl cp` copies the program under another name, and renames it when it is complete.
WAIT_AND_SERVE = f"""
mkdir -p /tmp/buckets
until [ -e /tmp/versitygw ]; do sleep 0.1; done
exec /tmp/versitygw --quiet --port :{PORT} posix /tmp/buckets
"""


@contextmanager
def s3_in(cluster: Cluster, image: str, program: Path) -> Iterator[dict[str, str]]:
    """Runs the server during the block; yields the variables that a client in a pod needs.

    Args:
        image: any image with a shell and tar; the program is static.
    """
    with cluster.namespace(f"ddpm-test-s3-{secrets.token_hex(4)}") as namespace:
        key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
        server = pod("s3", image, ["sh", "-c", WAIT_AND_SERVE], env_from="keys")
        server["metadata"]["labels"] = {"app": "s3"}
        server["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
        namespace.apply(
            secret("keys", {"ROOT_ACCESS_KEY": key, "ROOT_SECRET_KEY": secret_key}),
            service("s3", {"app": "s3"}, PORT),
            server,
        )
        _copy_program(program, namespace)
        namespace.wait("v1", "Pod", "s3", has_condition("Ready"), READY_TIMEOUT, "the S3 server to respond")
        yield {
            "AWS_ENDPOINT_URL": f"http://s3.{namespace.name}.svc:{PORT}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_REGION": "us-east-1",
        }


def _copy_program(program: Path, namespace: Namespace) -> None:
    namespace.wait(
        "v1", "Pod", "s3", lambda seen: phase(seen) == "Running", READY_TIMEOUT, "the S3 server's pod to run"
    )
    for command in (
        ["cp", str(program), f"{namespace.name}/s3:/tmp/part"],
        ["-n", namespace.name, "exec", "s3", "--", "mv", "/tmp/part", "/tmp/versitygw"],
    ):
        subprocess.run(namespace.cluster.kubectl(*command), check=True)
