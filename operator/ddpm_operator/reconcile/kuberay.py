"""KubeRay is missing, too old or not running: how that is recognised. All three have the reason KubeRayMissing.

- **No CRD for RayClusters.** The API server answers 404 to a create request (`ddpm_operator.kube.errors`). The attempt
  waits until its startup deadline, and runs if KubeRay is installed before that (`action_failures`, `active_attempt`).
  While the CRD is missing, RayClusters are not watched (`ddpm_operator.controller.resync`).
- **A CRD that is too old.** The API server rejects a field of the RayCluster. The sampling is rejected at once
  (`action_failures`).
- **A CRD, but no controller.** The RayCluster exists, and no pods follow (`not_running`). The attempt waits until its
  startup deadline.

No further attempt follows a failure with this reason (`ddpm_operator.reconcile.attempts.FINAL_REASONS`).
"""

from __future__ import annotations

from datetime import datetime

from ddpm_operator.api import FailureReason
from ddpm_operator.reconcile.deadlines import GRACE
from ddpm_operator.reconcile.observed import Observed, ObservedCluster
from ddpm_operator.reconcile.problem import Problem

MISSING_CRD = "the cluster has no CRD for RayCluster of ray.io/v1"
TOO_OLD_HINT = (
    "Ask the cluster's administrator for KubeRay 1.6 or newer, or to check whether the operator's templates were "
    "changed."
)


def not_running(
    observed: Observed, cluster: ObservedCluster, admitted: datetime | None, now: datetime
) -> Problem | None:
    """Returns a problem if KubeRay has not acted on the RayCluster within `GRACE`; None otherwise.

    Args:
        admitted: when the attempt was admitted; None if it is not, and then there is no problem.
    """
    if cluster.seen_by_kuberay or observed.cluster_pods or admitted is None:
        return None
    # The API server's clock may be ahead of this one.
    begun = max(admitted, cluster.created) if cluster.created <= now else admitted
    if now < begun + GRACE:
        return None
    message = f"The RayCluster {cluster.name} exists, but no pods are created for it: KubeRay is not running."
    return Problem(FailureReason.KUBERAY_MISSING, message, certain=False)
