/* Devices, contexts, memory, copies, modules and launches: the driver API as pycuda and ctypes call it. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakecuda.h"

Block *blocks;
size_t live_bytes[3];
long live_events, live_streams, live_graphs, live_execs, live_modules, live_pushed;

/* --- devices --- */
EXPORT CUresult cuInit(unsigned flags) {
    ENTER_FREE(0, NULL);
    LEAVE(setting(S_DEVICES) ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE);
}

EXPORT CUresult cuDriverGetVersion(int *version) {
    *version = (int)setting(S_DRIVER_VERSION);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count) {
    *count = (int)setting(S_DEVICES);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    if (ordinal < 0 || ordinal >= setting(S_DEVICES)) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char *name, int room, CUdevice device) {
    snprintf(name, room, "Host-only CUDA %d", device);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    *major = (int)setting(S_SM) / 10;
    *minor = (int)setting(S_SM) % 10;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    *bytes = (size_t)setting(S_MEMORY);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_INTEGRATED: *value = (int)setting(S_INTEGRATED); break;
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: *value = (int)setting(S_MAP_HOST); break;
    case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED: *value = (int)setting(S_REGISTER_HOST); break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = (int)setting(S_SM) / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = (int)setting(S_SM) % 10; break;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: *value = 2; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 16; break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    default: *value = 0;
    }
    return CUDA_SUCCESS;
}

/* --- contexts: one primary context, pushed on the stacks of threads --- */
static char primary[64];
#define PRIMARY ((CUcontext)primary)
static _Thread_local int depth;

bool have_context(void) { return depth > 0; }

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    ENTER_FREE(0, NULL);
    *context = PRIMARY;
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    ENTER_FREE(0, NULL);
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context) {
    if (context != PRIMARY) return CUDA_ERROR_INVALID_CONTEXT;
    if (setting(S_CONTEXT_FAULT)) return (CUresult)setting(S_CONTEXT_FAULT);
    depth++;
    __atomic_add_fetch(&live_pushed, 1, __ATOMIC_RELAXED);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context) {
    if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
    if (setting(S_CONTEXT_FAULT)) return (CUresult)setting(S_CONTEXT_FAULT);
    depth--;
    __atomic_sub_fetch(&live_pushed, 1, __ATOMIC_RELAXED);
    if (context) *context = PRIMARY;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = depth ? PRIMARY : NULL;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *device) {
    *device = 0;
    return depth ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

EXPORT CUresult cuCtxDetach(CUcontext context) {
    ENTER_FREE(0, NULL); /* as pycuda wrongly does with a primary context; counted, so that a test can see it */
    LEAVE(CUDA_ERROR_INVALID_CONTEXT);
}

EXPORT CUresult cuCtxSynchronize(void) {
    ENTER(0, NULL);
    if (my_capture) LEAVE(illegal_in_capture(NULL));
    wait_all();
    for (Stream *s = streams; s; s = s->next) host_joins(&s->clock);
    LEAVE(sticky);
}

/* --- memory --- */
Block *block_of(uintptr_t address, size_t bytes) {
    uintptr_t base = bare(address);
    for (Block *b = blocks; b; b = b->next)
        if (base >= b->base && base + bytes <= b->base + b->size)
            return (b->home == DEVICE) || !(address & DEVICE_BIT) ? b : NULL;
    return NULL;
}

static bool touches(uintptr_t address, size_t bytes) {
    for (Block *b = blocks; b; b = b->next)
        if (bare(address) < b->base + b->size && b->base < bare(address) + bytes) return true;
    return false;
}

static size_t used(void) { return live_bytes[DEVICE] + (setting(S_INTEGRATED) ? live_bytes[PINNED] : 0); }

static Block *add_block(uintptr_t base, size_t size, Home home, unsigned flags) {
    Block *block = calloc(1, sizeof *block);
    *block = (Block){.base = base, .size = size, .home = home, .flags = flags, .next = blocks};
    blocks = block;
    live_bytes[home] += size;
    return block;
}

static bool remove_block(uintptr_t base, Home home) {
    for (Block **at = &blocks; *at; at = &(*at)->next) {
        Block *block = *at;
        if (block->base != base || block->home != home) continue;
        *at = block->next;
        live_bytes[home] -= block->size;
        if (home != REGISTERED) { memset((void *)base, 0xDD, block->size); free((void *)base); }
        free(block->accesses);
        free(block);
        return true;
    }
    return false;
}

static CUresult allocate(size_t bytes, Home home, unsigned flags, uintptr_t *address) {
    if (my_capture && home == DEVICE) return illegal_in_capture(NULL);
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    size_t counted = home == DEVICE || setting(S_INTEGRATED) ? bytes : 0;
    if (used() + counted > (size_t)setting(S_MEMORY)) return CUDA_ERROR_OUT_OF_MEMORY;
    size_t rounded = (bytes + 4095) / 4096 * 4096;
    *address = (uintptr_t)aligned_alloc(4096, rounded);
    if (!*address) return CUDA_ERROR_OUT_OF_MEMORY;
    memset((void *)*address, 0xCD, rounded); /* what is read before it is written, shows */
    add_block(*address, bytes, home, flags);
    return CUDA_SUCCESS;
}

/* Freeing waits for all work of the device, as the driver does. */
static CUresult release(uintptr_t base, Home home) {
    if (my_capture) return illegal_in_capture(NULL);
    wait_all();
    if (sticky) return sticky;
    for (Stream *s = streams; s; s = s->next) host_joins(&s->clock);
    return remove_block(base, home) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
    ENTER(bytes, NULL);
    uintptr_t address;
    result = allocate(bytes, DEVICE, 0, &address);
    if (!result) *pointer = address | DEVICE_BIT;
    LEAVE(result);
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer) {
    ENTER(0, NULL);
    LEAVE(pointer & DEVICE_BIT ? release(bare(pointer), DEVICE) : CUDA_ERROR_INVALID_VALUE);
}

EXPORT CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    ENTER(bytes, NULL);
    LEAVE(allocate(bytes, PINNED, flags, (uintptr_t *)pointer));
}

