// What this build was made for, in words.
#include "lanes.h"

#if defined(__AVX512F__)
#define FOR "avx512"
#elif defined(__AVX2__)
#define FOR "avx2"
#elif defined(__ARM_NEON)
#define FOR "neon"
#else
#define FOR "base"
#endif

#if defined(_OPENMP)
#define THREADS ""
#else
#define THREADS ", one thread: the compiler has no OpenMP"
#endif

extern "C" const char* ritornello_about() { return FOR THREADS; }
