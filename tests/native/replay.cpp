// One call of the decoder, its memory read from a file into buffers of exactly the right size, so that a sanitizer sees what lies beside them.
//
//   replay IN OUT     IN: the number of buffers; for each its size, the bytes; the number of links; for each a buffer, a place in it, and
//                     the buffer that the pointer there points to. The last buffer is the argument. OUT: the bytes of all buffers after it.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

extern "C" void ritornello_decode(const void*);

static int64_t integer(FILE* file) {
    int64_t x = -1;
    return fread(&x, sizeof x, 1, file) == 1 ? x : -1;
}

int main(int count, char** paths) {
    if (count != 3) return 2;
    FILE *in = fopen(paths[1], "rb"), *out = fopen(paths[2], "wb");
    if (!in || !out) return 2;
    std::vector<std::unique_ptr<char[]>> buffers(size_t(integer(in)));
    std::vector<size_t> sizes;
    for (auto& buffer : buffers) {
        sizes.push_back(size_t(integer(in)));
        buffer.reset(new char[sizes.back()]);
        if (fread(buffer.get(), 1, sizes.back(), in) != sizes.back()) return 2;
    }
    for (int64_t links = integer(in); links > 0; --links) {
        const int64_t buffer = integer(in), place = integer(in);
        const char* target = buffers[size_t(integer(in))].get();
        std::memcpy(buffers[size_t(buffer)].get() + place, &target, sizeof target);
    }
    ritornello_decode(buffers.back().get());
    for (size_t i = 0; i < buffers.size(); ++i) fwrite(buffers[i].get(), 1, sizes[i], out);
    return fclose(in) || fclose(out);
}