EXPORT CUresult cuMemFreeHost(void *pointer) {
    ENTER(0, NULL);
    LEAVE(release((uintptr_t)pointer, PINNED));
}

EXPORT CUresult cuMemHostRegister_v2(void *pointer, size_t bytes, unsigned flags) {
    ENTER(bytes, NULL);
    if (!setting(S_REGISTER_HOST)) LEAVE(CUDA_ERROR_NOT_SUPPORTED);
    if (!pointer || !bytes) LEAVE(CUDA_ERROR_INVALID_VALUE);
    if (touches((uintptr_t)pointer, bytes)) LEAVE(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    add_block((uintptr_t)pointer, bytes, REGISTERED, flags);
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuMemHostUnregister(void *pointer) {
    ENTER(0, NULL);
    result = release((uintptr_t)pointer, REGISTERED);
    LEAVE(result == CUDA_ERROR_INVALID_VALUE ? CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED : result);
}

EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *pointer, unsigned flags) {
    ENTER(0, NULL);
    Block *block = block_of((uintptr_t)pointer, 1);
    if (!block || !setting(S_MAP_HOST)) LEAVE(CUDA_ERROR_INVALID_VALUE);
    *device = (CUdeviceptr)pointer; /* as with unified addressing */
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuMemHostGetFlags(unsigned *flags, void *pointer) {
    ENTER(0, NULL);
    Block *block = block_of((uintptr_t)pointer, 1);
    if (!block || block->home == DEVICE) LEAVE(CUDA_ERROR_INVALID_VALUE);
    *flags = block->flags;
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    ENTER(0, NULL);
    *total = (size_t)setting(S_MEMORY);
    *free_bytes = *total > used() ? *total - used() : 0;
    LEAVE(CUDA_SUCCESS);
}

/* --- copies --- */
static CUresult make_copy(Op **made, Kind kind, uintptr_t to, uintptr_t from, size_t bytes, bool *pageable) {
    bool device_to = kind != COPY_OUT, device_from = kind != COPY_IN;
    Block *target = block_of(to, bytes), *source = block_of(from, bytes);
    *pageable = false;
    if ((device_to && !target) || (device_from && !source)) return CUDA_ERROR_INVALID_VALUE;
    if (!device_to && !target) {
        if (to & DEVICE_BIT || touches(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
        *pageable = true;
    }
    Op *op = new_op(kind);
    *op = (Op){.kind = kind, .to = to, .from = from, .bytes = bytes};
    if (!device_from && !source) {
        if (from & DEVICE_BIT || touches(from, bytes)) { free_op(op); return CUDA_ERROR_INVALID_VALUE; }
        op->staged = malloc(bytes);
        memcpy(op->staged, (void *)from, bytes);
    }
    *made = op;
    return CUDA_SUCCESS;
}

static CUresult copy(Kind kind, uintptr_t to, uintptr_t from, size_t bytes, CUstream handle, bool wait) {
    Stream *stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (wait && my_capture) return illegal_in_capture(NULL);
    if (!bytes) return CUDA_SUCCESS;
    Op *op;
    bool pageable;
    CUresult code = make_copy(&op, kind, to, from, bytes, &pageable);
    if (code) return code;
    if (pageable && stream->capture) { free_op(op); return illegal_in_capture(stream); }
    code = submit(stream, op);
    if (code || !(wait || pageable)) return code;
    Clock then = stream->clock;
    wait_stream(stream, stream->issued);
    host_joins(&then);
    return sticky;
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    ENTER(bytes, stream);
    LEAVE(copy(COPY_IN, to, (uintptr_t)from, bytes, stream, false));
}

EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
    ENTER(bytes, NULL);
    LEAVE(copy(COPY_IN, to, (uintptr_t)from, bytes, NULL, true));
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER(bytes, stream);
    LEAVE(copy(COPY_OUT, (uintptr_t)to, from, bytes, stream, false));
}

EXPORT CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
    ENTER(bytes, NULL);
    LEAVE(copy(COPY_OUT, (uintptr_t)to, from, bytes, NULL, true));
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER(bytes, stream);
    LEAVE(copy(COPY, to, from, bytes, stream, false));
}

EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    ENTER(bytes, NULL);
    LEAVE(copy(COPY, to, from, bytes, NULL, false));
}

static CUresult fill(CUdeviceptr to, uint32_t value, unsigned width, size_t count, CUstream handle) {
    Stream *stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (!block_of(to, width * count)) return CUDA_ERROR_INVALID_VALUE;
    Op *op = new_op(FILL);
    *op = (Op){.kind = FILL, .to = to, .bytes = width * count, .width = width, .value = value};
    return submit(stream, op);
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    ENTER(count, stream);
    LEAVE(fill(to, value, 1, count, stream));
}

EXPORT CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    ENTER(4 * count, stream);
    LEAVE(fill(to, value, 4, count, stream));
}

