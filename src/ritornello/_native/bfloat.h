// Lanes from and to float32 or bfloat16, by the type of the pointer; the first `count` of them at the end of a row.
#pragma once

#include <algorithm>

#include "lanes.h"

typedef uint16_t Bfloat;

inline Lanes get(const float* from) { return load(from); }

inline Lanes get(const Bfloat* from) {
    typedef Bfloat Halves __attribute__((vector_size(LANES * sizeof(Bfloat))));
    typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));
    Halves x;
    std::memcpy(&x, from, sizeof x);
    return (Lanes)(__builtin_convertvector(x, Words) << 16);
}

inline void put(float* to, Lanes x) { store(to, x); }

inline void put(Bfloat* to, Lanes x) {  // to the nearest, ties to even
    typedef Bfloat Halves __attribute__((vector_size(LANES * sizeof(Bfloat))));
    typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));
    const Words bits = (Words)x;
    const Halves y = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Halves);
    std::memcpy(to, &y, sizeof y);
}

template <class Number>
Lanes get_some(const Number* from, int64_t count, float rest = 0) {
    if (count >= LANES) return get(from);
    Number some[LANES] = {};
    std::copy_n(from, count, some);
    Lanes x = get(some);
    for (int64_t i = count; i < LANES; ++i) x[i] = rest;
    return x;
}

template <class Number>
void put_some(Number* to, Lanes x, int64_t count) {
    if (count >= LANES) return put(to, x);
    Number some[LANES];
    put(some, x);
    std::copy_n(some, count, to);
}
