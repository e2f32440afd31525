"""Bounds that several parts of the package hold to."""

from __future__ import annotations

MOST_STREAMS = 64
"""n, the streams or fractions of a connection: records hold an n x n matrix for each sublayer."""
MOST_LAYERS = 1024
"""Of a backbone: each is a module of its own, also where a model is only counted."""
LARGEST_WIDTH = 2**20
"""Of any whole number of a backbone, such as widths, heads and experts."""
LARGEST_SCALE = 1e12
"""Of its other numbers."""
MOST_ITERATIONS = 1000
"""Of an algorithm in a connection, such as Sinkhorn's: each is a step of every token in every sublayer."""
