// sLSTM's cell over time and its adjoint; the formula is in mixers/slstm.py.
//
// A job is a head of a few rows of the batch through all of time. Each step is a product with the head's packed recurrent weights, then the
// gates. Forward keeps the gates before their functions and the memory; backward makes the functions again, and gives the gradient of what
// each product made, which is u's too and from which one large product makes the weights'.
#include "recurrent.h"

namespace {

constexpr float FRESH = -1e30f;  // m of a fresh state

// min(x, 0) - log(1 + y) with y = e^-|x|, and log(1 + y) = 2 artanh(s) = 2 (s + s^3 / 3 + ...) with s = y / (2 + y) <= 1 / 3.
inline Lanes log_sigmoid(Lanes x) {
    const Lanes y = exp_of(-size(x)), s = y / (2.0f + y), q = s * s;
    Lanes p = splat(1.0f / 13);
    p = p * q + 1.0f / 11;
    p = p * q + 1.0f / 9;
    p = p * q + 1.0f / 7;
    p = p * q + 1.0f / 5;
    p = p * q + 1.0f / 3;
    return -larger(-x, Lanes{}) - 2.0f * (p * q * s + s);
}

}  // namespace

struct SLSTM {
    int64_t B, T, H, K, threads;
    const float *r, *state;  // (H, K, 4, K): in, then i, f, z, o; h, c, n, m before (4, B, H, K)
    const uint8_t* reset;    // (B, T) or null
};

// From u (B, T, H, 4, K): every h, y (B, T, H, K), the last h, c, n, m, end (4, B, H, K), and all gates and c, n, m, kept (B, T, H, 7, K).
extern "C" void ritornello_slstm_forward(const SLSTM* s, const float* u, float* y, float* end, float* kept) {
    const int64_t H = s->H, K = s->K, V = vectors(K), W = V * LANES, leaf = s->B * H * K, whole = 4 * V * K * LANES;
    const int64_t each = rows_each(s->B, H, s->threads), blocks = (s->B + each - 1) / each;
    const Room packed(H * whole);
    for (int64_t head = 0; head < H; ++head)
        for (int64_t g = 0; g < 4; ++g)
            pack(s->r + (head * 4 * K + g) * K, 4 * K, 1, K, K, packed.at + head * whole + g * V * K * LANES, K * LANES);
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < H * blocks; ++job) {
        const int64_t head = job / blocks, first = job % blocks * each, rows = std::min(each, s->B - first);
        const Room state(4 * each * W), products(each * 4 * W);
        float *const h = state.at, *const c = h + each * W, *const n = c + each * W, *const m = n + each * W;
        for (int64_t part = 0; part < 4; ++part)
            for (int64_t i = 0; i < rows; ++i)
                std::copy_n(s->state + part * leaf + ((first + i) * H + head) * K, K, state.at + (part * each + i) * W);
        for (int64_t t = 0; t < s->T; ++t) {
            for (int64_t i = 0; i < rows; ++i)
                if (s->reset && s->reset[(first + i) * s->T + t]) {
                    for (float* part : {h, c, n}) std::fill_n(part + i * W, W, 0.0f);
                    std::fill_n(m + i * W, W, FRESH);
                }
            product(rows, {h, packed.at + head * whole, products.at, W, 4 * W, K, 4 * V});
            for (int64_t i = 0; i < rows; ++i) {
                const int64_t token = ((first + i) * s->T + t) * H + head;
                for (int64_t at = 0; at < K; at += LANES) {
                    const int64_t left = K - at, here = i * W + at;
                    Lanes gate[4];
                    for (int64_t g = 0; g < 4; ++g)
                        gate[g] = load_some(u + (token * 4 + g) * K + at, left) + load(products.at + (i * 4 + g) * W + at);
                    const Lanes log_keep = log_sigmoid(gate[1]) + load(m + here);
                    const Lanes most = larger(gate[0], log_keep);
                    const Lanes write = exp_of(gate[0] - most), keep = exp_of(log_keep - most);
                    const Lanes cell = keep * load(c + here) + write * tanh(gate[2]), norm = keep * load(n + here) + write;
                    const Lanes out = sigmoid(gate[3]) * cell / norm;
                    store(h + here, out), store(c + here, cell), store(n + here, norm), store(m + here, most);
                    store_some(y + token * K + at, out, left);
                    float* to = kept + token * 7 * K + at;
                    for (int64_t g = 0; g < 4; ++g) store_some(to + g * K, gate[g], left);
                    store_some(to + 4 * K, cell, left), store_some(to + 5 * K, norm, left), store_some(to + 6 * K, most, left);
                }
            }
        }
        for (int64_t part = 0; part < 4; ++part)
            for (int64_t i = 0; i < rows; ++i)
                std::copy_n(state.at + (part * each + i) * W, K, end + part * leaf + ((first + i) * H + head) * K);
    }
}

