// Reads and writes of n = STREAMS residual streams on a CPU, in one pass each over the streams.
//
// Tokens are taken in blocks that stay in the cache, and blocks in parts, whose number depends on that of the
// tokens alone: each part sums its parameters' gradients, the parts' sums are added in order, and so no result
// depends on how many threads there were. Compiled by `mhc_bench/ops/native/build.py` for one SCALAR and one n.
#include <algorithm>
#include <thread>

#include "projection.h"
#include "streams.h"

// Mirrored, field by field, by `mhc_bench/ops/native/call.py`. Tensors are contiguous; absent ones are null.
struct Call {
    int64_t tokens, width, iterations, threads;
    double epsilon;
    // the stream that is read, [N, n, C]; a fused write makes it
    S* stream;
    const S* const* parameters;
    // of the read: hidden [N, C], the maps, projections over their RMS [N, rows, K] and 1 / RMS [N, rows]
    S *hidden, *pre, *post, *res, *normalised, *inverse;
    // of the write: its stream, update [N, C] and maps
    const S *source, *update, *write_post, *write_res;
    // gradients that come in
    const S *grad_stream, *grad_hidden, *grad_pre, *grad_post, *grad_res;
    // gradients that go out
    S *to_stream, *to_source, *to_update, *to_write_post, *to_write_res;
    S* const* to_parameters;
};

namespace {

constexpr int64_t LINE = 64 / sizeof(S), AHEAD = 2 * LINE;
constexpr int64_t LEAST_PAST = 4 << 20;  // bytes
constexpr int64_t LEAST_PART = 512, MOST_PARTS = 16;

int64_t part_count(int64_t tokens) {
    return std::clamp<int64_t>((tokens + LEAST_PART - 1) / LEAST_PART, 1, MOST_PARTS);
}

// work(part, first token, tokens) for every block of every part
template <class Work>
void over_blocks(const Call& call, Work work) {
    const int64_t parts = part_count(call.tokens), threads = std::min(std::max<int64_t>(call.threads, 1), parts);
    const int64_t blocks = (call.tokens + BLOCK - 1) / BLOCK;
    auto run = [&](int64_t thread) {
        for (int64_t part = thread; part < parts; part += threads)
            for (int64_t block = part * blocks / parts; block < (part + 1) * blocks / parts; ++block)
                work(part, block * BLOCK, int(std::min<int64_t>(BLOCK, call.tokens - block * BLOCK)));
        drain();
    };
    std::vector<std::thread> others;
    for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(run, thread);
    run(0);
    for (auto& other : others) other.join();
}

// Whether what is made for later is stored past the caches: streams that would not stay there, in whole vectors.
struct Past {
    bool whole;

    explicit Past(const Call& call)
        : whole(call.tokens * n * call.width * int64_t(sizeof(S)) >= LEAST_PAST && call.width % SPAN == 0) {
        for (const S* to : {call.stream, call.to_stream, call.to_source, call.to_update})
            whole = whole && reinterpret_cast<uintptr_t>(to) % sizeof(Wide) == 0;
    }

