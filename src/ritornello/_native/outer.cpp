// The gated outer-product recurrence and its adjoint, exactly, in chunks; the formula is in ops/outer.py.
//
//   S_t = diag(a_t) S_{t-1} + k_t v_t'      y_t = S_t' q_t, or S_{t-1}' q_t where a token reads before it writes
//
// In a chunk of TOKENS tokens, with P_i the product of the decays from its start to where token i reads, R_j that of those after j and D_ij that
// of those between j's write and i's read, all row by row of S:
//
//   A_ij = sum of q_i k_j D_ij, j <= i        Y = (Q P) S + A V              S <- diag(P_end) S + (K R)' V            forwards
//   dA = dY V'                                dQ = P (dY S') + dA . K D      dK = R (V G') + dA' . Q D
//   with G the state's gradient               dV = (K R) G + A' dY           G <- diag(P_end) G + (Q P)' dY           backwards
//
// Every factor is a product of decays and at most 1: nothing overflows, however fast a gate shuts. A chunk ends before a reset. The decay's
// gradient needs no state: a_t (G_t . S_{t-1}) = G_t . S_t - k_t dk_t, summed over values, which the walk backwards carries from token to token.
#include <algorithm>
#include <initializer_list>
#include <vector>

#include "chunk.h"

struct Outer {
    int64_t B, T, H, K, V, G;  // G: decays a head, K or 1
    int64_t read_first, threads;
    const float *q, *k, *v, *g;  // (B, T, H, K), (B, T, H, K), (B, T, H, V), (B, T, H, G): g the log decays
    const uint8_t* reset;        // (B, T) or null
};

namespace {

constexpr int FEW = 3;  // tokens that are quicker one by one

// One row's and head's place, and what is at hand of a chunk.
struct Head {
    const Outer& o;
    int64_t panels, blocks, keys, values, gates, state;  // panels of rows, blocks of columns; where the head's numbers begin
    const uint8_t* reset;
    int64_t key_step, value_step;
    std::vector<float> room;
    float *S, *a, *decay, *q, *k, *from_start, *to_end, *read, *write, *rows, *in, *turned, *out, *A, *dA;

    explicit Head(const Outer& o) : o(o), panels(times_up(o.K, LANES)), blocks(times_up(o.V, TILE)), key_step(o.H * o.K), value_step(o.H * o.V) {
        const int64_t padded = panels * LANES, of_keys = panels * PANEL, of_values = blocks * TOKENS * TILE, square = TOKENS * TOKENS;
        room.resize(padded * (blocks * TILE + 2) + 8 * of_keys + 2 * of_values + TOKENS * TILE + 2 * square + 16);
        float* next = room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) % 64 / sizeof(float);
        auto take = [&](int64_t size, auto&... parts) { ((parts = next, next += size), ...); };
        take(padded * blocks * TILE, S), take(of_keys + padded, a), take(of_keys, q, k, from_start, to_end, read, write, rows);
        take(of_values, in, turned), take(TOKENS * TILE, out), take(square, A, dA), take(padded, decay);
    }

    void at(int64_t bh) {
        const int64_t b = bh / o.H, h = bh % o.H, token = b * o.T * o.H + h;
        keys = token * o.K, values = token * o.V, gates = token * o.G, state = bh * o.K * o.V;
        reset = o.reset ? o.reset + b * o.T : nullptr;
    }

    bool cut(int64_t t) const { return reset && reset[t]; }

    int64_t length(int64_t t) const {
        int64_t n = 1;
        while (n < TOKENS && t + n < o.T && !cut(t + n)) ++n;
        return n;
    }

    void load_state(const float* from) { pack<TILE>(from + state, o.V, o.K, panels * LANES, o.V, S); }
    void store_state(float* to) const { unpack<TILE>(S, panels * LANES, o.V, to + state, o.V, o.K); }
    void clear() { std::fill_n(S, panels * LANES * blocks * TILE, 0.0f); }
    float* block(int64_t n) const { return S + n * panels * LANES * TILE; }

