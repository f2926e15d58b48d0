"""The objects that tests apply. The restricted Pod Security level takes every pod of them; roots are read-only."""

from __future__ import annotations

from collections.abc import Sequence

from tests.cluster.kube import Manifest

TOKEN_SECRET = "token"
RAY_VERSION = "2.60.0"

# Ray's agent, the last of a node to start, answers this without a token. KubeRay's own probe waits 10 s at first.
QUICK_PROBE = {"httpGet": {"path": "/api/healthz", "port": 52365}, "periodSeconds": 1, "failureThreshold": 120}
HEAD_PORTS = (("gcs-server", 6379), ("dashboard", 8265), ("client", 10001), ("metrics", 8080))


def pod(
    name: str, image: str, command: Sequence[str], *, claim: str | None = None, env_from: str | None = None
) -> Manifest:
    """A pod that runs one command to its end; the claim, if any, is at /out."""
    container = _container("main", image, env_from=env_from, command=list(command))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", **_pod_spec(container, claim)},
    }


def ray_cluster(name: str, image: str, *, claim: str | None = None, env_from: str | None = None) -> Manifest:
    """A head and one worker with a token; the claim is on the head alone, the secret's variables on both."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": name},
        "spec": {
            "authOptions": {"mode": "token", "secretName": TOKEN_SECRET},
            **ray_cluster_spec(image, claim=claim, env_from=env_from, readinessProbe=QUICK_PROBE),
        },
    }


def ray_cluster_spec(
    image: str, *, claim: str | None = None, env_from: str | None = None, **of_containers: object
) -> Manifest:
    """A head that runs no tasks and one worker; with KubeRay's own probes, if `of_containers` brings no other."""
    head = _container(
        "ray-head",
        image,
        cpu="250m",
        env_from=env_from,
        ports=[{"name": port_name, "containerPort": port} for port_name, port in HEAD_PORTS],
        **of_containers,
    )
    worker = _container("ray-worker", image, cpu="250m", env_from=env_from, **of_containers)
    return {
        "rayVersion": RAY_VERSION,
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": {"spec": _pod_spec(head, claim)}},
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": 1,
                "minReplicas": 1,
                "maxReplicas": 1,
                "rayStartParams": {"num-cpus": "2"},
                "template": {"spec": _pod_spec(worker)},
            }
        ],
    }


def secret(name: str, values: dict[str, str]) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def service(name: str, selector: dict[str, str], port: int) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": [{"port": port}]},
    }


def claim(name: str) -> Manifest:
    """1 GiB of the cluster's default storage class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def _container(name: str, image: str, *, cpu: str = "100m", env_from: str | None = None, **more: object) -> Manifest:
    return {
        "name": name,
        "image": image,
        "resources": {"requests": {"cpu": cpu, "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "envFrom": [{"secretRef": {"name": env_from}}] if env_from else [],
        **more,
    }


def _pod_spec(container: Manifest, claim: str | None = None) -> Manifest:
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {}}]
    if claim:
        volumes.append({"name": "out", "persistentVolumeClaim": {"claimName": claim}})
        container["volumeMounts"] = [*container["volumeMounts"], {"name": "out", "mountPath": "/out"}]
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {"runAsNonRoot": True, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": volumes,
    }
