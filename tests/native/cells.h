// The cells: gru, slstm.
#pragma once

#include "check.h"

// ---- gru -----------------------------------------------------------------------------------------------------------------------------

struct GRU {
    int64_t B, T, D, threads;
    const float *U, *h;
    const uint8_t* reset;
};
extern "C" void ritornello_gru_forward(const GRU*, const float* x, const float* b, float* y, float* end, float* kept);
extern "C" void ritornello_gru_backward(const GRU*, const float* y, const float* kept, const float* dy, const float* d_end, float* dx, float* da,
                                        float* dh);

static void gru(const Size& n) {
    const int64_t D = n.K, all = n.B * n.T * D;
    const float small = 1 / std::sqrt(float(D));  // so that rounding does not grow from step to step
    Floats U = uniform(3 * D * D, -small, small), bias = uniform(3 * D, -1, 1), h = uniform(n.B * D, -1, 1), x = uniform(3 * all, -2, 2);
    Floats y(all), end(n.B * D), kept(4 * all), dy = uniform(all, -1, 1), d_end = uniform(n.B * D, -1, 1), dx(3 * all), da(3 * all), dh(n.B * D);
    const Resets resets(n.B * n.T, n.resets);
    const GRU call{n.B, n.T, D, n.threads, U, h, resets.room.get()};
    ritornello_gru_forward(&call, x, bias, y, end, kept);
    ritornello_gru_backward(&call, y, kept, dy, d_end, dx, da, dh);

    const Numbers X = leaves(x), first = leaves(h);
    Numbers last = first, Y, A;  // A: what the products made
    for (int64_t token = 0; token < n.B * n.T; ++token) {
        const auto row = last.begin() + token / n.T * D;
        if (resets.cut(token)) std::fill_n(row, D, Number(0));
        const Numbers before(row, row + D);
        for (int64_t i = 0; i < 3 * D; ++i) {
            Number sum = leaf(bias[i]);
            for (int64_t k = 0; k < D; ++k) sum = sum + double(U[i * D + k]) * before[size_t(k)];
            A.push_back(sum);
        }
        for (int64_t i = 0; i < D; ++i) {
            const Number *in = &X[size_t(token * 3 * D + i)], *a = &A[size_t(token * 3 * D + i)];
            const Number r = sigmoid(in[0] + a[0]), z = sigmoid(in[D] + a[D]), candidate = tanh(in[2 * D] + r * a[2 * D]);
            row[i] = z * before[size_t(i)] + (1 - z) * candidate;
            Y.push_back(row[i]);
        }
    }
    compare("y", y, Y), compare("end", end, last);
    Gradients gradients;
    gradients.seed(Y, dy), gradients.seed(last, d_end), gradients.spread();
    compare("dx", dx, gradients.of(X)), compare("da", da, gradients.of(A)), compare("dh", dh, gradients.of(first));
}

// ---- slstm ---------------------------------------------------------------------------------------------------------------------------

struct SLSTM {
    int64_t B, T, H, K, threads;
    const float *r, *state;
    const uint8_t* reset;
};
extern "C" void ritornello_slstm_forward(const SLSTM*, const float* u, float* y, float* end, float* kept);
extern "C" void ritornello_slstm_backward(const SLSTM*, const float* y, const float* kept, const float* dy, const float* d_end, float* du,
                                          float* d_state);

static void slstm(const Size& n) {
    const int64_t K = n.K, all = n.B * n.T * n.H * K, leaf_size = n.B * n.H * K;
    const float small = 1 / std::sqrt(float(K));
    Floats r = uniform(n.H * K * 4 * K, -small, small), state = uniform(4 * leaf_size, 0.5f, 1.5f), u = uniform(4 * all, -3, 3);
    Floats y(all), end(4 * leaf_size), kept(7 * all), dy = uniform(all, -1, 1), d_end = uniform(4 * leaf_size, -1, 1);
    Floats du(4 * all), d_state(4 * leaf_size);
    const Resets resets(n.B * n.T, n.resets);
    const SLSTM call{n.B, n.T, n.H, K, n.threads, r, state, resets.room.get()};
    ritornello_slstm_forward(&call, u, y, end, kept);
    ritornello_slstm_backward(&call, y, kept, dy, d_end, du, d_state);

    const Numbers U = leaves(u), first = leaves(state);
    Numbers last = first, Y(size_t(all), Number(0));
    for (int64_t token = 0; token < n.B * n.T; ++token)
        for (int64_t head = 0; head < n.H; ++head) {
            auto held = [&](int64_t part, int64_t i) -> Number& { return last[size_t(part * leaf_size + (token / n.T * n.H + head) * K + i)]; };
            for (int64_t part = 0; part < 4; ++part)
                for (int64_t i = 0; i < K && resets.cut(token); ++i) held(part, i) = part < 3 ? 0.0 : -1e30;
            Numbers h;
            for (int64_t i = 0; i < K; ++i) h.push_back(held(0, i));
            for (int64_t i = 0; i < K; ++i) {
                Number gate[4];
                for (int64_t g = 0; g < 4; ++g) {
                    gate[g] = U[size_t(((token * n.H + head) * 4 + g) * K + i)];
                    for (int64_t k = 0; k < K; ++k) gate[g] = gate[g] + double(r[((head * K + k) * 4 + g) * K + i]) * h[size_t(k)];
                }
                const Number log_keep = log(sigmoid(gate[1])) + held(3, i), m = maximum(gate[0], log_keep);
                const Number write = exp(gate[0] - m), keep = exp(log_keep - m);
                held(1, i) = keep * held(1, i) + write * tanh(gate[2]);
                held(2, i) = keep * held(2, i) + write;
                held(3, i) = m;
                held(0, i) = Y[size_t((token * n.H + head) * K + i)] = sigmoid(gate[3]) * held(1, i) / held(2, i);
            }
        }
    compare("y", y, Y), compare("end", end, last);
    Gradients gradients;
    gradients.seed(Y, dy), gradients.seed(last, d_end), gradients.spread();
    compare("du", du, gradients.of(U)), compare("d_state", d_state, gradients.of(first));
}
