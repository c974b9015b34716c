// Softmax attention as a recurrence, and its adjoint; the formula is in ops/softmax_scan.py.
//
//   m_t = max(m_{t-1} - w, s_t)      keep = e^{m_{t-1} - w - m_t}      write = e^{s_t - m_t}
//   num_t = keep num_{t-1} + write v_t      den_t = keep den_{t-1} + write
//
// The adjoint. The true sums, num_t e^{m_t} and den_t e^{m_t}, and every y depend on no m: m only says in which units sums are held. Let a
// and b be the gradients of num_t and den_t with the units held still. Then
//
//   dv_t = a write      ds_t = write (a v_t + b)      dw -= keep (a num_{t-1} + b den_{t-1})      a, b <- keep a, keep b
//
// and y_t = num_t / den_t adds dy / den_t to a and takes y_t dy / den_t from b before that. With a bonus, y_t = p v_t + (1 - p) num / den of
// what was before the token, p = own / (past den + own), own and past being e^{u + s_t} and e^{m_{t-1}} in units of the larger: it adds p dy
// to dv_t, p dy (v_t - y_t) to ds_t and du, and past / (past den + own) times dy to a and times -y_t dy to b after that.
// The units have a gradient too, as the sums are handed on in them: c = dm - a num - b den at the end. It goes back to the logit that was the
// largest, to w once for each step on the way (half each way where two are equal), and the state that came in has dm = c + a num + b den.
//
// Lanes are channels. The forward pass keeps the state before every 32nd token, from which the backward pass makes the others again.
#include <algorithm>
#include <vector>

#include "numbers.h"

namespace {

constexpr int64_t KEPT = 32;  // tokens between states that the forward pass keeps
constexpr float NONE = -1e30f;

struct Sums {
    Lanes m, num, den;
};

const Sums FRESH{splat(NONE), Lanes{}, Lanes{}};

struct Weights {
    Lanes past, own;  // of two logits, in units of the larger
    Weights(Lanes before, Lanes now) {
        const Lanes most = larger(before, now);
        past = exp_of(before - most), own = exp_of(now - most);
    }
};

}  // namespace

struct SoftmaxScan {
    int64_t B, T, N, threads;
    const float *s, *v, *w, *u;   // (B, T, N) both; (N) or null: no fading, no bonus
    const float *m, *num, *den;   // (B, N)
    const uint8_t* reset;         // (B, T) or null
};

namespace {

// One row's channels from `first` on, as many as a vector has.
struct Channels {
    const SoftmaxScan* s;
    int64_t row, first, left;
    Lanes w, u;

    Channels(const SoftmaxScan* s, int64_t job, int64_t blocks)
        : s(s), row(job / blocks), first(job % blocks * LANES), left(s->N - first), w(s->w ? load_some(s->w + first, left) : Lanes{}),
          u(s->u ? load_some(s->u + first, left) : Lanes{}) {}
    int64_t at(int64_t t) const { return (row * s->T + t) * s->N + first; }
    int64_t state() const { return row * s->N + first; }
    bool cut(int64_t t) const { return s->reset && s->reset[row * s->T + t]; }
    Lanes take(const float* from) const { return load_some(from, left); }
    void give(float* to, Lanes x) const { store_some(to, x, left); }

    Sums after(const Sums& before, Lanes logit, Lanes value) const {
        const Lanes faded = before.m - w;
        const Weights weights(faded, logit);
        return {larger(faded, logit), weights.past * before.num + weights.own * value, weights.past * before.den + weights.own};
    }
    float* kept(float* all, int64_t piece, int64_t pieces) const { return all + ((row * pieces + piece) * 3 * s->N + first); }
};

}  // namespace