    void keys_in(const float* from, int64_t t, int64_t n, float* to) const { pack<LANES>(from + keys + t * key_step, key_step, n, TOKENS, o.K, to); }
    void keys_out(const float* from, float* to, int64_t t, int64_t n) const {
        unpack<LANES>(from, TOKENS, o.K, to + keys + t * key_step, key_step, n);
    }
    void values_in(const float* from, int64_t t, int64_t n) { pack<TILE>(from + values + t * value_step, value_step, n, TOKENS, o.V, in); }
    void values_turned(const float* from, int64_t t, int64_t n) { pack_turned(from + values + t * value_step, value_step, n, o.V, turned); }
    void values_out(float* to, int64_t t, int64_t n, int64_t block) const {
        unpack<TILE>(out, TOKENS, std::min<int64_t>(TILE, o.V - block * TILE), to + values + t * value_step + block * TILE, value_step, n);
    }

    // The rows of a chunk lie far apart: the processor is told of those it will need next, the chunk from t, a share while each block is at
    // hand. Inlined by order: a compiler takes a function that only prefetches for one that does nothing.
    __attribute__((always_inline)) void fetch(int64_t t, int64_t share, std::initializer_list<const float*> of_keys,
                                              std::initializer_list<const float*> of_values) const {
        auto row = [](const float* from, int64_t size) __attribute__((always_inline)) {
            for (int64_t c = 0; c < size; c += 64 / sizeof(float)) __builtin_prefetch(from + c, 0, 2);
        };
        const int64_t end = std::min(t + TOKENS * (share + 1) / blocks, o.T);
        for (int64_t i = std::max<int64_t>(t + TOKENS * share / blocks, 0); i < end; ++i) {
            for (const float* from : of_keys) row(from + keys + i * key_step, o.K);
            for (const float* from : of_values) row(from + values + i * value_step, o.V);
            row(o.g + gates + i * o.H * o.G, o.G);
        }
    }

    // The chunk's decays in panels of TOKENS + 1 tokens, the first and those past the last 1, and their products from and to its ends.
    void decays(int64_t t, int64_t n) {
        Lanes one[TOKENS];
        for (int64_t i = 0; o.G == 1 && i < n; ++i) one[i] = exp_of(splat(o.g[gates + (t + i) * o.H]));
        for (int64_t p = 0; p < panels; ++p) {
            float* to = a + p * (PANEL + LANES);
            std::fill_n(to, PANEL + LANES, 1.0f);
            for (int64_t i = 0; i < n; ++i)
                store(to + (i + 1) * LANES, o.G == 1 ? one[i] : exp_of(load_some(o.g + gates + (t + i) * key_step + p * LANES, o.K - p * LANES)));
            Lanes product = splat(1.0f);
            for (int i = 0; i < TOKENS; ++i) store(from_start + p * PANEL + i * LANES, product *= load(to + (i + !o.read_first) * LANES));
            product = splat(1.0f);
            for (int j = TOKENS - 1; j >= 0; product *= load(to + (j + 1) * LANES), --j) store(to_end + p * PANEL + j * LANES, product);
            store(decay + p * LANES, product);
        }
    }

    // The decay before token i's read and after that of the token before it.
    const float* step(int64_t panel) const { return a + panel * (PANEL + LANES) + (o.read_first ? 0 : LANES); }

    void scale(const float* x, const float* by, float* to) const {
        for (int64_t i = 0; i < panels * PANEL; i += LANES) store(to + i, load(x + i) * load(by + i));
    }

