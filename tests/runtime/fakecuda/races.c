/* Vector clocks. Accesses are unordered, and so a race, when neither clock has seen the other's time.
 *
 * Host threads count as one actor: what orders them is Python's, not CUDA's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakecuda.h"

Clock host_clock;
static char report[1 << 16];
static size_t reported;
static long races;

enum { KEPT = 256 };

void clock_join(Clock *into, const Clock *from) {
    for (int i = 0; i < ACTORS; i++)
        if (from->at[i] > into->at[i]) into->at[i] = from->at[i];
}

void host_joins(const Clock *clock) { clock_join(&host_clock, clock); }

/* An op comes after all that its stream does before, and all that the host had done when it put the op there. */
void clock_issue(Stream *stream, Op *op) {
    clock_join(&stream->clock, &host_clock);
    stream->clock.at[stream->actor]++;
    host_clock.at[0]++;
    op->clock = stream->clock;
}

static bool ordered(const Access *a, const Access *b) {
    return a->actor == b->actor || a->clock.at[b->actor] >= b->time || b->clock.at[a->actor] >= a->time;
}

static void say(const Access *a, const Access *b) {
    races++;
    int room = (int)(sizeof report - reported);
    int wrote = snprintf(report + reported, room, "%s %s by actor %d is not ordered with %s %s by actor %d (%zu bytes)\n",
                         a->what, a->write ? "writes" : "reads", a->actor, b->what, b->write ? "writes" : "reads",
                         b->actor, (size_t)((a->to < b->to ? a->to : b->to) - (a->from > b->from ? a->from : b->from)));
    if (wrote > 0 && wrote < room) reported += wrote;
}

void note_access(uintptr_t address, size_t bytes, bool write, int actor, const Clock *clock, const char *what) {
    Block *block = block_of(address, bytes);
    if (!block || !bytes || !setting(S_RACES)) return;
    Access now = {bare(address), bare(address) + bytes, write, actor, clock->at[actor], *clock, what};
    Access *same = NULL;
    for (size_t i = 0; i < block->count; i++) {
        Access *old = &block->accesses[i];
        if (old->from >= now.to || now.from >= old->to) continue;
        if ((old->write || write) && !ordered(old, &now)) say(old, &now);
        if (old->actor == actor && old->write == write && old->from == now.from && old->to == now.to &&
            old->time <= now.time)
            same = old;
    }
    if (same) { *same = now; return; }
    if (block->count == KEPT) memmove(block->accesses, block->accesses + 1, --block->count * sizeof now);
    if (block->count == block->room) {
        block->room = block->room ? 2 * block->room : 8;
        block->accesses = realloc(block->accesses, block->room * sizeof now);
    }
    block->accesses[block->count++] = now;
}

/* Of copies and fills; kernels tell theirs when they run. */
void op_accesses(Stream *stream, Op *op, const Clock *clock) {
    static const char *const names[] = {"copy-in", "copy-out", "copy", "fill", "kernel"};
    if (op->kind > FILL) return;
    if (op->kind != FILL && !op->staged)
        note_access(op->from, op->bytes, false, stream->actor, clock, names[op->kind]);
    note_access(op->to, op->bytes, true, stream->actor, clock, names[op->kind]);
}

EXPORT void fakecuda_access(uintptr_t address, size_t bytes, int write) {
    pthread_mutex_lock(&G);
    if (running) {
        note_access(address, bytes, write, running_actor, &running->clock, "kernel");
    } else {
        host_clock.at[0]++;
        note_access(address, bytes, write, 0, &host_clock, "host");
    }
    pthread_mutex_unlock(&G);
}

long race_count(void) { return races; }

void race_reset(void) {
    races = 0;
    reported = 0;
    report[0] = 0;
    for (Block *b = blocks; b; b = b->next) b->count = 0;
}

EXPORT void fakecuda_forget_races(void) {
    pthread_mutex_lock(&G);
    race_reset();
    pthread_mutex_unlock(&G);
}

EXPORT size_t fakecuda_races(char *buffer, size_t room) {
    pthread_mutex_lock(&G);
    snprintf(buffer, room, "%s", report);
    size_t needed = reported;
    pthread_mutex_unlock(&G);
    return needed;
}
