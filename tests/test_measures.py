"""Gains, cosines and ranks of mixing matrices and streams, against loops over every token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mhc_bench.residual.measures import (
    backward_gain,
    effective_rank,
    forward_gain,
    prefix_row_sums,
    stream_cosine,
    suffix_column_sums,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("lead", [(), (3,), (2, 5), (2, 3, 5)])
def test_gains_are_the_largest_sums_of_rows_and_columns(lead: tuple[int, ...]) -> None:
    matrix = drawn(*lead, 4, 4)
    for gain, axis in ((forward_gain, 1), (backward_gain, 0)):
        expected = [np.abs(each.numpy().sum(axis)).max() for each in matrix.reshape(-1, 4, 4)]
        assert gain(matrix).flatten().tolist() == pytest.approx(expected)
        assert gain(matrix).shape == lead


def test_sums_over_depth_are_those_of_the_products_of_each_token() -> None:
    matrices = drawn(5, 3, 4, 4)
    rows, columns = prefix_row_sums(matrices), suffix_column_sums(matrices)
    assert rows.shape == columns.shape == (5, 3, 4)
    for token in range(3):
        product = np.eye(4)
        for depth in range(5):
            product = matrices[depth, token].numpy() @ product
            assert rows[depth, token].tolist() == pytest.approx(product.sum(1).tolist())
        product = np.eye(4)
        for depth in reversed(range(5)):
            product = product @ matrices[depth, token].numpy()
            assert columns[depth, token].tolist() == pytest.approx(product.sum(0).tolist())
    assert torch.equal(prefix_row_sums(matrices[:1])[0], matrices[0].sum(-1))


def test_an_overflow_stays_with_its_token_and_is_no_nan() -> None:
    matrices = drawn(4, 3, 4, 4)
    matrices[0, 2] = torch.eye(4)
    matrices[1, 2] = torch.finfo(torch.float64).max
    matrices[2, 2] = torch.diag(torch.tensor([0.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    sums = prefix_row_sums(matrices)
    assert sums[:, :2].isfinite().all() and sums[0, 2].isfinite().all()
    assert (sums[2:, 2] == torch.inf).all()
    assert torch.equal(sums[:, :2], prefix_row_sums(matrices[:, :2]))


@pytest.mark.parametrize("lead", [(), (3,), (2, 5)])
@pytest.mark.parametrize("size", [1.0, 1e-30])
def test_the_cosine_is_the_mean_over_pairs_of_different_streams(lead: tuple[int, ...], size: float) -> None:
    streams = drawn(*lead, 4, 6)
    found = stream_cosine(size * streams)
    for cosine, each in zip(found.flatten().tolist(), streams.reshape(-1, 4, 6).tolist(), strict=True):
        pairs = [
            np.dot(each[i], each[j]) / (math.hypot(*each[i]) * math.hypot(*each[j]))
            for i in range(4)
            for j in range(4)
            if i != j
        ]
        assert cosine == pytest.approx(sum(pairs) / 12)


def test_of_one_stream_there_is_no_cosine_and_of_copies_it_is_1() -> None:
    assert stream_cosine(drawn(2, 5, 1, 6)).isnan().all() and stream_cosine(drawn(2, 5, 1, 6)).shape == (2, 5)
    copies = drawn(3, 1, 6).expand(3, 4, 6)
    assert stream_cosine(copies).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("lead", [(), (3,), (2, 5)])
def test_the_effective_rank_is_the_exponential_of_the_entropy_of_singular_values(
    lead: tuple[int, ...],
) -> None:
    streams = drawn(*lead, 4, 6)
    expected = []
    for each in streams.reshape(-1, 4, 6).numpy():
        singular = np.linalg.svd(each, compute_uv=False)
        share = singular / singular.sum()
        expected.append(math.exp(-(share * np.log(share)).sum()))
    assert effective_rank(streams).flatten().tolist() == pytest.approx(expected)
    assert effective_rank(streams).shape == lead
    assert effective_rank(torch.eye(4, 6, dtype=torch.float64)).item() == pytest.approx(4)
