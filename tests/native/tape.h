// Numbers that remember how they were made, so that a plain forward loop is the reference for a kernel's gradients too.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

struct Made {  // of at most two others: their places on the tape, and the derivatives by them
    int64_t a, b;
    double da, db;
};

inline std::vector<Made> tape;

struct Number {
    double x = 0;
    int64_t at = -1;  // not on the tape: a constant
    Number() = default;
    Number(double x) : x(x) {}
    Number(double x, Made made) : x(x), at(int64_t(tape.size())) { tape.push_back(made); }
};

inline Number leaf(double x) { return {x, Made{-1, -1, 0, 0}}; }
inline Number operator+(Number a, Number b) { return {a.x + b.x, Made{a.at, b.at, 1, 1}}; }
inline Number operator-(Number a, Number b) { return {a.x - b.x, Made{a.at, b.at, 1, -1}}; }
inline Number operator*(Number a, Number b) { return {a.x * b.x, Made{a.at, b.at, b.x, a.x}}; }
inline Number operator/(Number a, Number b) { return {a.x / b.x, Made{a.at, b.at, 1 / b.x, -a.x / (b.x * b.x)}}; }
inline Number exp(Number a) { return {std::exp(a.x), Made{a.at, -1, std::exp(a.x), 0}}; }
inline Number log(Number a) { return {std::log(a.x), Made{a.at, -1, 1 / a.x, 0}}; }
inline Number tanh(Number a) { return {std::tanh(a.x), Made{a.at, -1, 1 - std::tanh(a.x) * std::tanh(a.x), 0}}; }
inline Number maximum(Number a, Number b) {  // where both are the largest, each has half of the gradient, as in torch
    const double share = a.x > b.x ? 1 : a.x < b.x ? 0 : 0.5;
    return {std::max(a.x, b.x), Made{a.at, b.at, share, 1 - share}};
}
inline Number sigmoid(Number a) { return 1.0 / (1.0 + exp(0.0 - a)); }

using Numbers = std::vector<Number>;

// The gradient of every number on the tape, given that of some outputs; the tape is empty afterwards.
class Gradients {
    std::vector<double> by_place = std::vector<double>(tape.size());

public:
    template <class Floats>
    void seed(const Numbers& outputs, const Floats& gradient) {
        for (size_t i = 0; i < outputs.size(); ++i)
            if (outputs[i].at >= 0) by_place[outputs[i].at] += gradient[i];
    }
    void spread() {
        for (int64_t i = int64_t(tape.size()) - 1; i >= 0; --i) {
            if (tape[i].a >= 0) by_place[tape[i].a] += by_place[i] * tape[i].da;
            if (tape[i].b >= 0) by_place[tape[i].b] += by_place[i] * tape[i].db;
        }
        tape.clear();
    }
    std::vector<double> of(const Numbers& inputs) const {
        std::vector<double> result;
        for (const Number& input : inputs) result.push_back(input.at >= 0 ? by_place[input.at] : 0);
        return result;
    }
};
