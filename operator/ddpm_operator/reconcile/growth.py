"""More samples than the attempt under way was planned for.

A plan can only be too small for want of shards, so that what the attempt began with is a short piece of work: it
is done to its end. Then the attempt ends, which is no failure, and the next one has the larger plan.
"""

from __future__ import annotations

from ddpm_operator.api import ConditionType, Plan, Spec, Status
from ddpm_operator.planning.sizing import PlanningError, is_small, plan
from ddpm_operator.reconcile.attempts import summary
from ddpm_operator.reconcile.status_builder import StatusBuilder


def outgrown(spec: Spec, status: Status) -> Plan | None:
    """The larger plan that the samples asked for now are worth; None if the present one serves them as well.

    What else has changed in the spec takes effect at the next attempt, and is no reason for one. Nor are so few
    samples that they are drawn before another cluster would be there.
    """
    present, done = status.plan, status.progress.done if status.progress else 0
    if present is None or is_small(spec, spec.samples - done):
        return None
    planned = _grown(spec, present)
    larger = planned and (planned.workers > present.workers or planned.gpus > present.gpus)
    return planned if larger else None


def update_plan(spec: Spec, draft: StatusBuilder) -> StatusBuilder:
    """Says what is planned, of the samples that are asked for now."""
    status = draft.status
    if status.plan is None:
        return draft
    larger = outgrown(spec, status)
    if larger:
        words = f"{summary(spec, larger)} They begin when attempt {status.attempt} has drawn what it began with."
        return draft.say(ConditionType.ACCEPTED, True, "Planned", words)
    grown = _grown(spec, status.plan)
    if grown:
        renewed = status.plan.model_copy(update={"shards": grown.shards, "why": _why(grown, status.plan)})
        draft = draft.put(plan=renewed)
    return draft.say(ConditionType.ACCEPTED, True, "Planned", summary(spec, status.plan))


def _grown(spec: Spec, present: Plan) -> Plan | None:
    """The plan as it would be made now; None if it is not for more shards than the present one."""
    try:
        planned = plan(spec, kept=present)
    except PlanningError:
        return None
    more = planned.shards is not None and present.shards is not None and planned.shards > present.shards
    return planned if more else None


def _why(planned: Plan, present: Plan) -> tuple[str, ...]:
    """How the present numbers came about, as far as a plan of now tells it."""
    same = (planned.workers, planned.gpus, planned.tasks_per_gpu) == (
        present.workers,
        present.gpus,
        present.tasks_per_gpu,
    )
    if same:
        return planned.why
    return (planned.why[0], "The pods that are there draw them: another cluster would not be done sooner.")
