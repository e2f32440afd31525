"""All checks, in the order in which a new variant meets them: cheap ones first."""

from __future__ import annotations

from mhc_bench.kit import compiled, flow, isolation, parameters, precision, ranks, whole
from mhc_bench.kit.outcome import Check, as_check

CHECKS: tuple[Check, ...] = tuple(
    as_check(function)
    for function in (
        flow.shapes,
        flow.sizes,
        flow.views,
        flow.write_read,
        isolation.causality,
        isolation.batch_independence,
        isolation.carry,
        isolation.in_place,
        isolation.determinism,
        parameters.gradients,
        parameters.inert,
        parameters.declarations,
        parameters.initial_values,
        parameters.building,
        precision.maps,
        precision.fp32_maps,
        precision.autocast_gradients,
        whole.start,
        whole.shared_weights,
        whole.future,
        whole.cache,
        whole.recompute,
        whole.saving,
        parameters.overhead,
        compiled.compilation,
        ranks.sharding,
    )
)
SLOW = frozenset({"compilation", "sharding"})
"""Those that take seconds."""
