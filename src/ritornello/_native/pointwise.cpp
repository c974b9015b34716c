// What a layer does to each element or row between two matrix products, in one pass each way; the formulas are in ops/pointwise.py
// and ops/dropout.py.
//
//   norm     y = x r w                     r = 1 / sqrt(mean of x^2 + eps)
//   swish    y = scale x s(x)              s = sigmoid
//   swiglu   y = gate s(gate) up
//   forget   f = floor + (1 - floor) s(x)  key = 1 - f and log f
//   dropout  y = scale x or 0              by a hash of the seed and the place; its own backward pass
//
// In torch each is a chain of passes over memory, and its backward pass a longer one. Sums over rows are taken in blocks of a fixed
// number of rows, then over the blocks in order, so that threads change no bit.
#include <cmath>
#include <limits>
#include <vector>

#include "bfloat.h"
#include "exp.h"

namespace {

constexpr int64_t BLOCK = 64;  // rows whose part of a summed gradient is one sum

typedef int32_t Ints __attribute__((vector_size(sizeof(Lanes))));
typedef uint32_t Words __attribute__((vector_size(sizeof(Lanes))));

inline Lanes choose(Ints where, Lanes yes, Lanes no) { return (Lanes)(((Ints)yes & where) | ((Ints)no & ~where)); }

inline float sum(Lanes x) {
    float total = 0;
    for (int i = 0; i < LANES; ++i) total += x[i];
    return total;
}

struct Gate {
    Lanes s, c;  // sigmoid(x) and sigmoid(-x), each exact where it is small
    explicit Gate(Lanes x) {
        const Ints below = x < 0.0f;
        const Lanes e = exp_of(choose(below, x, -x)), one = splat(1.0f), part = one / (one + e);
        s = choose(below, e, one) * part;
        c = choose(below, one, e) * part;
    }
};

// log x for x > 0, no denormals: x = 2^e m with m in [sqrt(1/2), sqrt(2)), and log m = u - u^2 / 2 + u^3 P(u) with u = m - 1 (as in Cephes).
inline Lanes log_of(Lanes x) {
    Ints e = ((Ints)x >> 23) - 126;
    Lanes m = (Lanes)(((Ints)x & 0x007fffff) | 0x3f000000);  // in [1/2, 1)
    const Ints small = m < 0.707106781f;
    e += small;  // true is -1
    m = m + choose(small, m, Lanes{}) - 1.0f;
    Lanes p = splat(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const Lanes n = __builtin_convertvector(e, Lanes), square = m * m;
    return m + (p * m * square - n * 2.12194440e-4f - 0.5f * square) + n * 0.693359375f;
}

// The sums over rows of each column from those of the blocks.
void add_blocks(const std::vector<float>& parts, int64_t blocks, int64_t D, float* out) {
    std::fill_n(out, D, 0.0f);
    for (int64_t block = 0; block < blocks; ++block)
        for (int64_t d = 0; d < D; ++d) out[d] += parts[block * D + d];
}

}  // namespace

struct Rows {
    int64_t N, D, narrow, threads;  // narrow: the numbers called `void` are bfloat16, not float32
};

namespace {

template <class Number>
void norm_forward(const Rows* rows, const float* x, const float* w, double eps, Number* y, float* r) {
    const int64_t D = rows->D;
#pragma omp parallel for num_threads(rows->threads) schedule(static)
    for (int64_t n = 0; n < rows->N; ++n) {
        const float* x_n = x + n * D;
        Lanes squares[2] = {};
        int64_t d = 0;
        for (; d + 2 * LANES <= D; d += 2 * LANES)
            for (int i = 0; i < 2; ++i) squares[i] += load(x_n + d + i * LANES) * load(x_n + d + i * LANES);
        for (; d < D; d += LANES) squares[0] += load_some(x_n + d, D - d) * load_some(x_n + d, D - d);
        r[n] = float(1 / std::sqrt(double(sum(squares[0] + squares[1])) / double(D) + eps));
        for (d = 0; d < D; d += LANES) put_some(y + n * D + d, load_some(x_n + d, D - d) * r[n] * load_some(w + d, D - d), D - d);
    }
}

template <class Number>
void norm_backward(const Rows* rows, const float* x, const float* w, const float* r, const Number* dy, float* dx, float* dw) {
    const int64_t D = rows->D, blocks = (rows->N + BLOCK - 1) / BLOCK;
    std::vector<float> parts(blocks * D);
#pragma omp parallel for num_threads(rows->threads) schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
        float* part = parts.data() + block * D;
        for (int64_t n = block * BLOCK; n < std::min(rows->N, (block + 1) * BLOCK); ++n) {
            const float* x_n = x + n * D;
            const Number* dy_n = dy + n * D;
            Lanes along{};
            for (int64_t d = 0; d < D; d += LANES) {
                const int64_t left = D - d;
                const Lanes product = load_some(x_n + d, left) * get_some(dy_n + d, left);
                along += product * load_some(w + d, left);
                store_some(part + d, load_some(part + d, left) + product * r[n], left);
            }
            const float back = sum(along) * r[n] * r[n] / float(D);
            for (int64_t d = 0; d < D; d += LANES) {
                const int64_t left = D - d;
                const Lanes straight = get_some(dy_n + d, left) * load_some(w + d, left);
                store_some(dx + n * D + d, (straight - load_some(x_n + d, left) * back) * r[n], left);
            }
        }
    }
    add_blocks(parts, blocks, D, dw);
}

template <class Number>
void swish_forward(const Rows* rows, const Number* x, float scale, float* y) {
    const int64_t D = rows->D;
#pragma omp parallel for num_threads(rows->threads) schedule(static)
    for (int64_t n = 0; n < rows->N; ++n)
        for (int64_t d = 0; d < D; d += LANES) {
            const Lanes x_d = get_some(x + n * D + d, D - d);
            store_some(y + n * D + d, scale * x_d * Gate(x_d).s, D - d);
        }
}

template <class Number>
void swish_backward(const Rows* rows, const Number* x, float scale, const float* dy, Number* dx) {
    const int64_t D = rows->D;
#pragma omp parallel for num_threads(rows->threads) schedule(static)
    for (int64_t n = 0; n < rows->N; ++n)
        for (int64_t d = 0; d < D; d += LANES) {
            const int64_t at = n * D + d, left = D - d;
            const Lanes x_d = get_some(x + at, left);
            const Gate open(x_d);
            put_some(dx + at, scale * load_some(dy + at, left) * open.s * (1.0f + x_d * open.c), left);
        }
}

template <class Number>
void swiglu_forward(const Rows* rows, const Number* gate, const Number* up, Number* y) {
    const int64_t D = rows->D;
#pragma omp parallel for num_threads(rows->threads) schedule(static)
    for (int64_t n = 0; n < rows->N; ++n)
        for (int64_t d = 0; d < D; d += LANES) {
            const Lanes x = get_some(gate + n * D + d, D - d);
            put_some(y + n * D + d, x * Gate(x).s * get_some(up + n * D + d, D - d), D - d);
        }
}

template <class Number>
void swiglu_backward(const Rows* rows, const Number* gate, const Number* up, const Number* dy, Number* d_gate, Number* d_up) {
    const int64_t D = rows->D;
#pragma omp parallel for num_threads(rows->threads) schedule(static)
    for (int64_t n = 0; n < rows->N; ++n)
        for (int64_t d = 0; d < D; d += LANES) {
            const int64_t at = n * D + d, left = D - d;
            const Lanes x = get_some(gate + at, left), back = get_some(dy + at, left);
            const Gate open(x);
            put_some(d_gate + at, back * get_some(up + at, left) * open.s * (1.0f + x * open.c), left);
            put_some(d_up + at, back * x * open.s, left);
        }
}

template <class Number>
void forget_forward(const Rows* rows, const Number* x, const float* floor, float* key, float* log_f) {
    const int64_t D = rows->D;
#pragma omp parallel for num_threads(rows->threads) schedule(static)
    for (int64_t n = 0; n < rows->N; ++n)
        for (int64_t d = 0; d < D; d += LANES) {
            const int64_t at = n * D + d, left = D - d;
            const Gate open(get_some(x + at, left));
            const Lanes low = load_some(floor + d, left), k = (1.0f - low) * open.c, f = low + (1.0f - low) * open.s;
            const Ints near = k <= 0.5f;  // f near 1: its log is that of 1 - k, corrected for what the difference lost
            const Lanes tiny = splat(std::numeric_limits<float>::min());
            const Lanes u = choose(near, 1.0f - k, choose(f > tiny, f, tiny));
            store_some(key + at, k, left);
            store_some(log_f + at, log_of(u) + choose(near, ((1.0f - u) - k) / u, Lanes{}), left);
        }
}

template <class Number>
void forget_backward(const Rows* rows, const Number* x, const float* floor, const float* d_key, const float* d_log, Number* dx, float* d_floor) {
    const int64_t D = rows->D, blocks = (rows->N + BLOCK - 1) / BLOCK;
    std::vector<float> parts(blocks * D);
#pragma omp parallel for num_threads(rows->threads) schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
        float* part = parts.data() + block * D;
        for (int64_t n = block * BLOCK; n < std::min(rows->N, (block + 1) * BLOCK); ++n)
            for (int64_t d = 0; d < D; d += LANES) {
                const int64_t at = n * D + d, left = D - d;
                const Gate open(get_some(x + at, left));
                const Lanes low = load_some(floor + d, left), f = low + (1.0f - low) * open.s;
                const Lanes tiny = splat(std::numeric_limits<float>::min());
                const Lanes back = load_some(d_log + at, left) / choose(f > tiny, f, tiny) - load_some(d_key + at, left);  // of f
                put_some(dx + at, back * (1.0f - low) * open.s * open.c, left);
                store_some(part + d, load_some(part + d, left) + back * open.c, left);
            }
    }
    add_blocks(parts, blocks, D, d_floor);
}

