// What is done to each row: vocabulary, divergence, norm, swish, swiglu, forget, dropout.
#pragma once

#include "check.h"

// ---- vocabulary ----------------------------------------------------------------------------------------------------------------------

struct Vocabulary {
    int64_t N, V, narrow, threads;
    const void* logits;
    const int64_t* targets;
};
extern "C" void ritornello_vocabulary_forward(const Vocabulary*, float* nats, float* kept);
extern "C" void ritornello_vocabulary_backward(const Vocabulary*, const float* kept, const float* d_nats, void* d_logits);

// `in_place`: the gradient is written over the logits.
static void vocabulary(const Size& n, bool narrow, bool in_place) {
    const int64_t N = n.B * n.T, V = n.K * n.V;
    Floats nats(N), kept(2 * N), d_nats = uniform(N, -1, 1);
    Either logits(uniform(N * V, -20, 20), narrow), d_logits(Floats(N * V), narrow);
    Items<int64_t> targets(N, -100);
    for (int64_t i = 0; i < N; ++i)
        if (random_bits() % 4) targets[i] = int64_t(random_bits() % uint64_t(V));
    const Numbers X = leaves(logits.wide);

    const Vocabulary call{N, V, narrow, n.threads, logits, targets};
    ritornello_vocabulary_forward(&call, nats, kept);
    ritornello_vocabulary_backward(&call, kept, d_nats, in_place ? logits : d_logits);

    Numbers wanted;
    for (int64_t row = 0; row < N; ++row) {
        Number sum = 0;
        for (int64_t j = 0; targets[row] >= 0 && j < V; ++j) sum = sum + exp(X[size_t(row * V + j)]);
        wanted.push_back(targets[row] < 0 ? Number(0) : log(sum) - X[size_t(row * V + targets[row])]);
    }
    compare("nats", nats, wanted);
    Gradients gradients;
    gradients.seed(wanted, d_nats), gradients.spread();
    compare("d_logits", (in_place ? logits : d_logits).read(), gradients.of(X), narrow ? 4e-3 : 2e-5);
}

// ---- divergence ----------------------------------------------------------------------------------------------------------------------

struct Divergence {
    int64_t N, V, K, narrow, threads;
    const void* logits;
    const int64_t* ids;
    const float *log_p, *log_rest;
    double temperature;
};
extern "C" void ritornello_divergence_forward(const Divergence*, float* nats, float* kept);
extern "C" void ritornello_divergence_backward(const Divergence*, const float* kept, const float* d_nats, void* d_logits);

// K places known of V, each its own; their probabilities and the rest's sum to 1.
static void divergence(const Size& n, bool narrow) {
    const int64_t N = n.B * n.T, V = n.K * n.V, K = 1 + int64_t(random_bits() % uint64_t(V));
    const double temperature = 1.5;
    Floats nats(N), kept(3 * N), d_nats = uniform(N, -1, 1), log_p(N * K), log_rest(N);
    Either logits(uniform(N * V, -3, 3), narrow), d_logits(Floats(N * V), narrow);
    Items<int64_t> ids(N * K, 0);
    for (int64_t row = 0; row < N; ++row) {
        const int64_t first = int64_t(random_bits() % uint64_t(V));
        for (int64_t k = 0; k < K; ++k) {
            ids[row * K + k] = (first + k) % V;
            log_p[row * K + k] = float(std::log(0.8 / double(K)));
        }
        log_rest[row] = K < V ? float(std::log(0.2)) : -INFINITY;
    }
    const Numbers X = leaves(logits.wide);

    const Divergence call{N, V, K, narrow, n.threads, logits, ids, log_p, log_rest, temperature};
    ritornello_divergence_forward(&call, nats, kept);
    ritornello_divergence_backward(&call, kept, d_nats, d_logits);

    Numbers wanted;
    for (int64_t row = 0; row < N; ++row) {
        Number known = 0, others = 0, result = 0;
        const auto at = [&](int64_t j) { return exp(X[size_t(row * V + j)] / temperature); };
        for (int64_t j = 0; j < V; ++j) {
            const bool told = (j - ids[row * K] + V) % V < K;
            if (told) known = known + at(j);
            else others = others + at(j);
        }
        const Number all = known + others;
        for (int64_t k = 0; k < K; ++k) {
            const double p = std::exp(double(log_p[row * K + k]));
            result = result + p * (std::log(p) - log(at(ids[row * K + k]) / all));
        }
        if (K < V) result = result + 0.2 * (std::log(0.2) - log(others / all));
        wanted.push_back(result);
    }
    compare("nats", nats, wanted, 1e-4);
    Gradients gradients;
    gradients.seed(wanted, d_nats), gradients.spread();
    compare("d_logits", d_logits.read(), gradients.of(X), narrow ? 4e-3 : 1e-4);
}

