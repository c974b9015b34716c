// Mamba's selective scan and its adjoint; the formula is in ops/selective.py.
//
//   h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t'      y_t = h_t C_t
//
// Lanes are channels, so that neither the read over the N states of a channel nor its write needs a sum across lanes; only the gradients of
// B and C, which all channels share, do. Decays are made where they are used and never stored. The backward pass makes the states of 32
// tokens again from the last one kept.
#include <algorithm>
#include <vector>

#include "exp.h"

namespace {

constexpr int64_t KEPT = 32;  // tokens between states that the forward pass keeps

inline float sum(Lanes x) {
    typedef float Four __attribute__((vector_size(16)));
    Four parts[LANES / 4];
    std::memcpy(parts, &x, sizeof x);
    for (int half = LANES / 8; half; half /= 2)
        for (int i = 0; i < half; ++i) parts[i] += parts[i + half];
    return (parts[0][0] + parts[0][1]) + (parts[0][2] + parts[0][3]);
}

}  // namespace

struct Selective {
    int64_t B, T, D, N, threads;
    const float *x, *dt, *A, *b, *c, *h;  // (B, T, D), (B, T, D), (N, D), (B, T, N), (B, T, N), (B, N, D)
    const uint8_t* reset;                 // (B, T) or null
};

// y (B, T, D), the last state (B, N, D), and the states before every 32nd token, (B, ceil(T / 32), N, D).
extern "C" void ritornello_selective_forward(const Selective* s, float* y, float* end, float* kept) {
    const int64_t blocks = (s->D + LANES - 1) / LANES, pieces = (s->T + KEPT - 1) / KEPT;
#pragma omp parallel num_threads(s->threads)
    {
        std::vector<float> states(s->N * LANES), rates(s->N * LANES);
#pragma omp for schedule(static)
        for (int64_t job = 0; job < s->B * blocks; ++job) {
            const int64_t row = job / blocks, first = job % blocks * LANES, left = s->D - first;
            for (int64_t n = 0; n < s->N; ++n) {
                store(&states[n * LANES], load_some(s->h + (row * s->N + n) * s->D + first, left));
                store(&rates[n * LANES], load_some(s->A + n * s->D + first, left));
            }
            for (int64_t t = 0; t < s->T; ++t) {
                const int64_t token = row * s->T + t;
                if (t % KEPT == 0)
                    for (int64_t n = 0; n < s->N; ++n)
                        store_some(kept + ((row * pieces + t / KEPT) * s->N + n) * s->D + first, load(&states[n * LANES]), left);
                if (s->reset && s->reset[token]) std::fill(states.begin(), states.end(), 0.0f);
                const Lanes dt = load_some(s->dt + token * s->D + first, left), write = dt * load_some(s->x + token * s->D + first, left);
                Lanes read{};
                for (int64_t n = 0; n < s->N; ++n) {
                    const Lanes h = exp_of(dt * load(&rates[n * LANES])) * load(&states[n * LANES]) + write * s->b[token * s->N + n];
                    read += h * s->c[token * s->N + n];
                    store(&states[n * LANES], h);
                }
                store_some(y + token * s->D + first, read, left);
            }
            for (int64_t n = 0; n < s->N; ++n) store_some(end + (row * s->N + n) * s->D + first, load(&states[n * LANES]), left);
        }
    }
}

// Gradients from those of y and the last state. db and dc are sums over blocks of channels, (blocks, B, T, N), and dA over rows, (B, N, D):
// the caller adds them up, so that nothing depends on the number of threads.
extern "C" void ritornello_selective_backward(const Selective* s, const float* kept, const float* dy, const float* d_end, float* dx, float* ddt,
                                              float* dA, float* db, float* dc, float* dh) {
    const int64_t blocks = (s->D + LANES - 1) / LANES, pieces = (s->T + KEPT - 1) / KEPT, N = s->N;
#pragma omp parallel num_threads(s->threads)
    {
        std::vector<float> rates(N * LANES), grads(N * LANES), rate_grads(N * LANES), decays(KEPT * N * LANES), states((KEPT + 1) * N * LANES);
#pragma omp for schedule(static)
        for (int64_t job = 0; job < s->B * blocks; ++job) {
            const int64_t row = job / blocks, block = job % blocks, first = block * LANES, left = s->D - first;
            for (int64_t n = 0; n < N; ++n) {
                store(&rates[n * LANES], load_some(s->A + n * s->D + first, left));
                store(&grads[n * LANES], load_some(d_end + (row * N + n) * s->D + first, left));
                store(&rate_grads[n * LANES], Lanes{});
            }
            for (int64_t piece = pieces - 1; piece >= 0; --piece) {
                const int64_t from = piece * KEPT, count = std::min(KEPT, s->T - from);
                for (int64_t n = 0; n < N; ++n)
                    store(&states[n * LANES], load_some(kept + ((row * pieces + piece) * N + n) * s->D + first, left));
                for (int64_t i = 0; i < count; ++i) {  // the states again: states[i + 1] after token i
                    const int64_t token = row * s->T + from + i;
                    const bool cut = s->reset && s->reset[token];
                    const Lanes dt = load_some(s->dt + token * s->D + first, left), write = dt * load_some(s->x + token * s->D + first, left);
                    for (int64_t n = 0; n < N; ++n) {
                        const Lanes decay = exp_of(dt * load(&rates[n * LANES]));
                        float* before = &states[(i * N + n) * LANES];
                        const Lanes h = cut ? Lanes{} : decay * load(before);
                        store(&decays[(i * N + n) * LANES], decay);
                        store(before + N * LANES, h + write * s->b[token * N + n]);
                    }
                }
                for (int64_t i = count - 1; i >= 0; --i) {
                    const int64_t token = row * s->T + from + i;
                    const bool cut = s->reset && s->reset[token];
                    const Lanes dt = load_some(s->dt + token * s->D + first, left), x = load_some(s->x + token * s->D + first, left);
                    const Lanes out = load_some(dy + token * s->D + first, left);
                    Lanes to_write{}, to_dt{};
                    for (int64_t n = 0; n < N; ++n) {
                        const Lanes decay = load(&decays[(i * N + n) * LANES]), before = load(&states[(i * N + n) * LANES]);
                        const Lanes g = load(&grads[n * LANES]) + out * s->c[token * N + n];
                        dc[(block * s->B * s->T + token) * N + n] = sum(out * load(&states[((i + 1) * N + n) * LANES]));
                        db[(block * s->B * s->T + token) * N + n] = sum(g * dt * x);
                        to_write += g * s->b[token * N + n];
                        const Lanes faded = cut ? Lanes{} : g * decay;
                        const Lanes to_exponent = faded * (cut ? Lanes{} : before);
                        to_dt += to_exponent * load(&rates[n * LANES]);
                        store(&rate_grads[n * LANES], load(&rate_grads[n * LANES]) + to_exponent * dt);
                        store(&grads[n * LANES], faded);
                    }
                    store_some(dx + token * s->D + first, to_write * dt, left);
                    store_some(ddt + token * s->D + first, to_write * x + to_dt, left);
                }
            }
            for (int64_t n = 0; n < N; ++n) {
                store_some(dA + (row * N + n) * s->D + first, load(&rate_grads[n * LANES]), left);
                store_some(dh + (row * N + n) * s->D + first, load(&grads[n * LANES]), left);
            }
        }
    }
}