    template <class Work>
    void operator()(Work work) const {
        whole ? work(std::true_type{}) : work(std::false_type{});
    }
};

template <bool PAST>
void write_block(const Call& call, int64_t first, int tokens) {
    const int64_t C = call.width;
    for (int64_t t = first; t < first + tokens; ++t)
        write_token<PAST>(call.source + t * n * C, call.update + t * C, call.write_post + t * n,
                          call.write_res + t * n * n, call.stream + t * n * C, C);
}

// `grad`: of the written streams of this block
template <bool PAST>
void write_block_backward(const Call& call, int64_t first, int tokens, const S* grad) {
    const int64_t C = call.width;
    for (int64_t t = first; t < first + tokens; ++t, grad += n * C) {
        const S *x = call.source + t * n * C, *update = call.update + t * C;
        S *to_post = call.to_write_post + t * n, *to_res = call.to_write_res + t * n * n;
        int i = 0;
        for (; i + 2 <= n; i += 2) write_token_maps<2>(grad, x, update, to_post, to_res, C, i);
        if (i < n) write_token_maps<1>(grad, x, update, to_post, to_res, C, i);
        write_token_inputs<PAST>(grad, call.write_post + t * n, call.write_res + t * n * n,
                                 call.to_source + t * n * C, call.to_update + t * C, C);
    }
}

// `count` tokens' numbers, `stride` apart, as a vector; absent tensors are 0
INLINE V gather(const S* from, int64_t stride, int count) {
    V value{};
    if (from)
        for (int t = 0; t < count; ++t) value[t] = from[t * stride];
    return value;
}

INLINE void scatter(S* to, int64_t stride, int count, V value) {
    for (int t = 0; t < count; ++t) to[t * stride] = value[t];
}

template <class Kind>
constexpr int SEEN = Kind::ROWS * Kind::ENTRIES;  // projections of one token

template <class Kind>
void read_block(const Call& call, const Kind& kind, const typename Columns<Kind>::Vector* weight, Scratch& scratch,
                int64_t first, int tokens) {
    constexpr int ROWS = Kind::ROWS, ENTRIES = Kind::ENTRIES, VECTORS = Columns<Kind>::VECTORS;
    const int64_t C = call.width, stride = row_width<Kind>(C);
    const S* x = call.stream + first * n * C;
    // first, as it takes the streams from memory in their order
    S* inverse = call.inverse + first * ROWS;
    int r = 0;
    for (; r + 4 <= tokens * ROWS; r += 4) squares<4>(x + r * stride, stride, inverse + r);
    for (; r < tokens * ROWS; ++r) squares<1>(x + r * stride, stride, inverse + r);
    for (r = 0; r < tokens * ROWS; ++r) inverse[r] = S(1) / std::sqrt(inverse[r] / stride + S(call.epsilon));
    typename Columns<Kind>::Vector raw[BLOCK * ROWS * VECTORS];
    project<VECTORS>(x, tokens * ROWS, stride, weight, raw);
    for (r = 0; r < tokens * ROWS; ++r) {
        const S* row = reinterpret_cast<const S*>(raw + r * VECTORS);
        for (int k = 0; k < ENTRIES; ++k) call.normalised[(first * ROWS + r) * ENTRIES + k] = row[k] * inverse[r];
    }
    for (int64_t t = first; t < first + tokens; t += LANES) {
        const int count = int(std::min<int64_t>(LANES, first + tokens - t));
        V z[SEEN<Kind>];
        for (int k = 0; k < SEEN<Kind>; ++k) z[k] = gather(call.normalised + t * SEEN<Kind> + k, SEEN<Kind>, count);
        Maps maps;
        kind.forward(z, scratch, maps);
        for (int i = 0; i < n; ++i) {
            scatter(call.pre + t * n + i, n, count, maps.pre[i]);
            scatter(call.post + t * n + i, n, count, maps.post[i]);
            for (int j = 0; j < n; ++j)
                scatter(call.res + (t * n + i) * n + j, n * n, count, maps.res[i][j]);
        }
    }
    for (int64_t t = first; t < first + tokens; ++t)
        aggregate(call.stream + t * n * C, call.pre + t * n, call.hidden + t * C, C);
}

// What a part of the tokens adds to the parameters' gradients.
template <class Kind>
struct Sums {
    Panels<Kind> weight;
    V others[Kind::SUMS]{};
    explicit Sums(int64_t width) : weight(width) {}
};

// Of one block: the gradient of each projection, 1 / RMS included, and the factor of the stream itself.
template <class Kind>
struct Coefficients {
    S raw[BLOCK * SEEN<Kind>], radial[BLOCK * Kind::ROWS], pre[BLOCK * n];
};

template <class Kind>
void maps_backward(const Call& call, const Kind& kind, Scratch& scratch, int64_t first, int tokens,
                   Coefficients<Kind>& found, V* sums) {
    constexpr int ROWS = Kind::ROWS, ENTRIES = Kind::ENTRIES;
    const int64_t C = call.width;
    S dots[BLOCK * n]{};
    if (call.grad_hidden)
        for (int t = 0; t < tokens; ++t)
            stream_dots(call.stream + (first + t) * n * C, call.grad_hidden + (first + t) * C, dots + t * n, C);
    auto of = [](const S* grad, int64_t at) { return grad ? grad + at : nullptr; };
    for (int b = 0; b < tokens; b += LANES) {
        const int64_t t = first + b;
        const int count = std::min(LANES, tokens - b);
        V z[SEEN<Kind>], grad_z[SEEN<Kind>];
        Maps maps, grad;
        for (int k = 0; k < SEEN<Kind>; ++k) z[k] = gather(call.normalised + t * SEEN<Kind> + k, SEEN<Kind>, count);
        for (int i = 0; i < n; ++i) {
            grad.pre[i] = gather(of(call.grad_pre, t * n + i), n, count) + gather(dots + b * n + i, n, count);
            grad.post[i] = gather(of(call.grad_post, t * n + i), n, count);
            for (int j = 0; j < n; ++j)
                grad.res[i][j] = gather(of(call.grad_res, (t * n + i) * n + j), n * n, count);
        }
        kind.backward(z, scratch, maps, grad, grad_z, sums);
        for (int i = 0; i < n; ++i) scatter(found.pre + b * n + i, n, count, maps.pre[i]);
        for (int r = 0; r < ROWS; ++r) {
            const V inverse = gather(call.inverse + t * ROWS + r, ROWS, count);
            V along{};
            for (int k = r * ENTRIES; k < (r + 1) * ENTRIES; ++k) {
                along += grad_z[k] * z[k];
                scatter(found.raw + b * SEEN<Kind> + k, SEEN<Kind>, count, grad_z[k] * inverse);
            }
            const V radial = along * inverse * inverse * S(-1.0 / row_width<Kind>(C));
            scatter(found.radial + b * ROWS + r, ROWS, count, radial);
        }
    }
}

// Of ACROSS vectors of columns from column c of stream j, `count` columns in each: the gradient of the block's
// streams, `to`, and what the block adds to that of the weight.
template <class Kind, bool PAST, int ACROSS>
INLINE void columns_backward(const Call& call, const Wide* weight, int64_t first, int tokens,
                             const Coefficients<Kind>& found, Wide* grad_weight, S* to, int j, int64_t c,
                             int64_t count) {
    constexpr int ENTRIES = Kind::ENTRIES, TILE = REGISTERS / 4;
    const int64_t C = call.width, row = Kind::WHOLE ? 0 : j;
    const S* raw = found.raw + row * ENTRIES;
    const Slice<ACROSS> x(call.stream + (first * n + j) * C + c, n * C, tokens, count);
    add_outer<ENTRIES, ACROSS>(x, raw, SEEN<Kind>, tokens, grad_weight);
    auto finish = [&](int t, const Wide* totals) INLINE_LAMBDA {
        // the row's next columns, and the next block's: too far apart for the processor to fetch them by itself
        const int64_t row_at = ((first + t) * n + j) * C + c;
        for (int64_t line = 0; line < ACROSS * SPAN; line += LINE) {
            if (call.grad_stream) __builtin_prefetch(call.grad_stream + row_at + AHEAD + line);
            if (!PAST) __builtin_prefetch(to + (t * n + j) * C + c + AHEAD + line, 1);
            __builtin_prefetch(call.stream + row_at + BLOCK * n * C + line, 0, 2);
        }
        for (int w = 0; w < ACROSS; ++w) {
            const int64_t at = c + w * SPAN;
            Wide total = totals[w] + found.radial[t * Kind::ROWS + row] * x.seen[t][w];
            if (call.grad_stream) total += load<Wide>(call.grad_stream + ((first + t) * n + j) * C + at, count);
            if (call.grad_hidden)
                total += found.pre[t * n + j] * load<Wide>(call.grad_hidden + (first + t) * C + at, count);
            put<PAST>(to + (t * n + j) * C + at, total, count);
        }
    };
    int t = 0;
    for (; t + TILE <= tokens; t += TILE) {
        Wide totals[TILE][ACROSS]{};
        add_rows<ENTRIES, ACROSS, TILE>(raw + t * SEEN<Kind>, SEEN<Kind>, weight, totals);
        for (int k = 0; k < TILE; ++k) finish(t + k, totals[k]);
    }
    for (; t < tokens; ++t) {
        Wide totals[1][ACROSS]{};
        add_rows<ENTRIES, ACROSS, 1>(raw + t * SEEN<Kind>, SEEN<Kind>, weight, totals);
        finish(t, totals[0]);
    }
}

template <class Kind, bool PAST>
void streams_backward(const Call& call, Panels<Kind>& weight, int64_t first, int tokens,
                      const Coefficients<Kind>& found, Panels<Kind>& grad_weight, S* to) {
    const int64_t C = call.width;
    for (int j = 0; j < n; ++j) {
        int64_t c = 0;
        for (; c + 2 * SPAN <= C; c += 2 * SPAN)
            columns_backward<Kind, PAST, 2>(call, weight.at(j, c / SPAN), first, tokens, found,
                                            grad_weight.at(j, c / SPAN), to, j, c, SPAN);
        for (; c < C; c += SPAN)
            columns_backward<Kind, PAST, 1>(call, weight.at(j, c / SPAN), first, tokens, found,
                                            grad_weight.at(j, c / SPAN), to, j, c, std::min<int64_t>(SPAN, C - c));
    }
}

template <class Kind>
void parameters_backward(const Call& call, std::vector<Sums<Kind>>& parts) {
    for (size_t part = 1; part < parts.size(); ++part) {
        for (size_t k = 0; k < parts[0].weight.values.size(); ++k)
            parts[0].weight.values[k] += parts[part].weight.values[k];
        for (int k = 0; k < Kind::SUMS; ++k) parts[0].others[k] += parts[part].others[k];
    }
    parts[0].weight.each([&](Wide& panel, int k, int64_t column, int64_t count) {
        store(Kind::weight(call.to_parameters, k, row_width<Kind>(call.width)) + column, panel, count);
    });
    S others[Kind::SUMS];
    for (int k = 0; k < Kind::SUMS; ++k) others[k] = sum(parts[0].others[k]);
    Kind::finish(others, call.to_parameters);
}

// One for each part, as each is run by one thread.
struct Scratches {
    std::vector<V> values;
    std::vector<Scratch> parts;
    explicit Scratches(const Call& call) : values(part_count(call.tokens) * call.iterations * 2 * n) {
        for (int64_t part = 0; part < part_count(call.tokens); ++part) {
            V* own = values.data() + part * call.iterations * 2 * n;
            parts.push_back({own, own + call.iterations * n, call.iterations});
        }
    }
};

// The read; where there is a `source`, of the stream that is written first.
template <class Kind>
void read(const Call& call) {
    const Kind kind(call.parameters);
    const Columns<Kind> weight(call.parameters, call.width);
    Scratches scratches(call);
    over_blocks(call, [&](int64_t part, int64_t first, int tokens) {
        if (call.source) write_block<false>(call, first, tokens);
        read_block(call, kind, weight.values.data(), scratches.parts[part], first, tokens);
    });
}

template <class Kind>
void read_backward(const Call& call) {
    const Kind kind(call.parameters);
    Panels<Kind> weight(call.parameters, call.width);
    Scratches scratches(call);
    std::vector<Sums<Kind>> sums(part_count(call.tokens), Sums<Kind>(call.width));
    const int64_t written = call.source ? BLOCK * n * call.width : 0;
    std::vector<S> grads(written * sums.size());
    const Past past{call};
    over_blocks(call, [&](int64_t part, int64_t first, int tokens) {
        Coefficients<Kind> found;
        maps_backward(call, kind, scratches.parts[part], first, tokens, found, sums[part].others);
        auto& weight_sums = sums[part].weight;
        if (call.source) {
            S* grad = grads.data() + part * written;
            streams_backward<Kind, false>(call, weight, first, tokens, found, weight_sums, grad);
            past([&](auto is) { write_block_backward<is>(call, first, tokens, grad); });
        } else {
            S* to = call.to_stream + first * n * call.width;
            past([&](auto is) { streams_backward<Kind, is>(call, weight, first, tokens, found, weight_sums, to); });
        }
    });
    parameters_backward(call, sums);
}

}  // namespace

extern "C" {
void mhc_read(const Call* call) { read<Mhc>(*call); }
void mhc_read_backward(const Call* call) { read_backward<Mhc>(*call); }
void hc_read(const Call* call) { read<Hc>(*call); }
void hc_read_backward(const Call* call) { read_backward<Hc>(*call); }
void write_streams(const Call* call) {
    const Past past{*call};
    over_blocks(*call, [&](int64_t, int64_t first, int tokens) {
        past([&](auto is) { write_block<is>(*call, first, tokens); });
    });
}
void write_streams_backward(const Call* call) {
    const Past past{*call};
    over_blocks(*call, [&](int64_t, int64_t first, int tokens) {
        const S* grad = call->grad_stream + first * n * call->width;
        past([&](auto is) { write_block_backward<is>(*call, first, tokens, grad); });
    });
}
}
