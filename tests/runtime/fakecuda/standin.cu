/* Kernels of the stand-in engine: y = a * x + b, sums of rows, and one that only takes time. */
#include "twin.h"

static THREAD void affine_thread(unsigned i, const float *x, float *y, float a, float b, unsigned n) {
    if (i < n) y[i] = a * x[i] + b;
}

/* One after the other, so that host and device round alike. */
static THREAD void row_sum_thread(unsigned row, const float *x, float *y, unsigned rows, unsigned columns) {
    if (row >= rows) return;
    float sum = 0.0f;
    for (unsigned column = 0; column < columns; column++) sum += x[row * columns + column];
    y[row] = sum;
}

/* What exceeds a limit, in the order of the input, and how many those are: an output whose shape depends on data. */
static THREAD void above_thread(unsigned i, const float *x, float *y, unsigned *count, float limit, unsigned n) {
    if (i) return;
    unsigned found = 0;
    for (unsigned at = 0; at < n; at++)
        if (x[at] > limit) y[found++] = x[at];
    *count = found;
}

#ifdef __CUDACC__

#define INDEX (blockIdx.x * blockDim.x + threadIdx.x)

extern "C" __global__ void affine(const float *x, float *y, float a, float b, unsigned n) {
    affine_thread(INDEX, x, y, a, b, n);
}

extern "C" __global__ void row_sum(const float *x, float *y, unsigned rows, unsigned columns) {
    row_sum_thread(INDEX, x, y, rows, columns);
}

extern "C" __global__ void above(const float *x, float *y, unsigned *count, float limit, unsigned n) {
    above_thread(INDEX, x, y, count, limit, n);
}

extern "C" __global__ void burn(unsigned long long ns) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - start < ns);
}

#else

#include <time.h>

#define ARGUMENT(type, index) (*(type *)params[index])
#define TWIN(name) void name##_host(void **params, const unsigned *grid, const unsigned *block, void *context)

static const float *reads(uint64_t pointer, size_t count) {
    fakecuda_access(pointer, count * sizeof(float), 0);
    return (const float *)fakecuda_host_pointer(pointer);
}

static void *writes(uint64_t pointer, size_t bytes) {
    fakecuda_access(pointer, bytes, 1);
    return fakecuda_host_pointer(pointer);
}

const unsigned char affine_sizes[] = {8, 8, 4, 4, 4, 0};
TWIN(affine) {
    unsigned n = ARGUMENT(unsigned, 4);
    const float *x = reads(ARGUMENT(uint64_t, 0), n);
    float *y = (float *)writes(ARGUMENT(uint64_t, 1), n * sizeof *y);
    for (unsigned i = 0; x && y && i < grid[0] * block[0]; i++)
        affine_thread(i, x, y, ARGUMENT(float, 2), ARGUMENT(float, 3), n);
}

const unsigned char row_sum_sizes[] = {8, 8, 4, 4, 0};
TWIN(row_sum) {
    unsigned rows = ARGUMENT(unsigned, 2), columns = ARGUMENT(unsigned, 3);
    const float *x = reads(ARGUMENT(uint64_t, 0), (size_t)rows * columns);
    float *y = (float *)writes(ARGUMENT(uint64_t, 1), rows * sizeof *y);
    for (unsigned i = 0; x && y && i < grid[0] * block[0]; i++) row_sum_thread(i, x, y, rows, columns);
}

const unsigned char above_sizes[] = {8, 8, 8, 4, 4, 0};
TWIN(above) {
    unsigned n = ARGUMENT(unsigned, 4);
    const float *x = reads(ARGUMENT(uint64_t, 0), n);
    float *y = (float *)writes(ARGUMENT(uint64_t, 1), n * sizeof *y);
    unsigned *count = (unsigned *)writes(ARGUMENT(uint64_t, 2), sizeof *count);
    if (x && y && count) above_thread(0, x, y, count, ARGUMENT(float, 3), n);
}

const unsigned char burn_sizes[] = {8, 0};
TWIN(burn) {
    uint64_t ns = ARGUMENT(uint64_t, 0);
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&time, 0);
}

#endif
