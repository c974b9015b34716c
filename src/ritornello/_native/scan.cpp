// The diagonal recurrence h_t = a_t h_{t-1} + b_t and its adjoint, real or complex; the formula is in ops/scan.py.
//
// What limits it is memory, so every array is walked from one end to the other, forward or back, without a jump: processors fetch ahead only
// there. A step finds the last one's numbers where it wrote them, still in the cache.
#include <algorithm>

#include "lanes.h"

namespace {

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
    int64_t da_step;               // of da: N, or 0 where it is summed over the steps
    int64_t complex, threads;
    const float *a, *b, *h;        // a; b (B, T, N); h (B, N)
    const uint8_t* reset;          // (B, T) or null
};

namespace {

// All channels of a row, or, where threads outnumber rows, some of them, in whole vectors.
struct Parts {
    int64_t width, each;
    explicit Parts(const Scan* s) {
        const int64_t vectors = (s->N + LANES - 1) / LANES, wanted = (s->threads + s->B - 1) / std::max<int64_t>(1, s->B);
        each = std::max<int64_t>(1, std::min(vectors, wanted)), width = (vectors + each - 1) / each * LANES;
    }
};

template <class Numbers>
void forward(const Scan* s, float* y) {
    const Parts parts(s);
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < s->B * parts.each; ++job) {
        const int64_t row = job / parts.each, first = job % parts.each * parts.width, end = std::min(first + parts.width, s->N);
        for (int64_t t = 0; t < s->T; ++t) {
            const int64_t token = row * s->T + t;
            const float *a = s->a + row * s->a_row + t * s->a_step, *b = s->b + token * s->N;
            const float* before = t ? y + (token - 1) * s->N : s->h + row * s->N;
            const bool cut = s->reset && s->reset[token];
            for (int64_t i = first; i < end; i += LANES) {
                const Lanes h = cut ? Lanes{} : load_some(before + i, end - i);
                store_some(y + token * s->N + i, Numbers::times(load_some(a + i, end - i), h) + load_some(b + i, end - i), end - i);
            }
        }
    }
}

// dh holds the gradient of the state between two steps.
template <class Numbers>
void backward(const Scan* s, const float* y, const float* dy, float* da, float* db, float* dh) {
    const Parts parts(s);
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < s->B * parts.each; ++job) {
        const int64_t row = job / parts.each, first = job % parts.each * parts.width, end = std::min(first + parts.width, s->N);
        const int64_t last = first + (end - 1 - first) / LANES * LANES;
        const bool summed = !s->da_step;
        if (summed && first < end) std::fill(da + row * s->N + first, da + row * s->N + end, 0.0f);
        float* state = dh + row * s->N;
        for (int64_t t = s->T - 1; t >= 0; --t) {
            const int64_t token = row * s->T + t;
            const float *a = s->a + row * s->a_row + t * s->a_step, *before = t ? y + (token - 1) * s->N : s->h + row * s->N;
            float* to_a = da + (summed ? row * s->N : token * s->N);
            const bool cut = s->reset && s->reset[token];
            for (int64_t i = last; i >= first; i -= LANES) {
                const int64_t some = end - i;
                const Lanes g = load_some(state + i, some) + load_some(dy + token * s->N + i, some);
                const Lanes grown = cut ? Lanes{} : Numbers::by_conjugate(load_some(before + i, some), g);
                const Lanes handed = cut ? Lanes{} : Numbers::by_conjugate(load_some(a + i, some), g);
                store_some(db + token * s->N + i, g, some);
                store_some(to_a + i, summed ? load_some(to_a + i, some) + grown : grown, some);
                store_some(state + i, handed, some);
            }
        }
    }
}

}  // namespace

// Every h (B, T, N).
extern "C" void ritornello_scan_forward(const Scan* s, float* y) {
    s->complex ? forward<Complex>(s, y) : forward<Real>(s, y);
}

// Gradients of a, (B, T, N) or summed over T, of b, and of h from those of every h; dh holds the gradient of the last one, once more, before.
extern "C" void ritornello_scan_backward(const Scan* s, const float* y, const float* dy, float* da, float* db, float* dh) {
    s->complex ? backward<Complex>(s, y, dy, da, db, dh) : backward<Real>(s, y, dy, da, db, dh);
}

// Floats in a vector of this build.
extern "C" int64_t ritornello_lanes() { return LANES; }