// ---- pointwise -----------------------------------------------------------------------------------------------------------------------

struct Rows {
    int64_t N, D, narrow, threads;
};
extern "C" void ritornello_norm_forward(const Rows*, const float* x, const float* w, double eps, void* y, float* r);
extern "C" void ritornello_norm_backward(const Rows*, const float* x, const float* w, const float* r, const void* dy, float* dx, float* dw);
extern "C" void ritornello_swish_forward(const Rows*, const void* x, double scale, float* y);
extern "C" void ritornello_swish_backward(const Rows*, const void* x, double scale, const float* dy, void* dx);
extern "C" void ritornello_swiglu_forward(const Rows*, const void* gate, const void* up, void* y);
extern "C" void ritornello_swiglu_backward(const Rows*, const void* gate, const void* up, const void* dy, void* d_gate, void* d_up);
extern "C" void ritornello_forget_forward(const Rows*, const void* x, const float* floor, float* key, float* log_f);
extern "C" void ritornello_forget_backward(const Rows*, const void* x, const float* floor, const float* d_key, const float* d_log, void* dx,
                                           float* d_floor);
extern "C" void ritornello_dropout(const Rows*, const void* x, const int64_t* seed, int64_t threshold, double scale, void* y);

static void norm(const Rows& rows) {
    const int64_t N = rows.N, D = rows.D;
    Floats x = uniform(N * D, -3, 3), w = uniform(D, -1, 1), r(N), dx(N * D), dw(D);
    Either y(Floats(N * D), rows.narrow), dy(uniform(N * D, -1, 1), rows.narrow);
    ritornello_norm_forward(&rows, x, w, 1e-5, y, r);
    ritornello_norm_backward(&rows, x, w, r, dy, dx, dw);
    const Numbers X = leaves(x), W = leaves(w);
    Numbers Y;
    for (int64_t row = 0; row < N; ++row) {
        Number squares = 0;
        for (int64_t d = 0; d < D; ++d) squares = squares + X[size_t(row * D + d)] * X[size_t(row * D + d)];
        for (int64_t d = 0; d < D; ++d) Y.push_back(X[size_t(row * D + d)] * exp(-0.5 * log(squares / double(D) + 1e-5)) * W[size_t(d)]);
    }
    compare("y", y.read(), Y, rows.narrow ? 4e-3 : 2e-5);
    Gradients gradients;
    gradients.seed(Y, dy.wide), gradients.spread();
    compare("dx", dx, gradients.of(X)), compare("dw", dw, gradients.of(W));
}

static void swish(const Rows& rows) {
    const int64_t all = rows.N * rows.D;
    Either x(uniform(all, -9, 9), rows.narrow), dx(Floats(all), rows.narrow);
    Floats y(all), dy = uniform(all, -1, 1);
    ritornello_swish_forward(&rows, x, 0.7, y);
    ritornello_swish_backward(&rows, x, 0.7, dy, dx);
    const Numbers X = leaves(x.wide);
    Numbers Y;
    for (size_t i = 0; i < X.size(); ++i) Y.push_back(X[i] * sigmoid(X[i]) * 0.7);
    Gradients gradients;
    gradients.seed(Y, dy), gradients.spread();
    compare("y", y, Y), compare("dx", dx.read(), gradients.of(X), rows.narrow ? 4e-3 : 2e-5);
}

