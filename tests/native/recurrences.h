// The recurrences of ops/, and the short convolution: outer, scan, selective, softmax_scan, delta, conv.
#pragma once

#include "check.h"

// ---- outer ---------------------------------------------------------------------------------------------------------------------------

struct Outer {
    int64_t B, T, H, K, V, G, read_first, threads;
    const float *q, *k, *v, *g;
    const uint8_t* reset;
};
extern "C" void ritornello_outer_forward(const Outer*, const float* S, float* y, float* end);
extern "C" void ritornello_outer_backward(const Outer*, const float* S, const float* end, const float* dy, const float* d_end, float* dq, float* dk,
                                          float* dv, float* dg, float* dS);

static void outer(const Size& n, int64_t G, bool read_first) {
    const int64_t heads = n.B * n.T * n.H, states = n.B * n.H * n.K * n.V;
    Floats q = uniform(heads * n.K, -1, 1), k = uniform(heads * n.K, -1, 1), v = uniform(heads * n.V, -1, 1), a = uniform(heads * G, 0.1f, 1);
    Floats S = uniform(states, -1, 1), y(heads * n.V), end(states), dy = uniform(heads * n.V, -1, 1), d_end = uniform(states, -1, 1);
    Floats g(heads * G), dq(heads * n.K), dk(heads * n.K), dv(heads * n.V), dg(heads * n.K), dS(states);
    for (int64_t i = 0; i < heads * G; ++i) g[i] = std::log(a[i]);
    const Resets resets(n.B * n.T, n.resets);
    const Outer call{n.B, n.T, n.H, n.K, n.V, G, read_first, n.threads, q, k, v, g, resets.room.get()};
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
    int64_t B, T, N, a_row, a_step, da_step, complex, threads;
    const float *a, *b, *h;
    const uint8_t* reset;
};
extern "C" void ritornello_scan_forward(const Scan*, float* y);
extern "C" void ritornello_scan_backward(const Scan*, const float* y, const float* dy, float* da, float* db, float* dh);

