// The generalised delta rule and its adjoint; the formula is in ops/delta.py.
//
//   u_t = S_{t-1}' p_t      S_t = diag(a_t) S_{t-1} - r_t u_t' + k_t v_t'      y_t = S_t' q_t
//
// With G_t the gradient of S_t and e_t = G_t' r_t, backwards in time G_t = q_t dy_t' + diag(a_{t+1}) G_{t+1} - p_{t+1} e_{t+1}'. A walk whose
// lanes are values finds u (forwards) and e (backwards), which need a sum over all keys before the step can be made, so it makes that sum for
// the next token while it makes this one's step. With u and e known, walks whose lanes are keys give dq, dp (forwards) and dk, dr (backwards),
// several tokens in one pass. The decay's gradient needs no state: Φ_t = G_t . S_t summed over values obeys
//
//   dg_t = Φ_t - k_t dk_t - r_t dr_t      Φ_t = q_t dq_t + dg_{t+1} + p_{t+1} dp_{t+1}
#include <algorithm>
#include <vector>

#include "tile.h"

struct Delta {
    int64_t B, T, H, K, V, G, threads;       // G: decays a head, K or 1
    const float *q, *k, *v, *r, *p, *a;      // (B, T, H, K), v (B, T, H, V), a (B, T, H, G)
    const uint8_t* reset;                    // (B, T) or null
};

namespace {

struct Wide {
    Lanes w[WIDE];
};

inline Wide load_wide(const float* from, int64_t count) {
    Wide x;
    for (int w = 0; w < WIDE; ++w) x.w[w] = load_some(from + w * LANES, count - w * LANES);
    return x;
}

inline void store_wide(float* to, const Wide& x, int64_t count) {
    for (int w = 0; w < WIDE; ++w) store_some(to + w * LANES, x.w[w], count - w * LANES);
}

// Lanes are values: X[i] = decay_i X[i] - minus_i found + in_i lane; out = read . X; found = next . X, for the next token.
inline void by_value(float* tile, int64_t rows, const float* decay, int64_t decay_step, const float* minus, const float* in, const float* read,
                     const float* next, const Wide& lane, Wide& found, Wide& out) {
    Wide to_find{}, total{};
    for (int64_t i = 0; i < rows; ++i, tile += TILE)
        for (int w = 0; w < WIDE; ++w) {
            Lanes x = load(tile + w * LANES);
            x = decay[i * decay_step] * x - minus[i] * found.w[w] + in[i] * lane.w[w];
            store(tile + w * LANES, x);
            total.w[w] += read[i] * x;
            if (next) to_find.w[w] += next[i] * x;
        }
    out = total;
    found = to_find;
}

// What lanes-are-keys walks need of each token: X[j] = decay X[j] + in_j lane - minus_j lane_minus, and two reads.
struct Step {
    const float *decay, *lane, *lane_minus, *in, *minus, *read, *other;
    float *out, *other_out;
};

// N tokens in one pass. Forwards the other read (dp) is of the state before the token, backwards (dr) of the one at it.
template <bool Before, int N>
void by_key(float* tile, int64_t rows, int64_t lanes, bool one_decay, const Step* steps) {
    Wide decay[N], lane[N], minus[N], out[N] = {}, other[N] = {};
    for (int n = 0; n < N; ++n) {
        lane[n] = load_wide(steps[n].lane, lanes);
        minus[n] = load_wide(steps[n].lane_minus, lanes);
        if (one_decay) std::fill(decay[n].w, decay[n].w + WIDE, splat(steps[n].decay[0]));
        else decay[n] = load_wide(steps[n].decay, lanes);
    }
    for (int64_t j = 0; j < rows; ++j, tile += TILE)
        for (int w = 0; w < WIDE; ++w) {
            Lanes x = load(tile + w * LANES);
            for (int n = 0; n < N; ++n) {
                if (Before) other[n].w[w] -= steps[n].other[j] * x;
                x = decay[n].w[w] * x + steps[n].in[j] * lane[n].w[w] - steps[n].minus[j] * minus[n].w[w];
                out[n].w[w] += steps[n].read[j] * x;
                if (!Before) other[n].w[w] -= steps[n].other[j] * x;
            }
            store(tile + w * LANES, x);
        }
    for (int n = 0; n < N; ++n) {
        store_wide(steps[n].out, out[n], lanes);
        store_wide(steps[n].other_out, other[n], lanes);
    }
}

constexpr int FEW = STEPS / 2;  // tokens in a pass: each needs five vectors

struct Head {
    int64_t b, h, keys, values, state;  // where this row's and head's numbers begin
    const uint8_t* reset;
    Head(const Delta* d, int64_t bh)
        : b(bh / d->H), h(bh % d->H), keys((b * d->T * d->H + h) * d->K), values((b * d->T * d->H + h) * d->V), state(bh * d->K * d->V),
          reset(d->reset ? d->reset + b * d->T : nullptr) {}
    bool cut(const Delta* d, int64_t t) const { return reset && t < d->T && reset[t]; }
};

}  // namespace

