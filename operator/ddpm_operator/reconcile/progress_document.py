"""Parses what the driver reports: the document of ``GET /progress``, and the error event at the end of its log.

The driver runs what users bring, so every field is validated.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from ddpm_operator.api.status import HardwareFields

PROGRESS_VERSION = 1

# The status has to hold them: its figures are int64, and a rate or a duration there has at most 16 characters.
_MAX_FIGURE = 10**12
Count = Annotated[int, Field(ge=0, le=_MAX_FIGURE)]
Positive = Annotated[int, Field(ge=1, le=_MAX_FIGURE)]
Figure = Annotated[float, Field(ge=0, le=_MAX_FIGURE)]
Message = Annotated[str, Field(max_length=65_536)]
# Not strict: `last_error` validates lists, and a strict tuple accepts none.
Ips = Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=1024, strict=False)]


class ProgressModel(BaseModel):
    """Base of the document's parts. Unknown fields are ignored, as a newer driver may send more."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )


class ChosenPlan(ProgressModel):
    """What the driver has chosen after it read the checkpoint."""

    device: Literal["cpu", "cuda"]
    batch_size: Positive
    shards: Positive
    hardware: HardwareFields | None = None


class NodeIps(ProgressModel):
    """Addresses of the pods whose hardware the driver has compared with that of the stored samples.

    Attributes:
        ready: of those that draw.
        other_hardware: of those that cannot draw, as their hardware is another.
    """

    ready: Ips = ()
    other_hardware: Ips = ()


class FinishedOutcome(ProgressModel):
    """All samples are stored and listed in the manifest.

    Attributes:
        samples: their number.
        sampled: the number that this driver has drawn.
        output: the URI inside the pod.
        grid: the preview, a PNG of at most 48 KiB in base64.
    """

    manifest_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    samples: Positive
    sampled: Count
    output: Annotated[str, Field(max_length=1024)]
    grid: Annotated[str, Field(max_length=65_536)] | None = None


class FailedOutcome(ProgressModel):
    """The driver ended before all samples were stored.

    Attributes:
        reason: a value of `FailureReason`, unless the driver is newer than the operator.
        exit_code: 2 invalid input, 3 resources not available, 4 failed after it began, 130 interrupted.
        other_hardware_ips: addresses of the pods whose hardware is the cause. An older driver does not report them.
    """

    reason: Annotated[str, Field(max_length=64)]
    exit_code: Annotated[int, Field(ge=0, le=255)]
    message: Message
    hint: Message = ""
    other_hardware_ips: Ips = ()


class ProgressDocument(ProgressModel):
    """The progress of a driver.

    Attributes:
        done, total: samples stored, samples requested.
        percent: done of total, 0 to 100.
        samples_per_second, eta_seconds: None while they are unknown.
        plan: None until the driver has chosen it.
        node_ips: grows during a run. An older driver does not report it.
        outcome: None until the end.
    """

    version: Literal[1]
    phase: Annotated[str, Field(max_length=32)]
    done: Count
    total: Count
    percent: Annotated[float, Field(ge=0, le=100)]
    samples_per_second: Figure | None
    eta_seconds: Figure | None
    message: Message = ""
    plan: ChosenPlan | None = None
    node_ips: NodeIps = NodeIps()
    outcome: FinishedOutcome | FailedOutcome | None = None


def read_progress(text: str | bytes) -> ProgressDocument:
    """Parses the response of ``GET /progress``.

    Raises:
        pydantic.ValidationError: if it is not a valid document.
    """
    return ProgressDocument.model_validate_json(text, by_alias=True, by_name=False)


def last_error(log: str) -> FailedOutcome | None:
    """Returns the last line ``{"event": "error", …}`` of a job's message or log; None if there is none."""
    for line in reversed(log.splitlines()):
        if line.startswith("{"):
            try:
                event = from_json(line)
                if event.get("event") == "error":
                    return FailedOutcome.model_validate(event, by_alias=True, by_name=False)
            except ValueError:
                continue
    return None
