/* A stand-in for libnvinfer behind NVIDIA's real Python bindings: no TensorRT, the tables that its C++ classes have.
 *
 * The bindings call virtual functions of three classes through the pointer in an object's second word, and call ours
 * (logger, recorder, allocator) through theirs. Which slot is which function is in standin_nvinfer.py, by version. A
 * function that is not filled in ends the process and says its number. What the engine does is spelt in the "plan":
 *   grow    its output is sized by the data        null    it is not deserialised
 *   starve  no context is made                     refuse  an execution is refused
 *   late    an execution succeeds and reports an error
 *   copy    an execution copies the first values of x to y, on its stream
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if INT64_DIMS
typedef int64_t Size;
#else
typedef int32_t Size;
#endif

typedef struct { int32_t rank; Size d[8]; } Dims;
typedef void *Function;
typedef struct Object { Function *table; struct Impl *impl; } Object;
typedef struct Impl {
    Function *table;
    const char *kind;
    void *recorder;
    /* of a context */
    Dims in_shape;
    void *bound[2], *consumed, *allocator;
    int32_t profile;
} Impl;

enum { SLOTS = 80, INPUT = 1, OUTPUT = 2, FLOAT = 0, FAILED_ALLOCATION = 5, FAILED_EXECUTION = 7, INVALID_STATE = 9 };

static char trace[1 << 16];
static char plan[256];
static void *logger;
static Object *engine;
static bool host_code;
static int32_t dla = -1;

const char *standin_trace(void) { return trace; }

#define SAY(...) snprintf(trace + strlen(trace), sizeof trace - strlen(trace), __VA_ARGS__)
#define CALL(object, slot, type) ((type)((*(Function **)(object))[slot]))

static bool wants(const char *word) { return strstr(plan, word) != NULL; }
static Dims shape(Size a, Size b, Size c, Size d, int rank) { Dims dims = {rank, {a, b, c, d}}; return dims; }

static void report(Impl *self, int32_t code, const char *text) {
    if (self->recorder)
        CALL(self->recorder, RECORDER_REPORT, bool (*)(void *, int32_t, const char *))(self->recorder, code, text);
    else
        CALL(logger, LOGGER_LOG, void (*)(void *, int32_t, const char *))(logger, 1, text);
}

/* ---- what all three have */

static void set_recorder(Impl *self, void *recorder) {
    if (self->recorder) CALL(self->recorder, RECORDER_DOWN, int32_t (*)(void *))(self->recorder);
    self->recorder = recorder;
    if (recorder) CALL(recorder, RECORDER_UP, int32_t (*)(void *))(recorder);
}

static void *get_recorder(Impl *self) { return self->recorder; }

static void destroy(Object *self) {
    SAY("free %s\n", self->impl->kind);
    set_recorder(self->impl, NULL);
    free(self->impl);
    free(self);
}

static void never(Object *self) { (void)self; abort(); }

#define EMPTY(n) static void empty_##n(void) { fprintf(stderr, "function %d was called\n", n - 12); abort(); }
#define TEN(m, n) m(n##0) m(n##1) m(n##2) m(n##3) m(n##4) m(n##5) m(n##6) m(n##7) m(n##8) m(n##9)
#define NAME(n) (Function)empty_##n,
TEN(EMPTY, 1) TEN(EMPTY, 2) TEN(EMPTY, 3) TEN(EMPTY, 4) TEN(EMPTY, 5) TEN(EMPTY, 6) TEN(EMPTY, 7)
static Function empties[] = {TEN(NAME, 1) TEN(NAME, 2) TEN(NAME, 3) TEN(NAME, 4) TEN(NAME, 5) TEN(NAME, 6) TEN(NAME, 7)};

/* pybind11 asks each object for its type. It knows none of this name, and takes what the function was declared to give.
 * A table begins two words after its start: distance to the top of the object, type, destructors (in place, delete). */
extern char _ZTVN10__cxxabiv117__class_type_infoE[];
static const struct { void *table; const char *name; } type = {_ZTVN10__cxxabiv117__class_type_infoE + 16, "7Standin"};
static Function outer[] = {NULL, (Function)&type, (Function)never, (Function)destroy};

static Object *make(const char *kind, Function *table, void (*fill)(Function *)) {
    Object *object = calloc(1, sizeof *object);
    if (!table[0]) {
        memcpy(table, empties, sizeof empties);
        fill(table);
    }
    object->table = outer + 2;
    object->impl = calloc(1, sizeof *object->impl);
    *object->impl = (Impl){.table = table, .kind = kind, .in_shape = shape(-1, 3, 8, 8, 4)};
    SAY("make %s\n", kind);
    return object;
}

