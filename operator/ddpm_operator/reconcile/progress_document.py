"""What the driver says of itself on ``GET /progress``, and as its last word in the log. Read, never trusted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

PROGRESS_VERSION = 1

# Beyond these a status could not hold it: figures there are int64, a rate or a duration has 16 letters.
_LARGEST = 10**12
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Positive = Annotated[int, Field(ge=1, le=_LARGEST)]
Figure = Annotated[float, Field(ge=0, le=_LARGEST)]
Sentence = Annotated[str, Field(max_length=65_536)]


class ProgressModel(BaseModel):
    """A part of the document. A newer driver may say more than is known here."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )


class ChosenPlan(ProgressModel):
    """What the run has chosen once the checkpoint was read."""

    device: Literal["cpu", "cuda"]
    batch_size: Positive
    shards: Positive


class FinishedOutcome(ProgressModel):
    """All N samples are stored, and the manifest accounts for them.

    Attributes:
        samples: N.
        sampled: how many of them this run has drawn.
        output: the URI as the pod sees it.
        grid: PNG of at most 48 KiB in base64.
    """

    manifest_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    samples: Positive
    sampled: Count
    output: Annotated[str, Field(max_length=1024)]
    grid: Annotated[str, Field(max_length=65_536)] | None = None


class FailedOutcome(ProgressModel):
    """The run ended before all samples were stored.

    Attributes:
        reason: a word of `FailureReason`, if it is one that is known here.
        exit_code: 2 bad input, 3 resources not to be had, 4 failed with part done, 130 interrupted.
    """

    reason: Annotated[str, Field(max_length=64)]
    exit_code: Annotated[int, Field(ge=0, le=255)]
    message: Sentence
    hint: Sentence = ""


class ProgressDocument(ProgressModel):
    """How far the run is.

    Attributes:
        done, total: samples stored, samples asked for.
        percent: done of total, 0 to 100.
        samples_per_second, eta_seconds: None while they cannot be known.
        plan: None before the run has chosen it.
        outcome: None before the end.
    """

    version: Literal[1]
    phase: Annotated[str, Field(max_length=32)]
    done: Count
    total: Count
    percent: Annotated[float, Field(ge=0, le=100)]
    samples_per_second: Figure | None
    eta_seconds: Figure | None
    message: Sentence = ""
    plan: ChosenPlan | None = None
    outcome: FinishedOutcome | FailedOutcome | None = None


def read_progress(text: str | bytes) -> ProgressDocument:
    """Reads the answer to ``GET /progress``.

    Raises:
        pydantic.ValidationError: if it is not such a document.
    """
    return ProgressDocument.model_validate_json(text, by_alias=True, by_name=False)


def last_error(log: str) -> FailedOutcome | None:
    """The driver's account of its failure: the last line ``{"event": "error", …}`` of a job's message or log."""
    for line in reversed(log.splitlines()):
        if line.startswith("{"):
            try:
                event = from_json(line)
                if event.get("event") == "error":
                    return FailedOutcome.model_validate(event, by_alias=True, by_name=False)
            except ValueError:
                continue
    return None