    // Some panels' part in column j of A.
    template <int N>
    void weigh(int64_t panel, int j, int64_t n, Lanes* sums) const {
        const float *q_ = q + panel * PANEL, *k_ = k + panel * PANEL + j * LANES, *b = step(panel);
        Lanes w[N];
        for (int p = 0; p < N; ++p) w[p] = load(k_ + p * PANEL);
        for (int64_t i = j + o.read_first, first = i; i < n; ++i) {
            Lanes sum = sums[i];
            for (int p = 0; p < N; ++p) {
                if (i > first) w[p] *= load(b + p * (PANEL + LANES) + i * LANES);
                sum += load(q_ + p * PANEL + i * LANES) * w[p];
            }
            sums[i] = sum;
        }
    }

    // A' in panels of i: how much of what token j writes token i reads.
    void weights(int64_t n) {
        std::fill_n(A, TOKENS * TOKENS, 0.0f);
        for (int j = 0; j < n; ++j) {
            Lanes sums[TOKENS] = {};
            int64_t p = 0;
            for (; p + 4 <= panels; p += 4) weigh<4>(p, j, n, sums);
            for (; p < panels; ++p) weigh<1>(p, j, n, sums);
            for (int part = 0; part < ACROSS; ++part) {
                Lanes *x = sums + part * LANES, total{};
                transpose(x);
                for (int l = 0; l < LANES; ++l) total += x[l];
                store(A + (part * TOKENS + j) * LANES, total);
            }
        }
    }

    // What some panels of dq and dk have from the chunk's own writes, each by Horner's rule along its row or column of dA.
    template <int N>
    void within(int64_t panel, int64_t n, float* dq, float* dk) const {
        const int64_t shift = o.read_first;
        const float *q_ = q + panel * PANEL, *k_ = k + panel * PANEL, *b = step(panel);
        auto d = [&](int64_t i, int64_t j) { return dA[(i / LANES * TOKENS + j) * LANES + i % LANES]; };
        auto add = [&](Lanes* sums, float* to) {
            for (int p = 0; p < N; ++p) store(to + (panel + p) * PANEL, load(to + (panel + p) * PANEL) + sums[p]);
        };
        for (int64_t i = shift; i < n; ++i) {
            Lanes sums[N] = {};
            for (int64_t j = 0; j <= i - shift; ++j)
                for (int p = 0; p < N; ++p)
                    sums[p] = sums[p] * load(b + p * (PANEL + LANES) + (j + shift) * LANES) + d(i, j) * load(k_ + p * PANEL + j * LANES);
            add(sums, dq + i * LANES);
        }
        for (int64_t j = 0; j < n - shift; ++j) {
            Lanes sums[N] = {};
            for (int64_t i = n - 1; i >= j + shift; --i)
                for (int p = 0; p < N; ++p)
                    sums[p] = sums[p] * load(b + p * (PANEL + LANES) + std::min(i + 1, n - 1) * LANES) + d(i, j) * load(q_ + p * PANEL + i * LANES);
            add(sums, dk + j * LANES);
        }
    }

    // The gradient of the log decays of a panel. `held`: of each row, the sum over values of a_{t+1} G_{t+1} . S_t.
    void gates_gradient(int64_t panel, int64_t n, const float* __restrict dq, const float* __restrict dk, float* __restrict dg,
                        double* __restrict held) const {
        const float *__restrict q_ = q, *__restrict k_ = k;
        const double before = o.read_first, after = 1.0 - before;
        for (int64_t at = panel * PANEL + (n - 1) * LANES; at >= panel * PANEL; at -= LANES)
            for (int l = 0; l < LANES; ++l) {
                const double read = double(q_[at + l]) * dq[at + l];
                const double gate = held[l] + after * read - double(k_[at + l]) * dk[at + l];
                dg[at + l] = float(gate);
                held[l] = gate + before * read;
            }
    }

    // Of a block of values: what x reads of the state, and by A of the chunk's own `in`.
    void reads(const float* x, int64_t n, int64_t at) {
        std::fill_n(out, TOKENS * TILE, 0.0f);
        multiply(panels, x, block(at), out, n);
        multiply(ACROSS, A, in + at * TOKENS * TILE, out, n);
    }

