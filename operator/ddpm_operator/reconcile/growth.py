"""Growth: spec.samples is raised while an attempt is active, beyond what its plan was made for.

A plan can only be too small if it had few shards, so what the attempt has begun is a short piece of work, and it is
finished. Then the attempt ends, which is no failure, and the next attempt has the larger plan.
"""

from __future__ import annotations

from ddpm_operator.api import ConditionType, Plan, Spec, Status
from ddpm_operator.planning.sizing import PlanningError, is_small, plan
from ddpm_operator.reconcile.attempts import plan_summary
from ddpm_operator.reconcile.status_builder import StatusBuilder


def larger_plan(spec: Spec, status: Status) -> Plan | None:
    """Returns the plan of a next attempt that the requested samples are worth; None if the present plan suits them.

    Any other change of the spec takes effect in the next attempt, and is no reason to begin one. Nor are a few more
    samples, which are drawn before another cluster would be ready.
    """
    present, done = status.plan, status.progress.done if status.progress else 0
    if present is None or is_small(spec, spec.samples - done):
        return None
    planned = _plan_with_more_shards(spec, present)
    larger = planned and (planned.workers > present.workers or planned.gpus > present.gpus)
    return planned if larger else None


def update_plan(spec: Spec, draft: StatusBuilder) -> StatusBuilder:
    """Updates the plan and the condition Accepted to the number of samples that is requested now."""
    status = draft.status
    if status.plan is None:
        return draft
    larger = larger_plan(spec, status)
    if larger:
        message = f"{plan_summary(spec, larger)} They begin when attempt {status.attempt} has finished its own samples."
        return draft.set_condition(ConditionType.ACCEPTED, True, "Planned", message)
    grown = _plan_with_more_shards(spec, status.plan)
    if grown:
        updated = status.plan.model_copy(update={"shards": grown.shards, "why": _explanation(grown, status.plan)})
        draft = draft.set(plan=updated)
    return draft.set_condition(ConditionType.ACCEPTED, True, "Planned", plan_summary(spec, status.plan))


def _plan_with_more_shards(spec: Spec, present: Plan) -> Plan | None:
    """Returns the plan for the present spec; None if it does not have more shards than the present plan."""
    try:
        planned = plan(spec, previous=present)
    except PlanningError:
        return None
    more = planned.shards is not None and present.shards is not None and planned.shards > present.shards
    return planned if more else None


def _explanation(planned: Plan, present: Plan) -> tuple[str, ...]:
    """Returns how the figures of the present plan came about, as far as a new plan explains them."""
    same = (planned.workers, planned.gpus, planned.tasks_per_gpu) == (
        present.workers,
        present.gpus,
        present.tasks_per_gpu,
    )
    if same:
        return planned.why
    return (planned.why[0], "The existing pods draw them: a new cluster would not finish sooner.")
