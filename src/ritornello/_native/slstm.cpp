// sLSTM's cell over time and its adjoint; the formula is in mixers/slstm.py.
//
// A job is a few rows of the batch through all of time, all their heads at each step, so that memory is read and written in order; what the
// next step reads is fetched ahead, as the rows lie too far apart for the processor to foresee it. A step is a product with a head's packed
// recurrent weights, then the gates. Forward keeps the gates before their functions and the memory; backward makes the functions again, and
// gives the gradient of what each product made, which is u's too and from which one large product makes the weights'.
#include "recurrent.h"

namespace {

constexpr float FRESH = -1e30f;  // m of a fresh state

// min(x, 0) - log(1 + y) with y = e^-|x|, and log(1 + y) = 2 artanh(s) = 2 (s + s^3 / 3 + ...) with s = y / (2 + y) <= 1 / 3.
inline Lanes log_sigmoid(Lanes x) {
    const Lanes y = exp_of(-size(x)), s = y / (2.0f + y), q = s * s;
    Lanes p = splat(1.0f / 13);
    p = p * q + 1.0f / 11;
    p = p * q + 1.0f / 9;
    p = p * q + 1.0f / 7;
    p = p * q + 1.0f / 5;
    p = p * q + 1.0f / 3;
    return -larger(-x, Lanes{}) - 2.0f * (p * q * s + s);
}

// One token of a head of a row: from u (4, K), the products (4, W) and the memory h, c, n, m, `apart` from each other, to these after it.
// u of the next token lies `next` floats on.
inline void forward(int64_t K, int64_t W, int64_t next, const float* u, const float* products, float* memory, int64_t apart, float* y,
                    float* kept) {
    for (int64_t at = 0; at < K; at += LANES) {
        const int64_t left = K - at;
        float *h = memory + at, *c = h + apart, *n = c + apart, *m = n + apart;
        Lanes gate[4];
        for (int g = 0; g < 4; ++g) {
            gate[g] = load_some(u + g * K + at, left) + load(products + g * W + at);
            __builtin_prefetch(u + next + g * K + at);
        }
        const Lanes log_keep = log_sigmoid(gate[1]) + load(m), most = larger(gate[0], log_keep);
        const Lanes write = exp_of(gate[0] - most), keep = exp_of(log_keep - most);
        const Lanes cell = keep * load(c) + write * tanh(gate[2]), norm = keep * load(n) + write;
        const Lanes out = sigmoid(gate[3]) * cell / norm;
        store(h, out), store(c, cell), store(n, norm), store(m, most);
        store_some(y + at, out, left);
        for (int g = 0; g < 4; ++g) store_some(kept + g * K + at, gate[g], left);
        store_some(kept + 4 * K + at, cell, left), store_some(kept + 5 * K + at, norm, left), store_some(kept + 6 * K + at, most, left);
    }
}

// What a token of a head of a row was, and what came before it: c, n, m, `apart` from each other, or null where it was reset.
struct Token {
    const float *kept, *y, *dy, *before;
    int64_t apart, next;  // next: floats of y back to the next token
};

// The gradients of h, c, n, m, `apart` from each other: of what came after the token to what came before; h's is then the product's.
inline void backward(int64_t K, int64_t W, const Token& token, float* grads, int64_t apart, float* du, float* products) {
    for (int64_t at = 0; at < K; at += LANES) {
        const int64_t left = K - at;
        float *dh = grads + at, *dc = dh + apart, *dn = dc + apart, *dm = dn + apart;
        Lanes now[7], before[3] = {Lanes{}, Lanes{}, splat(FRESH)};
        for (int g = 0; g < 7; ++g) now[g] = load_some(token.kept + g * K + at, left);
        for (int g = 0; g < 4; ++g) __builtin_prefetch(token.kept - token.next * 7 + g * K + at);
        __builtin_prefetch(token.dy - token.next + at);
        __builtin_prefetch(token.y - token.next + at);
        if (token.before)
            for (int part = 0; part < 3; ++part) {
                before[part] = load_some(token.before + part * token.apart + at, left);
                __builtin_prefetch(token.before - token.next * 7 + part * K + at);
            }
        const Lanes norm = choose(now[5] == 0.0f, splat(1.0f), now[5]), most = now[6];  // zero only beyond the row
        const Lanes log_keep = log_sigmoid(now[1]) + before[2], h = load_some(token.y + at, left);
        const Lanes write = exp_of(now[0] - most), keep = exp_of(log_keep - most), z = tanh(now[2]), o = sigmoid(now[3]);
        const Lanes to_h = load_some(token.dy + at, left) + load(dh), to_ratio = to_h / norm;
        const Lanes to_c = load(dc) + to_ratio * o, to_n = load(dn) - to_ratio * h;
        const Lanes to_keep = (to_c * before[0] + to_n * before[1]) * keep, to_write = (to_c * z + to_n) * write;
        const Lanes to_m = load(dm) - to_keep - to_write;
        const Lanes share = choose(now[0] > log_keep, splat(1.0f), choose(now[0] == log_keep, splat(0.5f), Lanes{}));
        const Lanes to_log_keep = to_keep + to_m * (1.0f - share);
        const Lanes to_gate[4] = {to_write + to_m * share, to_log_keep * sigmoid(-now[1]), to_c * write * (1.0f - z * z),
                                  to_h * h * (1.0f - o)};
        for (int g = 0; g < 4; ++g) store_some(du + g * K + at, to_gate[g], left), store(products + g * W + at, to_gate[g]);
        const bool cut = !token.before;
        store(dc, cut ? Lanes{} : to_c * keep), store(dn, cut ? Lanes{} : to_n * keep), store(dm, cut ? Lanes{} : to_log_keep);
    }
}

}  // namespace

