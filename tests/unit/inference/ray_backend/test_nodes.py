"""The table of nodes in error messages."""

from __future__ import annotations

from ddpm_inference.ray_backend.nodes import Node, format_nodes


def test_the_table_shows_free_beside_total_resources() -> None:
    nodes = [
        Node("a", "10.0.0.1", {"CPU": 8.0, "GPU": 1.0, "memory": 16 * 2.0**30}),
        Node("b", "10.0.0.2", {"CPU": 2.0}),
    ]
    header, first, second = format_nodes(nodes, {"a": {"CPU": 2.5, "memory": 2.0**30}}).splitlines()
    assert header.split() == ["NODE", *(word for kind in ("CPU", "GPU", "GIB") for word in (kind, "FREE", "OF"))]
    assert first.split() == ["10.0.0.1", "2.5", "8", "0", "1", "1", "16"]
    assert second.split() == ["10.0.0.2", "0", "2", "0", "0", "0", "0"]
