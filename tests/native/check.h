// What every check of a kernel needs: buffers of exactly the right size, random numbers, and comparison with what a plain loop found.
#pragma once

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

// Numbers that end where their allocation ends; every other time they begin off any boundary but their own. None lie at null, as in torch.
template <class Item>
class Items {
    size_t offset, count;
    std::unique_ptr<Item[]> room;

public:
    explicit Items(int64_t n, Item fill) : offset(random_bits() % 2), count(size_t(n)), room(new Item[count + offset]) {
        std::fill(room.get(), room.get() + count + offset, fill);
    }
    operator Item*() { return count ? room.get() + offset : nullptr; }
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
