// One token for every row of a batch through a whole model in one call: an interpreter of the steps that serve/plan.py writes down.
//
// A step reads and writes registers, vectors of floats of which each row of the batch has its own; its weights are packed (product.h); what
// the model remembers is read from the leaves of the state before and written to those of the state after. All threads take every step
// together and share its rows, heads or outputs.
#include "product.h"
#include "sampling.h"

struct Step {
    int64_t kind, in, out;    // registers, as floats from a row's start
    int64_t rows, columns;    // sizes
    int64_t a, b, c;          // more registers, or which form the step has
    int64_t heads;            // of an outer product
    int64_t leaf;             // the first leaf of the state that it reads and writes
    const void* weight;
    const float *scale, *bias;
    const int32_t* excess;
    double number;
};

struct Decode {
    int64_t B, vocab, room, count, vnni, threads;  // room: floats in a row's registers
    const Step* steps;
    const int64_t* tokens;       // (B,)
    const void* const* before;   // leaves
    void* const* after;
    float* logits;               // (B, vocab)
};

namespace {

struct Team {
    const Decode& d;
    float* registers;
    uint8_t* bytes;  // of one product's inputs
    float* scales;

    float* at(int64_t b, int64_t reg) const { return registers + b * d.room + reg; }
    const float* before(int64_t leaf, int64_t offset) const { return static_cast<const float*>(d.before[leaf]) + offset; }
    float* after(int64_t leaf, int64_t offset) const { return static_cast<float*>(d.after[leaf]) + offset; }
};

// out = the token's row of the table
void embed(const Team& t, const Step& s, int64_t b) {
    std::copy_n(static_cast<const float*>(s.weight) + t.d.tokens[b] * s.columns, s.columns, t.at(b, s.out));
}

// out = in over its root mean square, or if a, over its deviation from its mean; each of `rows` groups by itself
void norm(const Team& t, const Step& s, int64_t b) {
    const int64_t n = s.columns;
    for (int64_t group = 0; group < s.rows; ++group) {
        const float* x = t.at(b, s.in) + group * n;
        float *y = t.at(b, s.out) + group * n, mean = 0;
        Lanes whole{};
        if (s.a) {
            for (int64_t i = 0; i < n; i += LANES) whole += load_some(x + i, n - i);
            mean = total(whole) / n;
        }
        Lanes squares{};
        int64_t done = 0;
        for (; done + LANES <= n; done += LANES) {
            const Lanes off = load(x + done) - mean;
            squares += off * off;
        }
        float square = total(squares);
        for (; done < n; ++done) square += (x[done] - mean) * (x[done] - mean);
        const float factor = 1 / std::sqrt(square / n + float(s.number));
        for (int64_t i = 0; i < n; i += LANES) {
            Lanes out = (load_some(x + i, n - i) - mean) * factor * load_some(s.scale + group * n + i, n - i);
            if (s.bias) out += load_some(s.bias + group * n + i, n - i);
            store_some(y + i, out, n - i);
        }
    }
}

// out (+)= weight in, plus bias; to the logits if c. a: add; b: 0 float32, 1 bfloat16, 2 bytes
void multiply(const Team& t, const Step& s) {
    const Product p{s.rows, s.columns, s.weight, s.scale, s.bias, s.excess, s.a != 0};
    const int64_t B = t.d.B, room = t.d.room, stride = s.c ? t.d.vocab : room;
    float* y = s.c ? t.d.logits : t.at(0, s.out);
    if (s.b == 0) product<Float32>(p, B, t.at(0, s.in), room, nullptr, y, stride);
    else if (s.b == 1) product<BFloat16>(p, B, t.at(0, s.in), room, nullptr, y, stride);
    else {
#pragma omp for schedule(static)
        for (int64_t b = 0; b < B; ++b) t.scales[b] = to_bytes(t.at(b, s.in), s.columns, t.bytes + b * s.columns);
#if defined(__AVX512F__)
        if (t.d.vnni) return product<Vnni>(p, B, t.bytes, s.columns, t.scales, y, stride);
#endif
        product<Int8>(p, B, t.bytes, s.columns, t.scales, y, stride);
    }
}

// out = f(in), times a register if a >= 0. b: 0 silu, 1 gelu, 2 gelu by tanh
void activate(const Team& t, const Step& s, int64_t b) {
    const float *x = t.at(b, s.in), *other = s.a < 0 ? nullptr : t.at(b, s.a);
    float* y = t.at(b, s.out);
    for (int64_t i = 0; i < s.columns; i += LANES) {
        const Lanes in = load(x + i);
        Lanes out;
        if (s.b == 0) out = silu(in);
        else if (s.b == 2) out = 0.5f * in * (1.0f + tanh(0.7978845608f * (in + 0.044715f * in * in * in)));
        else for (int j = 0; j < LANES; ++j) out[j] = 0.5f * in[j] * (1.0f + std::erf(in[j] * 0.7071067812f));
        store(y + i, other ? out * load(other + i) : out);
    }
}

// out = in + scale * a, or in + a
void add(const Team& t, const Step& s, int64_t b) {
    for (int64_t i = 0; i < s.columns; i += LANES) {
        const Lanes other = load(t.at(b, s.a) + i);
        store(t.at(b, s.out) + i, load(t.at(b, s.in) + i) + (s.scale ? load(s.scale + i) * other : other));
    }
}

void softcap(const Team& t, const Step& s, int64_t b) {
    float* x = t.d.logits + b * t.d.vocab;
    const float cap = float(s.number);
    for (int64_t i = 0; i < t.d.vocab; i += LANES) store_some(x + i, cap * tanh(load_some(x + i, t.d.vocab - i) / cap), t.d.vocab - i);
}

void remember(const Team& t, const Step& s, int64_t b) { std::copy_n(t.at(b, s.in), s.columns, t.after(s.leaf, b * s.columns)); }

void recall(const Team& t, const Step& s, int64_t b) { std::copy_n(t.before(s.leaf, b * s.columns), s.columns, t.at(b, s.out)); }

// The last of `rows` inputs is this one, the others are remembered: out = sum of scale[i] * input i, plus bias; silu of that if a
void convolve(const Team& t, const Step& s, int64_t b) {
    const int64_t n = s.columns, last = s.rows - 1, room = (n + PAD - 1) / PAD * PAD;
    const float *past = t.before(s.leaf, b * last * n), *x = t.at(b, s.in);
    float* after = t.after(s.leaf, b * last * n);
    for (int64_t i = 0; i < n; i += LANES) {
        Lanes next = load(x + i), y = load(s.scale + last * room + i) * next;
        for (int64_t w = last; w-- > 0;) {  // the newest first, as after may be before
            const Lanes old = load_some(past + w * n + i, n - i);
            y += load(s.scale + w * room + i) * old;
            store_some(after + w * n + i, next, n - i);
            next = old;
        }
        if (s.bias) y += load(s.bias + i);
        store(t.at(b, s.out) + i, s.a ? silu(y) : y);
    }
}

// W lanes of values of S' = decay S + k v' and of y = S'' q, for a head's K keys. EachKey: a decay for each, or one for the head.
template <int W, bool EachKey>
void tile(int64_t K, int64_t V, const float* q, const float* k, const float* v, const float* decay, const float* S, float* to, float* y,
          int64_t some) {
    Lanes in[W], out[W] = {};
    for (int w = 0; w < W; ++w) in[w] = load_some(v + w * LANES, some - w * LANES);
    for (int64_t r = 0; r < K; ++r)
        for (int w = 0; w < W; ++w) {
            const int64_t left = W == 1 ? some : LANES;
            const Lanes x = decay[EachKey ? r : 0] * load_some(S + r * V + w * LANES, left) + k[r] * in[w];
            out[w] += q[r] * x;
            store_some(to + r * V + w * LANES, x, left);
        }
    for (int w = 0; w < W; ++w) store_some(y + w * LANES, out[w], some - w * LANES);
}

// Head h: in q, a k, b v, `rows` keys and `columns` values; decays, `number` for each head, in register c or if c < 0 in scale
void outer(const Team& t, const Step& s, int64_t b, int64_t h) {
    const int64_t K = s.rows, V = s.columns, G = int64_t(s.number), at = (b * s.heads + h) * K * V;
    const float *q = t.at(b, s.in) + h * K, *k = t.at(b, s.a) + h * K, *v = t.at(b, s.b) + h * V;
    const float* decay = (s.c < 0 ? s.scale : t.at(b, s.c)) + h * G;
    const float* S = t.before(s.leaf, at);
    float *to = t.after(s.leaf, at), *y = t.at(b, s.out) + h * V;
    for (int64_t i = 0; i < V;) {
        auto go = [&](auto width) {
            constexpr int W = decltype(width)::value;
            const int64_t some = std::min<int64_t>(V - i, W * LANES);
            (G > 1 ? tile<W, true> : tile<W, false>)(K, V, q, k, v + i, decay, S + i, to + i, y + i, some);
            i += some;
        };
        if (V - i >= 8 * LANES && LANES == 16) go(std::integral_constant<int, 8>{});
        else if (V - i >= 4 * LANES) go(std::integral_constant<int, 4>{});
        else if (V - i >= 2 * LANES) go(std::integral_constant<int, 2>{});
        else go(std::integral_constant<int, 1>{});
    }
}

// q, f in place to the query and the decay, the key to out: in q, a f, scale the floors, number the query's factor
void hgrn2(const Team& t, const Step& s, int64_t b) {
    float *q = t.at(b, s.in), *f = t.at(b, s.a), *key = t.at(b, s.out);
    for (int64_t i = 0; i < s.columns; i += LANES) {
        const Lanes floor = load(s.scale + i), logit = load(f + i);
        store(q + i, silu(load(q + i)) * float(s.number));
        store(key + i, (1.0f - floor) * sigmoid(-logit));
        store(f + i, floor + (1.0f - floor) * sigmoid(logit));
    }
}

// in z, a v; the new h to out
void mingru(const Team& t, const Step& s, int64_t b) {
    for (int64_t i = 0; i < s.columns; i += LANES) {
        const Lanes z = load(t.at(b, s.in) + i), v = load(t.at(b, s.a) + i), g = choose(v >= 0.0f, v + 0.5f, sigmoid(v));
        const Lanes h = load_some(t.before(s.leaf, b * s.columns + i), s.columns - i);
        const Lanes y = sigmoid(-z) * h + sigmoid(z) * g;
        store(t.at(b, s.out) + i, y);
        store_some(t.after(s.leaf, b * s.columns + i), y, s.columns - i);
    }
}

// in the logits of i, f, g, o, `rows` floats apart; c is the leaf; h to out
void lstm(const Team& t, const Step& s, int64_t b) {
    const float* x = t.at(b, s.in);
    for (int64_t j = 0; j < s.columns; j += LANES) {
        const Lanes i = sigmoid(load(x + j)), f = sigmoid(load(x + s.rows + j)), g = tanh(load(x + 2 * s.rows + j));
        const Lanes c = f * load_some(t.before(s.leaf, b * s.columns + j), s.columns - j) + i * g;
        store(t.at(b, s.out) + j, sigmoid(load(x + 3 * s.rows + j)) * tanh(c));
        store_some(t.after(s.leaf, b * s.columns + j), c, s.columns - j);
    }
}

// in what r, z, n see of the input, a what they see of h, `rows` floats apart; h to out
void gru(const Team& t, const Step& s, int64_t b) {
    const float *x = t.at(b, s.in), *u = t.at(b, s.a);
    for (int64_t i = 0; i < s.columns; i += LANES) {
        const Lanes r = sigmoid(load(x + i) + load(u + i)), z = sigmoid(load(x + s.rows + i) + load(u + s.rows + i));
        const Lanes n = tanh(load(x + 2 * s.rows + i) + r * load(u + 2 * s.rows + i));
        const Lanes h = z * load_some(t.before(s.leaf, b * s.columns + i), s.columns - i) + (1.0f - z) * n;
        store(t.at(b, s.out) + i, h);
        store_some(t.after(s.leaf, b * s.columns + i), h, s.columns - i);
    }
}

// in q, a k, `rows` heads of `columns`: turned in place by the position that the leaf counts, q times number; scale: the rates
void rotate(const Team& t, const Step& s, int64_t b) {
    const int64_t seen = static_cast<const int64_t*>(t.d.before[s.leaf])[b], half = s.columns / 2;
    static_cast<int64_t*>(t.d.after[s.leaf])[b] = seen + 1;
    for (int64_t i = 0; i < half; ++i) {
        const float angle = float(seen) * s.scale[i], cosine = std::cos(angle), sine = std::sin(angle);
        for (int64_t h = 0; h < s.rows; ++h)
            for (const int64_t reg : {s.in, s.a}) {
                float* x = t.at(b, reg) + h * s.columns;
                const float factor = reg == s.in ? float(s.number) : 1.0f, one = x[i] * factor, two = x[i + half] * factor;
                x[i] = one * cosine - two * sine;
                x[i + half] = two * cosine + one * sine;
            }
    }
}

inline float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

// in x, a dt before its softplus, b and c the write and the read, `rows` channels of `columns` states; weight A, scale D; y + D x to out
void selective(const Team& t, const Step& s, int64_t b) {
    const int64_t D = s.rows, N = s.columns;
    const float *x = t.at(b, s.in), *write = t.at(b, s.b), *read = t.at(b, s.c), *A = static_cast<const float*>(s.weight);
    const float* h = t.before(s.leaf, b * D * N);
    float* to = t.after(s.leaf, b * D * N);
    for (int64_t d = 0; d < D; ++d) {
        const float dt = softplus(t.at(b, s.a)[d]), in = dt * x[d];
        Lanes y{};
        for (int64_t n = 0; n < N; n += LANES) {
            const int64_t some = N - n;
            const Lanes decay = exp_of(dt * load_some(A + d * N + n, some));
            const Lanes state = decay * load_some(h + d * N + n, some) + in * load_some(write + n, some);
            y += state * load_some(read + n, some);
            store_some(to + d * N + n, state, some);
        }
        t.at(b, s.out)[d] = total(y) + s.scale[d] * x[d];
    }
}

// Blocks of 4 channels of in, each by its own matrix, `columns` channels
void blocks(const Team& t, const Step& s, int64_t b) {
    const float* w = static_cast<const float*>(s.weight);
    const float* x = t.at(b, s.in);
    float* y = t.at(b, s.out);
    for (int64_t i = 0; i < s.columns; i += 4, w += 16)
        for (int64_t o = 0; o < 4; ++o)
            y[i + o] = w[4 * o] * x[i] + w[4 * o + 1] * x[i + 1] + w[4 * o + 2] * x[i + 2] + w[4 * o + 3] * x[i + 3];
}

// in log i, a log f (b: before its sigmoid), `rows` heads of `columns` keys in register c: k scaled in place, n and m stepped, decays to
// out. Leaves: C, n, m.
void mlstm_write(const Team& t, const Step& s, int64_t b) {
    const int64_t H = s.rows, K = s.columns;
    for (int64_t h = 0; h < H; ++h) {
        const float log_i = t.at(b, s.in)[h], logit = t.at(b, s.a)[h], before = *t.before(s.leaf + 2, b * H + h);
        const float log_f = s.b ? std::min(logit, 0.0f) - std::log1p(std::exp(-std::abs(logit))) : logit;
        const float m = std::max(log_f + before, log_i);
        const float decay = std::exp(log_f + before - m), write = std::exp(log_i - m) * float(s.number);
        *t.after(s.leaf + 2, b * H + h) = m;
        t.at(b, s.out)[h] = decay;
        float *k = t.at(b, s.c) + h * K, *n = t.after(s.leaf + 1, (b * H + h) * K);
        const float* n_before = t.before(s.leaf + 1, (b * H + h) * K);
        for (int64_t r = 0; r < K; ++r) k[r] *= write, n[r] = decay * n_before[r] + k[r];
    }
}

// in q, out y in place: over the normaliser. Leaves as above.
void mlstm_read(const Team& t, const Step& s, int64_t b) {
    const int64_t H = s.rows, K = s.columns;
    for (int64_t h = 0; h < H; ++h) {
        const float *q = t.at(b, s.in) + h * K, *n = t.after(s.leaf + 1, (b * H + h) * K), m = *t.after(s.leaf + 2, b * H + h);
        float *y = t.at(b, s.out) + h * K, dot = 0;
        for (int64_t r = 0; r < K; ++r) dot += n[r] * q[r];
        const float small = std::exp(std::min(m, 0.0f));
        const float factor = small / (std::max(std::abs(dot * small), std::exp(-std::max(m, 0.0f))) + 1e-6f * small);
        for (int64_t r = 0; r < K; ++r) y[r] *= factor;
    }
}

typedef void (*ByRow)(const Team&, const Step&, int64_t);
constexpr ByRow BY_ROW[] = {embed, norm, activate, add, softcap, remember, recall, convolve, hgrn2, mingru, lstm, gru, rotate, selective,
                            blocks, mlstm_write, mlstm_read};  // in the order of serve/plan.py's KINDS, before `multiply` and `outer`
constexpr int64_t MULTIPLY = sizeof BY_ROW / sizeof *BY_ROW, OUTER = MULTIPLY + 1;

void take(const Team& t, const Step& s) {
    if (s.kind == MULTIPLY) return multiply(t, s);
    const int64_t heads = s.kind == OUTER ? s.heads : 1;
#pragma omp for schedule(static)
    for (int64_t job = 0; job < t.d.B * heads; ++job) {
        if (s.kind == OUTER) outer(t, s, job / heads, job % heads);
        else BY_ROW[s.kind](t, s, job);
    }
}

}  // namespace

