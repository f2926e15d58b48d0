"""The preview: copied while the driver runs, written at its end, and never a reason to fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import pytest

from ddpm_inference.progress_server.thumbnail import MAX_PNG_BYTES
from ddpm_operator.api import ConditionType, Phase
from ddpm_operator.api.status import Result
from ddpm_operator.reconcile.actions import (
    Action,
    CopyPreview,
    WritePreview,
    WriteStatus,
)
from ddpm_operator.reconcile.observed import (
    ActionError,
    ActionErrorKind,
    HeadResponse,
)
from ddpm_operator.reconcile.preview import MAX_PREVIEW_BYTES
from ddpm_operator.reconcile.progress_document import FinishedOutcome
from ddpm_operator.reconcile.reconcile import reconcile
from tests.fakes.world import World, sha

LARGE = {"samples": 2000, "resources": {"maxWorkers": 2}}


@pytest.fixture
def world() -> World:
    return World.of()


def test_preview_is_copied_every_thirty_seconds() -> None:
    world = World.of(samples=20_000)
    world.run(until=lambda it: it.settled)
    copies = [it for it in world.executed if isinstance(it, CopyPreview)]
    begun = next(it.progress for it in world.history if it.phase == Phase.RUNNING)
    assert begun
    assert begun.last_update_time
    assert world.status.completion_time
    seconds = (world.status.completion_time - begun.last_update_time).total_seconds()
    assert 2 <= len(copies) <= seconds / 30 + 1
    assert [it.png for it in world.executed if isinstance(it, WritePreview)] == [b"hello"]


def test_unwritten_preview_does_not_prevent_completion() -> None:
    world = World.of()
    refused = ActionError(ActionErrorKind.PREVIEW, "write the preview digits-preview", "another manager owns it")
    world.reject = lambda action: refused if isinstance(action, (WritePreview, CopyPreview)) else None
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.output == Result(uri="pvc://digits-output", manifest_sha256=sha(100))


def test_failed_preview_copy_is_retried_later() -> None:
    world = World.of(**LARGE)
    tried: list[datetime] = []

    def refuse(action: Action) -> ActionError | None:
        if isinstance(action, CopyPreview):
            tried.append(world.now)
            return ActionError(ActionErrorKind.PREVIEW, "write the preview", "timeout")
        return None

    world.reject = refuse
    world.run(until=lambda it: it.holds(ConditionType.RUNNING) and it.stored)
    for _ in range(8):
        world.wait(5)
        world.reconcile()
    assert [(later - first).total_seconds() // 10 for first, later in pairwise(tried)] == [3]
    assert world.status.output
    assert world.status.output.grid is None


@pytest.mark.parametrize("grid", ["é", "no base64!", ""])
def test_invalid_preview_does_not_prevent_completion(world: World, grid: str) -> None:
    world.run(until=lambda it: it.sampling.status is not None and it.status.phase == Phase.RUNNING)
    observed = world.observe()
    assert isinstance(observed.head_poll, HeadResponse)
    assert observed.head_poll.progress
    outcome = FinishedOutcome(manifest_sha256=sha(100), samples=100, sampled=100, output="/output", grid=grid)
    response = replace(observed.head_poll, progress=observed.head_poll.progress.model_copy(update={"outcome": outcome}))
    actions = reconcile(replace(observed, head_poll=response), world.now).actions
    assert [it.status.phase for it in actions if isinstance(it, WriteStatus)] == [Phase.SUCCEEDED]
    assert not [it for it in actions if isinstance(it, WritePreview)]


def test_both_programs_have_the_same_size_limit() -> None:
    assert MAX_PREVIEW_BYTES == MAX_PNG_BYTES
