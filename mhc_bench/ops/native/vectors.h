// Vectors of LANES numbers, and the few functions of them that the maps need. SCALAR is float or double.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

using S = SCALAR;
using Bits = std::conditional_t<sizeof(S) == 4, int32_t, int64_t>;
constexpr int LANES = 8;
typedef S V __attribute__((vector_size(LANES * sizeof(S))));
typedef Bits Mask __attribute__((vector_size(LANES * sizeof(S))));

INLINE V splat(S value) { return V{} + value; }

// `count` of a vector's numbers, from or to memory of any alignment; the rest is 0 or left alone.
INLINE V load(const S* from, int64_t count = LANES) {
    V value{};
    if (count == LANES) std::memcpy(&value, from, sizeof(V));
    else std::memcpy(&value, from, count * sizeof(S));
    return value;
}

INLINE void store(S* to, V value, int64_t count = LANES) {
    if (count == LANES) std::memcpy(to, &value, sizeof(V));
    else std::memcpy(to, &value, count * sizeof(S));
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