// From the gradients of y and of the last state: those of u and of the first state.
extern "C" void ritornello_slstm_backward(const SLSTM* s, const float* y, const float* kept, const float* dy, const float* d_end, float* du,
                                          float* d_state) {
    const int64_t H = s->H, K = s->K, V = vectors(K), W = V * LANES, leaf = s->B * H * K, whole = V * 4 * W * LANES;
    const int64_t each = rows_each(s->B, H, s->threads), blocks = (s->B + each - 1) / each;
    const Room packed(H * whole);
    for (int64_t head = 0; head < H; ++head)
        for (int64_t g = 0; g < 4; ++g)
            pack(s->r + (head * 4 * K + g) * K, 1, 4 * K, K, K, packed.at + head * whole + g * W * LANES, 4 * W * LANES);
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < H * blocks; ++job) {
        const int64_t head = job / blocks, first = job % blocks * each, rows = std::min(each, s->B - first);
        const Room grads(4 * each * W), products(each * 4 * W);
        float *const dh = grads.at, *const dc = dh + each * W, *const dn = dc + each * W, *const dm = dn + each * W;
        for (int64_t part = 0; part < 4; ++part)
            for (int64_t i = 0; i < rows; ++i)
                std::copy_n(d_end + part * leaf + ((first + i) * H + head) * K, K, grads.at + (part * each + i) * W);
        for (int64_t t = s->T - 1; t >= 0; --t) {
            for (int64_t i = 0; i < rows; ++i) {
                const int64_t token = ((first + i) * s->T + t) * H + head;
                const bool cut = s->reset && s->reset[(first + i) * s->T + t];
                for (int64_t at = 0; at < K; at += LANES) {
                    const int64_t left = K - at, here = i * W + at;
                    const float* now = kept + token * 7 * K + at;
                    const float* before = t ? now + (4 - 7 * H) * K : s->state + leaf + ((first + i) * H + head) * K + at;  // c, n, m
                    const int64_t apart = t ? K : leaf;
                    Lanes gate[7], past[3] = {Lanes{}, Lanes{}, splat(FRESH)};
                    for (int64_t g = 0; g < 7; ++g) gate[g] = load_some(now + g * K, left);
                    for (int64_t part = 0; part < 3 && !cut; ++part)
                        past[part] = load_some(before + part * apart, left);
                    const Lanes norm = choose(gate[5] == 0.0f, splat(1.0f), gate[5]), most = gate[6];  // zero only beyond the row
                    const Lanes log_keep = log_sigmoid(gate[1]) + past[2];
                    const Lanes write = exp_of(gate[0] - most), keep = exp_of(log_keep - most), z = tanh(gate[2]), o = sigmoid(gate[3]);
                    const Lanes h = load_some(y + token * K + at, left);
                    const Lanes to_h = load_some(dy + token * K + at, left) + load(dh + here);
                    const Lanes to_c = load(dc + here) + to_h * o / norm, to_n = load(dn + here) - to_h * h / norm;
                    const Lanes to_keep = (to_c * past[0] + to_n * past[1]) * keep, to_write = (to_c * z + to_n) * write;
                    const Lanes to_m = load(dm + here) - to_keep - to_write;
                    const Lanes share = choose(gate[0] > log_keep, splat(1.0f), choose(gate[0] == log_keep, splat(0.5f), Lanes{}));
                    const Lanes to_log_keep = to_keep + to_m * (1.0f - share);
                    const Lanes to_gate[4] = {to_write + to_m * share, to_log_keep * sigmoid(-gate[1]), to_c * write * (1.0f - z * z),
                                              to_h * h * (1.0f - o)};
                    for (int64_t g = 0; g < 4; ++g) {
                        store_some(du + (token * 4 + g) * K + at, to_gate[g], left);
                        store(products.at + (i * 4 + g) * W + at, to_gate[g]);
                    }
                    store(dc + here, cut ? Lanes{} : to_c * keep);
                    store(dn + here, cut ? Lanes{} : to_n * keep);
                    store(dm + here, cut ? Lanes{} : to_log_keep);
                }
            }
            product(rows, {products.at, packed.at + head * whole, dh, 4 * W, W, 4 * W, V});
            for (int64_t i = 0; i < rows; ++i)
                if (s->reset && s->reset[(first + i) * s->T + t]) std::fill_n(dh + i * W, W, 0.0f);
        }
        for (int64_t part = 0; part < 4; ++part)
            for (int64_t i = 0; i < rows; ++i)
                std::copy_n(grads.at + (part * each + i) * W, K, d_state + part * leaf + ((first + i) * H + head) * K);
    }
}
