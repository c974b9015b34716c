// Every exported kernel at many odd sizes, in buffers of exactly the right size, beside a plain loop whose gradients come from tape.h.
//
// Built with the address and undefined-behaviour sanitizers by test_sanitizers.py. A new kernel needs its struct, its declarations, a
// function with its formula, and a line in main.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>

#include "tape.h"

namespace {

std::mt19937 random_bits(1);
int failures = 0, checked = 0;
std::string at;  // the case at hand, for messages

// Numbers that end where their allocation ends; every other time they begin off any boundary but their own.
template <class Item>
class Items {
    size_t offset, count;
    std::unique_ptr<Item[]> room;

public:
    explicit Items(int64_t n, Item fill) : offset(random_bits() % 2), count(size_t(n)), room(new Item[count + offset]) {
        std::fill(room.get(), room.get() + count + offset, fill);
    }
    operator Item*() { return room.get() + offset; }
    Item& operator[](int64_t i) { return room[offset + size_t(i)]; }
    Item operator[](int64_t i) const { return room[offset + size_t(i)]; }
    int64_t size() const { return int64_t(count); }
};

struct Floats : Items<float> {
    explicit Floats(int64_t n, float fill = NAN) : Items(n, fill) {}
};

uint32_t bits(float x) {
    uint32_t result;
    std::memcpy(&result, &x, sizeof x);
    return result;
}

float number(uint32_t bits) {
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

// Floats, or bfloat16 beside floats of the same values.
struct Either {
    bool narrow;
    Floats wide;
    Items<uint16_t> halves;
    Either(Floats x, bool narrow) : narrow(narrow), wide(std::move(x)), halves(narrow ? wide.size() : 0, 0) {
        for (int64_t i = 0; i < halves.size(); ++i) halves[i] = uint16_t(bits(wide[i]) >> 16);
        read();
    }
    operator void*() { return narrow ? static_cast<void*>(halves) : static_cast<void*>(wide); }
    const Floats& read() {
        for (int64_t i = 0; i < halves.size(); ++i) wide[i] = number(uint32_t(halves[i]) << 16);
        return wide;
    }
};

Floats uniform(int64_t n, float low, float high) {
    Floats result(n);
    for (int64_t i = 0; i < n; ++i) result[i] = std::uniform_real_distribution<float>(low, high)(random_bits);
    return result;
}

Numbers leaves(const Floats& values) {
    Numbers result;
    for (int64_t i = 0; i < values.size(); ++i) result.push_back(leaf(values[i]));
    return result;
}

// (B, T) exactly, or null: nowhere, at every third token or so, everywhere.
struct Resets {
    std::unique_ptr<uint8_t[]> room;
    Resets(int64_t tokens, int kind) : room(kind ? new uint8_t[size_t(tokens)] : nullptr) {
        for (int64_t i = 0; kind && i < tokens; ++i) room[i] = kind == 2 || random_bits() % 3 == 0;
    }
    bool cut(int64_t token) const { return room && room[token]; }
};

double value(double x) { return x; }
double value(const Number& x) { return x.x; }

// Relative to the largest number, or 1.
template <class Wanted>
void compare(const char* what, const Floats& found, const std::vector<Wanted>& wanted, double tolerance = 2e-5) {
    double scale = 1, worst = 0;
    bool broken = size_t(found.size()) != wanted.size();
    for (const Wanted& each : wanted) scale = std::max(scale, std::abs(value(each)));
    for (int64_t i = 0; !broken && i < found.size(); ++i) {
        const double error = std::abs(found[i] - value(wanted[size_t(i)]));
        broken = !(error <= tolerance * scale);  // also where it is not a number
        worst = std::max(worst, error / scale);
    }
    ++checked;
    if (broken) ++failures, std::printf("%s: %s differs, by %g\n", at.c_str(), what, worst);
}

// Sums of every `count` neighbours.
Floats summed(const Floats& x, int64_t count) {
    Floats result(x.size() / count, 0);
    for (int64_t i = 0; i < x.size(); ++i) result[i / count] += x[i];
    return result;
}

// x of (parts, n), summed over the parts.
Floats over_parts(const Floats& x, int64_t n) {
    Floats result(n, 0);
    for (int64_t i = 0; i < x.size(); ++i) result[i % n] += x[i];
    return result;
}

struct Size {
    int64_t B, T, H, K, V, threads;
    int resets;
};

}  // namespace

// ---- outer ---------------------------------------------------------------------------------------------------------------------------

struct Outer {
    int64_t B, T, H, K, V, G, read_first, threads;
    const float *q, *k, *v, *a;
    const uint8_t* reset;
};
extern "C" void ritornello_outer_forward(const Outer*, const float* S, float* y, float* end);
extern "C" void ritornello_outer_backward(const Outer*, const float* S, const float* end, const float* dy, const float* d_end, float* dq, float* dk,
                                          float* dv, float* dg, float* dS);

static void outer(const Size& n, int64_t G, bool read_first) {
    const int64_t heads = n.B * n.T * n.H, states = n.B * n.H * n.K * n.V;
    Floats q = uniform(heads * n.K, -1, 1), k = uniform(heads * n.K, -1, 1), v = uniform(heads * n.V, -1, 1), a = uniform(heads * G, 0.1f, 1);
    Floats S = uniform(states, -1, 1), y(heads * n.V), end(states), dy = uniform(heads * n.V, -1, 1), d_end = uniform(states, -1, 1);
    Floats dq(heads * n.K), dk(heads * n.K), dv(heads * n.V), dg(heads * n.K), dS(states);
    const Resets resets(n.B * n.T, n.resets);
    const Outer call{n.B, n.T, n.H, n.K, n.V, G, read_first, n.threads, q, k, v, a, resets.room.get()};
    ritornello_outer_forward(&call, S, y, end);
    ritornello_outer_backward(&call, S, end, dy, d_end, dq, dk, dv, dg, dS);

    const Numbers Q = leaves(q), K = leaves(k), V = leaves(v), A = leaves(a), first = leaves(S);
    Numbers last = first, Y(size_t(heads * n.V));
    for (int64_t b = 0; b < n.B; ++b)
        for (int64_t t = 0; t < n.T; ++t)
            for (int64_t h = 0; h < n.H; ++h) {
                const int64_t token = (b * n.T + t) * n.H + h;
                for (int64_t i = 0; i < n.K; ++i)
                    for (int64_t j = 0; j < n.V; ++j) {
                        Number &s = last[size_t(((b * n.H + h) * n.K + i) * n.V + j)], &out = Y[size_t(token * n.V + j)];
                        const Number before = resets.cut(b * n.T + t) ? Number(0) : s, query = Q[size_t(token * n.K + i)];
                        s = A[size_t(token * G + (G > 1 ? i : 0))] * before + K[size_t(token * n.K + i)] * V[size_t(token * n.V + j)];
                        out = out + query * (read_first ? before : s);
                    }
            }
    compare("y", y, Y), compare("end", end, last);
    Gradients gradients;
    gradients.seed(Y, dy), gradients.seed(last, d_end), gradients.spread();
    std::vector<double> da = gradients.of(A);
    for (size_t i = 0; i < da.size(); ++i) da[i] *= A[i].x;  // of the logarithm
    compare("dq", dq, gradients.of(Q)), compare("dk", dk, gradients.of(K)), compare("dv", dv, gradients.of(V));
    compare("dS", dS, gradients.of(first)), compare("dg", summed(dg, G > 1 ? 1 : n.K), da, 1e-4);
}

// ---- scan ----------------------------------------------------------------------------------------------------------------------------

struct Scan {
    int64_t B, T, N, a_row, a_step, complex, threads;
    const float *a, *b, *h;
    const uint8_t* reset;
};
extern "C" void ritornello_scan_forward(const Scan*, float* y);
extern "C" void ritornello_scan_backward(const Scan*, const float* y, const float* dy, const float* d_end, float* da, float* db, float* dh);

// `same`: one a for all rows and steps. N counts floats.
static void scan(const Size& n, int64_t N, bool same, bool complex) {
    const int64_t all = n.B * n.T * N;
    Floats a = uniform(same ? N : all, -0.7f, 0.7f), b = uniform(all, -1, 1), h = uniform(n.B * N, -1, 1);
    Floats y(all), dy = uniform(all, -1, 1), d_end = uniform(n.B * N, -1, 1), da(all), db(all), dh(n.B * N);
    const Resets resets(n.B * n.T, n.resets);
    const Scan call{n.B, n.T, N, same ? 0 : n.T * N, same ? 0 : N, complex, n.threads, a, b, h, resets.room.get()};
    ritornello_scan_forward(&call, y);
    ritornello_scan_backward(&call, y, dy, d_end, da, db, dh);

    const Numbers first = leaves(h), B = leaves(b);
    Numbers A, last = first, Y(size_t(all), Number(0));
    for (int64_t i = 0; i < all; ++i) A.push_back(leaf(a[same ? i % N : i]));
    for (int64_t token = 0; token < n.B * n.T; ++token)
        for (int64_t i = 0; i < N; i += complex ? 2 : 1) {
            const size_t here = size_t(token * N + i), held = size_t(token / n.T * N + i);
            const bool cut = resets.cut(token);
            const Number x = cut ? Number(0) : last[held];
            if (complex) {
                const Number z = cut ? Number(0) : last[held + 1];
                last[held] = Y[here] = A[here] * x - A[here + 1] * z + B[here];
                last[held + 1] = Y[here + 1] = A[here] * z + A[here + 1] * x + B[here + 1];
            } else {
                last[held] = Y[here] = A[here] * x + B[here];
            }
        }
    compare("y", y, Y);
    Gradients gradients;
    gradients.seed(Y, dy), gradients.seed(last, d_end), gradients.spread();
    compare("da", da, gradients.of(A)), compare("db", db, gradients.of(B)), compare("dh", dh, gradients.of(first));
}

// ---- selective -----------------------------------------------------------------------------------------------------------------------

struct Selective {
    int64_t B, T, D, N, threads;
    const float *x, *dt, *A, *b, *c, *h;
    const uint8_t* reset;
};
extern "C" int64_t ritornello_lanes();
extern "C" void ritornello_selective_forward(const Selective*, float* y, float* end, float* kept);
extern "C" void ritornello_selective_backward(const Selective*, const float* kept, const float* dy, const float* d_end, float* dx, float* ddt,
                                              float* dA, float* db, float* dc, float* dh);

static void selective(const Size& n, int64_t D, int64_t N) {
    const int64_t all = n.B * n.T * D, shared = n.B * n.T * N, states = n.B * N * D, blocks = (D + ritornello_lanes() - 1) / ritornello_lanes();
    Floats x = uniform(all, -1, 1), dt = uniform(all, 0, 2), rates = uniform(N * D, -2, -0.01f), b = uniform(shared, -1, 1), c = uniform(shared, -1, 1);
    Floats h = uniform(states, -1, 1), y(all), end(states), kept(n.B * ((n.T + 31) / 32) * N * D);
    Floats dy = uniform(all, -1, 1), d_end = uniform(states, -1, 1), dx(all), ddt(all), d_rates(states), db(blocks * shared), dc(blocks * shared);
    Floats dh(states);
    const Resets resets(n.B * n.T, n.resets);
    const Selective call{n.B, n.T, D, N, n.threads, x, dt, rates, b, c, h, resets.room.get()};
    ritornello_selective_forward(&call, y, end, kept);
    ritornello_selective_backward(&call, kept, dy, d_end, dx, ddt, d_rates, db, dc, dh);

    const Numbers X = leaves(x), Dt = leaves(dt), A = leaves(rates), B = leaves(b), C = leaves(c), first = leaves(h);
    Numbers last = first, Y(size_t(all), Number(0));
    for (int64_t token = 0; token < n.B * n.T; ++token)
        for (int64_t d = 0; d < D; ++d)
            for (int64_t i = 0; i < N; ++i) {
                const size_t here = size_t(token * D + d);
                Number& s = last[size_t((token / n.T * N + i) * D + d)];
                const Number before = resets.cut(token) ? Number(0) : s;
                s = exp(Dt[here] * A[size_t(i * D + d)]) * before + Dt[here] * X[here] * B[size_t(token * N + i)];
                Y[here] = Y[here] + s * C[size_t(token * N + i)];
            }
    compare("y", y, Y), compare("end", end, last);
    Gradients gradients;
    gradients.seed(Y, dy), gradients.seed(last, d_end), gradients.spread();
    compare("dx", dx, gradients.of(X)), compare("ddt", ddt, gradients.of(Dt)), compare("dh", dh, gradients.of(first));
    compare("dA", over_parts(d_rates, N * D), gradients.of(A)), compare("db", over_parts(db, shared), gradients.of(B));
    compare("dc", over_parts(dc, shared), gradients.of(C));
}

// ---- delta ---------------------------------------------------------------------------------------------------------------------------

struct Delta {
    int64_t B, T, H, K, V, G, threads;
    const float *q, *k, *v, *r, *p, *a;
    const uint8_t* reset;
};
extern "C" void ritornello_delta_forward(const Delta*, const float* S, float* y, float* u, float* end);
extern "C" void ritornello_delta_backward(const Delta*, const float* S, const float* end, const float* u, const float* dy, const float* d_end, float* e,
                                          float* dq, float* dk, float* dv, float* dr, float* dp, float* dg, float* dS);

static void delta(const Size& n, int64_t G) {
    const int64_t heads = n.B * n.T * n.H, states = n.B * n.H * n.K * n.V, keys = heads * n.K, values = heads * n.V;
    const float small = 1 / std::sqrt(float(n.K));  // so that r p' shrinks what is held
    Floats q = uniform(keys, -1, 1), k = uniform(keys, -1, 1), v = uniform(values, -1, 1), a = uniform(heads * G, 0.1f, 1);
    Floats r = uniform(keys, -small, small), p = uniform(keys, -small, small), S = uniform(states, -1, 1);
    Floats y(values), u(values), end(states), dy = uniform(values, -1, 1), d_end = uniform(states, -1, 1), e(values);
    Floats dq(keys), dk(keys), dv(values), dr(keys), dp(keys), dg(keys), dS(states);
    const Resets resets(n.B * n.T, n.resets);
    const Delta call{n.B, n.T, n.H, n.K, n.V, G, n.threads, q, k, v, r, p, a, resets.room.get()};
    ritornello_delta_forward(&call, S, y, u, end);
    ritornello_delta_backward(&call, S, end, u, dy, d_end, e, dq, dk, dv, dr, dp, dg, dS);

    const Numbers Q = leaves(q), K = leaves(k), V = leaves(v), R = leaves(r), P = leaves(p), A = leaves(a), first = leaves(S);
    Numbers last = first, Y(size_t(values), Number(0));
    for (int64_t b = 0; b < n.B; ++b)
        for (int64_t t = 0; t < n.T; ++t)
            for (int64_t h = 0; h < n.H; ++h)
                for (int64_t j = 0; j < n.V; ++j) {
                    const int64_t token = (b * n.T + t) * n.H + h;
                    const size_t keys_at = size_t(token * n.K), out = size_t(token * n.V + j);
                    auto s = [&](int64_t i) -> Number& { return last[size_t(((b * n.H + h) * n.K + i) * n.V + j)]; };
                    Number held = 0;
                    for (int64_t i = 0; i < n.K; ++i) {
                        if (resets.cut(b * n.T + t)) s(i) = 0;
                        held = held + P[keys_at + size_t(i)] * s(i);
                    }
                    for (int64_t i = 0; i < n.K; ++i) {
                        const size_t key = keys_at + size_t(i);
                        s(i) = A[size_t(token * G + (G > 1 ? i : 0))] * s(i) - R[key] * held + K[key] * V[out];
                        Y[out] = Y[out] + Q[key] * s(i);
                    }
                }
    compare("y", y, Y), compare("end", end, last);
    Gradients gradients;
    gradients.seed(Y, dy), gradients.seed(last, d_end), gradients.spread();
    std::vector<double> da = gradients.of(A);
    for (size_t i = 0; i < da.size(); ++i) da[i] *= A[i].x;  // of the logarithm
    compare("dq", dq, gradients.of(Q)), compare("dk", dk, gradients.of(K)), compare("dv", dv, gradients.of(V));
    compare("dr", dr, gradients.of(R)), compare("dp", dp, gradients.of(P)), compare("dS", dS, gradients.of(first));
    compare("dg", summed(dg, G > 1 ? 1 : n.K), da, 1e-4);
}

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

// ---- pointwise -----------------------------------------------------------------------------------------------------------------------

struct Rows {
    int64_t N, D, narrow, threads;
};
extern "C" void ritornello_norm_forward(const Rows*, const float* x, const float* w, double eps, float* y, float* r);
extern "C" void ritornello_norm_backward(const Rows*, const float* x, const float* w, const float* r, const float* dy, float* dx, float* dw);
extern "C" void ritornello_swiglu_forward(const Rows*, const void* gate, const void* up, void* y);
extern "C" void ritornello_swiglu_backward(const Rows*, const void* gate, const void* up, const void* dy, void* d_gate, void* d_up);
extern "C" void ritornello_forget_forward(const Rows*, const void* x, const float* floor, float* key, float* log_f);
extern "C" void ritornello_forget_backward(const Rows*, const void* x, const float* floor, const float* d_key, const float* d_log, void* dx,
                                           float* d_floor);

static void norm(const Rows& rows) {
    const int64_t N = rows.N, D = rows.D;
    Floats x = uniform(N * D, -3, 3), w = uniform(D, -1, 1), y(N * D), r(N), dy = uniform(N * D, -1, 1), dx(N * D), dw(D);
    ritornello_norm_forward(&rows, x, w, 1e-5, y, r);
    ritornello_norm_backward(&rows, x, w, r, dy, dx, dw);
    const Numbers X = leaves(x), W = leaves(w);
    Numbers Y;
    for (int64_t row = 0; row < N; ++row) {
        Number squares = 0;
        for (int64_t d = 0; d < D; ++d) squares = squares + X[size_t(row * D + d)] * X[size_t(row * D + d)];
        for (int64_t d = 0; d < D; ++d) Y.push_back(X[size_t(row * D + d)] * exp(-0.5 * log(squares / double(D) + 1e-5)) * W[size_t(d)]);
    }
    compare("y", y, Y);
    Gradients gradients;
    gradients.seed(Y, dy), gradients.spread();
    compare("dx", dx, gradients.of(X)), compare("dw", dw, gradients.of(W));
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

// ---- all of them ---------------------------------------------------------------------------------------------------------------------

int main() {
    const int64_t lengths[] = {0, 1, 2, 3, 4, 5, 31, 32, 33, 67}, widths[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 40};
    auto any = [](const auto& choices) { return choices[random_bits() % std::size(choices)]; };
    auto run = [](const char* name, const Size& n, auto kernel) {
        at = std::string(name) + " B " + std::to_string(n.B) + " T " + std::to_string(n.T) + " H " + std::to_string(n.H) + " K " +
             std::to_string(n.K) + " V " + std::to_string(n.V) + " resets " + std::to_string(n.resets) + " threads " + std::to_string(n.threads);
        kernel(n);
    };
    auto all = [&](const Size& n) {
        const bool same = random_bits() % 2, other = random_bits() % 2;
        run("outer", n, [&](const Size& n) { outer(n, same ? 1 : n.K, other); });
        run("scan", n, [&](const Size& n) { scan(n, other ? 2 * n.V : n.V, same, other); });
        run("selective", n, [&](const Size& n) { selective(n, n.V, 1 + n.K % 5); });
        run("delta", n, [&](const Size& n) { delta(n, same ? 1 : n.K); });
        run("vocabulary", n, [&](const Size& n) { vocabulary(n, same, other); });
        const int64_t rows = n.B ? 1 + int64_t(random_bits() % 11) : 0;  // their products take several at a time
        for (const Size& cells : {n, Size{rows, std::min<int64_t>(n.T, 4), n.H, n.K, n.V, n.threads, n.resets}}) {
            run("gru", cells, gru);
            run("slstm", cells, slstm);
        }
        const Rows flat{n.B * n.T, n.K * n.H, other, n.threads};
        run("norm", n, [&](const Size&) { norm(flat); });
        run("swiglu", n, [&](const Size&) { swiglu(flat); });
        run("forget", n, [&](const Size&) { forget(flat); });
    };
    for (int64_t T : lengths)
        for (int repeat = 0; repeat < 12; ++repeat)
            all({1 + repeat % 2, T, 1 + repeat / 2 % 2, any(widths), any(widths), 1 + repeat % 4, repeat % 3});
    all({0, 5, 1, 3, 3, 1, 1});                            // no rows
    for (int repeat = 0; repeat < 3; ++repeat) all({1, 20000, 1, 2, 3, 2, repeat});  // a long text
    std::printf("%d comparisons, %d failures\n", checked, failures);
    return failures ? 1 : 0;
}
