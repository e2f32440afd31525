// Vectors of LANES numbers, and the few functions of them that the maps need. SCALAR is float or double.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

using S = SCALAR;
using Bits = std::conditional_t<sizeof(S) == 4, int32_t, int64_t>;
constexpr int LANES = 8;
typedef S V __attribute__((vector_size(LANES * sizeof(S))));
typedef Bits Mask __attribute__((vector_size(LANES * sizeof(S))));

// Where nothing is summed over its lanes a vector may be as wide as the processor's registers: no bit depends on it.
#ifdef __AVX512F__
constexpr int SPAN = 64 / sizeof(S), REGISTERS = 32;
#else
constexpr int SPAN = LANES, REGISTERS = 16;
#endif
typedef S Wide __attribute__((vector_size(SPAN * sizeof(S))));

INLINE V splat(S value) { return V{} + value; }

template <class Vector>
constexpr int lanes = sizeof(Vector) / sizeof(S);

// `count` of a vector's numbers, from or to memory of any alignment; the rest is 0 or left alone.
template <class Vector = V>
INLINE Vector load(const S* from, int64_t count = lanes<Vector>) {
    Vector value{};
    if (count == lanes<Vector>) std::memcpy(&value, from, sizeof(Vector));
    else std::memcpy(&value, from, count * sizeof(S));
    return value;
}

template <class Vector>
INLINE void store(S* to, Vector value, int64_t count = lanes<Vector>) {
    if (count == lanes<Vector>) std::memcpy(to, &value, sizeof(Vector));
    else std::memcpy(to, &value, count * sizeof(S));
}

// Past the caches, where the processor can: memory that is written whole needs not be read first, and what is read
// soon is not driven out. `to` is aligned to a vector. Seen by other threads after `drain`.
INLINE void store_past(S* to, Wide value) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(value));
#elif defined(__AVX__)
    __m256i halves[sizeof(Wide) / sizeof(__m256i)];
    std::memcpy(halves, &value, sizeof(Wide));
    for (size_t h = 0; h < sizeof(Wide) / sizeof(__m256i); ++h)
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to) + h, halves[h]);
#else
    store(to, value);
#endif
}

INLINE void drain() {
#ifdef __SSE2__
    _mm_sfence();
#endif
}

INLINE S sum(V v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

INLINE V larger(V a, V b) { return a > b || a != a ? a : b; }  // NaN wins

// y + y^2/2! + ... + y^8/8!: exp(y) - 1 for |y| <= log(2)/2, where the rest is below 1e-10 of it.
INLINE V expm1_series(V y) {
    V sum = splat(S(1));
    for (int k = 8; k > 1; --k) sum = S(1) + y * sum * S(1.0 / k);
    return y * sum;
}

// exp by 2^k (1 + expm1(r)) in fp32, by the library in fp64. Arguments are cut to [-87, 88]; NaN stays.
INLINE V exponential(V x) {
    if constexpr (sizeof(S) == 4) {
        x = x < S(-87) ? splat(-87) : x;
        x = x > S(88) ? splat(88) : x;
        constexpr S rounding = 12582912;  // 1.5 * 2^23: adding it leaves an integer in the low bits
        V k = (x * S(1.44269504088896) + rounding) - rounding;
        V r = (x - k * S(0.693145751953125)) - k * S(1.42860682030941723212e-6);
        Mask exponent = (__builtin_convertvector(k, Mask) + 127) << 23;
        V power;
        std::memcpy(&power, &exponent, sizeof(V));
        return power + power * expm1_series(r);
    } else {
        for (int i = 0; i < LANES; ++i) x[i] = std::exp(x[i]);
        return x;
    }
}

INLINE V sigmoid(V x) { return S(1) / (S(1) + exponential(-x)); }

// expm1(2x) / (expm1(2x) + 2): the series keeps small arguments to full relative precision.
INLINE V hyperbolic_tangent(V x) {
    if constexpr (sizeof(S) == 4) {
        V y = x * S(2);
        y = y > S(40) ? splat(40) : y;
        V size = y < S(0) ? -y : y;
        V grown = size < S(0.34) ? expm1_series(y) : exponential(y) - S(1);
        return grown / (grown + S(2));
    } else {
        for (int i = 0; i < LANES; ++i) x[i] = std::tanh(x[i]);
        return x;
    }
}