// 32 bits that look like chance, of places and the halves of a seed.
inline Words mixed(Words place, uint32_t low, uint32_t high) {
    Words x = place * 0x9e3779b9u + low;
    for (int round = 0; round < 2; ++round) {
        x ^= x >> 16;
        x *= 0x7feb352du;
        x ^= x >> 15;
        x *= 0x846ca68bu;
        x ^= x >> 16;
        if (round == 0) x ^= high;
    }
    return x;
}

template <class Number>
void dropout(const Rows* rows, const Number* x, uint64_t seed, uint32_t threshold, float scale, Number* y) {
    const int64_t D = rows->D;
    Words lane;
    for (int i = 0; i < LANES; ++i) lane[i] = uint32_t(i);
#pragma omp parallel for num_threads(rows->threads) schedule(static)
    for (int64_t n = 0; n < rows->N; ++n)
        for (int64_t d = 0; d < D; d += LANES) {
            const int64_t at = n * D + d;
            const Ints keep = (Ints)(mixed(lane + uint32_t(at), uint32_t(seed), uint32_t(seed >> 32)) >= threshold);
            put_some(y + at, choose(keep, get_some(x + at, D - d) * scale, Lanes{}), D - d);
        }
}

}  // namespace

// y (N, D) and r (N) of x (N, D) and w (D).
extern "C" void ritornello_norm_forward(const Rows* rows, const float* x, const float* w, double eps, void* y, float* r) {
    if (rows->narrow) norm_forward(rows, x, w, eps, (Bfloat*)y, r);
    else norm_forward(rows, x, w, eps, (float*)y, r);
}

