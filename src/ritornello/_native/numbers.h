// Functions of vectors: what gates and activations need, to about 2e-7.
#pragma once

#include "exp.h"

typedef int32_t Ints __attribute__((vector_size(sizeof(Lanes))));
typedef uint32_t Bits __attribute__((vector_size(sizeof(Lanes))));

inline Lanes choose(Ints where, Lanes yes, Lanes no) { return (Lanes)(((Ints)yes & where) | ((Ints)no & ~where)); }

inline Lanes larger(Lanes a, Lanes b) { return choose(b > a, b, a); }

inline Lanes size(Lanes x) { return (Lanes)((Bits)x & 0x7fffffffu); }

inline float total(Lanes x) {
    float half[LANES];
    store(half, x);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) half[i] += half[i + width];
    return half[0];
}

inline Lanes sigmoid(Lanes x) {
    const Lanes e = exp_of(-size(x));
    return choose(x < 0.0f, e, splat(1.0f)) / (1.0f + e);
}

inline Lanes silu(Lanes x) { return x * sigmoid(x); }

// Near zero its series, elsewhere by e^-2|x|.
inline Lanes tanh(Lanes x) {
    const Lanes s = x * x, e = exp_of(-2.0f * size(x)), far = (1.0f - e) / (1.0f + e);
    const Lanes near = x * (1.0f + s * (-1.0f / 3 + s * (2.0f / 15 + s * (-17.0f / 315 + s * (62.0f / 2835 - s * (1382.0f / 155925))))));
    return choose(s < 0.1f, near, choose(x < 0.0f, -far, far));
}
