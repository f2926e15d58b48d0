"""Deletes the RayClusters of a sampling that are not in use, and reports in the condition CleanedUp what remains."""

from __future__ import annotations

from dataclasses import replace

from ddpm_operator.api import KEPT, ConditionType
from ddpm_operator.reconcile import deadlines
from ddpm_operator.reconcile.actions import DeleteCluster
from ddpm_operator.reconcile.observed import Observed
from ddpm_operator.reconcile.polling import RESYNC
from ddpm_operator.reconcile.transition import Transition, earliest


def clean_up(observed: Observed, transition: Transition) -> Transition:
    """Adds the deletion of every RayCluster that is neither the active attempt's nor kept after a failure."""
    draft, spec = transition.draft, observed.sampling.spec
    status = draft.status
    used = status.cluster.name if status.cluster else None
    until = deadlines.kept_until(spec, status)
    kept_attempt = status.attempt if until and draft.now < until else None
    unused = [it for it in observed.clusters if it.name != used]
    kept = [it for it in unused if kept_attempt is not None and it.attempt == kept_attempt]
    deletions = tuple(DeleteCluster(it.name, it.uid) for it in unused if it not in kept and not it.deleted)
    requeue_at, cleaned_up = None, False
    if used:
        reason, message = "InUse", f"The RayCluster {used} is in use."
    elif kept and until:
        reason, requeue_at = KEPT, until
        message = f"The RayCluster {kept[0].name} is kept until {until:%H:%M:%S} UTC, to look into the failure."
    elif observed.clusters or observed.pods:
        reason, requeue_at = "Deleting", draft.now + RESYNC
        message = "The RayCluster and its pods are being deleted."
    else:
        cleaned_up, reason, message = True, "NothingLeft", "No RayCluster and no pod is left."
    return replace(
        transition,
        draft=draft.set_condition(ConditionType.CLEANED_UP, cleaned_up, reason, message),
        after_write=(*transition.after_write, *deletions),
        requeue_at=earliest(transition.requeue_at, requeue_at),
    )
