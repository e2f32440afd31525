// Reads and writes of one token's streams x[j][c], of n streams and `width` channels.
#pragma once
#include "sinkhorn.h"

// at(c, count) for each vector of columns; the last may have fewer than all.
template <class Vector, class At>
INLINE void over_columns(int64_t width, At at) {
    constexpr int64_t whole = lanes<Vector>;
    int64_t c = 0;
    for (; c + whole <= width; c += whole) at(c, whole);
    if (c < width) at(c, width - c);
}

// Fetch the next token's numbers from column c of each of `rows` rows: they are interleaved in too many streams for
// the processor to see it coming. One line of memory holds a vector or two.
template <bool WRITTEN>
INLINE void fetch_next(const S* from, int rows, int64_t width, int64_t c) {
    for (int j = 0; j < rows; ++j) __builtin_prefetch(from + (rows + j) * width + c, WRITTEN);
}

// Into memory past the caches, in whole vectors, or into the caches.
template <bool PAST>
INLINE void put(S* to, Wide value, int64_t count) {
    if constexpr (PAST) store_past(to, value);
    else store(to, value, count);
}

// hidden[c] = sum over j of pre[j] x[j][c]
INLINE void aggregate(const S* x, const S* pre, S* hidden, int64_t width) {
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        Wide total = pre[0] * load<Wide>(x + c, count);
        for (int j = 1; j < n; ++j) total += pre[j] * load<Wide>(x + j * width + c, count);
        store(hidden + c, total, count);
    };
    over_columns<Wide>(width, at);
}

// out[i][c] = sum over j of res[i][j] x[j][c], plus post[i] update[c]
template <bool PAST>
INLINE void write_token(const S* x, const S* update, const S* post, const S* res, S* out, int64_t width) {
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        fetch_next<false>(x, n, width, c), fetch_next<false>(update, 1, width, c);
        if constexpr (!PAST) fetch_next<true>(out, n, width, c);
        Wide added = load<Wide>(update + c, count), seen[n];
        for (int j = 0; j < n; ++j) seen[j] = load<Wide>(x + j * width + c, count);
        for (int i = 0; i < n; ++i) {
            Wide total = post[i] * added;
            for (int j = 0; j < n; ++j) total += res[i * n + j] * seen[j];
            put<PAST>(out + i * width + c, total, count);
        }
    };
    over_columns<Wide>(width, at);
}

// The gradients of the stream and the update from that of the written stream, g[i][c].
template <bool PAST>
INLINE void write_token_inputs(const S* g, const S* post, const S* res, S* grad_x, S* grad_update, int64_t width) {
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        if constexpr (!PAST) fetch_next<true>(grad_x, n, width, c), fetch_next<true>(grad_update, 1, width, c);
        Wide given[n];
        for (int i = 0; i < n; ++i) given[i] = load<Wide>(g + i * width + c, count);
        Wide total = post[0] * given[0];
        for (int i = 1; i < n; ++i) total += post[i] * given[i];
        put<PAST>(grad_update + c, total, count);
        for (int j = 0; j < n; ++j) {
            total = res[j] * given[0];
            for (int i = 1; i < n; ++i) total += res[i * n + j] * given[i];
            put<PAST>(grad_x + j * width + c, total, count);
        }
    };
    over_columns<Wide>(width, at);
}

// The gradients of res and post, two output streams at a time: their sums stay in registers.
template <int PAIR>
INLINE void write_token_maps(
    const S* g, const S* x, const S* update, S* grad_post, S* grad_res, int64_t width, int i) {
    V to_post[PAIR]{}, to_res[PAIR][n]{};
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        if (i == 0) {
            fetch_next<false>(x, n, width, c), fetch_next<false>(g, n, width, c);
            fetch_next<false>(update, 1, width, c);
        }
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
    over_columns<V>(width, at);
    for (int p = 0; p < PAIR; ++p) {
        grad_post[i + p] = sum(to_post[p]);
        for (int j = 0; j < n; ++j) grad_res[(i + p) * n + j] = sum(to_res[p][j]);
    }
}

// dots[j] = sum over c of x[j][c] hidden[c]
INLINE void stream_dots(const S* x, const S* hidden, S* dots, int64_t width) {
    V totals[n]{};
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        fetch_next<false>(x, n, width, c), fetch_next<false>(hidden, 1, width, c);
        V given = load(hidden + c, count);
        for (int j = 0; j < n; ++j) totals[j] += given * load(x + j * width + c, count);
    };
    over_columns<V>(width, at);
    for (int j = 0; j < n; ++j) dots[j] = sum(totals[j]);
}

// sums[r] = sum over c of x[r][c]^2 for TILE rows together: each is a chain of additions that wait for one another.
template <int TILE>
INLINE void squares(const S* x, int64_t width, S* sums) {
    V totals[TILE]{};
    auto at = [&](int64_t c, int64_t count) INLINE_LAMBDA {
        for (int r = 0; r < TILE; ++r) {
            V seen = load(x + r * width + c, count);
            totals[r] += seen * seen;
        }
    };
    over_columns<V>(width, at);
    for (int r = 0; r < TILE; ++r) sums[r] = sum(totals[r]);
}
