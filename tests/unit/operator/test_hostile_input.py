"""Whatever a DDPMSampling says, the operator's own code refuses it with a reason or plans it, and then rests."""

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
from ddpm_operator.kube.decode import SchemaMismatch, decode_sampling, objection
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

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
IMAGE = WorkerImage("worker:1", "2.60.0")
DEFAULTS = Limits(
    service_accounts=(),
    priority_classes=(),
    runtime_classes=(),
    gpu_resource_names=("nvidia.com/gpu", "amd.com/gpu"),
    pod_labels=("plain words",),
    pod_annotations=("plain words",),
    uri_schemes=("builtin", "pvc", "s3", "https"),
)
TEMPLATES, OPERATOR = Templates(), OperatorPods("ddpm-ray", {"app": "operator"})
MANY_TIMES = settings(
    max_examples=MAX_EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def document(spec: object, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - as YAML has them
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
        **more,
    }


def test_every_sampling_is_refused_or_planned_with_a_reason() -> None:
    fates: Counter[str] = Counter()

    @MANY_TIMES
    @given(specs())
    def meet(spec: dict[str, Any]) -> None:
        fates[fate_of(spec)] += 1

    meet()
    print(dict(fates))
    assert sum(fates.values()) >= MAX_EXAMPLES
    assert min(fates["planned"], fates["refused by its form"]) > MAX_EXAMPLES / 10


def fate_of(spec: dict[str, Any]) -> str:
    """What becomes of a sampling, after it was seen to be well."""
    try:
        sampling = decode_sampling(document(spec))
    except SchemaMismatch as error:
        said: Any = objection(document(spec), str(error), NOW)
        assert said["status"]["conditions"][0]["message"]
        return "refused by its form"
    decision = reconcile(Observed(sampling, IMAGE, limits=DEFAULTS), NOW)
    (written,) = [it.status for it in decision.actions if isinstance(it, WriteStatus)]
    _rests(sampling, written)
    created = [it.attempt for it in decision.actions if isinstance(it, CreateCluster)]
    for attempt in created:
        made: list[Any] = [
            ray_cluster(TEMPLATES, attempt, "secret"),
            network_policy(TEMPLATES, attempt, "uid", OPERATOR),
            output_claim(TEMPLATES, attempt.sampling, attempt.spec),
        ]
        assert {it["metadata"]["namespace"] for it in made if it} == {"research"}
        assert json.loads(json.dumps(job_document(attempt)))["n_samples"] == sampling.spec.samples
    if created or sampling.spec.suspend:
        return "planned"
    (accepted,) = [it for it in written.conditions if it.type == ConditionType.ACCEPTED]
    assert accepted.message
    return f"refused: {accepted.reason}"


def _rests(sampling: DDPMSampling, written: Any) -> None:  # noqa: ANN401 - a status
    """Looked at again, with nothing new, nothing is written; and who has failed is not looked at again at all."""
    again = DDPMSampling.from_document(document(sampling.spec.to_document(), status=written.to_document()))
    decision = reconcile(Observed(again, IMAGE, limits=DEFAULTS), NOW + timedelta(seconds=1))
    if written.completion_time:
        assert decision.actions == ()
        assert decision.requeue_after is None or decision.requeue_after >= timedelta(seconds=1)
    assert decision.requeue_after is None or decision.requeue_after > timedelta(0)


@pytest.mark.parametrize("reader", [read_progress, last_error], ids=["progress", "the log's last word"])
@MANY_TIMES
@given(st.data())
def test_whatever_a_driver_says_is_read_or_refused(reader: Any, data: st.DataObject) -> None:  # noqa: ANN401
    known = {"version": 1, "phase": "sampling", "done": 1, "total": 2, "event": "error", "reason": "OutOfMemory"}
    said = known | data.draw(st.dictionaries(st.sampled_from([*known, "outcome", "plan", "eta", "message"]), ANYTHING))
    text = data.draw(st.sampled_from([json.dumps(said), json.dumps(said)[:-1], repr(said)]) | st.text(max_size=40))
    try:
        found = reader(text)
    except ValidationError:
        return
    figures = [it for it in vars(found).values() if isinstance(it, float)] if found else []
    assert all(map(math.isfinite, figures))


@MANY_TIMES
@given(st.dictionaries(st.sampled_from(["version", "n_samples", "shards", "files", "identity"]), ANYTHING))
def test_whatever_a_manifest_says_the_client_reads_or_refuses_it(said: dict[str, Any]) -> None:
    text = json.dumps(said).encode()
    try:
        found = OutputManifest.parse(text, hashlib.sha256(text).hexdigest())
    except Damaged:
        return
    assert all(not it.path.startswith("/") and ".." not in it.path for it in found.wanted)


@MANY_TIMES
@given(specs())
def test_what_is_rendered_is_one_document_of_plain_yaml(spec: dict[str, Any]) -> None:
    try:
        sampling = decode_sampling(document(spec))
    except SchemaMismatch:
        return
    decision = reconcile(Observed(sampling, IMAGE, limits=DEFAULTS), NOW)
    for attempt in (it.attempt for it in decision.actions if isinstance(it, CreateCluster)):
        cluster: Any = ray_cluster(TEMPLATES, attempt, "secret")
        assert yaml.safe_load(yaml.safe_dump(cluster)) == cluster
        for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            assert [it["name"] for it in pod["containers"]] in (["ray-head"], ["ray-worker"])
            assert pod["automountServiceAccountToken"] is False
            assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
