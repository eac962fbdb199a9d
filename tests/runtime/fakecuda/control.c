/* What tests steer and read. Everything can also be set by the environment, before the process starts:
 *
 *   FAKECUDA_SET    "sm=87,integrated=1,memory=8589934592,delay_us.kernel=5000,mbps.copy-in=1000"
 *   FAKECUDA_FAIL   "cuMemAlloc:3:2,cuEventRecord:100:700:sticky"   name:nth call:code
 *   FAKECUDA_OPS    "kernel:50:700,copy-out:9:hang"                 kind:nth op:code or hang
 *   FAKECUDA_KERNELS  paths of libraries with host twins, separated by ':'
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fakecuda.h"

pthread_mutex_t G = PTHREAD_MUTEX_INITIALIZER;
int sticky;
long race_count(void);
void race_reset(void);
int fakecuda_kernels(const char *path);
int fakecuda_set(const char *name, long long value);

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* --- settings --- */
static const char *const kinds[KINDS] = {"copy-in", "copy-out", "copy", "fill", "kernel"};
static long long delay_us[KINDS], mbps[KINDS];
static struct Setting { const char *name; long long usual, value; } settings[SETTINGS] = {
    [S_SM] = {"sm", 87, 0},
    [S_MEMORY] = {"memory", 8ll << 30, 0},
    [S_INTEGRATED] = {"integrated", 0, 0},
    [S_MAP_HOST] = {"map_host", 1, 0},
    [S_REGISTER_HOST] = {"register_host", 1, 0},
    [S_DEVICES] = {"devices", 1, 0},
    [S_DRIVER_VERSION] = {"driver_version", 12060, 0},
    [S_RACES] = {"races", 1, 0},
    [S_TRACE] = {"trace", 0, 0},
    [S_CONTEXT_FAULT] = {"context_fault", 0, 0},
};

long long setting(int which) { return settings[which].value; }

static int kind_of(const char *name) {
    for (int k = 0; k < KINDS; k++)
        if (!strcmp(kinds[k], name)) return k;
    return -1;
}

EXPORT int fakecuda_set(const char *name, long long value) {
    int kind = -1;
    if (!strncmp(name, "delay_us.", 9) && (kind = kind_of(name + 9)) >= 0) delay_us[kind] = value;
    else if (!strncmp(name, "mbps.", 5) && (kind = kind_of(name + 5)) >= 0) mbps[kind] = value;
    for (struct Setting *s = settings; s < settings + SETTINGS; s++)
        if (!strcmp(s->name, name)) { s->value = value; return 0; }
    return kind < 0 ? -1 : 0;
}

int64_t op_delay_ns(Kind kind, size_t bytes) {
    int64_t ns = delay_us[kind] * 1000;
    return mbps[kind] ? ns + (int64_t)bytes * 1000 / mbps[kind] : ns;
}

/* --- faults --- */
static struct Fault { char name[64]; long left; int code; bool sticky; } faults[32];
static struct OpFault { int kind; long left; int code; } op_faults[32];
static unsigned releases;
static pthread_cond_t release = PTHREAD_COND_INITIALIZER;

/* "cuMemAlloc" stands for "cuMemAlloc_v2" too */
static bool same_name(const char *wanted, const char *name) {
    size_t length = strlen(wanted);
    return !strncmp(wanted, name, length) && (!name[length] || !strncmp(name + length, "_v", 2));
}

EXPORT int fakecuda_fail(const char *name, long nth, int code, int stays) {
    pthread_mutex_lock(&G);
    int i = 0;
    while (i < 32 && faults[i].left) i++;
    if (i < 32) {
        snprintf(faults[i].name, sizeof faults[i].name, "%s", name);
        faults[i].left = nth;
        faults[i].code = code;
        faults[i].sticky = stays;
    }
    pthread_mutex_unlock(&G);
    return i < 32 ? 0 : -1;
}

EXPORT int fakecuda_fail_op(const char *kind, long nth, int code) {
    pthread_mutex_lock(&G);
    int i = 0;
    while (i < 32 && op_faults[i].left) i++;
    if (i < 32 && kind_of(kind) >= 0) op_faults[i] = (struct OpFault){kind_of(kind), nth, code};
    pthread_mutex_unlock(&G);
    return i < 32 && kind_of(kind) >= 0 ? 0 : -1;
}

EXPORT int fakecuda_hang(const char *kind, long nth) { return fakecuda_fail_op(kind, nth, -1); }

/* Ends what hangs, and what was going to. */
EXPORT void fakecuda_release(void) {
    pthread_mutex_lock(&G);
    for (int i = 0; i < 32; i++)
        if (op_faults[i].code < 0) op_faults[i].left = 0;
    releases++;
    pthread_cond_broadcast(&release);
    pthread_mutex_unlock(&G);
}