static void swiglu(const Rows& rows) {
    const int64_t all = rows.N * rows.D;
    const bool narrow = rows.narrow;
    Either gate(uniform(all, -9, 9), narrow), up(uniform(all, -3, 3), narrow), dy(uniform(all, -1, 1), narrow);
    Either y(Floats(all), narrow), d_gate(Floats(all), narrow), d_up(Floats(all), narrow);
    ritornello_swiglu_forward(&rows, gate, up, y);
    ritornello_swiglu_backward(&rows, gate, up, dy, d_gate, d_up);
    const Numbers G = leaves(gate.wide), U = leaves(up.wide);
    Numbers Y;
    for (size_t i = 0; i < G.size(); ++i) Y.push_back(G[i] * sigmoid(G[i]) * U[i]);
    Gradients gradients;
    gradients.seed(Y, dy.wide), gradients.spread();
    const double tolerance = narrow ? 4e-3 : 2e-5;
    compare("y", y.read(), Y, tolerance);
    compare("d_gate", d_gate.read(), gradients.of(G), tolerance), compare("d_up", d_up.read(), gradients.of(U), tolerance);
}

static void forget(const Rows& rows) {
    const int64_t N = rows.N, D = rows.D;
    Either x(uniform(N * D, -9, 9), rows.narrow), dx(Floats(N * D), rows.narrow);
    Floats floor = uniform(D, 0.01f, 0.9f), key(N * D), log_f(N * D), d_key = uniform(N * D, -1, 1), d_log = uniform(N * D, -1, 1), d_floor(D);
    ritornello_forget_forward(&rows, x, floor, key, log_f);
    ritornello_forget_backward(&rows, x, floor, d_key, d_log, dx, d_floor);
    const Numbers X = leaves(x.wide), low = leaves(floor);
    Numbers keys, logs;
    for (int64_t i = 0; i < N * D; ++i) {
        const Number f = low[size_t(i % D)] + (1 - low[size_t(i % D)]) * sigmoid(X[size_t(i)]);
        keys.push_back(1 - f), logs.push_back(log(f));
    }
    Gradients gradients;
    gradients.seed(keys, d_key), gradients.seed(logs, d_log), gradients.spread();
    compare("key", key, keys), compare("log_f", log_f, logs), compare("d_floor", d_floor, gradients.of(low), 1e-4);
    compare("dx", dx.read(), gradients.of(X), rows.narrow ? 4e-3 : 2e-5);
}

// The hash word by word, as ops/dropout.py has it.
static bool keeps(uint64_t place, uint64_t seed, uint64_t threshold) {
    uint32_t x = uint32_t(place) * 0x9e3779b9u + uint32_t(seed);
    for (const uint32_t word : {uint32_t(seed >> 32), 0u}) {
        x = (x ^ (x >> 16)) * 0x7feb352du;
        x = (x ^ (x >> 15)) * 0x846ca68bu;
        x = x ^ (x >> 16) ^ word;
    }
    return x >= threshold;
}

static void dropout(const Rows& rows) {
    const int64_t all = rows.N * rows.D, seed = int64_t(random_bits()) << 31 ^ int64_t(random_bits()), threshold = int64_t(random_bits());
    Either x(uniform(all, -9, 9), rows.narrow), y(Floats(all), rows.narrow);
    ritornello_dropout(&rows, x, &seed, threshold, 1.25, y);
    const Numbers X = leaves(x.wide);
    Numbers Y;
    for (size_t i = 0; i < X.size(); ++i) Y.push_back(keeps(i, uint64_t(seed), uint64_t(threshold)) ? X[i] * 1.25 : Number(0));
    compare("y", y.read(), Y, rows.narrow ? 4e-3 : 2e-5);
}
