"""The CRD on a real API server: validation and its messages, defaults, immutable fields, status."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes.client import CustomObjectsApi
from kubernetes.client.exceptions import ApiException
from pydantic import ValidationError

from ddpm_operator.api import DDPMSampling
from tests.cluster.crd import install_crd
from tests.cluster.kube import Cluster
from tests.support.subset import is_subset

pytestmark = [pytest.mark.xdist_group("crd"), pytest.mark.draws_nothing]

ROOT = Path(__file__).parents[2]
SAMPLINGS = ROOT / "tests/fixtures/samplings"
REFUSED = yaml.safe_load((SAMPLINGS / "refused.yaml").read_text())["refused"]
ACCEPTED = list(yaml.safe_load_all((SAMPLINGS / "accepted.yaml").read_text()))
EXAMPLES = [yaml.safe_load((ROOT / "examples" / name).read_text()) for name in ("digits.yaml", "gpu.yaml")]

Resource = dict[str, Any]


@dataclass(frozen=True)
class Samplings:
    """The DDPMSamplings of one namespace."""

    cluster: Cluster
    namespace: str

    @property
    def where(self) -> tuple[str, str, str, str]:
        return ("ddpm-ray.io", "v1alpha1", self.namespace, "ddpmsamplings")

    @property
    def api(self) -> CustomObjectsApi:
        return CustomObjectsApi(self.cluster.dynamic.client)

    def create(self, resource: Resource, *, dry_run: bool = True) -> Resource:
        created = self.api.create_namespaced_custom_object(
            *self.where, resource, field_validation="Strict", dry_run="All" if dry_run else None
        )
        return cast(Resource, created)

    def change(self, resource: Resource, path: str, value: object) -> Resource:
        """Sets a field of the spec, or removes it if the value is None, in a dry run."""
        patch: Resource = {"spec": value}
        for part in reversed(path.split(".")):
            patch = {"spec": {part: patch["spec"]}}
        changed = self.api.patch_namespaced_custom_object(
            *self.where, resource["metadata"]["name"], patch, dry_run="All", field_validation="Strict"
        )
        return cast(Resource, changed)

    def patch_status(self, name: str, patch: Resource) -> Resource:
        return cast(Resource, self.api.patch_namespaced_custom_object_status(*self.where, name, patch))

    def row_of_status(self, name: str, patch: Resource) -> dict[str, object]:
        """Patches the status and returns the printer columns as title -> cell, before an operator can write."""
        group, version, namespace, plural = self.where
        answer = self.cluster.dynamic.request(
            "patch",
            f"/apis/{group}/{version}/namespaces/{namespace}/{plural}/{name}/status",
            body=patch,
            content_type="application/merge-patch+json",
            header_params={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
            serialize=False,
        )
        table = json.loads(answer.data)
        titles = [column["name"] for column in table["columnDefinitions"]]
        return dict(zip(titles, table["rows"][0]["cells"], strict=True))


@pytest.fixture(scope="module")
def samplings(cluster: Cluster) -> Iterator[Samplings]:
    """A namespace for these tests, with the CRD of this working tree."""
    install_crd(cluster)
    with cluster.namespace(f"ddpm-crd-{secrets.token_hex(4)}") as namespace:
        yield Samplings(cluster, namespace.name)


def sampling(spec: Resource) -> Resource:
    return {
        "apiVersion": "ddpm-ray.io/v1alpha1",
        "kind": "DDPMSampling",
        "metadata": {"name": f"test-{secrets.token_hex(6)}"},
        "spec": spec,
    }


def refusal(call: Callable[[], object]) -> str:
    """Returns the message with which the API server refuses a request."""
    with pytest.raises(ApiException) as caught:
        call()
    assert caught.value.status in (400, 422)
    return str(json.loads(caught.value.body or "{}")["message"])


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_an_invalid_resource_is_refused_with_its_message(samplings: Samplings, case: Resource) -> None:
    resource = sampling(case["spec"])
    resource["metadata"] |= case.get("metadata", {})
    assert case.get("server_message", case["message"].split(": ")[-1]) in refusal(lambda: samplings.create(resource))


@pytest.mark.parametrize("resource", ACCEPTED + EXAMPLES, ids=lambda resource: resource["metadata"]["name"])
def test_a_valid_resource_is_stored_unchanged(samplings: Samplings, resource: Resource) -> None:
    spec = samplings.create(resource)["spec"]
    assert is_subset(resource["spec"], spec)


def test_defaults_are_set_at_every_depth(samplings: Samplings) -> None:
    spec = samplings.create(sampling({"model": {"uri": "builtin://mnist"}, "samples": 1}))["spec"]
    assert spec == {
        "model": {"uri": "builtin://mnist"},
        "samples": 1,
        "seed": 0,
        "sampler": {"name": "ddpm", "eta": "0"},
        "precision": "fp32",
        "resources": {
            "device": "auto",
            "gpus": 0,
            "gpuResourceName": "nvidia.com/gpu",
            "tasksPerGPU": 1,
            "maxWorkers": 4,
            "worker": {"cpu": "2", "memory": "4Gi"},
            "head": {"cpu": "1", "memory": "2Gi"},
            "allowMixedHardware": False,
        },
        "output": {"formats": ["npy", "png"]},
        "suspend": False,
        "repair": 0,
        "backoffLimit": 3,
        "startupDeadlineSeconds": 600,
        "keepClusterSeconds": 0,
    }
    partial = {"resources": {"worker": {"cpu": 8}}, "output": {"claim": {"size": "1Gi"}}}
    spec = samplings.create(sampling({"model": {"uri": "builtin://mnist"}, "samples": 1} | partial))["spec"]
    assert spec["resources"]["worker"] == {"cpu": 8, "memory": "4Gi"}
    assert spec["output"]["claim"] == {
        "size": "1Gi",
        "accessModes": ["ReadWriteOnce"],
        "retentionPolicy": "Retain",
    }


FULL = {
    "model": {"uri": "builtin://mnist"},
    "samples": 100,
    "batchSize": 16,
    "image": "example.com/worker:1",
    "sampler": {"name": "ddim", "steps": 50},
    "output": {"uri": "pvc://work/a"},
    "suspend": True,  # so that no operator runs it
}


@pytest.fixture(scope="module")
def stored(samplings: Samplings) -> dict[str, Resource]:
    """Stored resources with all optional immutable fields, and with none."""
    least = {"model": FULL["model"], "samples": 100, "suspend": True}
    return {
        "set": samplings.create(sampling(FULL), dry_run=False),
        "unset": samplings.create(sampling(least), dry_run=False),
    }


@pytest.mark.parametrize(
    ("which", "path", "value", "says"),
    [
        ("set", "model.uri", "builtin://other", "model is immutable"),
        ("unset", "model.sha256", "0" * 64, "model is immutable"),
        ("unset", "seed", 1, "seed is immutable"),
        ("set", "sampler.name", "dpmpp", "sampler is immutable"),
        ("set", "sampler.steps", 51, "sampler is immutable"),
        ("set", "sampler.steps", None, "sampler is immutable"),
        ("unset", "sampler.steps", 50, "sampler is immutable"),
        ("set", "sampler", None, "sampler is immutable"),
        ("unset", "precision", "bf16", "precision is immutable"),
        ("set", "batchSize", 32, "batchSize is immutable"),
        ("set", "batchSize", None, "batchSize is immutable"),
        ("unset", "batchSize", 32, "batchSize is immutable"),
        ("unset", "resources.device", "cpu", "resources.device is immutable"),
        ("set", "output.uri", "pvc://work/b", "output is immutable"),
        ("set", "output.uri", None, "output is immutable"),
        ("set", "output", None, "output is immutable"),
        ("unset", "output.uri", "pvc://work/a", "output is immutable"),
        ("unset", "output.claim", {"size": "5Gi"}, "output is immutable"),
        ("unset", "output.formats", ["npy"], "output is immutable"),
        ("set", "image", "example.com/worker:2", "image is immutable"),
        ("set", "image", None, "image is immutable"),
        ("unset", "image", "example.com/worker:2", "image is immutable"),
        ("set", "samples", 99, "samples can only be increased: stored samples are kept"),
    ],
)
def test_fields_that_determine_samples_are_immutable(
    samplings: Samplings, stored: dict[str, Resource], which: str, path: str, value: object, says: str
) -> None:
    assert says in refusal(lambda: samplings.change(stored[which], path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("samples", 101),
        ("samples", 100),
        ("suspend", False),
        ("backoffLimit", 9),
        ("resources.gpus", 2),
        ("resources.maxWorkers", 9),
        ("resources.worker.memory", "8Gi"),
        ("podOverrides", {"nodeSelector": {"disk": "fast"}}),
        ("credentialsSecretRef", {"name": "s3"}),
        ("queueName", "research"),
        ("activeDeadlineSeconds", 60),
        ("ttlSecondsAfterFinished", 60),
        ("keepClusterSeconds", 60),
        ("startupDeadlineSeconds", 60),
    ],
)
@pytest.mark.parametrize("which", ["set", "unset"])
def test_other_fields_are_mutable(
    samplings: Samplings, stored: dict[str, Resource], which: str, path: str, value: object
) -> None:
    spec = samplings.change(stored[which], path, value)["spec"]
    for part in path.split("."):
        spec = spec[part]
    assert is_subset(value, spec)


def test_status_is_a_subresource_with_printer_columns(samplings: Samplings, stored: dict[str, Resource]) -> None:
    name = stored["set"]["metadata"]["name"]
    status = {
        "phase": "Running",
        "conditions": [
            {
                "type": "Running",
                "status": "True",
                "reason": "Sampling",
                "message": "",
                "lastTransitionTime": "2026-11-23T12:00:00Z",
            }
        ],
        "progress": {"done": 40, "total": 100, "percent": 40, "eta": "2m10s", "samplesPerSecond": "0.46"},
        "plan": {"device": "cuda", "workers": 3, "gpus": 6},
        "cluster": {"name": "test-01234567-1"},
    }
    body = {"status": status, "spec": {"samples": 7}}
    written = samplings.patch_status(name, body)
    assert (written["status"]["phase"], written["spec"]["samples"]) == ("Running", 100)

    shown = samplings.row_of_status(name, body)
    assert list(shown) == ["Name", "Phase", "Done", "Total", "ETA", "Age", "Rate", "Workers", "GPUs", "Cluster"]
    assert [shown[it] for it in ("Name", "Phase", "Done", "Total", "ETA")] == [name, "Running", 40, 100, "2m10s"]
    assert [shown[it] for it in ("Rate", "Workers", "GPUs", "Cluster")] == ["0.46", 3, 6, "test-01234567-1"]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"phase": "Sleeping"}, 'status.phase: Unsupported value: "Sleeping"'),
        (
            {"failure": {"reason": "Weather", "message": "rain"}},
            'status.failure.reason: Unsupported value: "Weather"',
        ),
        ({"failure": {"reason": "OutOfMemory", "message": "", "logTail": "x" * 2049}}, "status.failure.logTail"),
    ],
)
def test_status_values_are_from_the_closed_lists(
    samplings: Samplings, stored: dict[str, Resource], status: Resource, says: str
) -> None:
    name = stored["set"]["metadata"]["name"]
    assert says in refusal(lambda: samplings.patch_status(name, {"status": status}))


TEXTS = st.sampled_from(["", "a", "A", "a.b", "-", "0", "1.0", "500m", "2Gi", "nvidia.com/gpu", "a" * 64]) | st.text(
    st.sampled_from("aZ0-._/:@ \n\t\x7f\u00a0\u0661é{}$'\""), max_size=8
)
PATHS = st.lists(st.sampled_from(["a", "b-c", ".", "..", "...", "", " ", "\n", "\u00a0", "é", "d.e"]), max_size=4).map(
    "/".join
)
URIS = st.builds(
    lambda scheme, host, path: f"{scheme}://{host}/{path}",
    st.sampled_from(["builtin", "pvc", "s3", "gs", "https", "http", "S3"]),
    st.sampled_from(["abc", "a.b-c", "ab", "A", "", "me@host", "host:80", "host:x"]),
    PATHS,
) | st.sampled_from(["builtin://mnist", "builtin://Mnist", "pvc://a", "pvc://a/\u00a0", "mnist", "://"])
NUMBERS = st.integers(-1, 3) | st.sampled_from([1000, 65_536, 65_537, 100_000, 100_001, 2**53, 2**63 - 1, 2**63])
QUANTITIES = NUMBERS | st.from_regex(
    r"[+-]?[0-9]{0,3}\.?[0-9]{0,2}([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9])?", fullmatch=True
)
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=2)
OWN_KEYS = st.sampled_from(["ray.io/a", "x.ray.io/a", "a.ddpm-ray.io/b", "app.kubernetes.io/name", "ray.io", "team"])
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "model.uri": URIS,
    "model.sha256": st.text(st.sampled_from("0af"), min_size=63, max_size=65) | st.just("A" * 64),
    "model.downs": st.lists(st.integers(1, 3), max_size=9),
    "model.imgSize": NUMBERS,
    "samples": NUMBERS,
    "seed": NUMBERS,
    "sampler": st.fixed_dictionaries({"steps": NUMBERS, "timesteps": NUMBERS}),
    "sampler.eta": st.from_regex(r"[01]\.?[0-9]{0,9}", fullmatch=True) | TEXTS,
    "batchSize": NUMBERS,
    "resources": st.fixed_dictionaries(
        {
            "device": st.sampled_from(["auto", "cuda", "cpu"]),
            "gpus": st.integers(0, 1),
            "maxWorkers": st.integers(0, 1),
        }
    ),
    "resources.tasksPerGPU": NUMBERS,
    "resources.gpuResourceName": TEXTS,
    "resources.worker.cpu": QUANTITIES,
    "resources.worker.memory": QUANTITIES,
    "podOverrides.nodeSelector": MAPS,
    "podOverrides.labels": st.dictionaries(OWN_KEYS, TEXTS, max_size=2),
    "podOverrides.annotations": MAPS,
    "podOverrides.priorityClassName": TEXTS,
    "podOverrides.tolerations": st.lists(st.fixed_dictionaries({"key": TEXTS, "value": TEXTS}), max_size=2),
    "output": st.fixed_dictionaries({}, optional={"uri": st.just("s3://abc/a"), "claim": st.just({})}),
    "output.uri": URIS,
    "output.claim.size": QUANTITIES,
    "output.formats": st.lists(st.sampled_from(["npy", "png", "jpg"]), max_size=3),
    "image": TEXTS,
    "queueName": TEXTS,
    "suspend": st.booleans(),
    "ttlSecondsAfterFinished": NUMBERS,
    "unknown": TEXTS,
}
MISTYPED = st.sampled_from(["1", 1, 0.5, True, [], {}, ["a"], {"a": "b"}])


@pytest.mark.parametrize("path", FIELDS)
@settings(deadline=None, max_examples=50, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_types_and_api_server_refuse_the_same(samplings: Samplings, path: str, data: st.DataObject) -> None:
    resource = sampling({"model": {"uri": "builtin://mnist"}, "samples": 1})
    *above, last = path.split(".")
    place = resource["spec"]
    for part in above:
        place = place.setdefault(part, {})
    place[last] = data.draw(FIELDS[path] | FIELDS[path] | FIELDS[path] | MISTYPED)
    assert taken_by_types(resource) == taken_by_server(samplings, resource)


def taken_by_types(resource: Resource) -> bool:
    try:
        DDPMSampling.from_document(resource)
    except ValidationError:
        return False
    return True


def taken_by_server(samplings: Samplings, resource: Resource) -> bool:
    try:
        samplings.create(resource)
    except ApiException as error:
        if error.status in (400, 422):
            return False
        raise
    return True
