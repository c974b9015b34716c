// The gated outer-product recurrence and its adjoint; the formula is in ops/outer.py.
//
//   S_t = diag(a_t) S_{t-1} + k_t v_t'      y_t = S_t' q_t, or S_{t-1}' q_t where a token reads before it writes
//
// A tile of the state, all its rows by a few vectors of lanes, stays in the first-level cache. One pass over it takes STEPS tokens, whose
// vectors stay in registers, so that a state's element is loaded and stored once for STEPS steps. The same walk over time gives
//
//   y    rows are keys, lanes are values          v's gradient   the same backwards in time, over the state's own gradient
//   dq   rows are values, lanes are keys          k's gradient   the same backwards in time
//
// and from these the decay's: with G_t the gradient of S_t, a_t (G_t . S_{t-1}) = G_t . S_t - k_t dk_t, summed over values, needs no state.
#include <algorithm>
#include <vector>

#include "tile.h"

namespace {

// What a walk reads and writes, at one row of the batch and one head. A token's numbers are contiguous, tokens are `stride` apart.
struct Walk {
    int64_t T, rows, lanes;                  // lanes: of this tile, at most TILE
    const float *row_in, *lane_in, *row_out; // X[r] = decay * X[r] + row_in[r] * lane_in;  out = sum over r of row_out[r] * X[r]
    float* out;
    int64_t row_stride, lane_stride;
    const float* decay;                      // at row 0 (by row) or at the tile's first lane (by lane)
    int64_t decay_stride, decay_step;        // from token to token, and from row to row or lane to lane: 0 where a head has one decay
    const uint8_t* reset;                    // (T), or null
    bool backwards;
};

// Where the tokens of a pass begin; the next one is a step further in each, and steps are negative backwards in time.
struct Token {
    const float *row_in, *lane_in, *row_out, *decay;
    float* out;
};

template <bool ByRow, bool ReadFirst, int N>
void pass(const Walk& walk, float* __restrict tile, const Token& first, int64_t row_step, int64_t lane_step, int64_t decay_step) {
    Lanes in[N][WIDE], out[N][WIDE] = {}, decay[N][WIDE];
    for (int n = 0; n < N; ++n)
        for (int w = 0; w < WIDE; ++w) {
            const int64_t left = walk.lanes - w * LANES;
            const float* from = first.decay + n * decay_step;
            in[n][w] = load_some(first.lane_in + n * lane_step + w * LANES, left);
            if (!ByRow) decay[n][w] = walk.decay_step ? load_some(from + w * LANES, left) : splat(from[0]);
        }
    // Plain locals, a step apart: pointers read from memory would be read again after every store.
    const float *__restrict row_in = first.row_in, *__restrict row_out = first.row_out, *__restrict row_decay = first.decay;
    const int64_t rows = walk.rows, every = walk.decay_step;
    for (int64_t r = 0; r < rows; ++r, ++row_in, ++row_out, row_decay += every, tile += TILE) {
        Lanes x[WIDE];
        for (int w = 0; w < WIDE; ++w) x[w] = load(tile + w * LANES);
        for (int n = 0; n < N; ++n) {
            const Lanes write = splat(row_in[n * row_step]), read = splat(row_out[n * row_step]);
            const Lanes fade = ByRow ? splat(row_decay[n * decay_step]) : Lanes{};
            for (int w = 0; w < WIDE; ++w) {
                if (ReadFirst) out[n][w] += read * x[w];
                x[w] = (ByRow ? fade : decay[n][w]) * x[w] + write * in[n][w];
                if (!ReadFirst) out[n][w] += read * x[w];
            }
        }
        for (int w = 0; w < WIDE; ++w) store(tile + w * LANES, x[w]);
    }
    for (int n = 0; n < N; ++n)
        for (int w = 0; w < WIDE; ++w) store_some(first.out + n * lane_step + w * LANES, out[n][w], walk.lanes - w * LANES);
}

// The tile through all tokens. Backwards, where tokens read after they write, step t decays by what came after it, a_{t+1}.
template <bool ByRow, bool ReadFirst>
void go(const Walk& walk, float* tile, const float* ones) {
    const int64_t sign = walk.backwards ? -1 : 1, shift = walk.backwards && !ReadFirst;
    const int64_t row_step = sign * walk.row_stride, lane_step = sign * walk.lane_stride, decay_step = sign * walk.decay_stride;
    auto cut = [&](int64_t s) {  // whether the walk starts anew before its step s
        const int64_t t = walk.backwards ? walk.T - s : s;
        return walk.reset && t < walk.T && walk.reset[t];
    };
    for (int64_t s = 0; s < walk.T;) {
        if (cut(s)) std::fill(tile, tile + walk.rows * TILE, 0.0f);
        const int64_t t = walk.backwards ? walk.T - 1 - s : s;
        const bool last = t + shift == walk.T;  // nothing came after it
        Token token{walk.row_in + t * walk.row_stride, walk.lane_in + t * walk.lane_stride, walk.row_out + t * walk.row_stride,
                    last ? ones : walk.decay + (t + shift) * walk.decay_stride, walk.out + t * walk.lane_stride};
        bool whole = !last && s + STEPS <= walk.T;
        for (int n = 1; whole && n < STEPS; ++n) whole = !cut(s + n);
        if (whole) pass<ByRow, ReadFirst, STEPS>(walk, tile, token, row_step, lane_step, decay_step);
        else pass<ByRow, ReadFirst, 1>(walk, tile, token, row_step, lane_step, decay_step);
        s += whole ? STEPS : 1;
    }
}

void run(bool by_row, bool read_first, const Walk& walk, float* tile, const float* ones) {
    if (by_row) read_first ? go<true, true>(walk, tile, ones) : go<true, false>(walk, tile, ones);
    else read_first ? go<false, true>(walk, tile, ones) : go<false, false>(walk, tile, ones);
}

}  // namespace