    void write_state(const float* x, int64_t n, int64_t at) { update(panels, decay, x, in + at * TOKENS * TILE, n, block(at)); }
};

// Whether no value is infinite or no number: masked by a weight of zero, such a one would still be seen by the tokens before it.
bool finite(const float* x, int64_t count) {
    Lanes none[4] = {};
    for (int64_t i = 0; i < count; i += 4 * LANES)
        for (int n = 0; n < 4; ++n) none[n] += 0.0f * load(x + i + n * LANES);
    return total((none[0] + none[1]) + (none[2] + none[3])) == 0.0f;
}

// One token after the other.
void walk(Head& head, int64_t t, int64_t n, float* y) {
    for (int64_t block = 0; block < head.blocks; ++block) {
        for (int64_t i = 0; i < n; ++i) {
            const float* v = head.in + (block * TOKENS + i) * TILE;
            float* row = head.block(block);
            Lanes sum[WIDE] = {};
            for (int64_t r = 0; r < head.o.K; ++r, row += TILE) {
                const int64_t at = r / LANES * PANEL + i * LANES + r % LANES;
                const float a = head.a[at + r / LANES * LANES + LANES], k = head.k[at], q = head.q[at];
                for (int w = 0; w < WIDE; ++w) {
                    const Lanes before = load(row + w * LANES), x = a * before + k * load(v + w * LANES);
                    sum[w] += q * (head.o.read_first ? before : x);
                    store(row + w * LANES, x);
                }
            }
            for (int w = 0; w < WIDE; ++w) store(head.out + i * TILE + w * LANES, sum[w]);
        }
        head.values_out(y, t, n, block);
    }
}

void forward(Head& head, int64_t t, int64_t n, float* y) {
    head.decays(t, n), head.values_in(head.o.v, t, n), head.keys_in(head.o.q, t, n, head.q), head.keys_in(head.o.k, t, n, head.k);
    if (n <= FEW || !finite(head.in, head.blocks * TOKENS * TILE)) return walk(head, t, n, y);
    head.weights(n);
    std::swap(head.A, head.dA);
    for (int across = 0; across < ACROSS; ++across)
        for (int down = 0; down < ACROSS; ++down) {  // A from A'
            Lanes x[LANES];
            for (int i = 0; i < LANES; ++i) x[i] = load(head.dA + across * PANEL + (down * LANES + i) * LANES);
            transpose(x);
            for (int i = 0; i < LANES; ++i) store(head.A + down * PANEL + (across * LANES + i) * LANES, x[i]);
        }
    head.scale(head.q, head.from_start, head.read), head.scale(head.k, head.to_end, head.write);
    for (int64_t block = 0; block < head.blocks; ++block) {
        head.fetch(t + n, block, {head.o.q, head.o.k}, {head.o.v, y});
        head.reads(head.read, n, block);
        head.values_out(y, t, n, block);
        head.write_state(head.write, n, block);
    }
}

// What dq has from the state before the chunk.
void again(Head& head, int64_t t, int64_t n, const float* dy, float* dq) {
    head.decays(t, n), head.values_turned(dy, t, n), head.values_in(head.o.v, t, n), head.keys_in(head.o.k, t, n, head.k);
    contract(head.panels, head.blocks, head.S, head.turned, head.rows);
    head.scale(head.rows, head.from_start, head.rows), head.keys_out(head.rows, dq, t, n);
    head.scale(head.k, head.to_end, head.write);
    for (int64_t block = 0; block < head.blocks; ++block) {
        head.fetch(t + n, block, {head.o.k, dq}, {head.o.v, dy});
        head.write_state(head.write, n, block);
    }
}

struct Gradients {
    const float *end, *dy, *d_end;
    float *dq, *dk, *dv, *dg, *dS;
};

