// The draw of a token from one row of logits by a number u, by the rules of serve/sampling.py and in float64 as there.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "lanes.h"

struct Choice {
    double temperature, top_p;   // top_p >= 1: no cut
    int64_t top_k;               // as many as there are tokens, or more: no cut
    int64_t stop, count;         // the token that ends the text, -1 if none does; most tokens to draw
    const double* uniforms;      // (count,), in [0, 1)
    int64_t* drawn;              // (count,)
};

typedef double Doubles __attribute__((vector_size(sizeof(Lanes))));
typedef int64_t Longs __attribute__((vector_size(sizeof(Lanes))));
constexpr int64_t HALF = LANES / 2;
constexpr int64_t FEW = 64;  // tokens that top_p looks at first: they usually hold it

constexpr double INVERSE[] = {1, 1, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800,
                              1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};  // of the factorials

// For x <= 0, to about 1e-15; below -708 zero. As in exp.h, with the series to its 13th term.
inline Doubles exp_of(Doubles x) {
    const Longs gone = x < -708.0;
    x = (Doubles)((Longs)x & ~gone);
    const Doubles shifted = x * 1.4426950408889634 + 6755399441055744.0;  // 1.5 * 2^52
    const Doubles n = shifted - 6755399441055744.0;
    const Doubles r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    Doubles e = r * INVERSE[13] + INVERSE[12];
    for (int k = 11; k >= 0; --k) e = e * r + INVERSE[k];
    const Longs power = ((Longs)shifted - (Longs)(Doubles{} + 6755399441055744.0) + 1023) << 52;
    return (Doubles)((Longs)(e * (Doubles)power) & ~gone);
}

class Sampler {
    std::vector<double> weights, cumulated;
    std::vector<int64_t> ids;

    // weights = exp((logits - highest) / temperature)
    void weigh(const float* logits, int64_t V, float highest, double temperature) {
        typedef float Halves __attribute__((vector_size(sizeof(Lanes) / 2)));
        weights.resize(V + HALF);
        for (int64_t i = 0; i < V; i += HALF) {
            Halves part = Halves{} - std::numeric_limits<float>::infinity();
            std::memcpy(&part, logits + i, std::min(HALF, V - i) * sizeof(float));
            const Doubles weight = exp_of((__builtin_convertvector(part, Doubles) - double(highest)) / temperature);
            std::memcpy(&weights[i], &weight, sizeof weight);
        }
    }

    // How many tokens are kept: the first of `ids`, in their order.
    int64_t keep(int64_t V, const Choice& c) {
        ids.resize(V);
        std::iota(ids.begin(), ids.end(), 0);
        const auto first = ids.begin();
        const auto likelier = [this](int64_t a, int64_t b) { return weights[a] != weights[b] ? weights[a] > weights[b] : a < b; };
        const auto order = [&](int64_t from, int64_t to, int64_t end) {  // the likeliest of [from, end) to [from, to)
            if (to - from <= FEW) return std::partial_sort(first + from, first + to, first + end, likelier);
            std::nth_element(first + from, first + to, first + end, likelier);
            std::sort(first + from, first + to, likelier);
        };
        const int64_t most = std::min(V, c.top_k);
        int64_t count = most, sorted = 0;
        if (most < V) order(0, sorted = most, V);
        if (c.top_p < 1) {
            double all = 0, mass = 0;
            for (int64_t i = 0; i < most; ++i) all += weights[ids[i]];
            for (count = 0; count < most && mass < c.top_p * all; mass += weights[ids[count++]])
                if (count == sorted) {
                    sorted = std::min(most, std::max(FEW, 8 * sorted));
                    order(count, sorted, most);
                }
        }
        if (sorted) std::sort(first, first + count);
        return count;
    }

public:
    // -1 where a logit is NaN or +inf, or all are -inf
    int64_t draw(const float* logits, int64_t V, const Choice& c, double u) {
        int64_t likeliest = 0;
        bool sound = true;
        for (int64_t i = 0; i < V; ++i) {
            sound &= logits[i] <= std::numeric_limits<float>::max();
            if (logits[i] > logits[likeliest]) likeliest = i;
        }
        if (!sound || std::isinf(logits[likeliest])) return -1;
        if (c.temperature == 0) return likeliest;
        weigh(logits, V, logits[likeliest], c.temperature);
        const int64_t count = keep(V, c);
        cumulated.resize(count);
        double sum = 0;
        for (int64_t i = 0; i < count; ++i) cumulated[i] = sum += weights[ids[i]];
        const auto at = std::upper_bound(cumulated.begin(), cumulated.end(), u * sum) - cumulated.begin();
        return ids[std::min<int64_t>(at, count - 1)];  // u * sum may round up to the sum
    }
};