// y (B, T, H, V), u (B, T, H, V) and the last S (B, H, K, V) from the first.
extern "C" void ritornello_delta_forward(const Delta* d, const float* S, float* y, float* u, float* end) {
    const int64_t tiles = (d->V + TILE - 1) / TILE, key = d->H * d->K, value = d->H * d->V, gate = d->H * d->G;
#pragma omp parallel num_threads(d->threads)
    {
        Scratch scratch(d->K);
        float* tile = scratch.tile;
#pragma omp for schedule(static)
        for (int64_t job = 0; job < d->B * d->H * tiles; ++job) {
            const Head at(d, job / tiles);
            const int64_t first = job % tiles * TILE, lanes = std::min<int64_t>(TILE, d->V - first);
            std::fill(tile, tile + d->K * TILE, 0.0f);
            for (int64_t i = 0; i < d->K; ++i) std::copy_n(S + at.state + i * d->V + first, lanes, tile + i * TILE);
            Wide held{}, out;
            for (int64_t i = 0; d->T && i < d->K; ++i)
                for (int w = 0; w < WIDE; ++w) held.w[w] += d->p[at.keys + i] * load(tile + i * TILE + w * LANES);
            for (int64_t t = 0; t < d->T; ++t) {
                if (at.cut(d, t)) std::fill(tile, tile + d->K * TILE, 0.0f), held = Wide{};
                store_wide(u + at.values + t * value + first, held, lanes);
                const int64_t k = at.keys + t * key;
                by_value(tile, d->K, d->a + (at.b * d->T * d->H + at.h) * d->G + t * gate, d->G > 1, d->r + k, d->k + k, d->q + k,
                         t + 1 < d->T ? d->p + k + key : nullptr, load_wide(d->v + at.values + t * value + first, lanes), held, out);
                store_wide(y + at.values + t * value + first, out, lanes);
            }
            for (int64_t i = 0; i < d->K; ++i) std::copy_n(tile + i * TILE, lanes, end + at.state + i * d->V + first);
        }
    }
}

namespace {

// dv, e and dS, backwards; lanes are values.
void values_backward(const Delta* d, const Head& at, int64_t first, float* tile, const float* ones, const float* dy, const float* d_end, float* dv,
                     float* e, float* dS) {
    const int64_t lanes = std::min<int64_t>(TILE, d->V - first), key = d->H * d->K, value = d->H * d->V, gate = d->H * d->G;
    const float* a = d->a + (at.b * d->T * d->H + at.h) * d->G;
    std::fill(tile, tile + d->K * TILE, 0.0f);
    for (int64_t i = 0; i < d->K; ++i) std::copy_n(d_end + at.state + i * d->V + first, lanes, tile + i * TILE);
    Wide later{}, out;  // e of the token after
    for (int64_t t = d->T - 1; t >= 0; --t) {
        const int64_t k = at.keys + t * key;
        const bool last = t + 1 == d->T;
        if (at.cut(d, t + 1)) std::fill(tile, tile + d->K * TILE, 0.0f), later = Wide{};
        by_value(tile, d->K, last ? ones : a + (t + 1) * gate, !last && d->G > 1, last ? ones : d->p + k + key, d->q + k, d->k + k, d->r + k,
                 load_wide(dy + at.values + t * value + first, lanes), later, out);
        store_wide(dv + at.values + t * value + first, out, lanes);
        store_wide(e + at.values + t * value + first, later, lanes);
    }
    const bool cut = at.cut(d, 0);
    for (int64_t i = 0; i < d->K; ++i) {
        Wide x;
        for (int w = 0; w < WIDE; ++w) {
            const Lanes g = load(tile + i * TILE + w * LANES);
            x.w[w] = cut ? Lanes{} : d->T ? a[d->G > 1 ? i : 0] * g - d->p[at.keys + i] * later.w[w] : g;
        }
        store_wide(dS + at.state + i * d->V + first, x, lanes);
    }
}

// dq and dp forwards over S, or dk and dr backwards over its gradient; lanes are keys.
template <bool Forwards>
void keys_walk(const Delta* d, const Head& at, int64_t first, float* tile, const float* ones, const float* from, const float* u, const float* e,
               const float* dy, float* out, float* other_out) {
    const int64_t lanes = std::min<int64_t>(TILE, d->K - first), key = d->H * d->K, value = d->H * d->V, gate = d->H * d->G;
    const float* a = d->a + (at.b * d->T * d->H + at.h) * d->G + (d->G > 1 ? first : 0);
    std::fill(tile, tile + d->V * TILE, 0.0f);
    for (int64_t j = 0; j < d->V; ++j)
        for (int64_t l = 0; l < lanes; ++l) tile[j * TILE + l] = from[at.state + (first + l) * d->V + j];
    const std::vector<float> zeros(std::max(d->V, int64_t(TILE)));
    Step steps[FEW];
    int waiting = 0;
    auto flush = [&] {
        if (waiting == FEW) by_key<Forwards, FEW>(tile, d->V, lanes, d->G == 1, steps);
        else for (int n = 0; n < waiting; ++n) by_key<Forwards, 1>(tile, d->V, lanes, d->G == 1, steps + n);
        waiting = 0;
    };
    for (int64_t s = 0; s < d->T; ++s) {
        const int64_t t = Forwards ? s : d->T - 1 - s, k = at.keys + t * key + first, v = at.values + t * value;
        if (at.cut(d, Forwards ? t : t + 1)) {
            flush();
            std::fill(tile, tile + d->V * TILE, 0.0f);
        }
        const bool last = t + 1 == d->T, after = !last && !at.cut(d, t + 1);
        steps[waiting++] = Forwards ? Step{a + t * gate, d->k + k, d->r + k, d->v + v, u + v, dy + v, e + v, out + k, other_out + k}
                                    : Step{last ? ones : a + (t + 1) * gate, d->q + k, last ? d->p + k : d->p + k + key, dy + v,
                                           after ? e + v + value : zeros.data(), d->v + v, u + v, out + k, other_out + k};
        if (waiting == FEW) flush();
    }
    flush();
}

}  // namespace

