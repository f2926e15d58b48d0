"""`kubectl ddpm explain`: the plan, the pods and the output of a sampling before it is submitted."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ddpm_operator.api import Claim, DDPMSampling, Plan
from ddpm_operator.api.model import Model
from ddpm_operator.api.quantity import binary, parse
from ddpm_operator.kubectl_ddpm.manifest_file import read_manifests
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, print_json
from ddpm_operator.manifests.naming import claim_name
from ddpm_operator.planning.sizing import claim_size, head_size, plan, worker_size
from ddpm_operator.text import count

_DESCRIPTION = """\
Validate the DDPMSamplings in a file, and show the plan of each: its pods, its
shards, where the samples will be stored, and why. Needs no cluster."""

_EXAMPLES = """\
# Show the plan of a sampling
kubectl ddpm explain -f examples/digits.yaml"""


class PodGroup(Model):
    """A number of equal pods, and the resources that each requests."""

    role: Literal["head", "worker"]
    count: int
    cpu: str
    memory: str
    gpus: int


class OutputLocation(Model):
    """Where the samples will be stored: at a URI, or on a claim that the operator creates."""

    uri: str | None = None
    claim: str | None = None
    size: str | None = None
    access_modes: tuple[str, ...] | None = None
    retention_policy: str | None = None


class Explanation(Model):
    """The JSON document of `explain`: all that is known before a sampling starts."""

    name: str
    plan: Plan
    pods: tuple[PodGroup, ...]
    output: OutputLocation


def add_to(commands: Commands) -> None:
    command = add_command(
        commands,
        "explain",
        _explain,
        "Show the plan of a sampling; needs no cluster",
        _DESCRIPTION,
        _EXAMPLES,
        needs_cluster=False,
    )
    command.add_argument("-f", "--filename", required=True, metavar="FILE", help="YAML file, or - for standard input")


def _explain(options: argparse.Namespace) -> int:
    samplings = [manifest.sampling for manifest in read_manifests(options.filename)]
    explained = [(sampling, explain(sampling)) for sampling in samplings]
    if options.json:
        for _, explanation in explained:
            print_json(explanation.to_document())
        return 0
    console = Console(highlight=False)
    for index, (sampling, explanation) in enumerate(explained):
        if index:
            console.print()
        console.print(_render(sampling, explanation))
    return 0


def explain(sampling: DDPMSampling) -> Explanation:
    """Plans a sampling as the operator does for the first attempt.

    Raises:
        PlanningError: if no plan is possible.
    """
    spec = sampling.spec
    chosen = plan(spec)
    head, worker = head_size(spec, chosen), worker_size(spec, chosen)
    pods = [PodGroup(role="head", count=1, cpu=head.cpu, memory=head.memory, gpus=0)]
    if chosen.workers:
        pods.append(
            PodGroup(role="worker", count=chosen.workers, cpu=worker.cpu, memory=worker.memory, gpus=worker.gpus)
        )
    return Explanation(name=sampling.metadata.name, plan=chosen, pods=tuple(pods), output=_output_location(sampling))


def _output_location(sampling: DDPMSampling) -> OutputLocation:
    spec = sampling.spec
    if spec.output.uri:
        return OutputLocation(uri=spec.output.uri)
    claim = spec.output.claim or Claim()
    return OutputLocation(
        claim=claim_name(sampling.metadata),
        size=claim.size or claim_size(spec),
        access_modes=claim.access_modes,
        retention_policy=claim.retention_policy,
    )


def _render(sampling: DDPMSampling, explanation: Explanation) -> RenderableType:
    spec, chosen = sampling.spec, explanation.plan
    batch = f" of up to {count(chosen.batch_size, 'sample')}" if chosen.batch_size else ""
    shards = f"{count(chosen.shards, 'shard')}{batch}" if chosen.shards else "shards"
    reasons = Table.grid(padding=(0, 1))
    for reason in chosen.why:
        reasons.add_row("•", reason)
    title = Text.assemble(
        (explanation.name, "bold"),
        f"  {spec.samples:,} of {spec.model.uri}, {spec.sampler.name or 'default sampler'}, seed {spec.seed}",
    )
    work = Text(f"{shards} on {chosen.device}, stored on {_describe_output(explanation.output)}")
    sections = (_pods_table(explanation.pods), work, reasons)
    return Group(title, *(Padding(section, (1, 0, 0, 2), expand=False) for section in sections))


def _describe_output(output: OutputLocation) -> str:
    if output.uri:
        return output.uri
    policy = "kept" if output.retention_policy == "Retain" else "deleted"
    access_modes = ", ".join(output.access_modes or ())
    return f"claim {output.claim} ({output.size}, {access_modes}), which is {policy} when the sampling is deleted"


def _pods_table(pods: Sequence[PodGroup]) -> Table:
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
