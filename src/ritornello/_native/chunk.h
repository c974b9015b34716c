// Products of a chunk of tokens with a matrix state, as many sums at a time as the registers hold.
//
// A state lies in blocks of TILE columns, in each row after row. A chunk's vectors over the state's rows lie in panels of LANES rows, in each
// token after token. So inner loops read memory in order, at addresses a constant apart; rows, columns and tokens are filled up with zeros.
#pragma once

#include <utility>

#include "numbers.h"
#include "tile.h"

constexpr int TOKENS = 16;                                     // in a chunk
constexpr int ACROSS = TOKENS / LANES;                         // vectors, or panels, of a chunk's tokens
constexpr int PANEL = TOKENS * LANES;                          // numbers in a panel
constexpr int SUMS = LANES == 16 ? 8 : 4;                      // rows of WIDE vectors of sums
constexpr int READERS = LANES == 16 ? 16 : LANES / 2;          // rows of ACROSS vectors of sums

inline int64_t times_up(int64_t size, int64_t by) { return (size + by - 1) / by; }

// ---- where things lie

// `rows` rows of `width` numbers, `stride` apart, into columns of WIDTH numbers; zeros past the first `count` and past the width.
template <int WIDTH>
void pack(const float* from, int64_t stride, int64_t count, int64_t rows, int64_t width, float* to) {
    for (int64_t first = 0; first < width; first += WIDTH)
        for (int64_t r = 0; r < rows; ++r)
            for (int w = 0; w < WIDTH; w += LANES, to += LANES)
                store(to, r < count ? load_some(from + r * stride + first + w, width - first - w) : Lanes{});
}

// The first `count` of `rows` rows back.
template <int WIDTH>
void unpack(const float* from, int64_t rows, int64_t width, float* to, int64_t stride, int64_t count) {
    for (int64_t first = 0; first < width; first += WIDTH, from += rows * WIDTH)
        for (int64_t r = 0; r < count; ++r)
            for (int w = 0; w < WIDTH; w += LANES) store_some(to + r * stride + first + w, load(from + r * WIDTH + w), width - first - w);
}

// Rows i and i + H of a square: the lanes whose number has the bit H change places with those that have not.
template <int H, int... L>
void trade(Lanes& a, Lanes& b, std::integer_sequence<int, L...>) {
#if defined(__clang__)
    const Lanes low = __builtin_shufflevector(a, b, (L & H ? LANES + L - H : L)...);
    b = __builtin_shufflevector(a, b, (L & H ? LANES + L : L + H)...);
#else
    const Lanes low = __builtin_shuffle(a, b, Ints{(L & H ? LANES + L - H : L)...});
    b = __builtin_shuffle(a, b, Ints{(L & H ? LANES + L : L + H)...});
#endif
    a = low;
}

// The transpose of a square, in its place.
template <int H = LANES / 2>
void transpose(Lanes* x) {
    for (int i = 0; i < LANES; ++i)
        if (!(i & H)) trade<H>(x[i], x[i + H], std::make_integer_sequence<int, LANES>{});
    if constexpr (H > 1) transpose<H / 2>(x);
}

// A chunk's rows as columns: (width, TOKENS), width filled up to a multiple of TILE.
inline void pack_turned(const float* from, int64_t stride, int64_t count, int64_t width, float* to) {
    for (int64_t first = 0; first < times_up(width, TILE) * TILE; first += LANES, to += PANEL)
        for (int part = 0; part < ACROSS; ++part) {
            Lanes x[LANES];
            for (int i = 0; i < LANES; ++i) {
                const int64_t r = part * LANES + i;
                x[i] = r < count ? load_some(from + r * stride + first, width - first) : Lanes{};
            }
            transpose(x);
            for (int i = 0; i < LANES; ++i) store(to + i * TOKENS + part * LANES, x[i]);
        }
}

// ---- products

// out (TOKENS, TILE) += x (TOKENS, rows) m (rows, TILE), of the first `count` tokens at least.
inline void multiply(int64_t panels, const float* x, const float* m, float* out, int64_t count) {
    for (int64_t first = 0; first < count; first += SUMS, x += SUMS * LANES, out += SUMS * TILE) {
        Lanes sum[SUMS][WIDE];
        for (int n = 0; n < SUMS; ++n)
            for (int w = 0; w < WIDE; ++w) sum[n][w] = load(out + n * TILE + w * LANES);
        const float *at = x, *row = m;
        for (int64_t p = 0; p < panels; ++p, at += PANEL - LANES)
            for (int r = 0; r < LANES; ++r, ++at, row += TILE)
                for (int n = 0; n < SUMS; ++n)
                    for (int w = 0; w < WIDE; ++w) sum[n][w] += at[n * LANES] * load(row + w * LANES);
        for (int n = 0; n < SUMS; ++n)
            for (int w = 0; w < WIDE; ++w) store(out + n * TILE + w * LANES, sum[n][w]);
    }
}

// m (rows, TILE) = diag(decay) m + x' rows, with x (TOKENS, rows) and rows (TOKENS, TILE) of the first `count` tokens.
inline void update(int64_t panels, const float* decay, const float* x, const float* rows, int64_t count, float* m) {
    for (int64_t r = 0; r < panels * LANES; r += SUMS, decay += SUMS, m += SUMS * TILE) {
        Lanes sum[SUMS][WIDE];
        for (int n = 0; n < SUMS; ++n)
            for (int w = 0; w < WIDE; ++w) sum[n][w] = decay[n] * load(m + n * TILE + w * LANES);
        const float *at = x + r / LANES * PANEL + r % LANES, *row = rows;
        for (int64_t t = 0; t < count; ++t, at += LANES, row += TILE)
            for (int n = 0; n < SUMS; ++n)
                for (int w = 0; w < WIDE; ++w) sum[n][w] += at[n] * load(row + w * LANES);
        for (int n = 0; n < SUMS; ++n)
            for (int w = 0; w < WIDE; ++w) store(m + n * TILE + w * LANES, sum[n][w]);
    }
}

// out (TOKENS, rows) = y m' with y (TOKENS, columns), turned, and m (rows, columns), in blocks. Lanes are tokens: no sum goes across them.
inline void contract(int64_t panels, int64_t blocks, const float* m, const float* turned, float* out) {
    const int64_t rows = panels * LANES;
    for (int64_t first = 0; first < rows; first += LANES, out += PANEL) {
        Lanes square[ACROSS][LANES];
        for (int r = 0; r < LANES; r += READERS) {
            Lanes sum[READERS][ACROSS] = {};
            const float *at = m + (first + r) * TILE, *y = turned;
            for (int64_t block = 0; block < blocks; ++block, at += (rows - 1) * TILE)
                for (int c = 0; c < TILE; ++c, ++at, y += TOKENS)
                    for (int n = 0; n < READERS; ++n)
                        for (int w = 0; w < ACROSS; ++w) sum[n][w] += at[n * TILE] * load(y + w * LANES);
            for (int n = 0; n < READERS; ++n)
                for (int w = 0; w < ACROSS; ++w) square[w][r + n] = sum[n][w];
        }
        for (int w = 0; w < ACROSS; ++w) {
            transpose(square[w]);
            for (int i = 0; i < LANES; ++i) store(out + (w * LANES + i) * LANES, square[w][i]);
        }
    }
}
