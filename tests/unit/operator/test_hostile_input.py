"""Property tests with hostile input: every DDPMSampling is rejected with a reason or planned, and nothing loops."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.client.errors import Damaged
from ddpm_operator.client.output_manifest import OutputManifest
from ddpm_operator.kube.decode import SchemaMismatch, decode_sampling, schema_mismatch_status
from ddpm_operator.manifests.job_document import job_document
from ddpm_operator.manifests.render import OperatorPods, network_policy, output_claim, ray_cluster
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import Limits
from ddpm_operator.reconcile.actions import CreateCluster, WriteStatus
from ddpm_operator.reconcile.observed import Observed
from ddpm_operator.reconcile.progress_document import last_error, read_progress
from ddpm_operator.reconcile.reconcile import reconcile
from tests.support.hostile import ANYTHING, MAX_EXAMPLES, specs

pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
IMAGE = WorkerImage("worker:1", "2.60.0")
DEFAULTS = Limits(
    service_accounts=(),
    priority_classes=(),
    runtime_classes=(),
    gpu_resource_names=("nvidia.com/gpu", "amd.com/gpu"),
    pod_labels=("plain words",),
    pod_annotations=("plain words",),
    uri_schemes=("builtin", "pvc", "s3", "https", "hf"),
)
TEMPLATES, OPERATOR = Templates(), OperatorPods("ddpm-ray", {"app": "operator"})
MANY_EXAMPLES = settings(
    max_examples=MAX_EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def document(spec: object, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any YAML
    metadata = {
        "name": "digits",
        "namespace": "research",
        "uid": "0e2f7b1c",
        "generation": 1,
        "resourceVersion": "1",
    }
    return {
        "apiVersion": "ddpm-ray.io/v1alpha1",
        "kind": "DDPMSampling",
        "metadata": metadata,
        "spec": spec,
        **fields,
    }


def test_every_sampling_is_rejected_or_planned() -> None:
    outcomes: Counter[str] = Counter()

    @MANY_EXAMPLES
    @given(specs())
    def check(spec: dict[str, Any]) -> None:
        outcomes[outcome(spec)] += 1

    check()
    print(dict(outcomes))
    assert sum(outcomes.values()) >= MAX_EXAMPLES
    assert min(outcomes["planned"], outcomes["schema mismatch"]) > MAX_EXAMPLES / 10


def outcome(spec: dict[str, Any]) -> str:
    """Checks the decision on a new sampling, and returns what becomes of it."""
    try:
        sampling = decode_sampling(document(spec))
    except SchemaMismatch as error:
        manifest: Any = schema_mismatch_status(document(spec), str(error), NOW)
        assert manifest["status"]["conditions"][0]["message"]
        return "schema mismatch"
    decision = reconcile(Observed(sampling, IMAGE, limits=DEFAULTS), NOW)
    (written,) = [it.status for it in decision.actions if isinstance(it, WriteStatus)]
    _assert_settled(sampling, written)
    created = [it.attempt for it in decision.actions if isinstance(it, CreateCluster)]
    for attempt in created:
        manifests: list[Any] = [
            ray_cluster(TEMPLATES, attempt, "secret"),
            network_policy(TEMPLATES, attempt, "uid", OPERATOR),
            output_claim(TEMPLATES, attempt.sampling, attempt.spec),
        ]
        assert {it["metadata"]["namespace"] for it in manifests if it} == {"research"}
        assert json.loads(json.dumps(job_document(attempt)))["n_samples"] == sampling.spec.samples
        _assert_plain_and_isolated(manifests[0])
    if created or sampling.spec.suspend:
        return "planned"
    (accepted,) = [it for it in written.conditions if it.type == ConditionType.ACCEPTED]
    assert accepted.message
    return f"rejected: {accepted.reason}"


def _assert_plain_and_isolated(cluster: Any) -> None:  # noqa: ANN401 - a manifest
    """Asserts that a RayCluster is plain YAML, and that its pods have no containers and rights of the user's choice."""
    assert yaml.safe_load(yaml.safe_dump(cluster)) == cluster
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert [it["name"] for it in pod["containers"]] in (["ray-head"], ["ray-worker"])
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()


def _assert_settled(sampling: DDPMSampling, written: Any) -> None:  # noqa: ANN401 - a status
    """Asserts that a second reconcile does not run at once, and does nothing for a sampling that has ended."""
    again = DDPMSampling.from_document(document(sampling.spec.to_document(), status=written.to_document()))
    decision = reconcile(Observed(again, IMAGE, limits=DEFAULTS), NOW + timedelta(seconds=1))
    if written.completion_time:
        assert decision.actions == ()
        assert decision.requeue_after is None or decision.requeue_after >= timedelta(seconds=1)
    assert decision.requeue_after is None or decision.requeue_after > timedelta(0)


@pytest.mark.parametrize("reader", [read_progress, last_error], ids=["progress", "log"])
@MANY_EXAMPLES
@given(st.data())
def test_any_driver_output_is_parsed_or_rejected(reader: Any, data: st.DataObject) -> None:  # noqa: ANN401
    valid = {"version": 1, "phase": "sampling", "done": 1, "total": 2, "event": "error", "reason": "OutOfMemory"}
    keys = st.sampled_from([*valid, "outcome", "plan", "eta", "message"])
    output = valid | data.draw(st.dictionaries(keys, ANYTHING))
    written = json.dumps(output)
    text = data.draw(st.sampled_from([written, written[:-1], repr(output)]) | st.text(max_size=40))
    try:
        parsed = reader(text)
    except ValidationError:
        return
    figures = [it for it in vars(parsed).values() if isinstance(it, float)] if parsed else []
    assert all(map(math.isfinite, figures))


@MANY_EXAMPLES
@given(st.dictionaries(st.sampled_from(["version", "n_samples", "shards", "files", "identity"]), ANYTHING))
def test_any_output_manifest_is_parsed_or_rejected(content: dict[str, Any]) -> None:
    text = json.dumps(content).encode()
    try:
        manifest = OutputManifest.parse(text, hashlib.sha256(text).hexdigest())
    except Damaged:
        return
    assert all(not it.path.startswith("/") and ".." not in it.path for it in manifest.wanted)
