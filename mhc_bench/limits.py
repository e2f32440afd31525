"""Bounds that several parts of the package hold to."""

from __future__ import annotations

MOST_STREAMS = 64
"""n, the streams or fractions of a connection: records hold an n x n matrix for each sublayer."""
