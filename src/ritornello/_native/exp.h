// exp of lanes, to about 2e-7: e^x = 2^n e^r with |r| <= ln(2) / 2, and a polynomial for e^r. For x <= 0; below -87 zero; of NaN NaN.
#pragma once

#include "lanes.h"

inline Lanes exp_of(Lanes x) {
    typedef int32_t Ints __attribute__((vector_size(sizeof(Lanes))));
    const Lanes lowest = splat(-87.0f);
    const Ints gone = x < lowest;
    x = (Lanes)(((Ints)x & ~gone) | ((Ints)lowest & gone));
    const Lanes shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the nearest integer lies in the lowest bits
    const Lanes n = shifted - 12582912.0f;
    const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Lanes p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const Lanes e = p * r * r + r + 1.0f;
    const Ints power = ((Ints)shifted - (Ints)splat(12582912.0f) + 127) << 23;
    return (Lanes)((Ints)(e * (Lanes)power) & ~gone);
}
