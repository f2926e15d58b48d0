"""The DDPMSampling types: parsing, validation and serialization."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from ddpm_inference.errors import DdpmError
from ddpm_operator.api import Condition, ConditionType, DDPMSampling, FailureReason, Spec, Status
from tests.support.subset import is_subset

SAMPLINGS = Path(__file__).parents[3] / "fixtures" / "samplings"
ACCEPTED = list(yaml.safe_load_all((SAMPLINGS / "accepted.yaml").read_text()))


@pytest.mark.parametrize("document", ACCEPTED, ids=lambda document: document["metadata"]["name"])
def test_valid_resource_round_trips(document: dict[str, object]) -> None:
    spec = DDPMSampling.from_document(document).spec
    assert Spec.from_document(spec.to_document()) == spec
    assert is_subset(document["spec"], spec.to_document(), equal_or_quantity)


def equal_or_quantity(given: object, parsed: object) -> bool:
    """Returns whether the values are equal; a quantity given as a number is parsed to a string."""
    return given == parsed or (isinstance(given, int) and str(given) == parsed)


def test_python_field_names_are_rejected_in_yaml() -> None:
    with pytest.raises(ValidationError, match="img_size"):
        Spec.from_document({"model": {"uri": "builtin://mnist", "img_size": 28}, "samples": 1})


def test_spec_is_frozen() -> None:
    spec = Spec.from_document({"model": {"uri": "builtin://mnist"}, "samples": 1})
    with pytest.raises(ValidationError, match="frozen"):
        spec.samples = 2


def test_unknown_metadata_is_ignored() -> None:
    document = ACCEPTED[0] | {"metadata": {"name": "a", "namespace": "b", "uid": "c", "managedFields": [{}]}}
    metadata = DDPMSampling.from_document(document).metadata
    assert (metadata.name, metadata.namespace, metadata.uid) == ("a", "b", "c")


def test_times_are_serialized_as_rfc3339_in_utc() -> None:
    utc_plus_2 = timezone(timedelta(hours=2))
    condition = Condition(
        type=ConditionType.COMPLETE,
        status="True",
        reason="AllThere",
        last_transition_time=datetime(2026, 11, 23, 14, 0, 0, 123456, utc_plus_2),
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
        tzinfo=timezone.utc,  # noqa: UP017 - like the zone above
    )


def test_time_without_a_zone_is_rejected() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        Status.from_document({"startTime": "2026-11-23T12:00:00"})


def test_every_failure_reason_has_a_hint() -> None:
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


def test_inference_reasons_are_failure_reasons() -> None:
    def with_subclasses(error: type[DdpmError]) -> set[type[DdpmError]]:
        return {error}.union(*(with_subclasses(child) for child in error.__subclasses__()))

    reasons = {error.reason for error in with_subclasses(DdpmError)}
    assert len(reasons) > 5
    assert reasons <= set(FailureReason)