// Whether this processor has the instruction for products of bytes, and this build knows it.
extern "C" int64_t ritornello_vnni() {
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512vnni") != 0;
#else
    return 0;
#endif
}

extern "C" void ritornello_decode(const Decode* d) {
    int64_t widest = 0;
    for (int64_t i = 0; i < d->count; ++i)
        if (d->steps[i].kind == MULTIPLY) widest = std::max(widest, d->steps[i].columns);
    std::vector<float> registers(d->B * d->room), scales(d->B);
    std::vector<uint8_t> bytes(d->B * widest);
    const Team team{*d, registers.data(), bytes.data(), scales.data()};
#pragma omp parallel num_threads(d->threads)
    for (int64_t i = 0; i < d->count; ++i) take(team, d->steps[i]);
}

// One row: draws a token from the logits and feeds it, again and again; the logits become those after the last one. How many tokens: fewer
// than asked for where the next would be the one to stop at, or cannot be drawn. No step minds that a state's leaf is read and written in
// one place: only the first token reads `before`.
extern "C" int64_t ritornello_generate(const Decode* d, const Choice* c) {
    Decode step = *d;
    Sampler sampler;
    for (int64_t n = 0; n < c->count; ++n) {
        const int64_t token = sampler.draw(d->logits, d->vocab, *c, c->uniforms[n]);
        if (token < 0 || token == c->stop) return n;
        c->drawn[n] = token;
        step.tokens = c->drawn + n;
        ritornello_decode(&step);
        step.before = step.after;
    }
    return c->count;
}