// Gradients from those of y and of the last S: dq, dk, dr, dp, dg (B, T, H, K; dg of the log decay, to be summed where a head has one), dv, dS.
// e (B, T, H, V) is scratch.
extern "C" void ritornello_delta_backward(const Delta* d, const float* S, const float* end, const float* u, const float* dy, const float* d_end,
                                          float* e, float* dq, float* dk, float* dv, float* dr, float* dp, float* dg, float* dS) {
    const int64_t key_tiles = (d->K + TILE - 1) / TILE, value_tiles = (d->V + TILE - 1) / TILE, rows = std::max(d->K, d->V), heads = d->B * d->H;
    const std::vector<float> ones(std::max<int64_t>(rows, TILE), 1.0f);
#pragma omp parallel num_threads(d->threads)
    {
        Scratch scratch(rows);
#pragma omp for schedule(static)
        for (int64_t job = 0; job < heads * value_tiles; ++job)
            values_backward(d, Head(d, job / value_tiles), job % value_tiles * TILE, scratch.tile, ones.data(), dy, d_end, dv, e, dS);
#pragma omp for schedule(static)
        for (int64_t job = 0; job < heads * 2 * key_tiles; ++job) {
            const Head at(d, job / (2 * key_tiles));
            const int64_t part = job % (2 * key_tiles), first = part % key_tiles * TILE;
            if (part < key_tiles) keys_walk<true>(d, at, first, scratch.tile, ones.data(), S, u, e, dy, dq, dp);
            else keys_walk<false>(d, at, first, scratch.tile, ones.data(), d_end, u, e, dy, dk, dr);
        }
#pragma omp for schedule(static)
        for (int64_t bh = 0; bh < heads; ++bh) {
            const Head at(d, bh);
            std::vector<double> later(d->K);  // dg_{t+1} + p_{t+1} dp_{t+1}
            for (int64_t i = 0; i < d->K; ++i)
                for (int64_t j = 0; j < d->V; ++j) later[i] += double(d_end[at.state + i * d->V + j]) * end[at.state + i * d->V + j];
            for (int64_t t = d->T - 1; t >= 0; --t) {
                const bool cut = at.cut(d, t);
                for (int64_t i = 0; i < d->K; ++i) {
                    const int64_t k = at.keys + t * d->H * d->K + i;
                    const double phi = double(d->q[k]) * dq[k] + later[i];
                    const double gate = cut ? 0.0 : phi - double(d->k[k]) * dk[k] - double(d->r[k]) * dr[k];
                    dg[k] = float(gate);
                    later[i] = cut ? 0.0 : gate + double(d->p[k]) * dp[k];
                }
            }
        }
    }
}
