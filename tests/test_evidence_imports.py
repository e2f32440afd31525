"""Evidence is plain data: a leaderboard is made without torch, Lightning or the configuration."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mhc_bench import evidence

PROGRAM = """
import sys
import mhc_bench.evidence.compare
import mhc_bench.evidence.leaderboard
import mhc_bench.evidence.pairwise
import mhc_bench.evidence.verify
heavy = {"torch", "lightning", "transformers", "lm_eval", "omegaconf", "statsmodels", "mhc_bench.config"}
print(sorted(heavy & set(sys.modules)))
"""


def test_leaderboard_and_verification_need_neither_torch_nor_the_configuration() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_records_draws_in_no_plotting_library() -> None:
    program = "import sys, mhc_bench.evidence; print('matplotlib' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_the_package_hands_out_the_leaderboard_on_demand_and_nothing_unknown() -> None:
    from mhc_bench.evidence.leaderboard import build_leaderboard

    assert evidence.build_leaderboard is build_leaderboard
    with pytest.raises(AttributeError, match="rank_everything"):
        _ = evidence.rank_everything
