"""The typed DDPMSampling: what it takes, what it refuses, what it writes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from ddpm_inference.errors import DdpmError
from ddpm_operator.api import Condition, ConditionType, DDPMSampling, FailureReason, Spec, Status
from tests.support.within import within

SAMPLINGS = Path(__file__).parents[3] / "fixtures" / "samplings"
ACCEPTED = list(yaml.safe_load_all((SAMPLINGS / "accepted.yaml").read_text()))


@pytest.mark.parametrize("document", ACCEPTED, ids=lambda document: document["metadata"]["name"])
def test_a_right_resource_keeps_every_value(document: dict[str, object]) -> None:
    spec = DDPMSampling.from_document(document).spec
    assert Spec.from_document(spec.to_document()) == spec
    assert within(document["spec"], spec.to_document(), same)


def same(asked: object, kept: object) -> bool:
    """Equal; a quantity may be written as a number, and is kept as a text."""
    return asked == kept or (isinstance(asked, int) and str(asked) == kept)


def test_names_of_python_are_no_names_of_yaml() -> None:
    with pytest.raises(ValidationError, match="img_size"):
        Spec.from_document({"model": {"uri": "builtin://mnist", "img_size": 28}, "samples": 1})


def test_a_spec_cannot_be_changed() -> None:
    spec = Spec.from_document({"model": {"uri": "builtin://mnist"}, "samples": 1})
    with pytest.raises(ValidationError, match="frozen"):
        spec.samples = 2


def test_what_the_api_server_adds_to_metadata_is_passed_over() -> None:
    document = ACCEPTED[0] | {"metadata": {"name": "a", "namespace": "b", "uid": "c", "managedFields": [{}]}}
    metadata = DDPMSampling.from_document(document).metadata
    assert (metadata.name, metadata.namespace, metadata.uid) == ("a", "b", "c")


def test_times_are_written_as_kubernetes_writes_them() -> None:
    elsewhere = timezone(timedelta(hours=2))
    condition = Condition(
        type=ConditionType.COMPLETE,
        status="True",
        reason="AllThere",
        last_transition_time=datetime(2026, 11, 23, 14, 0, 0, 123456, elsewhere),
    )
    document = Status(conditions=(condition,)).to_document()
    assert document == {
        "conditions": [
            {
                "type": "Complete",
                "status": "True",
                "reason": "AllThere",
                "message": "",
                "lastTransitionTime": "2026-11-23T12:00:00Z",
            }
        ]
    }
    assert Status.from_document(document).conditions[0].last_transition_time == datetime(
        2026,
        11,
        23,
        12,
        tzinfo=timezone.utc,  # noqa: UP017 - beside the other zone
    )


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        Status.from_document({"startTime": "2026-11-23T12:00:00"})


def test_every_reason_says_what_to_do() -> None:
    assert [reason.value for reason in FailureReason] == [
        "InvalidSpec",
        "ModelNotFound",
        "ModelRejected",
        "ReferenceNotFound",
        "ImagePullFailed",
        "PodRejected",
        "Unschedulable",
        "QuotaExceeded",
        "KubeRayMissing",
        "StartupDeadlineExceeded",
        "DeadlineExceeded",
        "OutOfMemory",
        "WorkerLost",
        "HeadLost",
        "StorageFailed",
        "OutputConflict",
        "DriverFailed",
        "InternalError",
    ]
    assert all(reason.hint.endswith(".") and reason.hint != reason.value for reason in FailureReason)


def test_every_reason_of_inference_is_one_of_the_closed_list() -> None:
    def kinds(of: type[DdpmError]) -> set[type[DdpmError]]:
        return {of}.union(*(kinds(child) for child in of.__subclasses__()))

    reasons = {kind.reason for kind in kinds(DdpmError)}
    assert len(reasons) > 5
    assert reasons <= set(FailureReason)