// The rest, given dq's part; the head's state is the gradient here.
void backward(Head& head, int64_t t, int64_t n, const Gradients& to, double* held) {
    head.decays(t, n), head.values_in(to.dy, t, n), head.values_turned(head.o.v, t, n);
    head.keys_in(head.o.q, t, n, head.q), head.keys_in(head.o.k, t, n, head.k);
    head.weights(n);
    contract(ACROSS, head.blocks, head.in, head.turned, head.dA);
    contract(head.panels, head.blocks, head.S, head.turned, head.rows);
    head.scale(head.rows, head.to_end, head.rows);
    head.scale(head.q, head.from_start, head.read), head.scale(head.k, head.to_end, head.write);
    for (int64_t block = 0; block < head.blocks; ++block) {
        head.fetch(t - TOKENS, block, {head.o.q, head.o.k, to.dq, to.dk, to.dg}, {head.o.v, to.dy, to.dv});
        head.reads(head.write, n, block);
        head.values_out(to.dv, t, n, block);
        head.write_state(head.read, n, block);
    }
    head.keys_in(to.dq, t, n, head.read);
    int64_t p = 0;
    for (; p + 4 <= head.panels; p += 4) head.within<4>(p, n, head.read, head.rows);
    for (; p < head.panels; ++p) head.within<1>(p, n, head.read, head.rows);
    for (p = 0; p < head.panels; ++p) {
        head.gates_gradient(p, n, head.read, head.rows, head.write, held + p * LANES);
        if (head.cut(t)) std::fill_n(head.write + p * PANEL, LANES, 0.0f), std::fill_n(held + p * LANES, LANES, 0.0);
    }
    head.keys_out(head.read, to.dq, t, n), head.keys_out(head.rows, to.dk, t, n), head.keys_out(head.write, to.dg, t, n);
}

}  // namespace

// y (B, T, H, V) and the last S (B, H, K, V) from the first.
extern "C" void ritornello_outer_forward(const Outer* o, const float* S, float* y, float* end) {
#pragma omp parallel num_threads(o->threads)
    {
        Head head(*o);
#pragma omp for schedule(static)
        for (int64_t bh = 0; bh < o->B * o->H; ++bh) {
            head.at(bh), head.load_state(S);
            for (int64_t t = 0, n; t < o->T; t += n) {
                if (head.cut(t)) head.clear();
                forward(head, t, n = head.length(t), y);
            }
            head.store_state(end);
        }
    }
}

// Gradients from those of y and of the last S: dq, dk, dg (B, T, H, K; dg of the log decay, to be summed where a head has one), dv, dS.
extern "C" void ritornello_outer_backward(const Outer* o, const float* S, const float* end, const float* dy, const float* d_end, float* dq,
                                          float* dk, float* dv, float* dg, float* dS) {
    const Gradients to{end, dy, d_end, dq, dk, dv, dg, dS};
#pragma omp parallel num_threads(o->threads)
    {
        Head head(*o);
        std::vector<int64_t> starts;
        std::vector<double> held(head.panels * LANES);
#pragma omp for schedule(static)
        for (int64_t bh = 0; bh < o->B * o->H; ++bh) {
            head.at(bh), head.load_state(S), starts.clear();
            for (int64_t t = 0, n; t < o->T; t += n) {
                if (head.cut(t)) head.clear();
                again(head, t, n = head.length(t), dy, dq), starts.push_back(t);
            }
            std::fill(held.begin(), held.end(), 0.0);
            for (int64_t r = 0; r < o->K; ++r)
                for (int64_t c = 0, at = head.state + r * o->V; c < o->V; ++c) held[r] += double(d_end[at + c]) * end[at + c];
            head.load_state(d_end);
            for (int64_t later = o->T; !starts.empty(); later = starts.back(), starts.pop_back()) {
                backward(head, starts.back(), later - starts.back(), to, held.data());
                if (head.cut(starts.back())) head.clear();
            }
            head.store_state(dS);
        }
    }
}