struct Outer {
    int64_t B, T, H, K, V, G;  // G: decays a head, K or 1
    int64_t read_first, threads;
    const float *q, *k, *v, *a;  // (B, T, H, K), (B, T, H, K), (B, T, H, V), (B, T, H, G)
    const uint8_t* reset;        // (B, T) or null
};

// y (B, T, H, V) and the last S (B, H, K, V) from the first.
extern "C" void ritornello_outer_forward(const Outer* o, const float* S, float* y, float* end) {
    const int64_t tiles = (o->V + TILE - 1) / TILE, jobs = o->B * o->H * tiles;
    const std::vector<float> ones(std::max<int64_t>(o->K, TILE), 1.0f);
#pragma omp parallel num_threads(o->threads)
    {
        Scratch scratch(o->K);
#pragma omp for schedule(static)
        for (int64_t job = 0; job < jobs; ++job) {
            const int64_t bh = job / tiles, b = bh / o->H, h = bh % o->H, first = job % tiles * TILE;
            const int64_t lanes = std::min<int64_t>(TILE, o->V - first), at_k = (b * o->T * o->H + h) * o->K;
            const int64_t at_v = (b * o->T * o->H + h) * o->V + first, at_S = bh * o->K * o->V + first;
            std::fill(scratch.tile, scratch.tile + o->K * TILE, 0.0f);
            for (int64_t r = 0; r < o->K; ++r) std::copy_n(S + at_S + r * o->V, lanes, scratch.tile + r * TILE);
            const Walk walk{o->T, o->K, lanes, o->k + at_k, o->v + at_v, o->q + at_k, y + at_v, o->H * o->K, o->H * o->V,
                            o->a + (b * o->T * o->H + h) * o->G, o->H * o->G, o->G > 1, o->reset ? o->reset + b * o->T : nullptr, false};
            run(true, o->read_first, walk, scratch.tile, ones.data());
            for (int64_t r = 0; r < o->K; ++r) std::copy_n(scratch.tile + r * TILE, lanes, end + at_S + r * o->V);
        }
    }
}

