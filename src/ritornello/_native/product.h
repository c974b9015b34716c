// The product of a packed matrix with a vector of each row of a batch.
//
// Lanes are outputs: a block holds LANES rows of the matrix, column by column (UNIT columns of each row side by side), so that no sum goes
// across lanes. With one row in the batch the block is one stream of memory, and memory is the limit; with more, a block's weights are read
// from memory once and stay in the first-level cache for all of them.
#pragma once

#include <algorithm>
#include <type_traits>

#include "numbers.h"

constexpr int64_t PAD = 32;                      // rows and columns of a packed matrix, and floats of a register, come in so many
constexpr int MOST = LANES == 16 ? 8 : LANES == 8 ? 4 : 2;  // rows of the batch whose sums fit the registers beside each other

struct Float32 {
    typedef float Weight;
    typedef float Input;
    typedef Lanes Sum;
    static constexpr int64_t UNIT = 1;
    static Sum add(Sum sum, const Weight* w, const Input* x) { return sum + load(w) * x[0]; }
};

// The upper halves of floats; inputs stay floats.
struct BFloat16 {
    typedef uint16_t Weight;
    typedef float Input;
    typedef Lanes Sum;
    static constexpr int64_t UNIT = 2;
    static Sum add(Sum sum, const Weight* w, const Input* x) {
        Bits pair;
        std::memcpy(&pair, w, sizeof pair);
        return sum + (Lanes)(pair << 16) * x[0] + (Lanes)(pair & 0xffff0000u) * x[1];
    }
};

// Weights are signed bytes, inputs bytes above 128: four products at a time into one 32-bit sum.
struct Int8 {
    typedef int8_t Weight;
    typedef uint8_t Input;
    typedef Ints Sum;
    static constexpr int64_t UNIT = 4;
    static Sum add(Sum sum, const Weight* w, const Input* x) {
        Bits four;
        std::memcpy(&four, w, sizeof four);
        sum += ((Ints)(four << 24) >> 24) * int32_t(x[0]) + ((Ints)(four << 16) >> 24) * int32_t(x[1]);
        return sum + ((Ints)(four << 8) >> 24) * int32_t(x[2]) + ((Ints)four >> 24) * int32_t(x[3]);
    }
};

#if defined(__AVX512F__)
// The same sums by AVX-512's instruction for them, which only some processors have: written out, as the rest is compiled for all.
struct Vnni : Int8 {
    static Sum add(Sum sum, const Weight* w, const Input* x) {
        int32_t four;
        std::memcpy(&four, x, sizeof four);
        const Ints inputs = four - Ints{};
        Ints weights;
        std::memcpy(&weights, w, sizeof weights);
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(inputs), "v"(weights));
        return sum;
    }
};
#endif

struct Product {
    int64_t rows, columns;       // outputs to write; columns of the packed matrix
    const void* weight;
    const float *scale, *bias;   // scale: of each row of bytes
    const int32_t* excess;       // 128 times each row's sum of bytes
    bool add;                    // to what the output holds
};

inline Lanes value(Lanes sum, const Product&, int64_t, float) { return sum; }

inline Lanes value(Ints sum, const Product& p, int64_t row, float scale) {
    Ints excess;
    std::memcpy(&excess, p.excess + row, sizeof excess);
    return __builtin_convertvector(sum - excess, Lanes) * load(p.scale + row) * scale;
}

template <class Sum>
void finish(const Product& p, int64_t row, Sum sum, float scale, float* y) {
    Lanes out = value(sum, p, row, scale);
    if (p.bias) out += load(p.bias + row);
    if (p.add) out += load_some(y + row, p.rows - row);
    store_some(y + row, out, p.rows - row);
}

// One block, one row of the batch: four sums in turn, so that an addition need not wait for the one before.
template <class Type>
void single(const Product& p, int64_t row, const typename Type::Input* x, float scale, float* y) {
    const auto* w = static_cast<const typename Type::Weight*>(p.weight) + row * p.columns;
    typename Type::Sum sums[4] = {};
    for (int64_t c = 0; c < p.columns; c += 4 * Type::UNIT)
        for (int i = 0; i < 4; ++i) sums[i] = Type::add(sums[i], w + (c + i * Type::UNIT) * LANES, x + c + i * Type::UNIT);
    finish(p, row, (sums[0] + sums[1]) + (sums[2] + sums[3]), scale, y);
}

// Two blocks, N rows of the batch.
template <class Type, int N>
void several(const Product& p, int64_t row, const typename Type::Input* x, int64_t x_stride, const float* scales, float* y,
             int64_t y_stride) {
    const auto* w = static_cast<const typename Type::Weight*>(p.weight) + row * p.columns;
    typename Type::Sum sums[2][N] = {};
    for (int64_t c = 0; c < p.columns; c += Type::UNIT)
        for (int r = 0; r < 2; ++r)
            for (int n = 0; n < N; ++n) sums[r][n] = Type::add(sums[r][n], w + (r * p.columns + c) * LANES, x + n * x_stride + c);
    for (int n = 0; n < N; ++n)
        for (int r = 0; r < 2; ++r) finish(p, row + r * LANES, sums[r][n], scales ? scales[n] : 1.0f, y + n * y_stride);
}

// y = W x for B rows x and y, shared among the threads of the team that calls it. scales: of each x in bytes, null for floats.
template <class Type>
void product(const Product& p, int64_t B, const typename Type::Input* x, int64_t x_stride, const float* scales, float* y,
             int64_t y_stride) {
    const int64_t rows = (p.rows + PAD - 1) / PAD * PAD;
    if (B == 1) {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row += LANES) single<Type>(p, row, x, scales ? scales[0] : 1.0f, y);
        return;
    }
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row += 2 * LANES) {
        int64_t b = 0;
        auto go = [&](auto count) {
            constexpr int N = decltype(count)::value;
            for (; b + N <= B; b += N)
                several<Type, N>(p, row, x + b * x_stride, x_stride, scales ? scales + b : nullptr, y + b * y_stride, y_stride);
        };
        go(std::integral_constant<int, MOST>{});
        if (MOST > 4) go(std::integral_constant<int, 4>{});
        go(std::integral_constant<int, 2>{});
        go(std::integral_constant<int, 1>{});
    }
}

// x in bytes above 128, and the size of one; NaN where an x is NaN or infinite.
inline float to_bytes(const float* x, int64_t count, uint8_t* bytes) {
    Lanes most{}, none{};
    for (int64_t i = 0; i < count; i += LANES) most = larger(most, size(load(x + i))), none += 0.0f * load(x + i);
    float top = 1e-30f;
    for (int i = 0; i < LANES; ++i) top = std::max(top, most[i]);
    const float down = 127.0f / top;
    for (int64_t i = 0; i < count; i += LANES) {
        const Ints whole = (Ints)(load(x + i) * down + 12582912.0f) - (Ints)splat(12582912.0f) + 128;  // to the nearest integer
        typedef uint8_t Bytes __attribute__((vector_size(LANES)));
        const Bytes narrow = __builtin_convertvector(whole, Bytes);
        std::memcpy(bytes + i, &narrow, sizeof narrow);
    }
    return top / 127.0f + total(none);
}
