"""Whether a bare Unet was trained with the BatchNorm of its attention block.

Two versions of the original code differ in whether they apply that norm, and their state dicts have the same keys. A
norm that training applied has left its initial state. Its counter alone does not show this: tools that average, convert
or strip weights set the counters of all norms to 0.
"""

from __future__ import annotations

import numpy as np

from ddpm_inference.models.families import Weights
from ddpm_inference.models.guide_layout import COUNTER

ATTENTION_NORM = "attention_int.bnorm"
# Averaging weights in float32 moves a value that never changed by less than this. A norm whose statistics differ by
# less from (0, 1) changes its input by less, so that the choice hardly matters there.
INITIAL_STATE_TOLERANCE = 1e-3


def infer_attention_norm(weights: Weights) -> tuple[bool, str | None]:
    """Returns whether training applied the norm, and a note for the user unless that is certain and the usual case.

    It is certain where the norm has left its initial state (applied), or where it has not but another norm has (not
    applied). Where no norm has, as in an untrained network, the norm is assumed.
    """
    if _was_applied(weights, ATTENTION_NORM):
        return True, None
    norms = {key.removesuffix(f".{COUNTER}") for key in weights if key.endswith(f".{COUNTER}")}
    if any(_was_applied(weights, norm) for norm in norms):
        return False, (
            f"attention without its BatchNorm: {ATTENTION_NORM} is as it was before the training, unlike other norms "
            "(--attention_norm yes if the network applies it)"
        )
    return True, (
        "attention with its BatchNorm, which is an assumption: no norm has statistics of a training "
        "(--attention_norm no if the network does not apply it)"
    )


def _was_applied(weights: Weights, norm: str) -> bool:
    """Returns whether a norm has counted a batch or has statistics other than the initial ones."""
    if np.any(weights.get(f"{norm}.{COUNTER}", 0)):
        return True
    initial = {"running_mean": 0.0, "running_var": 1.0}
    return any(
        not np.allclose(weights.get(f"{norm}.{part}", value), value, rtol=0, atol=INITIAL_STATE_TOLERANCE)
        for part, value in initial.items()
    )