/* ---- the context */

static bool set_profile(Impl *self, int32_t index, void *stream) {
    SAY("profile %d on %p\n", index, stream);
    self->profile = index;
    return true;
}

static Object *get_engine(Impl *self) { (void)self; return engine; }
static int32_t get_profile(Impl *self) { return self->profile; }

static bool set_input_shape(Impl *self, const char *name, const Dims *dims) {
    SAY("shape %s %d:%lld,%lld\n", name, dims->rank, (long long)dims->d[0], (long long)dims->d[1]);
    self->in_shape = *dims;
    return true;
}

static Dims context_shape(Impl *self, const char *name) {
    if (*name == 'x') return self->in_shape;
    return wants("grow") ? shape(-1, 6, 0, 0, 2) : shape(self->in_shape.d[0], 2, 0, 0, 2);
}

static bool set_address(Impl *self, const char *name, void *address) {
    SAY("bind %s %p\n", name, address);
    self->bound[*name == 'y'] = address;
    return true;
}

static int32_t infer_shapes(Impl *self, int32_t most, const char **names) { (void)self; (void)most; (void)names; return 0; }
static bool set_consumed(Impl *self, void *event) { self->consumed = event; return true; }

static bool set_allocator(Impl *self, const char *name, void *given) {
    SAY("allocator %s %s\n", name, given ? "set" : "unset");
    self->allocator = given;
    return true;
}

static void *grow(Impl *self, void *stream) {
    void *allocator = self->allocator;
#if ALLOCATOR_ASYNC >= 0
    typedef void *(*Ask)(void *, const char *, void *, uint64_t, uint64_t, void *);
    return CALL(allocator, ALLOCATOR_ASYNC, Ask)(allocator, "y", self->bound[1], 5 * 6 * 4, 256, stream);
#else
    (void)stream;
    typedef void *(*Ask)(void *, const char *, void *, uint64_t, uint64_t);
    return CALL(allocator, ALLOCATOR_PLAIN, Ask)(allocator, "y", self->bound[1], 5 * 6 * 4, 256);
#endif
}

/* The work: the first values of x become y, on the very stream, by the driver that this process has. */
static bool copy(Impl *self, void *stream) {
    typedef int (*Copy)(uint64_t, uint64_t, size_t, void *);
    typedef int (*Record)(void *, void *);
    size_t values = self->allocator ? 5 * 6 : (size_t)self->in_shape.d[0] * 2;
    Copy driver_copy = (Copy)dlsym(RTLD_DEFAULT, "cuMemcpyDtoDAsync_v2");
    Record record = (Record)dlsym(RTLD_DEFAULT, "cuEventRecord");
    if (driver_copy((uintptr_t)self->bound[1], (uintptr_t)self->bound[0], 4 * values, stream)) return false;
    return !self->consumed || !record(self->consumed, stream);
}

static bool enqueue(Impl *self, void *stream) {
    if (wants("refuse")) {
        report(self, FAILED_EXECUTION, "Cuda Runtime (an illegal memory access was encountered)");
        return false;
    }
    if (self->allocator) {
        Dims found = shape(5, 6, 0, 0, 2);
        if (!(self->bound[1] = grow(self, stream))) {
            report(self, FAILED_ALLOCATION, "no memory for y");
            return false;
        }
        typedef void (*Notify)(void *, const char *, const Dims *);
        CALL(self->allocator, ALLOCATOR_SHAPE, Notify)(self->allocator, "y", &found);
    }
    if (!self->bound[0] || !self->bound[1]) {
        report(self, INVALID_STATE, "an address is missing");
        return false;
    }
    if (wants("copy")) return copy(self, stream);
    SAY("enqueue on %p x %p y %p consumed %p\n", stream, self->bound[0], self->bound[1], self->consumed);
    if (wants("late")) report(self, FAILED_EXECUTION, "an earlier kernel failed");
    return true;
}

static void set_aux(Impl *self, void **streams, int32_t count) {
    (void)self;
    SAY("aux");
    for (int32_t i = 0; i < count; i++) SAY(" %p", streams[i]);
    SAY("\n");
}

static void fill_context(Function *t) {
    t[2 + CONTEXT_setErrorRecorder] = (Function)set_recorder;
    t[2 + CONTEXT_getErrorRecorder] = (Function)get_recorder;
    t[2 + CONTEXT_getEngine] = (Function)get_engine;
    t[2 + CONTEXT_getOptimizationProfile] = (Function)get_profile;
    t[2 + CONTEXT_setOptimizationProfileAsync] = (Function)set_profile;
    t[2 + CONTEXT_setInputShape] = (Function)set_input_shape;
    t[2 + CONTEXT_getTensorShape] = (Function)context_shape;
    t[2 + CONTEXT_setTensorAddress] = (Function)set_address;
    t[2 + CONTEXT_inferShapes] = (Function)infer_shapes;
    t[2 + CONTEXT_setInputConsumedEvent] = (Function)set_consumed;
    t[2 + CONTEXT_setOutputAllocator] = (Function)set_allocator;
    t[2 + CONTEXT_enqueueV3] = (Function)enqueue;
    t[2 + CONTEXT_setAuxStreams] = (Function)set_aux;
}

