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
    using Vector = std::conditional_t<(Kind::ENTRIES > LANES), Wide, V>;
    static constexpr int LONG = lanes<Vector>, VECTORS = (Kind::ENTRIES + LONG - 1) / LONG;
    std::vector<Vector> values;

    Columns(const S* const* parameters, int64_t width) : values(row_width<Kind>(width) * VECTORS) {
        for (int k = 0; k < Kind::ENTRIES; ++k) {
            const S* row = Kind::weight(parameters, k, row_width<Kind>(width));
            for (int64_t c = 0; c < row_width<Kind>(width); ++c) values[c * VECTORS + k / LONG][k % LONG] = row[c];
        }
    }
};

// out[row][FIRST..] += sum over c of x[row][c] weight[c][FIRST..], for TILE rows; up to three vectors at once.
template <int VECTORS, int TILE, int FIRST = 0, class Vector>
INLINE void dot_tile(const S* x, int64_t stride, const Vector* weight, int64_t from, int64_t to, Vector* out) {
    constexpr int TAKEN = VECTORS - FIRST < 3 ? VECTORS - FIRST : 3;
    Vector total[TILE][TAKEN];
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
template <int VECTORS, class Vector>
void project(const S* x, int64_t rows, int64_t stride, const Vector* weight, Vector* out) {
    constexpr int TILE = VECTORS == 1 ? 8 : 4;
    for (int64_t k = 0; k < rows * VECTORS; ++k) out[k] = Vector{};
    for (int64_t from = 0; from < stride; from += STRETCH) {
        const int64_t to = from + STRETCH < stride ? from + STRETCH : stride;
        int64_t r = 0;
        for (; r + TILE <= rows; r += TILE)
            dot_tile<VECTORS, TILE>(x + r * stride, stride, weight, from, to, out + r * VECTORS);
        for (; r < rows; ++r) dot_tile<VECTORS, 1>(x + r * stride, stride, weight, from, to, out + r * VECTORS);
    }
}

// The weight, or its gradient, as [stream or 1][panel of SPAN columns][entry].
template <class Kind>
struct Panels {
    int64_t width, panels;
    std::vector<Wide> values;

    explicit Panels(int64_t width)
        : width(width), panels((width + SPAN - 1) / SPAN), values((Kind::WHOLE ? n : 1) * panels * Kind::ENTRIES) {}

    Panels(const S* const* parameters, int64_t width) : Panels(width) {
        each([&](Wide& panel, int k, int64_t column, int64_t count) {
            panel = load<Wide>(Kind::weight(parameters, k, row_width<Kind>(width)) + column, count);
        });
    }

    Wide* at(int stream, int64_t panel) {
        return values.data() + ((Kind::WHOLE ? stream * panels : 0) + panel) * Kind::ENTRIES;
    }

    // visit(vector, entry, first column in the row, how many columns)
    template <class Visit>
    void each(Visit visit) {
        for (int j = 0; j < (Kind::WHOLE ? n : 1); ++j)
            for (int64_t p = 0; p < panels; ++p)
                for (int k = 0; k < Kind::ENTRIES; ++k) {
                    const int64_t c = p * SPAN, count = c + SPAN <= width ? SPAN : width - c;
                    visit(at(j, p)[k], k, j * width + c, count);
                }
    }
};

// The same columns of all tokens of a block, ACROSS vectors of each: rows lie a power of two apart in memory,
// and their lines would drive each other out of the cache.
template <int ACROSS>
struct Slice {
    Wide seen[BLOCK][ACROSS];

    INLINE Slice(const S* x, int64_t stride, int tokens, int64_t count) {
        for (int t = 0; t < tokens; ++t)
            for (int w = 0; w < ACROSS; ++w) seen[t][w] = load<Wide>(x + t * stride + w * SPAN, count);
    }
};

// grad_weight[k] += sum over tokens of coefficients[token][k] x[token], in three quarters of the registers.
template <int ENTRIES, int ACROSS, int FIRST = 0>
INLINE void add_outer(const Slice<ACROSS>& x, const S* coefficients, int64_t stride, int tokens, Wide* grad_weight) {
    constexpr int MOST = REGISTERS * 3 / 4 / ACROSS, TAKEN = ENTRIES - FIRST < MOST ? ENTRIES - FIRST : MOST;
    Wide total[TAKEN][ACROSS];
    for (int k = 0; k < TAKEN; ++k)
        for (int w = 0; w < ACROSS; ++w) total[k][w] = grad_weight[w * ENTRIES + FIRST + k];
    for (int t = 0; t < tokens; ++t)
        for (int k = 0; k < TAKEN; ++k)
            for (int w = 0; w < ACROSS; ++w) total[k][w] += coefficients[t * stride + FIRST + k] * x.seen[t][w];
    for (int k = 0; k < TAKEN; ++k)
        for (int w = 0; w < ACROSS; ++w) grad_weight[w * ENTRIES + FIRST + k] = total[k][w];
    if constexpr (FIRST + TAKEN < ENTRIES)
        add_outer<ENTRIES, ACROSS, FIRST + TAKEN>(x, coefficients, stride, tokens, grad_weight);
}

// total[token] += sum over k of coefficients[token][k] weight[k]
template <int ENTRIES, int ACROSS, int TILE>
INLINE void add_rows(const S* coefficients, int64_t stride, const Wide* weight, Wide total[TILE][ACROSS]) {
    for (int k = 0; k < ENTRIES; ++k)
        for (int t = 0; t < TILE; ++t)
            for (int w = 0; w < ACROSS; ++w) total[t][w] += coefficients[t * stride + k] * weight[w * ENTRIES + k];
}
