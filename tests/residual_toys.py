"""The conformance kit's small connections, for the tests of single variants."""

from __future__ import annotations

from mhc_bench.kit.toys import WIDTH, chain, connection, fixed_sublayer, hidden, run

__all__ = ["WIDTH", "chain", "connection", "fixed_sublayer", "hidden", "run"]