struct SLSTM {
    int64_t B, T, H, K, threads;
    const float *r, *state;  // (H, K, 4, K): in, then i, f, z, o; h, c, n, m before (4, B, H, K)
    const uint8_t* reset;    // (B, T) or null
};

namespace {

// A job's h, c, n, m of each row and head, or their gradients: rows of W floats, (4, H, rows, W).
struct Memory {
    const SLSTM* s;
    int64_t W, first, rows, apart;
    Room room;
    Memory(const SLSTM* s, int64_t W, int64_t first, int64_t rows)
        : s(s), W(W), first(first), rows(rows), apart(s->H * rows * W), room(4 * apart) {}
    float* at(int64_t head, int64_t row) const { return room.at + (head * rows + row) * W; }
    template <class Copy>
    void all(Copy copy) const {  // each with its place in (4, B, H, K)
        for (int64_t part = 0; part < 4; ++part)
            for (int64_t head = 0; head < s->H; ++head)
                for (int64_t i = 0; i < rows; ++i)
                    copy(at(head, i) + part * apart, ((part * s->B + first + i) * s->H + head) * s->K);
    }
    bool cut(int64_t row, int64_t t) const { return s->reset && s->reset[(first + row) * s->T + t]; }
};

}  // namespace

// From u (B, T, H, 4, K): every h, y (B, T, H, K), the last h, c, n, m, end (4, B, H, K), and all gates and c, n, m, kept (B, T, H, 7, K).
extern "C" void ritornello_slstm_forward(const SLSTM* s, const float* u, float* y, float* end, float* kept) {
    const int64_t H = s->H, K = s->K, V = vectors(K), W = V * LANES, whole = 4 * V * K * LANES;
    const int64_t each = rows_each(s->B, s->threads), jobs = (s->B + each - 1) / each;
    const Room packed(H * whole);
    for (int64_t head = 0; head < H; ++head)
        for (int64_t g = 0; g < 4; ++g)
            pack(s->r + (head * 4 * K + g) * K, 4 * K, 1, K, K, packed.at + head * whole + g * V * K * LANES, K * LANES);
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < jobs; ++job) {
        const int64_t first = job * each, rows = std::min(each, s->B - first);
        const Memory memory(s, W, first, rows);
        const Room products(rows * 4 * W);
        memory.all([&](float* here, int64_t there) { std::copy_n(s->state + there, K, here); });
        for (int64_t t = 0; t < s->T; ++t)
            for (int64_t head = 0; head < H; ++head) {
                for (int64_t i = 0; i < rows; ++i)
                    for (int64_t part = 0; part < 4 && memory.cut(i, t); ++part)
                        std::fill_n(memory.at(head, i) + part * memory.apart, W, part < 3 ? 0.0f : FRESH);
                product(rows, {memory.at(head, 0), packed.at + head * whole, products.at, W, 4 * W, K, 4 * V});
                for (int64_t i = 0; i < rows; ++i) {
                    const int64_t token = ((first + i) * s->T + t) * H + head;
                    forward(K, W, t + 1 < s->T ? H * 4 * K : 0, u + token * 4 * K, products.at + i * 4 * W, memory.at(head, i),
                            memory.apart, y + token * K, kept + token * 7 * K);
                }
            }
        memory.all([&](float* here, int64_t there) { std::copy_n(here, K, end + there); });
    }
}

// From the gradients of y and of the last state: those of u and of the first state.
extern "C" void ritornello_slstm_backward(const SLSTM* s, const float* y, const float* kept, const float* dy, const float* d_end, float* du,
                                          float* d_state) {
    const int64_t H = s->H, K = s->K, V = vectors(K), W = V * LANES, leaf = s->B * H * K, whole = V * 4 * W * LANES;
    const int64_t each = rows_each(s->B, s->threads), jobs = (s->B + each - 1) / each;
    const Room packed(H * whole);
    for (int64_t head = 0; head < H; ++head)
        for (int64_t g = 0; g < 4; ++g)
            pack(s->r + (head * 4 * K + g) * K, 1, 4 * K, K, K, packed.at + head * whole + g * W * LANES, 4 * W * LANES);
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < jobs; ++job) {
        const int64_t first = job * each, rows = std::min(each, s->B - first);
        const Memory grads(s, W, first, rows);
        const Room products(rows * 4 * W);
        grads.all([&](float* here, int64_t there) { std::copy_n(d_end + there, K, here); });
        for (int64_t t = s->T - 1; t >= 0; --t)
            for (int64_t head = 0; head < H; ++head) {
                for (int64_t i = 0; i < rows; ++i) {
                    const int64_t at = ((first + i) * s->T + t) * H + head;
                    Token token{kept + at * 7 * K, y + at * K, dy + at * K, nullptr, t ? K : leaf, t > 1 ? H * K : 0};
                    if (!grads.cut(i, t)) token.before = t ? kept + ((at - H) * 7 + 4) * K : s->state + leaf + ((first + i) * H + head) * K;
                    backward(K, W, token, grads.at(head, i), grads.apart, du + at * 4 * K, products.at + i * 4 * W);
                }
                product(rows, {products.at, packed.at + head * whole, grads.at(head, 0), 4 * W, W, 4 * W, V});
                for (int64_t i = 0; i < rows; ++i)
                    if (grads.cut(i, t)) std::fill_n(grads.at(head, i), W, 0.0f);
            }
        grads.all([&](float* here, int64_t there) { std::copy_n(here, K, d_state + there); });
    }
}