// `same`: one a for all rows and steps. N counts floats.
static void scan(const Size& n, int64_t N, bool same, bool complex) {
    const int64_t all = n.B * n.T * N;
    Floats a = uniform(same ? N : all, -0.7f, 0.7f), b = uniform(all, -1, 1), h = uniform(n.B * N, -1, 1);
    Floats y(all), dy = uniform(all, -1, 1), d_end = uniform(n.B * N, -1, 1), da(same ? n.B * N : all), db(all), dh(n.B * N);
    std::copy_n(&d_end[0], n.B * N, &dh[0]);
    const Resets resets(n.B * n.T, n.resets);
    const Scan call{n.B, n.T, N, same ? 0 : n.T * N, same ? 0 : N, same ? 0 : N, complex, n.threads, a, b, h, resets.room.get()};
    ritornello_scan_forward(&call, y);
    ritornello_scan_backward(&call, y, dy, da, db, dh);

    const Numbers first = leaves(h), B = leaves(b);
    Numbers A, last = first, Y(size_t(all), Number(0));
    for (int64_t i = 0; i < da.size(); ++i) A.push_back(leaf(a[same ? i % N : i]));
    for (int64_t token = 0; token < n.B * n.T; ++token)
        for (int64_t i = 0; i < N; i += complex ? 2 : 1) {
            const size_t here = size_t(token * N + i), held = size_t(token / n.T * N + i);
            const bool cut = resets.cut(token);
            const Number x = cut ? Number(0) : last[held], *turn = &A[same ? held : here];
            if (complex) {
                const Number z = cut ? Number(0) : last[held + 1];
                last[held] = Y[here] = turn[0] * x - turn[1] * z + B[here];
                last[held + 1] = Y[here + 1] = turn[0] * z + turn[1] * x + B[here + 1];
            } else {
                last[held] = Y[here] = turn[0] * x + B[here];
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

// ---- softmax_scan --------------------------------------------------------------------------------------------------------------------

struct SoftmaxScan {
    int64_t B, T, N, threads;
    const float *s, *v, *w, *u, *m, *num, *den;
    const uint8_t* reset;
};
extern "C" void ritornello_softmax_scan_forward(const SoftmaxScan*, float* y, float* m, float* num, float* den, float* kept);
extern "C" void ritornello_softmax_scan_backward(const SoftmaxScan*, const float* kept, const float* y, const float* dy, float* ds, float* dv,
                                                 float* dw, float* du, float* dm, float* dnum, float* dden);

static void softmax_scan(const Size& n, int64_t N, bool fading, bool bonus) {
    const int64_t all = n.B * n.T * N, states = n.B * N;
    Floats s = uniform(all, -3, 3), v = uniform(all, -1, 1), w = uniform(fading ? N : 0, 0, 2), u = uniform(bonus ? N : 0, -1, 1);
    Floats m = uniform(states, -3, 3), num = uniform(states, -1, 1), den = uniform(states, 1, 2);
    Floats y(all), end_m(states), end_num(states), end_den(states), kept(n.B * ((n.T + 31) / 32) * 3 * N);
    Floats dy = uniform(all, -1, 1), dm = uniform(states, -1, 1), dnum = uniform(states, -1, 1), dden = uniform(states, -1, 1);
    Floats ds(all), dv(all), dw(states), du(states);
    const Resets resets(n.B * n.T, n.resets);
    const SoftmaxScan call{n.B, n.T, N, n.threads, s, v, w, u, m, num, den, resets.room.get()};
    ritornello_softmax_scan_forward(&call, y, end_m, end_num, end_den, kept);

    const Numbers S = leaves(s), V = leaves(v), W = leaves(w), U = leaves(u), first[] = {leaves(m), leaves(num), leaves(den)};
    Numbers last[] = {first[0], first[1], first[2]}, Y;
    for (int64_t token = 0; token < n.B * n.T; ++token)
        for (int64_t i = 0; i < N; ++i) {
            const size_t here = size_t(token * N + i), held = size_t(token / n.T * N + i);
            Number &top = last[0][held], &above = last[1][held], &below = last[2][held];
            if (resets.cut(token)) top = -1e30, above = 0, below = 0;
            if (bonus) {
                const Number logit = U[size_t(i)] + S[here], most = maximum(top, logit), past = exp(top - most), own = exp(logit - most);
                Y.push_back((past * above + own * V[here]) / (past * below + own));
            }
            const Number faded = fading ? top - W[size_t(i)] : top;
            top = maximum(faded, S[here]);
            const Number keep = exp(faded - top), write = exp(S[here] - top);
            above = keep * above + write * V[here], below = keep * below + write;
            if (!bonus) Y.push_back(above / below);
        }
    compare("y", y, Y), compare("m", end_m, last[0]), compare("num", end_num, last[1]), compare("den", end_den, last[2]);
    Gradients gradients;
    gradients.seed(Y, dy), gradients.seed(last[0], dm), gradients.seed(last[1], dnum), gradients.seed(last[2], dden), gradients.spread();
    ritornello_softmax_scan_backward(&call, kept, y, dy, ds, dv, dw, du, dm, dnum, dden);
    compare("ds", ds, gradients.of(S)), compare("dv", dv, gradients.of(V)), compare("dm", dm, gradients.of(first[0]));
    compare("dnum", dnum, gradients.of(first[1])), compare("dden", dden, gradients.of(first[2]));
    if (fading) compare("dw", over_parts(dw, N), gradients.of(W));
    if (bonus) compare("du", over_parts(du, N), gradients.of(U));
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

// ---- conv ----------------------------------------------------------------------------------------------------------------------------

struct Conv {
    int64_t B, T, D, W, narrow, threads;
    const void* x;
    const float *w, *bias, *past;
    const uint8_t* reset;
};
extern "C" void ritornello_conv_forward(const Conv*, void* y, float* end);
extern "C" void ritornello_conv_backward(const Conv*, const void* dy, const float* d_end, void* dx, float* dw, float* d_bias, float* d_past);

static void conv(const Size& n, int64_t D, int64_t W, bool biased, bool narrow) {
    const int64_t all = n.B * n.T * D, states = n.B * (W - 1) * D;
    Either x(uniform(all, -1, 1), narrow), y(Floats(all), narrow), dy(uniform(all, -1, 1), narrow), dx(Floats(all), narrow);
    Floats w = uniform(W * D, -1, 1), bias = uniform(D, -1, 1), past = uniform(states, -1, 1), d_end = uniform(states, -1, 1);
    Floats end(states), dw(W * D), d_bias(D), d_past(states);
    const Resets resets(n.B * n.T, n.resets);
    const Conv call{n.B, n.T, D, W, narrow, n.threads, x, w, biased ? static_cast<float*>(bias) : nullptr, past, resets.room.get()};
    ritornello_conv_forward(&call, y, end);
    ritornello_conv_backward(&call, dy, d_end, dx, dw, d_bias, d_past);

    const Numbers X = leaves(x.wide), taps = leaves(w), added = leaves(bias), first = leaves(past);
    Numbers last = first, Y;
    for (int64_t b = 0; b < n.B; ++b)
        for (int64_t t = 0; t < n.T; ++t)
            for (int64_t d = 0; d < D; ++d) {
                Number sum = biased ? added[size_t(d)] : Number(0);
                const Number now = X[size_t((b * n.T + t) * D + d)];
                for (int64_t i = 0; i < W - 1; ++i) {  // oldest first; each moves one place up
                    Number& seen = last[size_t((b * (W - 1) + i) * D + d)];
                    if (resets.cut(b * n.T + t)) seen = Number(0);
                    sum = sum + taps[size_t((W - 1 - i) * D + d)] * seen;
                }
                for (int64_t i = 0; i < W - 1; ++i)
                    last[size_t((b * (W - 1) + i) * D + d)] = i < W - 2 ? last[size_t((b * (W - 1) + i + 1) * D + d)] : now;
                Y.push_back(sum + taps[size_t(d)] * now);
            }
    const double tolerance = narrow ? 4e-3 : 2e-5;
    compare("y", y.read(), Y, tolerance), compare("end", end, last);
    Gradients gradients;
    gradients.seed(Y, dy.wide), gradients.seed(last, d_end), gradients.spread();
    compare("dx", dx.read(), gradients.of(X), tolerance), compare("dw", dw, gradients.of(taps), 1e-4);
    compare("d_past", d_past, gradients.of(first));
    if (biased) compare("d_bias", d_bias, gradients.of(added), 1e-4);
}