// y (B, T, N), the last m, num and den (B, N), and those before every 32nd token, (B, ceil(T / 32), 3, N).
extern "C" void ritornello_softmax_scan_forward(const SoftmaxScan* s, float* y, float* m, float* num, float* den, float* kept) {
    const int64_t blocks = (s->N + LANES - 1) / LANES, pieces = (s->T + KEPT - 1) / KEPT;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < s->B * blocks; ++job) {
        const Channels c(s, job, blocks);
        Sums sums{c.take(s->m + c.state()), c.take(s->num + c.state()), c.take(s->den + c.state())};
        for (int64_t t = 0; t < s->T; ++t) {
            if (t % KEPT == 0) {
                float* to = c.kept(kept, t / KEPT, pieces);
                c.give(to, sums.m), c.give(to + s->N, sums.num), c.give(to + 2 * s->N, sums.den);
            }
            if (c.cut(t)) sums = FRESH;
            const Lanes logit = c.take(s->s + c.at(t)), value = c.take(s->v + c.at(t));
            if (s->u) {
                const Weights read(sums.m, logit + c.u);
                c.give(y + c.at(t), (read.past * sums.num + read.own * value) / (read.past * sums.den + read.own));
            }
            sums = c.after(sums, logit, value);
            if (!s->u) c.give(y + c.at(t), sums.num / sums.den);
        }
        c.give(m + c.state(), sums.m), c.give(num + c.state(), sums.num), c.give(den + c.state(), sums.den);
    }
}

// Gradients from those of y and of the last m, num and den, which dm, dnum and dden hold before and where those of the first ones are put.
// dw and du are (B, N), for the caller to add up.
extern "C" void ritornello_softmax_scan_backward(const SoftmaxScan* s, const float* kept, const float* y, const float* dy, float* ds, float* dv,
                                                 float* dw, float* du, float* dm, float* dnum, float* dden) {
    const int64_t blocks = (s->N + LANES - 1) / LANES, pieces = (s->T + KEPT - 1) / KEPT;
#pragma omp parallel for num_threads(s->threads) schedule(static)
    for (int64_t job = 0; job < s->B * blocks; ++job) {
        const Channels c(s, job, blocks);
        Sums sums[KEPT + 1];
        Lanes a{}, b{}, units{}, to_w{}, to_u{};
        for (int64_t piece = pieces - 1; piece >= 0; --piece) {
            const int64_t from = piece * KEPT, count = std::min(KEPT, s->T - from);
            const float* held = c.kept(const_cast<float*>(kept), piece, pieces);
            sums[0] = {c.take(held), c.take(held + s->N), c.take(held + 2 * s->N)};
            for (int64_t i = 0; i < count; ++i)
                sums[i + 1] = c.after(c.cut(from + i) ? FRESH : sums[i], c.take(s->s + c.at(from + i)), c.take(s->v + c.at(from + i)));
            if (piece == pieces - 1) {
                a = c.take(dnum + c.state()), b = c.take(dden + c.state());
                units = c.take(dm + c.state()) - a * sums[count].num - b * sums[count].den;
            }
            for (int64_t i = count - 1; i >= 0; --i) {
                const int64_t at = c.at(from + i);
                const bool cut = c.cut(from + i);
                const Sums& before = cut ? FRESH : sums[i];
                const Lanes logit = c.take(s->s + at), value = c.take(s->v + at), out = c.take(dy + at), mean = c.take(y + at);
                if (!s->u) a += out / sums[i + 1].den, b -= out * mean / sums[i + 1].den;
                const Lanes faded = before.m - c.w;
                const Weights weights(faded, logit);
                const Lanes stays = choose(faded > logit, splat(1.0f), choose(faded < logit, Lanes{}, splat(0.5f)));
                Lanes to_v = a * weights.own, to_s = weights.own * (a * value + b) + units * (1.0f - stays);
                units *= stays, a *= weights.past, b *= weights.past;
                to_w -= a * before.num + b * before.den + units;
                if (s->u) {
                    const Weights read(before.m, logit + c.u);
                    const Lanes share = out / (read.past * before.den + read.own), own = share * read.own, to_logit = own * (value - mean);
                    to_v += own, to_s += to_logit, to_u += to_logit;
                    a += share * read.past, b -= share * read.past * mean;
                }
                c.give(dv + at, to_v), c.give(ds + at, to_s);
                if (cut) a = b = units = Lanes{};
            }
        }
        if (pieces) {
            c.give(dm + c.state(), units + a * c.take(s->num + c.state()) + b * c.take(s->den + c.state()));
            c.give(dnum + c.state(), a), c.give(dden + c.state(), b);
        }
        c.give(dw + c.state(), to_w), c.give(du + c.state(), to_u);
    }
}
