"""The objects that tests apply. All pods satisfy the restricted Pod Security level and have read-only roots."""

from __future__ import annotations

from collections.abc import Sequence

from tests.cluster.kube import Manifest

TOKEN_SECRET = "token"
RAY_VERSION = "2.60.0"

# Ray's agent, which starts last, serves this without a token. KubeRay's own probe has an initial delay of 10 s.
QUICK_PROBE = {"httpGet": {"path": "/api/healthz", "port": 52365}, "periodSeconds": 1, "failureThreshold": 120}
HEAD_PORTS = (("gcs-server", 6379), ("dashboard", 8265), ("client", 10001), ("metrics", 8080))


def pod(
    name: str, image: str, command: Sequence[str], *, claim: str | None = None, env_from: str | None = None
) -> Manifest:
    """Returns a pod that runs one command; the claim, if any, is mounted at /out."""
    container = _container("main", image, env_from=env_from, command=list(command))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", **_pod_spec(container, claim)},
    }


def ray_cluster(name: str, image: str, *, claim: str | None = None, env_from: str | None = None) -> Manifest:
    """Returns a RayCluster with a token, a head and a worker; only the head has the claim, both have the variables."""
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
    image: str, *, claim: str | None = None, env_from: str | None = None, **container_fields: object
) -> Manifest:
    """Returns the spec of a RayCluster: a head that runs no tasks, and a worker.

    The probes are KubeRay's own unless `container_fields` has others.
    """
    head = _container(
        "ray-head",
        image,
        cpu="250m",
        env_from=env_from,
        ports=[{"name": port_name, "containerPort": port} for port_name, port in HEAD_PORTS],
        **container_fields,
    )
    worker = _container("ray-worker", image, cpu="250m", env_from=env_from, **container_fields)
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
    """Returns a claim of 1 GiB of the default storage class."""
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
