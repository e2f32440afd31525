// From normalised projections to the maps of LANES tokens, and back. Entries are vectors over tokens.
#pragma once
#include "sinkhorn.h"

struct Maps {
    V pre[n], post[n], res[n][n];  // res as [out][in]
};

struct Scratch {
    V *columns, *rows;  // [iterations][n] each
    int64_t iterations;
};

// mHC: one projection of all streams together, rows of the weight for pre, post and res.
struct Mhc {
    static constexpr int ROWS = 1, ENTRIES = 2 * n + n * n;
    static constexpr int SUMS = 2 * ENTRIES;  // gradients: bias, and what the gate of each entry gets
    static constexpr bool WHOLE = true;       // the projection sees n*C entries at once
    S bias[ENTRIES], gates[ENTRIES];

    // pre, post or res: which of the three an entry belongs to
    static int part(int k) { return k < n ? 0 : k < 2 * n ? 1 : 2; }

    template <class Pointer>
    static Pointer weight(Pointer const* p, int k, int64_t width) {
        return p[part(k)] + (k - part(k) * n) * width;
    }

    explicit Mhc(const S* const* p) {
        for (int k = 0; k < ENTRIES; ++k) {
            bias[k] = p[3 + part(k)][k - part(k) * n];
            gates[k] = p[6 + part(k)][0];
        }
    }

    INLINE void evaluate(const V* z, Sinkhorn& mixing, Maps& maps, int64_t iterations) const {
        V res[n][n];
        for (int i = 0; i < n; ++i) {
            maps.pre[i] = sigmoid(bias[i] + z[i] * gates[i]);
            maps.post[i] = S(2) * sigmoid(bias[n + i] + z[n + i] * gates[n + i]);
            for (int j = 0; j < n; ++j) {
                const int k = 2 * n + i * n + j;
                res[i][j] = bias[k] + z[k] * gates[k];
            }
        }
        mixing.forward(res, iterations);
    }

    INLINE void forward(const V* z, Scratch& scratch, Maps& maps) const {
        Sinkhorn mixing(scratch.columns, scratch.rows);
        evaluate(z, mixing, maps, scratch.iterations);
        std::memcpy(maps.res, mixing.matrix, sizeof(maps.res));
    }

    // From the gradients of the maps to those of the normalised projections; `z`'s own maps into `maps`.
    INLINE void backward(const V* z, Scratch& scratch, Maps& maps, Maps& grad, V* grad_z, V* sums) const {
        Sinkhorn mixing(scratch.columns, scratch.rows);
        evaluate(z, mixing, maps, scratch.iterations);
        mixing.backward(grad.res, scratch.iterations);
        for (int i = 0; i < n; ++i) {
            grad_z[i] = grad.pre[i] * maps.pre[i] * (S(1) - maps.pre[i]);
            grad_z[n + i] = grad.post[i] * maps.post[i] * (S(1) - S(0.5) * maps.post[i]);
            for (int j = 0; j < n; ++j) grad_z[2 * n + i * n + j] = grad.res[i][j];
        }
        for (int k = 0; k < ENTRIES; ++k) {
            sums[k] += grad_z[k];
            sums[ENTRIES + k] += grad_z[k] * z[k];
            grad_z[k] *= gates[k];
        }
    }

    static void finish(const S* sums, S* const* p) {
        p[6][0] = p[7][0] = p[8][0] = 0;
        for (int k = 0; k < ENTRIES; ++k) {
            p[3 + part(k)][k - part(k) * n] = sums[k];
            p[6 + part(k)][0] += sums[ENTRIES + k];
        }
    }
};

// Hyper-Connections: each stream by itself; rows of the weight for pre, post and each output stream.
struct Hc {
    static constexpr int ROWS = n, ENTRIES = 2 + n;
    static constexpr int SUMS = 2 * n + n * n + 2;  // gradients: pre, post, res, and the two scales
    static constexpr bool WHOLE = false;
    const S *pre, *post, *res;
    S mix, write;

    template <class Pointer>
    static Pointer weight(Pointer const* p, int k, int64_t width) {
        return p[0] + k * width;
    }

    explicit Hc(const S* const* p) : pre(p[1]), post(p[2]), res(p[3]), mix(p[4][0]), write(p[5][0]) {}

    INLINE void forward(const V* z, Scratch&, Maps& maps) const {
        for (int j = 0; j < n; ++j) {
            const V* seen = z + j * ENTRIES;
            maps.pre[j] = pre[j] + mix * hyperbolic_tangent(seen[0]);
            maps.post[j] = post[j] + write * hyperbolic_tangent(seen[1]);
            for (int i = 0; i < n; ++i)
                maps.res[i][j] = res[i * n + j] + mix * hyperbolic_tangent(seen[2 + i]);
        }
    }

    INLINE void backward(const V* z, Scratch&, Maps& maps, Maps& grad, V* grad_z, V* sums) const {
        V& sum_mix = sums[SUMS - 2];
        V& sum_write = sums[SUMS - 1];
        for (int j = 0; j < n; ++j) {
            V dynamic[ENTRIES], given[ENTRIES];
            for (int k = 0; k < ENTRIES; ++k) {
                dynamic[k] = hyperbolic_tangent(z[j * ENTRIES + k]);
                given[k] = k == 0 ? grad.pre[j] : k == 1 ? grad.post[j] : grad.res[k - 2][j];
                (k == 1 ? sum_write : sum_mix) += given[k] * dynamic[k];
                const S scale = k == 1 ? write : mix;
                grad_z[j * ENTRIES + k] = given[k] * scale * (S(1) - dynamic[k] * dynamic[k]);
            }
            maps.pre[j] = pre[j] + mix * dynamic[0];
            sums[j] += grad.pre[j];
            sums[n + j] += grad.post[j];
            for (int i = 0; i < n; ++i) sums[2 * n + i * n + j] += grad.res[i][j];
        }
    }

    static void finish(const S* sums, S* const* p) {
        for (int j = 0; j < n; ++j) p[1][j] = sums[j], p[2][j] = sums[n + j];
        for (int k = 0; k < n * n; ++k) p[3][k] = sums[2 * n + k];
        p[4][0] = sums[SUMS - 2], p[5][0] = sums[SUMS - 1];
    }
};
