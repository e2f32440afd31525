"""The conformance kit: what every residual connection must do (`mhc-bench check`, docs/conformance.md).

From another project's tests:

    import pytest
    from mhc_bench.kit import CHECKS, assert_conforms

    @pytest.mark.parametrize("check", [check.name for check in CHECKS])
    def test_my_variant_conforms(check: str) -> None:
        assert_conforms("my_package.gated_skip:GatedSkip", check)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mhc_bench.errors import UsageError, choose
from mhc_bench.kit.checks import CHECKS, SLOW
from mhc_bench.kit.outcome import Check, Outcome, outcome_of
from mhc_bench.kit.report import Report
from mhc_bench.kit.subject import Backbone, Subject
from mhc_bench.residual import ResidualConnection
from mhc_bench.residual.options import checked_options
from mhc_bench.residual.registry import PLACE

__all__ = [
    "CHECKS",
    "SLOW",
    "Backbone",
    "Check",
    "Outcome",
    "Report",
    "Subject",
    "assert_conforms",
    "check_named",
    "check_variant",
]


def _refuse_options(subject: Subject) -> None:
    """One line for options that the variant refuses; what else goes wrong is for the checks to tell.

    Raises:
        UsageError: an unknown option, or a value of the wrong type or range.
    """
    checked_options(subject.kind, subject.options, PLACE)
    try:
        subject.fresh()
    except UsageError:
        raise
    except Exception:
        return


def check_named(name: str) -> Check:
    """A check by its name.

    Raises:
        UsageError: naming the nearest one.
    """
    chosen = choose("check", name, [check.name for check in CHECKS])
    return next(check for check in CHECKS if check.name == chosen)


def check_variant(
    variant: str | type[ResidualConnection],
    options: Mapping[str, Any] | None = None,
    *,
    backbone: Backbone | None = None,
    only: Collection[str] = (),
) -> Report:
    """All that the kit finds of a variant.

    Args:
        variant: a registered name, `module:Class` or the class.
        options: the variant's own.
        backbone: where it is grafted; a tiny Llama unless said otherwise.
        only: names of checks; all where there are none.

    Raises:
        UsageError: an unknown variant, option, backbone or check.
    """
    subject = Subject(variant, dict(options or {}), backbone or Backbone())
    _refuse_options(subject)
    subject.backbone.stock()
    chosen = [check_named(name) for name in only] or CHECKS
    name = variant if isinstance(variant, str) else variant.__name__
    outcomes = tuple(outcome_of(check, subject) for check in chosen)
    return Report(name, subject.backbone.family, dict(subject.options), outcomes)


def assert_conforms(
    variant: str | type[ResidualConnection],
    check: str,
    options: Mapping[str, Any] | None = None,
    *,
    backbone: Backbone | None = None,
) -> Outcome:
    """One check of a variant, for a test: what it found, unless that is a failure.

    Raises:
        AssertionError: the reason, and the line to look at.
        UsageError: as `check_variant`.
    """
    (outcome,) = check_variant(variant, options, backbone=backbone, only=[check]).outcomes
    if outcome.status == "fail":
        raise AssertionError(f"{outcome.check}: {outcome.reason} ({outcome.line})")
    return outcome
