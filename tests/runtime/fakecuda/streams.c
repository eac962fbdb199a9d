/* Streams: a thread each. It takes an op, sleeps for as long as the op would take, and only then reads the source and
 * writes the target: memory that is used too early shows as wrong data. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fakecuda.h"

static Stream null_stream;
Stream *streams = &null_stream;
static pthread_cond_t progress = PTHREAD_COND_INITIALIZER; /* an op has ended */
static int waiting;
_Thread_local Op *running;
_Thread_local int running_actor;
static bool actor_used[ACTORS];

Op *new_op(Kind kind) {
    Op *op = calloc(1, sizeof *op);
    op->kind = kind;
    return op;
}

void free_op(Op *op) {
    free(op->staged);
    free(op);
}

static void await(void) {
    waiting++;
    pthread_cond_wait(&progress, &G);
    waiting--;
}

void wait_stream(Stream *stream, uint64_t position) {
    while (stream->completed < position && !sticky) await();
}

void wait_all(void) {
    for (Stream *s = streams; s; s = s->next) wait_stream(s, s->issued);
}

static void wait_event(Event *event, uint64_t version) {
    while (event->completed < version && !sticky) await();
}

/* --- what ops do; G is not held --- */
static void run_kernel(Op *op) {
    void *parameters[64];
    size_t at = 0;
    for (int i = 0; op->function->sizes[i]; i++) {
        size_t size = op->function->sizes[i];
        at = (at + size - 1) / size * size;
        parameters[i] = op->arguments + at;
        at += size;
    }
    running = op;
    op->function->twin(parameters, op->grid, op->block, op);
    running = NULL;
}

static void fill(Op *op) {
    for (size_t i = 0; i < op->bytes; i += op->width) memcpy((char *)bare(op->to) + i, &op->value, op->width);
}

static void do_op(Op *op) {
    if (op->kind == KERNEL) run_kernel(op);
    else if (op->kind == FILL) fill(op);
    else memmove((void *)bare(op->to), op->staged ? op->staged : (void *)bare(op->from), op->bytes);
}

static void doze(int64_t ns) {
    struct timespec left = {ns / 1000000000, ns % 1000000000};
    while (ns > 0 && nanosleep(&left, &left) == EINTR) {}
}

static void run_data_op(Stream *stream, Op *op) {
    int fault = op_fault(op->kind);
    if (fault < 0) wait_for_release();
    if (fault > 0) sticky = fault;
    if (sticky) return;
    int64_t delay = op_delay_ns(op->kind, op->bytes), start = now_ns();
    running_actor = stream->actor;
    pthread_mutex_unlock(&G);
    doze(delay);
    do_op(op);
    pthread_mutex_lock(&G);
    trace_op(op->kind, stream->actor, op->bytes, start, now_ns());
}

void run_op(Stream *stream, Op *op) {
    switch (op->kind) {
    case RECORD:
        if (sticky) break;
        if (op->version > op->event->completed) op->event->completed = op->version;
        op->event->time_ns = now_ns();
        break;
    case WAIT: wait_event(op->event, op->version); break;
    case WAIT_STREAM: wait_stream(op->other, op->version); break;
    case GRAPH:
        for (Op *node = op->graph->first; node; node = node->next) {
            node->clock = op->clock;
            run_data_op(stream, node);
        }
        release_graph(op->graph);
        break;
    default: run_data_op(stream, op);
    }
}

static void *work(void *argument) {
    Stream *stream = argument;
    pthread_mutex_lock(&G);
    for (;;) {
        while (!stream->first && !stream->destroyed) pthread_cond_wait(&stream->work, &G);
        Op *op = stream->first;
        if (!op) break;
        run_op(stream, op);
        stream->first = op->next;
        if (!stream->first) stream->last = NULL;
        stream->completed++;
        free_op(op);
        if (waiting) pthread_cond_broadcast(&progress);
    }
    actor_used[stream->actor] = false;
    pthread_mutex_unlock(&G);
    return NULL; /* the stream itself is kept: pending waits and traces name it */
}

static void enqueue(Stream *stream, Op *op) {
    clock_issue(stream, op);
    stream->issued++;
    if (stream->last) stream->last->next = op;
    else stream->first = op;
    stream->last = op;
    if (stream->first == op) pthread_cond_signal(&stream->work);
}

static void enqueue_wait(Stream *stream, Stream *other) {
    if (other->completed == other->issued && other->clock.at[other->actor] == 0) return;
    Op *op = new_op(WAIT_STREAM);
    op->other = other;
    op->version = other->issued;
    clock_join(&stream->clock, &other->clock);
    enqueue(stream, op);
}

/* The legacy null stream and the blocking ones wait for each other. */
static CUresult with_null_stream(Stream *stream) {
    if (stream->flags & CU_STREAM_NON_BLOCKING) return CUDA_SUCCESS;
    if (stream != streams) { enqueue_wait(stream, streams); return CUDA_SUCCESS; }
    for (Stream *s = streams->next; s; s = s->next) {
        if (s->destroyed || s->flags & CU_STREAM_NON_BLOCKING) continue;
        if (s->capture) { s->capture->invalid = true; return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT; }
        enqueue_wait(stream, s);
    }
    return CUDA_SUCCESS;
}

