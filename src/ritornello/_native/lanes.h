// Vectors of floats as wide as the instruction set this file is compiled for, and the sizes of tiles that fit its registers.
//
// GCC's and Clang's vector types compile to AVX-512, AVX2, NEON or anything else; only the three sizes below are chosen by hand.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int LANES = 16, WIDE = 2, STEPS = 4;  // floats in a vector; vectors in a tile's row; tokens in one pass over a tile
#elif defined(__AVX2__)
constexpr int LANES = 8, WIDE = 2, STEPS = 2;
#else  // NEON, SSE2 and the rest
constexpr int LANES = 4, WIDE = 2, STEPS = 2;
#endif

typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));

inline Lanes load(const float* from) {
    Lanes x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline void store(float* to, Lanes x) { std::memcpy(to, &x, sizeof x); }

// The first `count` floats, zeros after them; a tile may reach over the end of a row.
inline Lanes load_some(const float* from, int64_t count) {
    if (count >= LANES) return load(from);
    Lanes x{};
    if (count > 0) std::memcpy(&x, from, count * sizeof(float));
    return x;
}

inline void store_some(float* to, Lanes x, int64_t count) {
    if (count >= LANES) store(to, x);
    else if (count > 0) std::memcpy(to, &x, count * sizeof(float));
}

inline Lanes splat(float x) { return x - Lanes{}; }
