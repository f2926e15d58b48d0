"""The nodes of the connected Ray cluster, and the table of their resources that error messages show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import ray
from rich.console import Console
from rich.table import Table

from ddpm_inference.ray_backend.actor_resources import Resources


class Node(NamedTuple):
    """A live node with its total resources."""

    id: str
    address: str
    resources: Resources


def live_nodes() -> list[Node]:
    """Returns the live nodes of the cluster that this process is connected to."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]) for node in nodes if node["Alive"]]


def format_nodes(nodes: Iterable[Node], free: Mapping[str, Resources]) -> str:
    """Returns a table with one line per node: free and total CPUs, GPUs and memory.

    Args:
        free: free resources by node ID.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    table.add_column("NODE", no_wrap=True)
    for column in ("CPU FREE", "OF", "GPU FREE", "OF", "GIB FREE", "OF"):
        table.add_column(column, justify="right", no_wrap=True)
    for node in nodes:
        cells = [
            f"{resources.get(kind, 0) / unit:.4g}"
            for kind, unit in (("CPU", 1), ("GPU", 1), ("memory", 2**30))
            for resources in (free.get(node.id, {}), node.resources)
        ]
        table.add_row(node.address, *cells)
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
