// Cross-entropy over a vocabulary, and the gradient of its logits; see ops/linear_loss.py.
//
//   nats = log(sum_j exp(x_j - m)) - (x_target - m)      m = max_j x_j      d nats / d x_j = exp(x_j - m) / sum - [j = target]
//
// A row of logits comes from memory once, since the later passes over it find it in the cache, and probabilities are never stored: the
// backward pass makes them again from the row's m and sum, and may write the gradient over the logits. bfloat16 is widened as it is read.
//
// And the divergence from a distribution known at K places alone; see ops/divergence.py.
#include <cmath>
#include <limits>

#include "bfloat.h"
#include "exp.h"

namespace {

constexpr int64_t IGNORED = -100;  // a target that is not scored
constexpr float NOTHING = -std::numeric_limits<float>::infinity();

template <class Number>
float get_one(const Number* from) { return get_some(from, 1)[0]; }

template <class Number>
float largest(const Number* x, int64_t V) {
    Lanes most[4] = {splat(NOTHING), splat(NOTHING), splat(NOTHING), splat(NOTHING)};
    int64_t j = 0;
    auto take = [](Lanes& most, Lanes x) { most = x > most ? x : most; };
    for (; j + 4 * LANES <= V; j += 4 * LANES)
        for (int w = 0; w < 4; ++w) take(most[w], get(x + j + w * LANES));
    for (; j < V; j += LANES) take(most[0], get_some(x + j, V - j, NOTHING));
    for (int w = 1; w < 4; ++w) take(most[0], most[w]);
    float m = NOTHING;
    for (int i = 0; i < LANES; ++i) m = std::max(m, most[0][i]);
    return m;
}

template <class Number>
float sum_of_exp(const Number* x, int64_t V, float m, float slope = 1) {  // of slope (x - m)
    Lanes sums[4] = {};
    int64_t j = 0;
    for (; j + 4 * LANES <= V; j += 4 * LANES)
        for (int w = 0; w < 4; ++w) sums[w] += exp_of((get(x + j + w * LANES) - m) * slope);
    for (; j < V; j += LANES) sums[0] += exp_of((get_some(x + j, V - j, NOTHING) - m) * slope);
    const Lanes all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float total = 0;
    for (int i = 0; i < LANES; ++i) total += all[i];
    return total;
}

template <class Number>
void gradient(const Number* x, Number* d, int64_t V, int64_t target, float m, float total, float d_nats) {
    const float scale = d_nats / total, at_target = std::exp(get_one(x + target) - m) * scale - d_nats;
    int64_t j = 0;
    for (; j + LANES <= V; j += LANES) put(d + j, exp_of(get(x + j) - m) * scale);
    if (j < V) put_some(d + j, exp_of(get_some(x + j, V - j) - m) * scale, V - j);
    put_some(d + target, splat(at_target), 1);
}

}  // namespace

struct Vocabulary {
    int64_t N, V, narrow, threads;  // narrow: logits are bfloat16, not float32
    const void* logits;             // (N, V)
    const int64_t* targets;         // (N), in 0 .. V - 1 or IGNORED
};

namespace {

template <class Number>
void forward(const Vocabulary* v, float* nats, float* kept) {
    const Number* logits = static_cast<const Number*>(v->logits);
#pragma omp parallel for num_threads(v->threads) schedule(static)
    for (int64_t n = 0; n < v->N; ++n) {
        const Number* x = logits + n * v->V;
        const bool scored = v->targets[n] != IGNORED;
        const float m = scored ? largest(x, v->V) : 0, total = scored ? sum_of_exp(x, v->V, m) : 0;
        nats[n] = scored ? std::log(total) - (get_one(x + v->targets[n]) - m) : 0;
        kept[2 * n] = m, kept[2 * n + 1] = total;
    }
}

template <class Number>
void backward(const Vocabulary* v, const float* kept, const float* d_nats, void* d_logits) {
    const Number* logits = static_cast<const Number*>(v->logits);
#pragma omp parallel for num_threads(v->threads) schedule(static)
    for (int64_t n = 0; n < v->N; ++n) {
        Number* d = static_cast<Number*>(d_logits) + n * v->V;
        if (v->targets[n] == IGNORED) std::fill_n(d, v->V, Number(0));
        else gradient(logits + n * v->V, d, v->V, v->targets[n], kept[2 * n], kept[2 * n + 1], d_nats[n]);
    }
}

}  // namespace

