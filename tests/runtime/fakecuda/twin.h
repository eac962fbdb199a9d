/* One source for a kernel: nvcc makes device code of it, a C compiler its host twin for the shim.
 *
 * A kernel NAME is written as a function of one thread, `static THREAD void NAME_thread(unsigned i, …)`. nvcc's part
 * is a `__global__` function that calls it; the host's part are two names that the shim looks for:
 *
 *     const unsigned char NAME_sizes[]    size of each parameter in bytes, ending with 0
 *     void NAME_host(void **params, const unsigned grid[3], const unsigned block[3], void *context)
 *
 * A twin gets at memory by `fakecuda_host_pointer`, and says what it touches by `fakecuda_access`.
 */
#ifndef TWIN_H
#define TWIN_H

#ifdef __CUDACC__
#define THREAD __device__ __forceinline__
#else
#define THREAD inline
#include <stddef.h>
#include <stdint.h>
void fakecuda_access(uint64_t pointer, size_t bytes, int write);
void *fakecuda_host_pointer(uint64_t pointer);
#endif

#endif
