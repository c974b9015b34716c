// Every exported kernel at many odd sizes, in buffers of exactly the right size, beside a plain loop whose gradients come from tape.h.
//
// Built with the address and undefined-behaviour sanitizers by test_sanitizers.py. A new kernel needs its struct and declarations as in its
// source, a function with its formula in one of the headers, and a line below.
#include "cells.h"
#include "generate.h"
#include "recurrences.h"
#include "rows.h"

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
        run("softmax_scan", n, [&](const Size& n) { softmax_scan(n, n.V, same, other); });
        run("delta", n, [&](const Size& n) { delta(n, same ? 1 : n.K); });
        run("conv", n, [&](const Size& n) { conv(n, n.K, 2 + n.V % 4, same, other); });
        run("generate", n, generate);
        run("vocabulary", n, [&](const Size& n) { vocabulary(n, same, other); });
        run("divergence", n, [&](const Size& n) { divergence(n, same); });
        const int64_t rows = n.B ? 1 + int64_t(random_bits() % 11) : 0;  // their products take several at a time
        for (const Size& cells : {n, Size{rows, std::min<int64_t>(n.T, 4), n.H, n.K, n.V, n.threads, n.resets}}) {
            run("gru", cells, gru);
            run("slstm", cells, slstm);
        }
        const Rows flat{n.B * n.T, n.K * n.H, other, n.threads};
        run("norm", n, [&](const Size&) { norm(flat); });
        run("swish", n, [&](const Size&) { swish(flat); });
        run("swiglu", n, [&](const Size&) { swiglu(flat); });
        run("forget", n, [&](const Size&) { forget(flat); });
        run("dropout", n, [&](const Size&) { dropout(flat); });
    };
    for (int64_t T : lengths)
        for (int repeat = 0; repeat < 12; ++repeat)
            all({1 + repeat % 2, T, 1 + repeat / 2 % 2, any(widths), any(widths), 1 + repeat % 4, repeat % 3});
    all({0, 5, 1, 3, 3, 1, 1});                            // no rows
    for (int repeat = 0; repeat < 3; ++repeat) all({1, 20000, 1, 2, 3, 2, repeat});  // a long text
    std::printf("%d comparisons, %d failures\n", checked, failures);
    return failures ? 1 : 0;
}
