"""Bounds of a graph."""

from __future__ import annotations

from edgeloop.records import dataclass


@dataclass(frozen=True)
class GraphLimits:
    """Bounds of a graph: bytes of the file, nodes with subgraphs, elements of one tensor, depth of subgraphs."""

    file_bytes: int = 512 << 20
    nodes: int = 200_000
    elements: int = 1 << 31
    depth: int = 8
