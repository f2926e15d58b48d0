"""Whether a full quota could ever let a plan's pods in, from what it says of itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from ddpm_operator.api import FailureReason, Plan, Spec
from ddpm_operator.api.quantity import binary, parse
from ddpm_operator.lifecycle.diagnosis import Trouble
from ddpm_operator.sizing import head_size, worker_size

# As in `exceeded quota: team, requested: pods=1, used: pods=2, limited: pods=2`.
_SAYS = re.compile(r"(requested|limited): ([^\s,=]+=[^\s,]+(?:,[^\s,=]+=[^\s,]+)*)")


def judged(found: Trouble, spec: Spec, chosen: Plan | None) -> Trouble:
    """The same trouble; if it is a quota that is smaller than the plan, certain, with the figures."""
    if found.reason is not FailureReason.QUOTA_EXCEEDED or chosen is None:
        return found
    said = {what: dict(_amounts(text)) for what, text in _SAYS.findall(found.message)}
    needed, limited = demand(spec, chosen), said.get("limited", {})
    for resource, amount in said.get("requested", {}).items():
        needed[resource] = max(needed.get(resource, Decimal(0)), amount)
    over = [
        f"{it} {_plain(needed[it])} of {_plain(limited[it])}" for it in limited if needed.get(it, 0) > limited[it]
    ]
    if not over:
        return found
    words = f"{found.message} The sampling needs more than all that the quota has: {', '.join(over)}."
    return replace(found, message=words, certain=True)


def demand(spec: Spec, chosen: Plan) -> dict[str, Decimal]:
    """What a plan's pods take of a ResourceQuota, all in all, under the names that a quota has for it."""
    head, worker, workers = head_size(spec, chosen), worker_size(spec, chosen), chosen.workers
    cpu = parse(head.cpu) + workers * parse(worker.cpu)
    memory = parse(head.memory) + workers * parse(worker.memory)
    return {
        "pods": Decimal(1 + workers),
        "count/pods": Decimal(1 + workers),
        "cpu": cpu,
        "requests.cpu": cpu,
        "limits.cpu": parse(head.cpu_limit) + workers * parse(worker.cpu_limit),
        "memory": memory,
        "requests.memory": memory,
        "limits.memory": memory,
        f"requests.{spec.resources.gpu_resource_name}": Decimal(head.gpus + workers * worker.gpus),
    }


def _amounts(text: str) -> Iterator[tuple[str, Decimal]]:
    for item in text.split(","):
        resource, _, amount = item.partition("=")
        try:
            yield resource, parse(amount.rstrip("."))
        except ValueError:
            continue


def _plain(amount: Decimal) -> str:
    whole = int(amount)
    return binary(whole) if whole == amount and whole % 2**20 == 0 else f"{amount.normalize():f}"
