// The diagonal recurrence h_t = a_t h_{t-1} + b_t and its adjoint, real or complex; the formula is in ops/scan.py.
//
// Channels are independent and lie side by side, so a block of them stays in registers while time goes by. Everything is read and written
// once: what limits it is memory.
#include <algorithm>

#include "lanes.h"

namespace {

constexpr int BLOCK = 4 * LANES;  // floats of channels at a time

struct Real {
    static Lanes times(Lanes a, Lanes h) { return a * h; }
    static Lanes by_conjugate(Lanes a, Lanes g) { return a * g; }
};

// Complex numbers are neighbouring lanes, real part first.
struct Complex {
    static Lanes swapped(Lanes x) {
        Lanes y;
        for (int i = 0; i < LANES; i += 2) y[i] = x[i + 1], y[i + 1] = x[i];
        return y;
    }
    static Lanes reals(Lanes x) {
        Lanes y;
        for (int i = 0; i < LANES; i += 2) y[i] = y[i + 1] = x[i];
        return y;
    }
    static Lanes imaginaries(Lanes x) {  // of either sign: -q for the real part, q for the imaginary one
        Lanes y;
        for (int i = 0; i < LANES; i += 2) y[i] = -x[i + 1], y[i + 1] = x[i + 1];
        return y;
    }
    static Lanes times(Lanes a, Lanes h) { return reals(a) * h + imaginaries(a) * swapped(h); }
    static Lanes by_conjugate(Lanes a, Lanes g) { return reals(a) * g - imaginaries(a) * swapped(g); }
};

}  // namespace

struct Scan {
    int64_t B, T, N;               // N floats of channels, pairs of them if complex
    int64_t a_row, a_step;         // floats from row to row and from step to step of a: 0 where it is the same
    int64_t complex, threads;
    const float *a, *b, *h;        // a; b (B, T, N); h (B, N)
    const uint8_t* reset;          // (B, T) or null
};

namespace {

template <class Numbers>
void forward(const Scan* s, float* y) {
    const int64_t blocks = (s->N + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < s->B * blocks; ++job) {
        const int64_t row = job / blocks, first = job % blocks * BLOCK, left = std::min<int64_t>(BLOCK, s->N - first);
        Lanes h[4];
        for (int w = 0; w < 4; ++w) h[w] = load_some(s->h + row * s->N + first + w * LANES, left - w * LANES);
        for (int64_t t = 0; t < s->T; ++t) {
            const int64_t at = (row * s->T + t) * s->N + first;
            const float* a = s->a + row * s->a_row + t * s->a_step + first;
            const bool cut = s->reset && s->reset[row * s->T + t];
            for (int w = 0; w < 4; ++w) {
                const Lanes before = cut ? Lanes{} : h[w];
                h[w] = Numbers::times(load_some(a + w * LANES, left - w * LANES), before) + load_some(s->b + at + w * LANES, left - w * LANES);
                store_some(y + at + w * LANES, h[w], left - w * LANES);
            }
        }
    }
}

template <class Numbers>
void backward(const Scan* s, const float* y, const float* dy, const float* d_end, float* da, float* db, float* dh) {
    const int64_t blocks = (s->N + BLOCK - 1) / BLOCK;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < s->B * blocks; ++job) {
        const int64_t row = job / blocks, first = job % blocks * BLOCK, left = std::min<int64_t>(BLOCK, s->N - first);
        Lanes g[4];
        for (int w = 0; w < 4; ++w) g[w] = load_some(d_end + row * s->N + first + w * LANES, left - w * LANES);
        for (int64_t t = s->T - 1; t >= 0; --t) {
            const int64_t at = (row * s->T + t) * s->N + first;
            const float* a = s->a + row * s->a_row + t * s->a_step + first;
            const float* before = t ? y + at - s->N : s->h + row * s->N + first;
            const bool cut = s->reset && s->reset[row * s->T + t];
            for (int w = 0; w < 4; ++w) {
                const int64_t some = left - w * LANES;
                g[w] += load_some(dy + at + w * LANES, some);
                store_some(db + at + w * LANES, g[w], some);
                store_some(da + at + w * LANES, cut ? Lanes{} : Numbers::by_conjugate(load_some(before + w * LANES, some), g[w]), some);
                g[w] = cut ? Lanes{} : Numbers::by_conjugate(load_some(a + w * LANES, some), g[w]);
            }
        }
        for (int w = 0; w < 4; ++w) store_some(dh + row * s->N + first + w * LANES, g[w], left - w * LANES);
    }
}

}  // namespace

// Every h (B, T, N).
extern "C" void ritornello_scan_forward(const Scan* s, float* y) {
    s->complex ? forward<Complex>(s, y) : forward<Real>(s, y);
}

// Gradients of a (as if it were (B, T, N)), b and h from those of every h and, once more, of the last.
extern "C" void ritornello_scan_backward(const Scan* s, const float* y, const float* dy, const float* d_end, float* da, float* db, float* dh) {
    s->complex ? backward<Complex>(s, y, dy, d_end, da, db, dh) : backward<Real>(s, y, dy, d_end, da, db, dh);
}

// Floats in a vector of this build.
extern "C" int64_t ritornello_lanes() { return LANES; }
