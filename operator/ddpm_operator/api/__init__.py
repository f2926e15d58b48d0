"""The DDPMSampling custom resource as typed models: spec, status and their enumerations.

The operator and its clients share these types, and `python -m ddpm_operator.crd` generates the CRD from them, so the
schema and the code cannot drift apart.
"""

from ddpm_operator.api.reasons import KEPT, WAITING_FOR_HARDWARE, ConditionType, EventReason, FailureReason, Phase
from ddpm_operator.api.resource import GROUP, KIND, PLURAL, VERSION, DDPMSampling, Metadata
from ddpm_operator.api.spec import Claim, Spec
from ddpm_operator.api.status import Condition, Failure, Plan, Progress, Status

__all__ = [
    "GROUP",
    "KEPT",
    "KIND",
    "PLURAL",
    "VERSION",
    "WAITING_FOR_HARDWARE",
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
