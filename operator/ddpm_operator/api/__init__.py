"""The typed DDPMSampling: what is asked for, what is said of it, and the words for both.

The CRD is generated from these types (`python -m ddpm_operator.crd`), so that the two cannot drift apart. They are
shared by the operator and its clients.
"""

from ddpm_operator.api.reasons import KEPT, ConditionType, EventReason, FailureReason, Phase
from ddpm_operator.api.resource import GROUP, KIND, PLURAL, VERSION, DDPMSampling, Metadata
from ddpm_operator.api.spec import Claim, Spec
from ddpm_operator.api.status import Condition, Failure, Plan, Progress, Status

__all__ = [
    "GROUP",
    "KEPT",
    "KIND",
    "PLURAL",
    "VERSION",
    "Claim",
    "Condition",
    "ConditionType",
    "DDPMSampling",
    "EventReason",
    "Failure",
    "FailureReason",
    "Metadata",
    "Phase",
    "Plan",
    "Progress",
    "Spec",
    "Status",
]
