"""Holm's correction: several tests, one chance of 5 % that any of them claims too much (Holm, 1979)."""

from __future__ import annotations

from collections.abc import Mapping


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p values: the k-th smallest of m times m - k + 1, never falling, at most 1."""
    adjusted, so_far = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = so_far
    return adjusted
