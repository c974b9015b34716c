// The recurrent part of a GRU and its adjoint; the formula is in mixers/gru.py, torch's form.
//
// A job is a few rows of the batch through all of time. Each step is a product with the packed recurrent weights, then the gates. Forward
// keeps what the gates were; backward gives the gradient of what each product made, from which one large product makes the weights'.
#include "recurrent.h"

struct GRU {
    int64_t B, T, D, threads;
    const float *U, *h;    // (3 D, D): r, z, n; (B, D)
    const uint8_t* reset;  // (B, T) or null
};

// From x (B, T, 3, D) and the recurrent bias b (3, D): every h, y (B, T, D), the last one, and r, z, n and U_n h + b_n, kept (B, T, 4, D).
extern "C" void ritornello_gru_forward(const GRU* s, const float* x, const float* b, float* y, float* end, float* kept) {
    const int64_t D = s->D, V = vectors(D), W = V * LANES, each = rows_each(s->B, s->threads), jobs = (s->B + each - 1) / each;
    const Room packed(3 * V * D * LANES), bias(3 * W);
    for (int64_t g = 0; g < 3; ++g) {
        pack(s->U + g * D * D, 1, D, D, D, packed.at + g * V * D * LANES, D * LANES);
        std::copy_n(b + g * D, D, bias.at + g * W);
    }
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < jobs; ++job) {
        const int64_t first = job * each, rows = std::min(each, s->B - first);
        const Room state(each * W), products(each * 3 * W);
        for (int64_t i = 0; i < rows; ++i) std::copy_n(s->h + (first + i) * D, D, state.at + i * W);
        for (int64_t t = 0; t < s->T; ++t) {
            for (int64_t i = 0; i < rows; ++i)
                if (s->reset && s->reset[(first + i) * s->T + t]) std::fill_n(state.at + i * W, W, 0.0f);
            product(rows, {state.at, packed.at, products.at, W, 3 * W, D, 3 * V});
            for (int64_t i = 0; i < rows; ++i) {
                const int64_t token = (first + i) * s->T + t;
                for (int64_t at = 0; at < D; at += LANES) {
                    const int64_t left = D - at;
                    const float *in = x + token * 3 * D + at, *recurrent = products.at + i * 3 * W + at, *biases = bias.at + at;
                    const Lanes before = load(state.at + i * W + at);
                    const Lanes r = sigmoid(load_some(in, left) + load(recurrent) + load(biases));
                    const Lanes z = sigmoid(load_some(in + D, left) + load(recurrent + W) + load(biases + W));
                    const Lanes a = load(recurrent + 2 * W) + load(biases + 2 * W);
                    const Lanes n = tanh(load_some(in + 2 * D, left) + r * a);
                    const Lanes h = n + z * (before - n);
                    store(state.at + i * W + at, h);
                    store_some(y + token * D + at, h, left);
                    float* keep = kept + token * 4 * D + at;
                    store_some(keep, r, left);
                    store_some(keep + D, z, left);
                    store_some(keep + 2 * D, n, left);
                    store_some(keep + 3 * D, a, left);
                }
            }
        }
        for (int64_t i = 0; i < rows; ++i) std::copy_n(state.at + i * W, D, end + (first + i) * D);
    }
}

// From the gradients of y and of the last h: those of x, of what the products made, da (B, T, 3, D), and of the first h.
extern "C" void ritornello_gru_backward(const GRU* s, const float* y, const float* kept, const float* dy, const float* d_end, float* dx,
                                        float* da, float* dh) {
    const int64_t D = s->D, V = vectors(D), W = V * LANES, each = rows_each(s->B, s->threads), jobs = (s->B + each - 1) / each;
    const Room packed(V * 3 * W * LANES);
    for (int64_t g = 0; g < 3; ++g) pack(s->U + g * D * D, D, 1, D, D, packed.at + g * W * LANES, 3 * W * LANES);
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < jobs; ++job) {
        const int64_t first = job * each, rows = std::min(each, s->B - first);
        const Room grads(each * W), through(each * W), direct(each * W), products(each * 3 * W);
        for (int64_t i = 0; i < rows; ++i) std::copy_n(d_end + (first + i) * D, D, grads.at + i * W);
        for (int64_t t = s->T - 1; t >= 0; --t) {
            for (int64_t i = 0; i < rows; ++i) {
                const int64_t token = (first + i) * s->T + t;
                const bool cut = s->reset && s->reset[token];
                const float* previous = t ? y + (token - 1) * D : s->h + (first + i) * D;
                for (int64_t at = 0; at < D; at += LANES) {
                    const int64_t left = D - at;
                    const float* keep = kept + token * 4 * D + at;
                    const Lanes r = load_some(keep, left), z = load_some(keep + D, left), n = load_some(keep + 2 * D, left);
                    const Lanes a = load_some(keep + 3 * D, left), before = cut ? Lanes{} : load_some(previous + at, left);
                    const Lanes g = load_some(dy + token * D + at, left) + load(grads.at + i * W + at);
                    const Lanes dn = g * (1.0f - z) * (1.0f - n * n), dr = dn * a * r * (1.0f - r);
                    const Lanes dz = g * (before - n) * z * (1.0f - z), dp = dn * r;
                    float *to_x = dx + token * 3 * D + at, *to_a = da + token * 3 * D + at, *to_product = products.at + i * 3 * W + at;
                    store_some(to_x, dr, left), store_some(to_x + D, dz, left), store_some(to_x + 2 * D, dn, left);
                    store_some(to_a, dr, left), store_some(to_a + D, dz, left), store_some(to_a + 2 * D, dp, left);
                    store(to_product, dr), store(to_product + W, dz), store(to_product + 2 * W, dp);
                    store(direct.at + i * W + at, g * z);
                }
            }
            product(rows, {products.at, packed.at, through.at, 3 * W, W, 3 * W, V});
            for (int64_t i = 0; i < rows; ++i) {
                const bool cut = s->reset && s->reset[(first + i) * s->T + t];
                for (int64_t at = i * W; at < (i + 1) * W; at += LANES)
                    store(grads.at + at, cut ? Lanes{} : load(direct.at + at) + load(through.at + at));
            }
        }
        for (int64_t i = 0; i < rows; ++i) std::copy_n(grads.at + i * W, D, dh + (first + i) * D);
    }
}
