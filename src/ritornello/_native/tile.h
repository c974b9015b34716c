// A tile of a matrix state: rows of WIDE vectors, one after another, beginning on a cache line.
#pragma once

#include <memory>
#include <vector>

#include "lanes.h"

constexpr int TILE = WIDE * LANES;  // floats in a row

struct Scratch {
    std::vector<float> room;
    float* tile;
    explicit Scratch(int64_t rows) : room(rows * TILE + 16) {
        void* start = room.data();
        size_t space = room.size() * sizeof(float);
        tile = static_cast<float*>(std::align(64, rows * TILE * sizeof(float), start, space));
    }
};
