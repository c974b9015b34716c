// A few rows of the batch times a matrix, again and again with the same matrix, as a recurrence does it.
//
// The matrix is packed once: a vector of its columns after the other, each contiguous over its depth. A step then walks once through the
// second-level cache, and what it loads serves all rows of a block, whose sums stay in registers. A row's sum does not depend on its block.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "numbers.h"

namespace {

constexpr int64_t ROWS = LANES == 16 ? 8 : 4;  // rows whose sums fit the registers
constexpr int64_t MOST = 4;                    // vectors of columns at a time

inline int64_t vectors(int64_t floats) { return (floats + LANES - 1) / LANES; }

// Rows of the batch in a job, so that no thread is without one.
inline int64_t rows_each(int64_t rows, int64_t threads) { return std::max<int64_t>(1, std::min(ROWS, (rows + threads - 1) / threads)); }

// Zeros that begin on a cache line. Each job has its own: lanes beyond a row's end must not hold what another row left there.
struct Room {
    std::vector<float> floats;
    float* at;
    explicit Room(int64_t count) : floats(count + 16) {
        void* start = floats.data();
        size_t space = floats.size() * sizeof(float);
        at = static_cast<float*>(std::align(64, count * sizeof(float), start, space));
    }
};

// The columns of W, element (k, n) of which lies at k * by_depth + n * by_column, as vectors `apart` floats apart.
inline void pack(const float* W, int64_t by_depth, int64_t by_column, int64_t depth, int64_t columns, float* to, int64_t apart) {
    for (int64_t first = 0; first < columns; first += LANES, to += apart)
        for (int64_t k = 0; k < depth; ++k)
            for (int64_t lane = 0; lane < std::min<int64_t>(LANES, columns - first); ++lane)
                to[k * LANES + lane] = W[k * by_depth + (first + lane) * by_column];
}

// out = in @ W for some rows, in_row and out_row floats apart, and `count` vectors of packed columns.
struct Times {
    const float *in, *packed;
    float* out;
    int64_t in_row, out_row, depth, count;
};

template <int R, int C>
void block(const Times& p, int64_t row, int64_t vector) {
    const float *in = p.in + row * p.in_row, *packed = p.packed + vector * p.depth * LANES;
    Lanes sums[R][C] = {};
    for (int64_t k = 0; k < p.depth; ++k) {
        Lanes w[C];
        for (int c = 0; c < C; ++c) w[c] = load(packed + (c * p.depth + k) * LANES);
        for (int r = 0; r < R; ++r)
            for (int c = 0; c < C; ++c) sums[r][c] += in[r * p.in_row + k] * w[c];
    }
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) store(p.out + (row + r) * p.out_row + (vector + c) * LANES, sums[r][c]);
}

// As many blocks of R rows as there are from this row on; the row after them.
template <int R>
int64_t blocks(const Times& p, int64_t row, int64_t rows) {
    constexpr int C = std::min(MOST, 2 * ROWS / R);
    for (; row + R <= rows; row += R) {
        int64_t v = 0;
        for (; v + C <= p.count; v += C) block<R, C>(p, row, v);
        for (; v < p.count; ++v) block<R, 1>(p, row, v);
    }
    return row;
}

inline void product(int64_t rows, const Times& p) {
    int64_t row = blocks<ROWS>(p, 0, rows);
    if (ROWS > 4) row = blocks<4>(p, row, rows);
    row = blocks<2>(p, row, rows);
    blocks<1>(p, row, rows);
}

}  // namespace
