// The short causal convolution of ops/conv.py: one filter of W taps a channel, over whole rows of a text at once.
//
//   y_t = bias + sum over j <= reach(t) of w_j x_{t-j}        reach: W - 1, or the tokens since the last reset if those are fewer
//
// Here w_j is the tap for the token j before; x of negative t is what the state holds. Backward, token t hears from every later one that
// reaches it, and from the last one if the new state keeps it. The gradients of taps and bias are summed over blocks of a fixed number of
// tokens, then over the blocks in order, so that threads change no bit.
#include <vector>

#include "bfloat.h"

struct Conv {
    int64_t B, T, D, W, narrow, threads;  // narrow: the numbers called `void` are bfloat16, not float32
    const void* x;                        // (B, T, D)
    const float *w, *bias, *past;         // (W, D), the newest token's tap first; (D,) or null; (B, W - 1, D), newest last
    const uint8_t* reset;                 // (B, T) or null
};

namespace {

constexpr int64_t BLOCK = 64;  // tokens

int64_t reach(const Conv& p, int64_t b, int64_t t) {
    if (p.reset)
        for (int64_t j = 0; j < p.W - 1 && j <= t; ++j)
            if (p.reset[b * p.T + t - j]) return j;
    return p.W - 1;
}

template <class Number>
void forward(const Conv& p, Number* y, float* end) {
    const int64_t T = p.T, D = p.D, kept = p.W - 1, blocks = (T + BLOCK - 1) / BLOCK;
    const Number* x = static_cast<const Number*>(p.x);
#pragma omp parallel for num_threads(p.threads) schedule(static)
    for (int64_t job = 0; job < p.B * blocks; ++job) {
        const int64_t b = job / blocks, first = job % blocks * BLOCK;
        for (int64_t t = first; t < std::min(T, first + BLOCK); ++t) {
            const int64_t most = reach(p, b, t), inside = std::min(most, t);
            for (int64_t d = 0; d < D; d += LANES) {
                const int64_t left = D - d;
                Lanes sum = p.bias ? load_some(p.bias + d, left) : Lanes{};
                for (int64_t j = 0; j <= inside; ++j) sum += load_some(p.w + j * D + d, left) * get_some(x + (b * T + t - j) * D + d, left);
                for (int64_t j = inside + 1; j <= most; ++j)
                    sum += load_some(p.w + j * D + d, left) * load_some(p.past + (b * kept + kept + t - j) * D + d, left);
                put_some(y + (b * T + t) * D + d, sum, left);
            }
        }
    }
    for (int64_t b = 0; b < p.B; ++b) {
        const int64_t most = reach(p, b, T - 1);
        for (int64_t i = 0; i < kept; ++i) {
            const int64_t t = T - kept + i;
            float* to = end + (b * kept + i) * D;
            for (int64_t d = 0; d < D; d += LANES) {
                const int64_t left = D - d;
                Lanes value{};
                if (T - 1 - t <= most) value = t >= 0 ? get_some(x + (b * T + t) * D + d, left) : load_some(p.past + (b * kept + kept + t) * D + d, left);
                store_some(to + d, value, left);
            }
        }
    }
}

// What the token t, which may lie in the past, hears: from those after it, and from the new state.
template <class Number>
Lanes heard(const Conv& p, int64_t b, int64_t t, int64_t d, const int64_t* most, int64_t last, const Number* dy, const float* d_end) {
    const int64_t T = p.T, D = p.D, kept = p.W - 1, left = D - d;
    Lanes sum{};
    for (int64_t j = std::max<int64_t>(0, -t); j <= kept && t + j < T; ++j)
        if (j <= most[j]) sum += load_some(p.w + j * D + d, left) * get_some(dy + (b * T + t + j) * D + d, left);
    if (T - 1 - t < kept && T - 1 - t <= last) sum += load_some(d_end + (b * kept + kept - T + t) * D + d, left);
    return sum;
}

template <class Number>
void backward(const Conv& p, const Number* dy, const float* d_end, Number* dx, float* dw, float* d_bias, float* d_past) {
    const int64_t T = p.T, D = p.D, W = p.W, kept = W - 1, size = (W + 1) * D;
    const int64_t blocks = std::max<int64_t>(1, (T + BLOCK - 1) / BLOCK);  // without a token there is still the past
    const Number* x = static_cast<const Number*>(p.x);
    std::vector<float> parts(p.B * blocks * size);  // of each block: every tap's gradient, then the bias's
#pragma omp parallel for num_threads(p.threads) schedule(static)
    for (int64_t job = 0; job < p.B * blocks; ++job) {
        const int64_t b = job / blocks, first = job % blocks * BLOCK, last = reach(p, b, T - 1);
        float* part = parts.data() + job * size;
        std::vector<int64_t> most(W);  // of the token itself and those after it
        for (int64_t t = first ? first : -kept; t < std::min(T, first + BLOCK); ++t) {
            for (int64_t j = std::max<int64_t>(0, -t); j < W; ++j) most[j] = t + j < T ? reach(p, b, t + j) : 0;
            for (int64_t d = 0; d < D; d += LANES) {
                const int64_t left = D - d;
                const Lanes back = heard(p, b, t, d, most.data(), last, dy, d_end);
                if (t < 0) {
                    store_some(d_past + (b * kept + kept + t) * D + d, back, left);
                    continue;
                }
                put_some(dx + (b * T + t) * D + d, back, left);
                const Lanes own = get_some(dy + (b * T + t) * D + d, left);
                for (int64_t j = 0; j <= most[0]; ++j) {
                    const Lanes then = j <= t ? get_some(x + (b * T + t - j) * D + d, left)
                                              : load_some(p.past + (b * kept + kept + t - j) * D + d, left);
                    store_some(part + j * D + d, load_some(part + j * D + d, left) + own * then, left);
                }
                store_some(part + W * D + d, load_some(part + W * D + d, left) + own, left);
            }
        }
    }
    std::fill_n(dw, W * D, 0.0f);
    std::fill_n(d_bias, D, 0.0f);
    for (int64_t job = 0; job < p.B * blocks; ++job) {
        const float* part = parts.data() + job * size;
        for (int64_t i = 0; i < W * D; ++i) dw[i] += part[i];
        for (int64_t d = 0; d < D; ++d) d_bias[d] += part[W * D + d];
    }
}

}  // namespace

extern "C" {

void ritornello_conv_forward(const Conv* p, void* y, float* end) {
    p->narrow ? forward(*p, static_cast<Bfloat*>(y), end) : forward(*p, static_cast<float*>(y), end);
}

void ritornello_conv_backward(const Conv* p, const void* dy, const float* d_end, void* dx, float* dw, float* d_bias, float* d_past) {
    p->narrow ? backward(*p, static_cast<const Bfloat*>(dy), d_end, static_cast<Bfloat*>(dx), dw, d_bias, d_past)
              : backward(*p, static_cast<const float*>(dy), d_end, static_cast<float*>(dx), dw, d_bias, d_past);
}
}
