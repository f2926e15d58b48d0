"""What would become of a DDPMSampling, before anything is: its plan, its pods, its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ddpm_operator.api import Claim, DDPMSampling, Plan
from ddpm_operator.api.model import Model
from ddpm_operator.api.quantity import binary, parse
from ddpm_operator.manifests.naming import claim_name
from ddpm_operator.planning.sizing import claim_size, head_size, plan, worker_size


class Pods(Model):
    """Equal pods, and what each asks for."""

    role: Literal["head", "worker"]
    count: int
    cpu: str
    memory: str
    gpus: int


class Place(Model):
    """Where the samples would be kept: a URI, or a claim that would be made."""

    uri: str | None = None
    claim: str | None = None
    size: str | None = None
    access_modes: tuple[str, ...] | None = None
    retention_policy: str | None = None


class Explanation(Model):
    """Everything that is known of a sampling before it begins."""

    name: str
    plan: Plan
    pods: tuple[Pods, ...]
    output: Place


def explain(sampling: DDPMSampling) -> Explanation:
    """Plans a sampling as the operator would on its first attempt.

    Raises:
        Unplannable: if there can be no plan.
    """
    spec = sampling.spec
    chosen = plan(spec)
    head, worker = head_size(spec, chosen), worker_size(spec, chosen)
    pods = [Pods(role="head", count=1, cpu=head.cpu, memory=head.memory, gpus=0)]
    if chosen.workers:
        pods.append(Pods(role="worker", count=chosen.workers, cpu=worker.cpu, memory=worker.memory, gpus=worker.gpus))
    return Explanation(name=sampling.metadata.name, plan=chosen, pods=tuple(pods), output=_place(sampling))


def view(sampling: DDPMSampling, explanation: Explanation) -> RenderableType:
    """An explanation for a person."""
    spec, chosen = sampling.spec, explanation.plan
    batch = f" of up to {chosen.batch_size} samples" if chosen.batch_size else ""
    shards = f"{chosen.shards:,} shard{'s' * (chosen.shards != 1)}{batch}" if chosen.shards else "shards"
    why = Table.grid(padding=(0, 1))
    for sentence in chosen.why:
        why.add_row("•", sentence)
    title = Text.assemble(
        (explanation.name, "bold"),
        f"  {spec.samples:,} of {spec.model.uri}, {spec.sampler.name}, seed {spec.seed}",
    )
    kept = Text(f"{shards} on {chosen.device}, kept on {_words(explanation.output)}")
    return Group(title, *(Padding(part, (1, 0, 0, 2), expand=False) for part in (_pods(explanation.pods), kept, why)))


def _place(sampling: DDPMSampling) -> Place:
    spec = sampling.spec
    if spec.output.uri:
        return Place(uri=spec.output.uri)
    claim = spec.output.claim or Claim()
    return Place(
        claim=claim_name(sampling.metadata),
        size=claim.size or claim_size(spec),
        access_modes=claim.access_modes,
        retention_policy=claim.retention_policy,
    )


def _words(place: Place) -> str:
    if place.uri:
        return place.uri
    end = "outlives the resource" if place.retention_policy == "Retain" else "is deleted with the resource"
    return f"claim {place.claim} ({place.size}, {', '.join(place.access_modes or ())}), which {end}"


def _pods(pods: Sequence[Pods]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_footer=len(pods) > 1)
    cpus = sum(parse(it.cpu) * it.count for it in pods)
    memory = binary(int(sum(parse(it.memory) * it.count for it in pods)))
    table.add_column("PODS", footer="total")
    table.add_column("CPU", footer=f"{cpus:f}", justify="right")
    table.add_column("MEMORY", footer=memory, justify="right")
    table.add_column("GPU", footer=str(sum(it.gpus * it.count for it in pods)), justify="right")
    for it in pods:
        name = f"{it.count} {it.role}{'s' if it.count > 1 else ''}"
        table.add_row(name, it.cpu, it.memory, str(it.gpus))
    return table