void wait_for_release(void) {
    for (unsigned now = releases; releases == now;) pthread_cond_wait(&release, &G);
}

int op_fault(Kind kind) {
    for (int i = 0; i < 32; i++)
        if (op_faults[i].left && op_faults[i].kind == (int)kind && !--op_faults[i].left) return op_faults[i].code;
    return 0;
}

/* --- calls --- */
static Site *sites;
enum { TRACED = 1 << 16 };
static struct Traced { int64_t start_ns, end_ns; const char *name; long thread; size_t bytes; const void *stream; }
    trace[TRACED];
static size_t traced;

static void keep(const char *name, int64_t start_ns, int64_t end_ns, long thread, size_t bytes, const void *stream) {
    trace[traced++ % TRACED] = (struct Traced){start_ns, end_ns, name, thread, bytes, stream};
}

void trace_op(Kind kind, int actor, size_t bytes, int64_t start_ns, int64_t end_ns) {
    if (setting(S_TRACE)) keep(kinds[kind], start_ns, end_ns, actor, bytes, NULL);
}

CUresult enter(Site *site, bool needs_context, size_t bytes, const void *stream) {
    if (!site->known) { site->known = true; site->next = sites; sites = site; }
    site->calls++;
    if (setting(S_TRACE)) {
        int64_t now = now_ns();
        keep(site->name, now, now, syscall(SYS_gettid), bytes, stream);
    }
    if (needs_context && !have_context()) return CUDA_ERROR_INVALID_CONTEXT;
    if (needs_context && sticky) return sticky;
    for (int i = 0; i < 32; i++)
        if (faults[i].left && same_name(faults[i].name, site->name) && !--faults[i].left) {
            if (faults[i].sticky) sticky = faults[i].code;
            return faults[i].code;
        }
    return CUDA_SUCCESS;
}

/* Lines of "start_ns end_ns name thread-or-actor bytes stream"; gives the bytes needed for all. */
EXPORT size_t fakecuda_trace(char *buffer, size_t room) {
    pthread_mutex_lock(&G);
    size_t at = 0;
    for (size_t i = traced > TRACED ? traced - TRACED : 0; i < traced; i++) {
        struct Traced *t = &trace[i % TRACED];
        char line[256];
        int length = snprintf(line, sizeof line, "%lld %lld %s %ld %zu %zu\n", (long long)t->start_ns,
                              (long long)t->end_ns, t->name, t->thread, t->bytes, (size_t)t->stream);
        if (at + length < room) memcpy(buffer + at, line, length + 1);
        at += length;
    }
    pthread_mutex_unlock(&G);
    return at;
}

static long long calls(const char *name) {
    long long count = 0;
    for (Site *s = sites; s; s = s->next)
        if (!*name || same_name(name, s->name)) count += s->calls;
    return count;
}

static const struct { const char *name; const long *count; } counts[] = {
    {"live.events", &live_events}, {"live.streams", &live_streams}, {"live.graphs", &live_graphs},
    {"live.execs", &live_execs},   {"live.modules", &live_modules}, {"live.pushed", &live_pushed},
};

static long long value_of(const char *name) {
    if (!strncmp(name, "calls.", 6)) return calls(name + 6);
    if (!strcmp(name, "races")) return race_count();
    if (!strcmp(name, "sticky")) return sticky;
    if (!strcmp(name, "live.device")) return live_bytes[DEVICE];
    if (!strcmp(name, "live.pinned")) return live_bytes[PINNED];
    if (!strcmp(name, "live.registered")) return live_bytes[REGISTERED];
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (!strcmp(name, counts[i].name)) return *counts[i].count;
    return -1;
}

EXPORT long long fakecuda_get(const char *name) {
    pthread_mutex_lock(&G);
    long long value = value_of(name);
    pthread_mutex_unlock(&G);
    return value;
}

static void usual(void) {
    for (struct Setting *s = settings; s < settings + SETTINGS; s++) s->value = s->usual;
    memset(delay_us, 0, sizeof delay_us);
    memset(mbps, 0, sizeof mbps);
    memset(faults, 0, sizeof faults);
    memset(op_faults, 0, sizeof op_faults);
}

/* Ends hangs and faults, drains the streams, forgets calls and races. What is allocated stays. */
EXPORT void fakecuda_reset(void) {
    fakecuda_release();
    pthread_mutex_lock(&G);
    usual();
    sticky = 0;
    wait_all();
    for (Site *s = sites; s; s = s->next) s->calls = 0;
    traced = 0;
    race_reset();
    pthread_mutex_unlock(&G);
}