static Stream *start(Stream *stream, unsigned flags) {
    int actor = 1;
    while (actor < ACTORS && actor_used[actor]) actor++;
    if (actor == ACTORS) return NULL;
    actor_used[actor] = true;
    /* an actor's time goes on rising when its number is used again */
    static uint64_t times[ACTORS];
    times[actor] += 1u << 20;
    stream->actor = actor;
    stream->flags = flags;
    stream->clock = host_clock;
    stream->clock.at[actor] = times[actor];
    pthread_cond_init(&stream->work, NULL);
    pthread_t thread;
    pthread_create(&thread, NULL, work, stream);
    pthread_detach(thread);
    return stream;
}

Stream *stream_of(CUstream handle) {
    if (!handle || handle == CU_STREAM_LEGACY) {
        if (!null_stream.actor) start(&null_stream, 0);
        return &null_stream;
    }
    for (Stream *s = streams->next; s; s = s->next)
        if (s == handle) return s->destroyed ? NULL : s;
    return NULL;
}

CUresult submit(Stream *stream, Op *op) {
    if (stream->capture) return capture_op(stream, op);
    CUresult code = with_null_stream(stream);
    if (code) { free_op(op); return code; }
    enqueue(stream, op);
    if (op->kind == GRAPH) {
        for (Op *node = op->graph->first; node; node = node->next) op_accesses(stream, node, &op->clock);
    } else {
        op_accesses(stream, op, &op->clock);
    }
    return CUDA_SUCCESS;
}

/* --- entry points --- */
EXPORT CUresult cuStreamCreate(CUstream *handle, unsigned flags) {
    ENTER(0, NULL);
    stream_of(NULL);
    Stream *stream = calloc(1, sizeof *stream);
    if (!start(stream, flags)) LEAVE(CUDA_ERROR_OUT_OF_MEMORY);
    stream->next = streams->next;
    streams->next = stream;
    live_streams++;
    *handle = stream;
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuStreamCreateWithPriority(CUstream *handle, unsigned flags, int priority) {
    return cuStreamCreate(handle, flags);
}

EXPORT CUresult cuStreamDestroy_v2(CUstream handle) {
    ENTER(0, handle);
    Stream *stream = stream_of(handle);
    if (!stream || !handle) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    stream->destroyed = true;
    live_streams--;
    pthread_cond_signal(&stream->work);
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuStreamQuery(CUstream handle) {
    ENTER(0, handle);
    Stream *stream = stream_of(handle);
    if (!stream) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if (stream->capture) LEAVE(illegal_in_capture(stream));
    if (stream->completed < stream->issued) LEAVE(CUDA_ERROR_NOT_READY);
    host_joins(&stream->clock);
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuStreamSynchronize(CUstream handle) {
    ENTER(0, handle);
    Stream *stream = stream_of(handle);
    if (!stream) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if (stream->capture) LEAVE(illegal_in_capture(stream));
    Clock then = stream->clock;
    wait_stream(stream, stream->issued);
    host_joins(&then);
    LEAVE(sticky);
}

EXPORT CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned flags) {
    ENTER(0, handle);
    Stream *stream = stream_of(handle);
    if (!stream || !event || event->destroyed) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if (stream->capture || event->capture) LEAVE(capture_wait(stream, event));
    if (!event->issued) LEAVE(CUDA_SUCCESS); /* never recorded: nothing to wait for */
    Op *op = new_op(WAIT);
    op->event = event;
    op->version = event->issued;
    clock_join(&stream->clock, &event->clock);
    LEAVE(submit(stream, op));
}

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags) {
    ENTER(0, NULL);
    *event = calloc(1, sizeof **event);
    (*event)->flags = flags;
    live_events++;
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuEventDestroy_v2(CUevent event) {
    ENTER(0, NULL);
    if (!event || event->destroyed) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    event->destroyed = true; /* kept: pending waits name it */
    live_events--;
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream handle) {
    ENTER(0, handle);
    Stream *stream = stream_of(handle);
    if (!stream || !event || event->destroyed) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if (stream->capture) LEAVE(capture_record(stream, event));
    event->capture = NULL;
    Op *op = new_op(RECORD);
    op->event = event;
    op->version = ++event->issued;
    result = submit(stream, op);
    event->clock = stream->clock;
    LEAVE(result);
}

EXPORT CUresult cuEventQuery(CUevent event) {
    ENTER(0, NULL);
    if (!event || event->destroyed) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if (event->capture) LEAVE(CUDA_ERROR_CAPTURED_EVENT);
    if (event->completed < event->issued) LEAVE(CUDA_ERROR_NOT_READY);
    host_joins(&event->clock);
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuEventSynchronize(CUevent event) {
    ENTER(0, NULL);
    if (!event || event->destroyed) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if (event->capture) LEAVE(CUDA_ERROR_CAPTURED_EVENT);
    Clock then = event->clock;
    wait_event(event, event->issued);
    host_joins(&then);
    LEAVE(sticky);
}

EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent start_event, CUevent end) {
    ENTER(0, NULL);
    if (!start_event || !end || start_event->destroyed || end->destroyed) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if ((start_event->flags | end->flags) & CU_EVENT_DISABLE_TIMING) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if (!start_event->issued || !end->issued) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if (start_event->completed < start_event->issued || end->completed < end->issued) LEAVE(CUDA_ERROR_NOT_READY);
    *milliseconds = (float)((double)(end->time_ns - start_event->time_ns) / 1e6);
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start_event, CUevent end) {
    return cuEventElapsedTime(milliseconds, start_event, end);
}
