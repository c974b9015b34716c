// A whole small model in the decoder, token by token: a table, a gate that remembers, a map to logits; beside plain loops.
#pragma once

#include <numeric>

#include "check.h"

struct Step {
    int64_t kind, in, out, rows, columns, a, b, c, heads, leaf;
    const void* weight;
    const float *scale, *bias;
    const int32_t* excess;
    double number;
};

struct Decode {
    int64_t B, vocab, room, count, vnni, threads;
    const Step* steps;
    const int64_t* tokens;
    const void* const* before;
    void* const* after;
    float* logits;
};

struct Choice {
    double temperature, top_p;
    int64_t top_k, stop, count;
    const double* uniforms;
    int64_t* drawn;
};

extern "C" int64_t ritornello_generate(const Decode*, const Choice*);
extern "C" int64_t ritornello_lanes();

namespace {

// The token that u draws, every weight by itself and all of them sorted.
int64_t drawn_by(const Floats& logits, const Choice& c, double u) {
    const int64_t V = logits.size();
    std::vector<int64_t> order(V);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return logits[a] > logits[b]; });
    if (c.temperature == 0) return order[0];
    std::vector<double> weight(V, 0);
    double all = 0, mass = 0, sum = 0;
    const auto weigh = [&](int64_t i) { return std::exp((double(logits[i]) - double(logits[order[0]])) / c.temperature); };
    order.resize(std::min(V, c.top_k));
    for (int64_t i : order) all += weigh(i);
    for (int64_t i : order)
        if (c.top_p >= 1 || mass < c.top_p * all) mass += weight[i] = weigh(i);
    for (int64_t i = 0; i < V; ++i)
        if ((sum += weight[i]) > u * mass) return i;
    return -1;
}

void generate(const Size& n) {
    constexpr int64_t D = 32;
    enum { embed, multiply = 17, mingru = 9 };  // of serve/plan.py's KINDS
    const int64_t V = 1 + n.K * n.V, rows = (V + D - 1) / D * D, lanes = ritornello_lanes(), count = n.T % 40;
    Floats table = uniform(V * D, -1, 1), weight = uniform(rows * D, -1, 1), packed(rows * D), first = uniform(D, -1, 1), last(D);
    for (int64_t i = 0; i < rows * D; ++i) packed[(i / D / lanes * D + i % D) * lanes + i / D % lanes] = weight[i];
    Step steps[3] = {};
    steps[0].kind = embed, steps[0].columns = D, steps[0].weight = static_cast<float*>(table);
    steps[1].kind = mingru, steps[1].columns = D, steps[1].out = D;
    steps[2].kind = multiply, steps[2].in = D, steps[2].rows = V, steps[2].columns = D, steps[2].c = 1, steps[2].weight = static_cast<float*>(packed);
    const void* before[] = {static_cast<float*>(first)};
    void* after[] = {static_cast<float*>(last)};
    Floats logits = uniform(V, -2, 2), wanted_logits(V);
    for (int64_t i = 0; i < V; ++i) wanted_logits[i] = logits[i];
    Items<double> uniforms(count, 0);
    Items<int64_t> drawn(count, -1);
    for (int64_t i = 0; i < count; ++i) uniforms[i] = std::uniform_real_distribution<double>(0, 1)(random_bits);
    const Decode d{1, V, 2 * D, 3, 0, n.threads, steps, nullptr, before, after, logits};
    const Choice c{n.resets * 0.7, n.B == 1 ? 0.8 : 1.0, n.H == 1 ? V : std::min<int64_t>(V, 9), n.B == 1 ? V / 2 : -1, count, uniforms, drawn};
    const int64_t done = ritornello_generate(&d, &c);
    std::vector<double> h(D), tokens;
    Floats found(done);
    for (int64_t i = 0; i < done; ++i) found[i] = float(drawn[i]);
    for (int64_t i = 0; i < D; ++i) h[i] = first[i];
    for (int64_t token; int64_t(tokens.size()) < count; tokens.push_back(double(token))) {
        if ((token = drawn_by(wanted_logits, c, uniforms[tokens.size()])) == c.stop) break;
        for (int64_t i = 0; i < D; ++i) {
            const double x = table[token * D + i], z = 1 / (1 + std::exp(-x));
            h[i] = (1 - z) * h[i] + z * (x >= 0 ? x + 0.5 : z);
        }
        for (int64_t r = 0; r < V; ++r) {
            double sum = 0;
            for (int64_t i = 0; i < D; ++i) sum += weight[r * D + i] * h[i];
            wanted_logits[r] = float(sum);
        }
    }
    compare("tokens", found, tokens, 0);
    if (done) compare("h", last, h);
    compare("logits", logits, std::vector<double>(&wanted_logits[0], &wanted_logits[0] + V));
}

}  // namespace
