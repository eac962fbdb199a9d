/* A host-only libcuda: shared parts. One mutex guards everything but the bytes that copies and kernels move.
 *
 *   driver.c   devices, contexts, memory, modules: entry points of the driver API
 *   streams.c  streams, events and the work put on them: one thread for each stream
 *   capture.c  stream capture and graphs
 *   races.c    vector clocks: which accesses to memory are not ordered
 *   control.c  what tests steer and read: delays, faults, hangs, call trace, settings
 */
#ifndef FAKECUDA_H
#define FAKECUDA_H

#include <cuda.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACTORS 64            /* the host is 0, streams are the others */
#define DEVICE_BIT (1ull << 60) /* in each device pointer, so that host code that touches one faults */
#define EXPORT __attribute__((visibility("default")))

typedef struct { uint64_t at[ACTORS]; } Clock;

/* --- memory --- */
typedef enum { DEVICE, PINNED, REGISTERED } Home;
typedef struct Access {
    uintptr_t from, to;
    bool write;
    int actor;
    uint64_t time;
    Clock clock;
    const char *what;
} Access;
typedef struct Block {
    uintptr_t base; /* without DEVICE_BIT */
    size_t size;
    Home home;
    unsigned flags;
    Access *accesses;
    size_t count, room;
    struct Block *next;
} Block;

/* --- work --- */
typedef enum { COPY_IN, COPY_OUT, COPY, FILL, KERNEL, KINDS, RECORD, WAIT, WAIT_STREAM, GRAPH } Kind;
typedef void (*Twin)(void **, const unsigned *, const unsigned *, void *);
typedef struct CUfunc_st Function;
typedef struct CUevent_st Event;
typedef struct CUstream_st Stream;
typedef struct CUgraph_st Graph;
typedef struct Op {
    Kind kind;
    uintptr_t to, from;
    size_t bytes;
    unsigned width; /* of a fill's element */
    uint32_t value;
    void *staged;   /* copy of pageable memory, freed with the op */
    Event *event;
    Stream *other;
    uint64_t version; /* of the event, or position in the other stream */
    Function *function;
    unsigned grid[3], block[3];
    unsigned char arguments[512];
    Graph *graph;
    Clock clock;
    struct Op *next;
} Op;

struct CUstream_st {
    int actor;
    unsigned flags;
    bool destroyed;
    Op *first, *last;
    uint64_t issued, completed;
    Clock clock;
    struct Capture *capture;
    int place; /* in its capture */
    pthread_cond_t work;
    struct CUstream_st *next;
};

struct CUevent_st {
    unsigned flags;
    bool destroyed;
    uint64_t issued, completed;
    int64_t time_ns;
    Clock clock;
    struct Capture *capture; /* where it was recorded last, when that was a capture */
    unsigned seen[16];
};

struct CUfunc_st {
    char name[128];
    Twin twin;
    const unsigned char *sizes; /* of the parameters, ending with 0 */
};

struct CUgraph_st {
    Op *first, *last;
    int users; /* the graph itself, and executables made of it */
};

#define PLACES 16
typedef struct Capture {
    Graph *graph;
    Stream *streams[PLACES];
    unsigned issued[PLACES];       /* nodes of each stream */
    unsigned seen[PLACES][PLACES]; /* seen[a][b]: how many nodes of b come before the next node of a */
    int places;
    bool invalid;
} Capture;

/* --- shared state --- */
extern pthread_mutex_t G;
extern Block *blocks;
extern Stream *streams; /* the null stream is the first */
extern int sticky;
extern size_t live_bytes[3];
extern long live_events, live_streams, live_graphs, live_execs, live_modules, live_pushed;
extern _Thread_local Capture *my_capture; /* begun by this thread */

/* control.c */
typedef struct Site { const char *name; long calls; struct Site *next; bool known; } Site;
CUresult enter(Site *site, bool needs_context, size_t bytes, const void *stream);
void trace_op(Kind kind, int actor, size_t bytes, int64_t start_ns, int64_t end_ns);
int op_fault(Kind kind); /* 0, a code, or -1: hang */
void wait_for_release(void);
int64_t op_delay_ns(Kind kind, size_t bytes);
enum {
    S_SM, S_MEMORY, S_INTEGRATED, S_MAP_HOST, S_REGISTER_HOST, S_DEVICES, S_DRIVER_VERSION,
    S_RACES,         /* whether accesses are checked */
    S_TRACE,         /* whether calls and ops are kept */
    S_CONTEXT_FAULT, /* what entering and leaving the context answers */
    SETTINGS
};
long long setting(int which);
int64_t now_ns(void);
bool have_context(void);

/* The first lines of every entry point: leaves with an error, or goes on holding G. */
#define ENTER(bytes, stream) ENTER_(true, bytes, stream)
#define ENTER_FREE(bytes, stream) ENTER_(false, bytes, stream)
#define ENTER_(needs_context, bytes, stream)                                          \
    static Site site_ = {__func__};                                                   \
    pthread_mutex_lock(&G);                                                           \
    CUresult result = enter(&site_, needs_context, bytes, stream);                    \
    if (result) { pthread_mutex_unlock(&G); return result; }
#define LEAVE(value)                                                                  \
    do { result = (value); pthread_mutex_unlock(&G); return result; } while (0)

/* driver.c */
Block *block_of(uintptr_t address, size_t bytes);
static inline uintptr_t bare(uintptr_t address) { return address & ~(uintptr_t)DEVICE_BIT; }

/* streams.c */
Stream *stream_of(CUstream handle); /* NULL: unknown or destroyed */
CUresult submit(Stream *stream, Op *op); /* takes the op; runs or captures it */
void wait_stream(Stream *stream, uint64_t position);
void wait_all(void);
void run_op(Stream *stream, Op *op);
Op *new_op(Kind kind);
void free_op(Op *op);
extern _Thread_local Op *running; /* in a stream's thread: what it works on */
extern _Thread_local int running_actor;

/* capture.c */
CUresult capture_op(Stream *stream, Op *op);
CUresult capture_record(Stream *stream, Event *event);
CUresult capture_wait(Stream *stream, Event *event);
CUresult illegal_in_capture(Stream *stream); /* of a call that a capture does not allow */
void release_graph(Graph *graph);

/* races.c */
void clock_issue(Stream *stream, Op *op);
void clock_join(Clock *into, const Clock *from);
void host_joins(const Clock *clock);
void note_access(uintptr_t address, size_t bytes, bool write, int actor, const Clock *clock, const char *what);
void op_accesses(Stream *stream, Op *op, const Clock *clock);
extern Clock host_clock;

#endif