// dx (N, D) and dw (D) from dy (N, D).
extern "C" void ritornello_norm_backward(const Rows* rows, const float* x, const float* w, const float* r, const void* dy, float* dx, float* dw) {
    if (rows->narrow) norm_backward(rows, x, w, r, (const Bfloat*)dy, dx, dw);
    else norm_backward(rows, x, w, r, (const float*)dy, dx, dw);
}

// y (N, D) of x (N, D).
extern "C" void ritornello_swish_forward(const Rows* rows, const void* x, double scale, float* y) {
    if (rows->narrow) swish_forward(rows, (const Bfloat*)x, float(scale), y);
    else swish_forward(rows, (const float*)x, float(scale), y);
}

extern "C" void ritornello_swish_backward(const Rows* rows, const void* x, double scale, const float* dy, void* dx) {
    if (rows->narrow) swish_backward(rows, (const Bfloat*)x, float(scale), dy, (Bfloat*)dx);
    else swish_backward(rows, (const float*)x, float(scale), dy, (float*)dx);
}

// y (N, D) of gate and up (N, D), all of one type.
extern "C" void ritornello_swiglu_forward(const Rows* rows, const void* gate, const void* up, void* y) {
    if (rows->narrow) swiglu_forward(rows, (const Bfloat*)gate, (const Bfloat*)up, (Bfloat*)y);
    else swiglu_forward(rows, (const float*)gate, (const float*)up, (float*)y);
}

extern "C" void ritornello_swiglu_backward(const Rows* rows, const void* gate, const void* up, const void* dy, void* d_gate, void* d_up) {
    if (rows->narrow) swiglu_backward(rows, (const Bfloat*)gate, (const Bfloat*)up, (const Bfloat*)dy, (Bfloat*)d_gate, (Bfloat*)d_up);
    else swiglu_backward(rows, (const float*)gate, (const float*)up, (const float*)dy, (float*)d_gate, (float*)d_up);
}

// key and log_f (N, D) of x (N, D) and floor (D).
extern "C" void ritornello_forget_forward(const Rows* rows, const void* x, const float* floor, float* key, float* log_f) {
    if (rows->narrow) forget_forward(rows, (const Bfloat*)x, floor, key, log_f);
    else forget_forward(rows, (const float*)x, floor, key, log_f);
}

extern "C" void ritornello_forget_backward(const Rows* rows, const void* x, const float* floor, const float* d_key, const float* d_log, void* dx,
                                           float* d_floor) {
    if (rows->narrow) forget_backward(rows, (const Bfloat*)x, floor, d_key, d_log, (Bfloat*)dx, d_floor);
    else forget_backward(rows, (const float*)x, floor, d_key, d_log, (float*)dx, d_floor);
}

// y (N, D) of x (N, D) where the hash of the place reaches the threshold, else 0.
extern "C" void ritornello_dropout(const Rows* rows, const void* x, const int64_t* seed, int64_t threshold, double scale, void* y) {
    const uint64_t bits = uint64_t(*seed);
    if (rows->narrow) dropout(rows, (const Bfloat*)x, bits, uint32_t(threshold), float(scale), (Bfloat*)y);
    else dropout(rows, (const float*)x, bits, uint32_t(threshold), float(scale), (float*)y);
}
