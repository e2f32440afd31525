// Sinkhorn-Knopp for LANES tokens at once: what `mhc_bench/ops/sinkhorn.py` computes and says, in registers.
#pragma once
#include "vectors.h"

constexpr int n = STREAMS;
constexpr S FLOOR = -80;  // the least logit relative to the largest of its column

struct Sinkhorn {
    V matrix[n][n];  // [out][in]
    Mask raised[n][n], largest[n][n];
    V *columns, *rows;  // [iterations][n], the sums that were divided by

    Sinkhorn(V* columns, V* rows) : columns(columns), rows(rows) {}

    INLINE void forward(const V logits[n][n], int64_t iterations) {
        for (int j = 0; j < n; ++j) {
            V top = logits[0][j];
            for (int i = 1; i < n; ++i) top = larger(top, logits[i][j]);
            for (int i = 0; i < n; ++i) {
                V shifted = logits[i][j] - top;
                raised[i][j] = shifted < FLOOR;
                largest[i][j] = shifted == S(0);
                matrix[i][j] = exponential(raised[i][j] ? splat(FLOOR) : shifted);
            }
        }
        for (int64_t round = 0; round < iterations; ++round) {
            for (int j = 0; j < n; ++j) {
                V total = matrix[0][j];
                for (int i = 1; i < n; ++i) total += matrix[i][j];
                columns[round * n + j] = total;
                V inverse = S(1) / total;
                for (int i = 0; i < n; ++i) matrix[i][j] *= inverse;
            }
            for (int i = 0; i < n; ++i) {
                V total = matrix[i][0];
                for (int j = 1; j < n; ++j) total += matrix[i][j];
                rows[round * n + i] = total;
                V inverse = S(1) / total;
                for (int j = 0; j < n; ++j) matrix[i][j] *= inverse;
            }
        }
    }

    // The gradient of the logits in place of that of the matrix; multiplies the sums back into `matrix`.
    INLINE void backward(V grad[n][n], int64_t iterations) {
        for (int i = 0; i < n; ++i)
            for (int j = 0; j < n; ++j) grad[i][j] *= matrix[i][j];
        for (int64_t round = iterations - 1; round >= 0; --round) {
            for (int i = 0; i < n; ++i) {
                V total = grad[i][0];
                for (int j = 1; j < n; ++j) total += grad[i][j];
                for (int j = 0; j < n; ++j) {
                    grad[i][j] -= matrix[i][j] * total;
                    matrix[i][j] *= rows[round * n + i];
                }
            }
            for (int j = 0; j < n; ++j) {
                V total = grad[0][j];
                for (int i = 1; i < n; ++i) total += grad[i][j];
                for (int i = 0; i < n; ++i) {
                    grad[i][j] -= matrix[i][j] * total;
                    matrix[i][j] *= columns[round * n + j];
                }
            }
        }
        for (int j = 0; j < n; ++j) {
            V lost{}, holders{};
            for (int i = 0; i < n; ++i) {
                lost += raised[i][j] ? grad[i][j] : V{};
                holders += largest[i][j] ? splat(1) : V{};
            }
            lost /= holders;
            for (int i = 0; i < n; ++i) {
                const V share = largest[i][j] ? splat(1) : V{};  // times NaN it stays NaN, even where it is 0
                grad[i][j] = (raised[i][j] ? V{} : grad[i][j]) + share * lost;
            }
        }
    }
};
