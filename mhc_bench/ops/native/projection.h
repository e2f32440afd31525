// Products of the streams with the projection's weight, in the two layouts that keep them in registers.
#pragma once
#include <vector>

#include "maps.h"

constexpr int BLOCK = 16;          // tokens that are worked on together, while they lie in the cache
constexpr int64_t STRETCH = 128;   // columns of the weight that lie in the first-level cache

// What Kind's projection sees as one row: `ROWS` of a token's streams, each `row_width` wide.
template <class Kind>
int64_t row_width(int64_t width) {
    return Kind::WHOLE ? n * width : width;
}

// The weight as [row_width][VECTORS]: one column's entries together, padded with zeros.
template <class Kind>
struct Columns {
    static constexpr int VECTORS = (Kind::ENTRIES + LANES - 1) / LANES;
    std::vector<V> values;

    Columns(const S* const* parameters, int64_t width) : values(row_width<Kind>(width) * VECTORS) {
        for (int k = 0; k < Kind::ENTRIES; ++k) {
            const S* row = Kind::weight(parameters, k, row_width<Kind>(width));
            for (int64_t c = 0; c < row_width<Kind>(width); ++c) values[c * VECTORS + k / LANES][k % LANES] = row[c];
        }
    }
};

// out[row][FIRST..] += sum over c of x[row][c] weight[c][FIRST..], for TILE rows; up to three vectors at once.
template <int VECTORS, int TILE, int FIRST = 0>
INLINE void dot_tile(const S* x, int64_t stride, const V* weight, int64_t from, int64_t to, V* out) {
    constexpr int TAKEN = VECTORS - FIRST < 3 ? VECTORS - FIRST : 3;
    V total[TILE][TAKEN];
    for (int t = 0; t < TILE; ++t)
        for (int v = 0; v < TAKEN; ++v) total[t][v] = out[t * VECTORS + FIRST + v];
    for (int64_t c = from; c < to; ++c)
        for (int t = 0; t < TILE; ++t)
            for (int v = 0; v < TAKEN; ++v) total[t][v] += x[t * stride + c] * weight[c * VECTORS + FIRST + v];
    for (int t = 0; t < TILE; ++t)
        for (int v = 0; v < TAKEN; ++v) out[t * VECTORS + FIRST + v] = total[t][v];
    if constexpr (FIRST + TAKEN < VECTORS) dot_tile<VECTORS, TILE, FIRST + TAKEN>(x, stride, weight, from, to, out);
}

// out[row][VECTORS] = x[row] weight, for `rows` rows one after the other in memory.
template <int VECTORS>
void project(const S* x, int64_t rows, int64_t stride, const V* weight, V* out) {
    constexpr int TILE = VECTORS == 1 ? 8 : 4;
    for (int64_t k = 0; k < rows * VECTORS; ++k) out[k] = V{};
    for (int64_t from = 0; from < stride; from += STRETCH) {
        const int64_t to = from + STRETCH < stride ? from + STRETCH : stride;
        int64_t r = 0;
        for (; r + TILE <= rows; r += TILE)
            dot_tile<VECTORS, TILE>(x + r * stride, stride, weight, from, to, out + r * VECTORS);
        for (; r < rows; ++r) dot_tile<VECTORS, 1>(x + r * stride, stride, weight, from, to, out + r * VECTORS);
    }
}

// The weight, or its gradient, as [stream or 1][panel of LANES columns][entry].
template <class Kind>
struct Panels {
    int64_t width, panels;
    std::vector<V> values;

    explicit Panels(int64_t width)
        : width(width), panels((width + LANES - 1) / LANES), values((Kind::WHOLE ? n : 1) * panels * Kind::ENTRIES) {}

    Panels(const S* const* parameters, int64_t width) : Panels(width) {
        each([&](V& panel, int k, int64_t column, int64_t count) {
            panel = load(Kind::weight(parameters, k, row_width<Kind>(width)) + column, count);
        });
    }

    V* at(int stream, int64_t panel) {
        return values.data() + ((Kind::WHOLE ? stream * panels : 0) + panel) * Kind::ENTRIES;
    }

    // visit(vector, entry, first column in the row, how many columns)
    template <class Visit>
    void each(Visit visit) {
        for (int j = 0; j < (Kind::WHOLE ? n : 1); ++j)
            for (int64_t p = 0; p < panels; ++p)
                for (int k = 0; k < Kind::ENTRIES; ++k) {
                    const int64_t c = p * LANES, count = c + LANES <= width ? LANES : width - c;
                    visit(at(j, p)[k], k, j * width + c, count);
                }
    }
};

// The same columns of all tokens of a block, WIDE vectors of each: rows lie a power of two apart in memory, and
// their lines would drive each other out of the cache.
template <int WIDE>
struct Slice {
    V seen[BLOCK][WIDE];

    INLINE Slice(const S* x, int64_t stride, int tokens, int64_t count) {
        for (int t = 0; t < tokens; ++t)
            for (int w = 0; w < WIDE; ++w) seen[t][w] = load(x + t * stride + w * LANES, count);
    }
};

// grad_weight[k] += sum over tokens of coefficients[token][k] x[token], twelve vectors at a time.
template <int ENTRIES, int WIDE, int FIRST = 0>
INLINE void add_outer(const Slice<WIDE>& x, const S* coefficients, int64_t stride, int tokens, V* grad_weight) {
    constexpr int TAKEN = ENTRIES - FIRST < 12 / WIDE ? ENTRIES - FIRST : 12 / WIDE;
    V total[TAKEN][WIDE];
    for (int k = 0; k < TAKEN; ++k)
        for (int w = 0; w < WIDE; ++w) total[k][w] = grad_weight[w * ENTRIES + FIRST + k];
    for (int t = 0; t < tokens; ++t)
        for (int k = 0; k < TAKEN; ++k)
            for (int w = 0; w < WIDE; ++w) total[k][w] += coefficients[t * stride + FIRST + k] * x.seen[t][w];
    for (int k = 0; k < TAKEN; ++k)
        for (int w = 0; w < WIDE; ++w) grad_weight[w * ENTRIES + FIRST + k] = total[k][w];
    if constexpr (FIRST + TAKEN < ENTRIES)
        add_outer<ENTRIES, WIDE, FIRST + TAKEN>(x, coefficients, stride, tokens, grad_weight);
}

// total[token] += sum over k of coefficients[token][k] weight[k]
template <int ENTRIES, int WIDE, int TILE>
INLINE void add_rows(const S* coefficients, int64_t stride, const V* weight, V total[TILE][WIDE]) {
    for (int k = 0; k < ENTRIES; ++k)
        for (int t = 0; t < TILE; ++t)
            for (int w = 0; w < WIDE; ++w) total[t][w] += coefficients[t * stride + k] * weight[w * ENTRIES + k];
}