/* ---- the engine */

static int32_t tensors(Impl *self) { (void)self; return 2; }
static const char *tensor_name(Impl *self, int32_t index) { (void)self; return index ? "y" : "x"; }
static int32_t mode(Impl *self, const char *name) { (void)self; return *name == 'x' ? INPUT : OUTPUT; }
static int32_t zero(Impl *self, const char *name) { (void)self; (void)name; return 0; } /* FLOAT, DEVICE, LINEAR */
static int32_t two(Impl *self) { (void)self; return 2; } /* profiles, auxiliary streams */

static Dims engine_shape(Impl *self, const char *name) {
    (void)self;
    return *name == 'x' ? shape(-1, 3, 8, 8, 4) : shape(-1, wants("grow") ? 6 : 2, 0, 0, 2);
}

static Dims profile_shape(Impl *self, const char *name, int32_t index, int32_t which) {
    static const Size batches[2][3] = {{1, 2, 4}, {5, 6, 8}};
    (void)self, (void)name;
    return shape(batches[index][which], 3, 8, 8, 4);
}

static Object *make_context(Impl *self, int32_t strategy) {
    static Function table[SLOTS];
    (void)strategy;
    if (wants("starve")) {
        report(self, FAILED_ALLOCATION, "no memory for a context");
        return NULL;
    }
    return make("context", table, fill_context);
}

static void fill_engine(Function *t) {
    t[2 + ENGINE_setErrorRecorder] = (Function)set_recorder;
    t[2 + ENGINE_getErrorRecorder] = (Function)get_recorder;
    t[2 + ENGINE_getNbIOTensors] = (Function)tensors;
    t[2 + ENGINE_getIOTensorName] = (Function)tensor_name;
    t[2 + ENGINE_getTensorIOMode] = (Function)mode;
    t[2 + ENGINE_getTensorShape] = (Function)engine_shape;
    t[2 + ENGINE_getTensorDataType] = (Function)zero;
    t[2 + ENGINE_getTensorLocation] = (Function)zero;
    t[2 + ENGINE_getTensorFormat] = (Function)zero;
    t[2 + ENGINE_getProfileShape] = (Function)profile_shape;
    t[2 + ENGINE_getNbOptimizationProfiles] = (Function)two;
    t[2 + ENGINE_getNbAuxStreams] = (Function)two;
    t[2 + ENGINE_createExecutionContext] = (Function)make_context;
}

/* ---- the runtime */

static Object *deserialize(Impl *self, const void *blob, size_t size) {
    static Function table[SLOTS];
    snprintf(plan, sizeof plan, "%.*s", (int)size, (const char *)blob);
    SAY("deserialize %s host code %d dla %d\n", plan, host_code, dla);
    if (wants("null")) {
        report(self, INVALID_STATE, "Magic tag does not match");
        return NULL;
    }
    return engine = make("engine", table, fill_engine);
}

static void set_dla(Impl *self, int32_t core) { (void)self; dla = core; }
static int32_t get_dla(Impl *self) { (void)self; return dla; }
static void set_host_code(Impl *self, bool allowed) { (void)self; host_code = allowed; }
static bool get_host_code(Impl *self) { (void)self; return host_code; }

static void fill_runtime(Function *t) {
    t[2 + RUNTIME_deserializeCudaEngine] = (Function)deserialize;
    t[2 + RUNTIME_setErrorRecorder] = (Function)set_recorder;
    t[2 + RUNTIME_getErrorRecorder] = (Function)get_recorder;
    t[2 + RUNTIME_setDLACore] = (Function)set_dla;
    t[2 + RUNTIME_getDLACore] = (Function)get_dla;
    t[2 + RUNTIME_getNbDLACores] = (Function)two;
    t[2 + RUNTIME_setEngineHostCodeAllowed] = (Function)set_host_code;
    t[2 + RUNTIME_getEngineHostCodeAllowed] = (Function)get_host_code;
}

Object *createInferRuntime_INTERNAL(void *given, int32_t version) {
    static Function table[SLOTS];
    (void)version;
    logger = given;
    return make("runtime", table, fill_runtime);
}