static void each(const char *variable, const char *separator, void (*take)(char *)) {
    const char *value = getenv(variable);
    char *copy = strdup(value ? value : ""), *rest = NULL;
    for (char *word = strtok_r(copy, separator, &rest); word; word = strtok_r(NULL, separator, &rest)) take(word);
    free(copy);
}

static void take_setting(char *word) {
    char *equals = strchr(word, '=');
    if (equals) *equals = 0;
    if (!equals || fakecuda_set(word, atoll(equals + 1))) fprintf(stderr, "fakecuda: FAKECUDA_SET: %s?\n", word);
}

static void take_fault(char *word) {
    char name[64] = "", stays[16] = "";
    long nth = 0;
    int code = 0;
    if (sscanf(word, "%63[^:]:%ld:%d:%15s", name, &nth, &code, stays) < 3) fprintf(stderr, "fakecuda: %s?\n", word);
    else fakecuda_fail(name, nth, code, !strcmp(stays, "sticky"));
}

static void take_op_fault(char *word) {
    char kind[16] = "", code[16] = "";
    long nth = 0;
    if (sscanf(word, "%15[^:]:%ld:%15s", kind, &nth, code) < 3) fprintf(stderr, "fakecuda: %s?\n", word);
    else fakecuda_fail_op(kind, nth, strcmp(code, "hang") ? atoi(code) : -1);
}

static void take_kernels(char *word) { fakecuda_kernels(word); }

__attribute__((constructor)) static void from_environment(void) {
    usual();
    each("FAKECUDA_SET", ",", take_setting);
    each("FAKECUDA_FAIL", ",", take_fault);
    each("FAKECUDA_OPS", ",", take_op_fault);
    each("FAKECUDA_KERNELS", ":", take_kernels);
}

/* --- errors --- */
#define ERRORS(E)                                                                                                     \
    E(1, "CUDA_ERROR_INVALID_VALUE", "invalid argument") E(2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory")            \
    E(3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error") E(4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down")\
    E(100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected")                                              \
    E(101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal")                                                     \
    E(200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid")                                              \
    E(201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context")                                                    \
    E(214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered")                                     \
    E(218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed")                                                  \
    E(220, "CUDA_ERROR_NVLINK_UNCORRECTABLE", "uncorrectable NVLink error detected during the execution")             \
    E(226, "CUDA_ERROR_CONTAINED", "invalid access contained to this process")                                        \
    E(400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle")                                                    \
    E(401, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state")                      \
    E(500, "CUDA_ERROR_NOT_FOUND", "named symbol not found") E(600, "CUDA_ERROR_NOT_READY", "device not ready")       \
    E(700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered")                                  \
    E(701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch")                           \
    E(702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated")                                    \
    E(709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed")                                                 \
    E(710, "CUDA_ERROR_ASSERT", "device-side assert triggered")                                                       \
    E(712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped") \
    E(713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region")      \
    E(714, "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error")                                                 \
    E(715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered")                                \
    E(716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address")                                                     \
    E(717, "CUDA_ERROR_INVALID_ADDRESS_SPACE", "operation not supported on global/shared address space")              \
    E(718, "CUDA_ERROR_INVALID_PC", "invalid program counter")                                                        \
    E(719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure")                                                  \
    E(721, "CUDA_ERROR_TENSOR_MEMORY_LEAK", "tensor memory not completely freed")                                     \
    E(801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported")                                                     \
    E(810, "CUDA_ERROR_MPS_CLIENT_TERMINATED", "the MPS client has been terminated by the server")                    \
    E(900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing")               \
    E(901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture")        \
    E(902, "CUDA_ERROR_STREAM_CAPTURE_MERGE", "operation would result in a merge of separate capture sequences")      \
    E(903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began")             \
    E(904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work")                                \
    E(905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream")          \
    E(906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing stream")\
    E(907, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream")    \
    E(908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture from another thread")\
    E(911, "CUDA_ERROR_EXTERNAL_DEVICE", "an async error has occurred in external entity outside of CUDA")            \
    E(999, "CUDA_ERROR_UNKNOWN", "unknown error")

#define NAME_CASE(code, name, text) case code: *out = name; return CUDA_SUCCESS;
#define TEXT_CASE(code, name, text) case code: *out = text; return CUDA_SUCCESS;

EXPORT CUresult cuGetErrorName(CUresult code, const char **out) {
    switch ((int)code) { ERRORS(NAME_CASE) }
    *out = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuGetErrorString(CUresult code, const char **out) {
    switch ((int)code) { ERRORS(TEXT_CASE) }
    *out = "unrecognized error code"; /* pycuda makes a string of it unseen */
    return CUDA_ERROR_INVALID_VALUE;
}
