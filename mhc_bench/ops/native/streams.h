// Reads and writes of one token's streams x[j][c], of n streams and `width` channels.
#pragma once
#include "sinkhorn.h"

// at(c, count) for each vector of columns; the last may have fewer than LANES.
template <class At>
INLINE void over_columns(int64_t width, At at) {
    int64_t c = 0;
    for (; c + LANES <= width; c += LANES) at(c, LANES);
    if (c < width) at(c, width - c);
}

// hidden[c] = sum over j of pre[j] x[j][c]
INLINE void aggregate(const S* x, const S* pre, S* hidden, int64_t width) {
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        V total = pre[0] * load(x + c, count);
        for (int j = 1; j < n; ++j) total += pre[j] * load(x + j * width + c, count);
        store(hidden + c, total, count);
    };
    over_columns(width, at);
}

// out[i][c] = sum over j of res[i][j] x[j][c], plus post[i] update[c]
INLINE void write_token(const S* x, const S* update, const S* post, const S* res, S* out, int64_t width) {
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        V added = load(update + c, count), seen[n];
        for (int j = 0; j < n; ++j) seen[j] = load(x + j * width + c, count);
        for (int i = 0; i < n; ++i) {
            V total = post[i] * added;
            for (int j = 0; j < n; ++j) total += res[i * n + j] * seen[j];
            store(out + i * width + c, total, count);
        }
    };
    over_columns(width, at);
}

// The gradients of the stream and the update from that of the written stream, g[i][c].
INLINE void write_token_inputs(const S* g, const S* post, const S* res, S* grad_x, S* grad_update, int64_t width) {
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        V given[n];
        for (int i = 0; i < n; ++i) given[i] = load(g + i * width + c, count);
        V total = post[0] * given[0];
        for (int i = 1; i < n; ++i) total += post[i] * given[i];
        store(grad_update + c, total, count);
        for (int j = 0; j < n; ++j) {
            total = res[j] * given[0];
            for (int i = 1; i < n; ++i) total += res[i * n + j] * given[i];
            store(grad_x + j * width + c, total, count);
        }
    };
    over_columns(width, at);
}

// The gradients of res and post, two output streams at a time: their sums stay in registers.
template <int PAIR>
INLINE void write_token_maps(
    const S* g, const S* x, const S* update, S* grad_post, S* grad_res, int64_t width, int i) {
    V to_post[PAIR]{}, to_res[PAIR][n]{};
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        V given[PAIR], added = load(update + c, count);
        for (int p = 0; p < PAIR; ++p) {
            given[p] = load(g + (i + p) * width + c, count);
            to_post[p] += given[p] * added;
        }
        for (int j = 0; j < n; ++j) {
            V seen = load(x + j * width + c, count);
            for (int p = 0; p < PAIR; ++p) to_res[p][j] += given[p] * seen;
        }
    };
    over_columns(width, at);
    for (int p = 0; p < PAIR; ++p) {
        grad_post[i + p] = sum(to_post[p]);
        for (int j = 0; j < n; ++j) grad_res[(i + p) * n + j] = sum(to_res[p][j]);
    }
}

// dots[j] = sum over c of x[j][c] hidden[c]
INLINE void stream_dots(const S* x, const S* hidden, S* dots, int64_t width) {
    V totals[n]{};
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        V given = load(hidden + c, count);
        for (int j = 0; j < n; ++j) totals[j] += given * load(x + j * width + c, count);
    };
    over_columns(width, at);
    for (int j = 0; j < n; ++j) dots[j] = sum(totals[j]);
}

INLINE S squares(const S* x, int64_t width) {
    V total{};
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        V seen = load(x + c, count);
        total += seen * seen;
    };
    over_columns(width, at);
    return sum(total);
}