// Gradients from those of y and of the last S: dq, dk, dg (B, T, H, K; dg of the log decay, to be summed where a head has one), dv, dS.
extern "C" void ritornello_outer_backward(const Outer* o, const float* S, const float* end, const float* dy, const float* d_end, float* dq,
                                          float* dk, float* dv, float* dg, float* dS) {
    const int64_t key_tiles = (o->K + TILE - 1) / TILE, value_tiles = (o->V + TILE - 1) / TILE;
    const int64_t each = 2 * key_tiles + value_tiles, jobs = o->B * o->H * each, rows = std::max(o->K, o->V);
    const std::vector<float> ones(std::max<int64_t>(rows, TILE), 1.0f);
#pragma omp parallel num_threads(o->threads)
    {
        Scratch scratch(rows);
        float* tile = scratch.tile;
#pragma omp for schedule(dynamic)
        for (int64_t job = 0; job < jobs; ++job) {
            const int64_t bh = job / each, b = bh / o->H, h = bh % o->H, part = job % each;
            const int64_t token = b * o->T * o->H + h, at_S = bh * o->K * o->V;
            const float *q = o->q + token * o->K, *k = o->k + token * o->K, *v = o->v + token * o->V, *dy_ = dy + token * o->V;
            const float* a = o->a + token * o->G;
            const uint8_t* reset = o->reset ? o->reset + b * o->T : nullptr;
            std::fill(tile, tile + rows * TILE, 0.0f);
            if (part < 2 * key_tiles) {  // lanes are keys: dq forwards over S, dk backwards over its gradient
                const bool backwards = part >= key_tiles;
                const int64_t first = part % key_tiles * TILE, lanes = std::min<int64_t>(TILE, o->K - first);
                const float* from = (backwards ? d_end : S) + at_S + first * o->V;
                for (int64_t r = 0; r < o->V; ++r)
                    for (int64_t l = 0; l < lanes; ++l) tile[r * TILE + l] = from[l * o->V + r];
                const Walk walk{o->T, o->V, lanes, backwards ? dy_ : v, (backwards ? q : k) + first, backwards ? v : dy_,
                                (backwards ? dk : dq) + token * o->K + first, o->H * o->V, o->H * o->K, a + (o->G > 1 ? first : 0),
                                o->H * o->G, o->G > 1, reset, backwards};
                run(false, o->read_first, walk, tile, ones.data());
            } else {  // lanes are values: dv backwards, down to the gradient of the first S
                const int64_t first = (part - 2 * key_tiles) * TILE, lanes = std::min<int64_t>(TILE, o->V - first);
                for (int64_t r = 0; r < o->K; ++r) std::copy_n(d_end + at_S + r * o->V + first, lanes, tile + r * TILE);
                const Walk walk{o->T, o->K, lanes, q, dy_ + first, k, dv + token * o->V + first, o->H * o->K, o->H * o->V,
                                a, o->H * o->G, o->G > 1, reset, true};
                run(true, o->read_first, walk, tile, ones.data());
                const bool cut = reset && o->T && reset[0], decayed = o->read_first || !o->T;
                for (int64_t r = 0; r < o->K; ++r) {
                    const float last = cut ? 0.0f : decayed ? 1.0f : a[o->G > 1 ? r : 0];
                    for (int64_t l = 0; l < lanes; ++l) dS[at_S + r * o->V + first + l] = cut ? 0.0f : last * tile[r * TILE + l];
                }
            }
        }
#pragma omp for schedule(static)
        for (int64_t bh = 0; bh < o->B * o->H; ++bh) {
            const int64_t b = bh / o->H, h = bh % o->H;
            const uint8_t* reset = o->reset ? o->reset + b * o->T : nullptr;
            std::vector<double> held(o->K);  // sum over values of G . S after the token at hand, or of G . S_{t-1} a_t after it
            for (int64_t r = 0; r < o->K; ++r)
                for (int64_t c = 0; c < o->V; ++c) held[r] += double(d_end[(bh * o->K + r) * o->V + c]) * end[(bh * o->K + r) * o->V + c];
            for (int64_t t = o->T - 1; t >= 0; --t) {
                const int64_t at = ((b * o->T + t) * o->H + h) * o->K;
                const bool cut = reset && reset[t];
                for (int64_t r = 0; r < o->K; ++r) {
                    const double read = double(o->q[at + r]) * dq[at + r], wrote = double(o->k[at + r]) * dk[at + r];
                    const double gate = cut ? 0.0 : held[r] + (o->read_first ? 0.0 : read) - wrote;
                    dg[at + r] = float(gate);
                    held[r] = cut ? 0.0 : gate + (o->read_first ? read : 0.0);
                }
            }
        }
    }
}