// nats (N); kept (N, 2), of each row its largest logit and the sum of exp(x - largest).
extern "C" void ritornello_vocabulary_forward(const Vocabulary* v, float* nats, float* kept) {
    v->narrow ? forward<Bfloat>(v, nats, kept) : forward<float>(v, nats, kept);
}

// The logits' gradient, which may lie where the logits do, from that of nats.
extern "C" void ritornello_vocabulary_backward(const Vocabulary* v, const float* kept, const float* d_nats, void* d_logits) {
    v->narrow ? backward<Bfloat>(v, kept, d_nats, d_logits) : backward<float>(v, kept, d_nats, d_logits);
}

// ---- divergence ----------------------------------------------------------------------------------------------------------------------

struct Divergence {
    int64_t N, V, K, narrow, threads;
    const void* logits;      // (N, V)
    const int64_t* ids;      // (N, K), each in 0 .. V - 1, none twice in a row
    const float* log_p;      // (N, K)
    const float* log_rest;   // (N), -inf where there is none
    double temperature;
};

namespace {

constexpr float MOST = 1 - std::numeric_limits<float>::epsilon();  // of the known places' own share

template <class Number>
void divergence_forward(const Divergence* d, float* nats, float* kept) {
    const Number* logits = static_cast<const Number*>(d->logits);
    const float slope = float(1 / d->temperature);
#pragma omp parallel for num_threads(d->threads) schedule(static)
    for (int64_t n = 0; n < d->N; ++n) {
        const Number* x = logits + n * d->V;
        const float m = largest(x, d->V), total = sum_of_exp(x, d->V, m, slope), log_total = std::log(total);
        float sum = 0, share = 0;
        for (int64_t k = n * d->K; k < (n + 1) * d->K; ++k) {
            const float own = (get_one(x + d->ids[k]) - m) * slope - log_total;
            sum += std::exp(d->log_p[k]) * (d->log_p[k] - own);
            share += std::exp(own);
        }
        const float log_rest = d->log_rest[n], rest = std::exp(log_rest);
        nats[n] = sum + (rest > 0 ? rest * (log_rest - std::log1p(-std::min(share, MOST))) : 0);
        kept[3 * n] = m, kept[3 * n + 1] = total, kept[3 * n + 2] = share;
    }
}

// With P the sum of p and Q that of q at the known places, and r the rest: q_j (P - r Q / (1 - Q)) elsewhere, q_k (P + r) - p_k there.
template <class Number>
void divergence_backward(const Divergence* d, const float* kept, const float* d_nats, Number* d_logits) {
    const Number* logits = static_cast<const Number*>(d->logits);
    const float slope = float(1 / d->temperature);
#pragma omp parallel for num_threads(d->threads) schedule(static)
    for (int64_t n = 0; n < d->N; ++n) {
        const Number* x = logits + n * d->V;
        Number* dx = d_logits + n * d->V;
        const float m = kept[3 * n], total = kept[3 * n + 1], share = kept[3 * n + 2], back = d_nats[n] * slope;
        const float rest = share <= MOST ? std::exp(d->log_rest[n]) : 0;
        float known = 0;
        for (int64_t k = n * d->K; k < (n + 1) * d->K; ++k) known += std::exp(d->log_p[k]);
        const float elsewhere = back * (rest > 0 ? known - rest * share / (1 - share) : known) / total;
        for (int64_t j = 0; j < d->V; j += LANES) {
            const int64_t left = d->V - j;
            put_some(dx + j, exp_of((get_some(x + j, left) - m) * slope) * elsewhere, left);
        }
        for (int64_t k = n * d->K; k < (n + 1) * d->K; ++k) {
            const float q = std::exp((get_one(x + d->ids[k]) - m) * slope) / total;
            put_some(dx + d->ids[k], splat(back * (q * (known + rest) - std::exp(d->log_p[k]))), 1);
        }
    }
}

}  // namespace

// nats (N); kept (N, 3), of each row its largest logit, the sum of exp((x - largest) / T), and the softmax's share of the known places.
extern "C" void ritornello_divergence_forward(const Divergence* d, float* nats, float* kept) {
    d->narrow ? divergence_forward<Bfloat>(d, nats, kept) : divergence_forward<float>(d, nats, kept);
}

// The logits' gradient from that of nats.
extern "C" void ritornello_divergence_backward(const Divergence* d, const float* kept, const float* d_nats, void* d_logits) {
    if (d->narrow) divergence_backward(d, kept, d_nats, static_cast<Bfloat*>(d_logits));
    else divergence_backward(d, kept, d_nats, static_cast<float*>(d_logits));
}
