/* Stream capture and graphs. A graph runs its nodes one after the other, in the order in which they were captured:
 * that is one of the orders that the edges allow. */
#include <stdlib.h>
#include <string.h>

#include "fakecuda.h"

_Thread_local Capture *my_capture;
struct CUgraphExec_st { Graph *graph; };

static CUresult spoil(Capture *capture, CUresult code) {
    capture->invalid = true;
    return code;
}

static int place(Capture *capture, Stream *stream) {
    if (stream->capture == capture) return stream->place;
    if (capture->places == PLACES) return -1;
    int at = capture->places++;
    capture->streams[at] = stream;
    stream->capture = capture;
    stream->place = at;
    return at;
}

CUresult illegal_in_capture(Stream *stream) {
    Capture *capture = stream && stream->capture ? stream->capture : my_capture;
    return capture ? spoil(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) : CUDA_SUCCESS;
}

CUresult capture_op(Stream *stream, Op *op) {
    Capture *capture = stream->capture;
    if (capture->invalid) { free_op(op); return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED; }
    if (op->staged || op->kind == GRAPH) {
        free_op(op);
        return spoil(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    capture->seen[stream->place][stream->place] = ++capture->issued[stream->place];
    if (capture->graph->last) capture->graph->last->next = op;
    else capture->graph->first = op;
    capture->graph->last = op;
    return CUDA_SUCCESS;
}

CUresult capture_record(Stream *stream, Event *event) {
    if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    event->capture = stream->capture;
    memcpy(event->seen, stream->capture->seen[stream->place], sizeof event->seen);
    return CUDA_SUCCESS;
}

CUresult capture_wait(Stream *stream, Event *event) {
    Capture *capture = stream->capture ? stream->capture : event->capture;
    if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (!event->capture) return spoil(capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    if (event->capture != capture) return spoil(capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
    int at = place(capture, stream);
    if (at < 0) return spoil(capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    for (int i = 0; i < PLACES; i++)
        if (event->seen[i] > capture->seen[at][i]) capture->seen[at][i] = event->seen[i];
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
    ENTER(0, handle);
    Stream *stream = stream_of(handle);
    if (!stream) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    if (!handle) LEAVE(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (stream->capture || my_capture) LEAVE(CUDA_ERROR_ILLEGAL_STATE);
    if (mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) LEAVE(CUDA_ERROR_NOT_SUPPORTED); /* the others are not modelled */
    my_capture = calloc(1, sizeof *my_capture);
    my_capture->graph = calloc(1, sizeof *my_capture->graph);
    my_capture->graph->users = 1;
    place(my_capture, stream);
    LEAVE(CUDA_SUCCESS);
}

/* The capture ends whatever is answered, even a fault, as far as the calls themselves are not wrong. */
static CUresult end(Stream *stream, CUgraph *graph, CUresult fault) {
    Capture *capture = stream->capture;
    if (capture != my_capture) return spoil(capture, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    if (stream->place) return spoil(capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    CUresult code = fault ? fault : capture->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
    for (int i = 1; i < capture->places && !code; i++)
        if (capture->seen[0][i] < capture->issued[i]) code = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    for (int i = 0; i < capture->places; i++) capture->streams[i]->capture = NULL;
    my_capture = NULL;
    if (code) release_graph(capture->graph);
    else { *graph = capture->graph; live_graphs++; }
    return code; /* the capture itself is kept: events name it */
}

EXPORT CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph) {
    static Site site = {__func__};
    pthread_mutex_lock(&G);
    CUresult result = enter(&site, true, 0, handle);
    *graph = NULL;
    Stream *stream = stream_of(handle);
    LEAVE(stream && stream->capture ? end(stream, graph, result) : result ? result : CUDA_ERROR_ILLEGAL_STATE);
}

void release_graph(Graph *graph) {
    if (--graph->users) return;
    while (graph->first) {
        Op *op = graph->first;
        graph->first = op->next;
        free_op(op);
    }
    free(graph);
}

static CUresult instantiate(CUgraphExec *exec, Graph *graph) {
    *exec = malloc(sizeof **exec);
    (*exec)->graph = graph;
    graph->users++;
    live_execs++;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    ENTER(0, NULL);
    LEAVE(flags ? CUDA_ERROR_NOT_SUPPORTED : instantiate(exec, graph));
}

EXPORT CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *node, char *log, size_t room) {
    ENTER(0, NULL);
    LEAVE(instantiate(exec, graph));
}

EXPORT CUresult cuGraphDestroy(CUgraph graph) {
    ENTER(0, NULL);
    live_graphs--;
    release_graph(graph);
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec exec) {
    ENTER(0, NULL);
    live_execs--;
    release_graph(exec->graph);
    free(exec);
    LEAVE(CUDA_SUCCESS);
}

EXPORT CUresult cuGraphLaunch(CUgraphExec exec, CUstream handle) {
    ENTER(0, handle);
    Stream *stream = stream_of(handle);
    if (!exec) LEAVE(CUDA_ERROR_INVALID_VALUE);
    if (!stream) LEAVE(CUDA_ERROR_INVALID_HANDLE);
    Op *op = new_op(GRAPH);
    op->graph = exec->graph;
    exec->graph->users++; /* given back when it has run */
    LEAVE(submit(stream, op));
}