EXPORT CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
    ENTER(count, NULL);
    LEAVE(fill(to, value, 1, count, NULL));
}

/* --- modules: an image names its kernels, their host twins are found in the libraries of fakecuda_kernels --- */
struct CUmod_st { char *text; size_t size; Function *functions[32]; int count; };
static void *libraries[16];

EXPORT int fakecuda_kernels(const char *path) {
    void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    for (int i = 0; library && i < 16; i++) {
        if (libraries[i] == library) return 0;
        if (!libraries[i]) { libraries[i] = library; return 0; }
    }
    fprintf(stderr, "fakecuda: %s\n", library ? "too many libraries of kernels" : dlerror());
    return -1;
}

static void *find(const char *name, const char *suffix) {
    char whole[192];
    snprintf(whole, sizeof whole, "%s%s", name, suffix);
    void *found = NULL;
    for (int i = 0; i < 16 && libraries[i] && !found; i++) found = dlsym(libraries[i], whole);
    return found;
}

/* The compiler's log: the start of what it could not read. */
static void say(const char *image, unsigned count, CUjit_option *options, void **values) {
    char *buffer = NULL;
    for (unsigned i = 0; i < count; i++)
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER) buffer = values[i];
    for (unsigned i = 0; i < count; i++) {
        if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES) values[i] = NULL;
        if (options[i] != CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) continue;
        size_t room = (size_t)values[i];
        values[i] = (void *)(size_t)(buffer ? snprintf(buffer, room < 80 ? room : 80, "syntax error: %s", image) : 0);
    }
}

EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, CUjit_option *options,
                                   void **values) {
    ENTER(0, NULL); /* one that fails here leaves the logs as they were, and pycuda reads bytes of its stack as such */
    if (my_capture) LEAVE(illegal_in_capture(NULL));
    bool good = strstr(image, ".version");
    say(good ? "" : image, count, options, values);
    if (!good) LEAVE(CUDA_ERROR_INVALID_PTX);
    *module = calloc(1, sizeof **module);
    (*module)->text = strdup(image);
    live_modules++;
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

EXPORT CUresult cuModuleUnload(CUmodule module) {
    ENTER(0, NULL);
    live_modules--;
    free(module->text); /* functions are kept: pending launches name them */
    free(module);
    LEAVE(CUDA_SUCCESS);
}

static bool has_entry(const char *text, const char *name) {
    size_t length = strlen(name);
    for (const char *at = text; (at = strstr(at, ".entry")); at++) {
        const char *word = at + 6 + strspn(at + 6, " \t\n");
        char after = word[strncmp(word, name, length) ? 0 : length];
        if (!strncmp(word, name, length) && (after == '(' || after == ' ' || after == '\n' || !after)) return true;
    }
    return false;
}

EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    ENTER(0, NULL);
    Twin twin = (Twin)find(name, "_host");
    const unsigned char *sizes = find(name, "_sizes");
    if (!twin || !sizes || !has_entry(module->text, name)) LEAVE(CUDA_ERROR_NOT_FOUND);
    *function = calloc(1, sizeof **function);
    snprintf((*function)->name, sizeof (*function)->name, "%s", name);
    (*function)->twin = twin;
    (*function)->sizes = sizes;
    LEAVE(CUDA_SUCCESS);
}

/* Arguments come as one pointer for each, or packed in a buffer; both end packed, as the twin's sizes tell. */
static CUresult take_arguments(Op *op, void **parameters, void **extra) {
    const unsigned char *sizes = op->function->sizes, *buffer = NULL;
    size_t length = 0, at = 0;
    for (; extra && *extra != CU_LAUNCH_PARAM_END; extra += 2) {
        if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = extra[1];
        if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) length = *(size_t *)extra[1];
    }
    for (int i = 0; sizes[i]; i++) {
        at = (at + sizes[i] - 1) / sizes[i] * sizes[i];
        if (at + sizes[i] > sizeof op->arguments) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
        if (buffer && at + sizes[i] > length) return CUDA_ERROR_INVALID_VALUE;
        memcpy(op->arguments + at, buffer ? buffer + at : parameters[i], sizes[i]);
        at += sizes[i];
    }
    return buffer && length > (at + 7) / 8 * 8 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                               unsigned bz, unsigned shared, CUstream handle, void **parameters, void **extra) {
    ENTER(0, handle);
    Stream *stream = stream_of(handle);
    if (!stream || !function) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if (!gx || !gy || !gz || !bx || !by || !bz || bx * by * bz > 1024) LEAVE(CUDA_ERROR_INVALID_VALUE);
    Op *op = new_op(KERNEL);
    op->function = function;
    memcpy(op->grid, (unsigned[]){gx, gy, gz}, sizeof op->grid);
    memcpy(op->block, (unsigned[]){bx, by, bz}, sizeof op->block);
    result = take_arguments(op, parameters, extra);
    if (result) { free_op(op); LEAVE(result); }
    LEAVE(submit(stream, op));
}

/* Of a twin: real memory behind a device pointer, or NULL and an illegal access. */
EXPORT void *fakecuda_host_pointer(CUdeviceptr pointer) {
    pthread_mutex_lock(&G);
    bool known = block_of(pointer, 1);
    if (!known && !sticky) sticky = CUDA_ERROR_ILLEGAL_ADDRESS;
    pthread_mutex_unlock(&G);
    return known ? (void *)bare(pointer) : NULL;
}
