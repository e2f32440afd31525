"""All checks, in the order in which a new variant meets them: cheap ones first."""

from __future__ import annotations

from dataclasses import replace

from mhc_bench.kit import compiled, flow, isolation, parameters, precision, ranks, whole
from mhc_bench.kit.outcome import Check, Failed, NotApplicable, as_check
from mhc_bench.kit.subject import Subject
from mhc_bench.residual import variant_options


def one_stream(subject: Subject) -> str:
    """With one stream (where there is an option `streams`) all that holds for several holds."""
    if "streams" not in variant_options(subject.kind):
        raise NotApplicable("it has no option streams")
    single = replace(subject, options={**subject.options, "streams": 1})
    for check in (flow.shapes, isolation.causality, parameters.gradients, parameters.inert):
        try:
            check(single)
        except Failed as failed:
            raise Failed(f"with one stream {failed.reason}", failed.at) from None
    return ""


CHECKS: tuple[Check, ...] = tuple(
    as_check(function)
    for function in (
        flow.shapes,
        flow.sizes,
        one_stream,
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
