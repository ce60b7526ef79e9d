#include "train/watchdog.h"

#include "base/host.h"
#include "base/ticker.h"
#include "comm/board.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TICKS_PER_SECOND = 4, TURN_SECONDS = 8, RECENT = 31, SLOT = 64, RANKS_TOLD = 8 };

/* How many times longer than a step's phases. */
enum { LOAD_FACTOR = 4, SAVE_FACTOR = 4 };

/* What a rank posts. */
typedef struct post {
    atomic_long place; /* step * PHASES + phase: grows as the rank moves */
    atomic_int pid;
} post;
_Static_assert(sizeof(post) <= SLOT, "a post fits its slot");

struct bcop_watchdog {
    bcop_ticker *ticker;
    bcop_board board;
    int rank;
    double seconds;
    pthread_mutex_t lock; /* of what follows */
    double median, saving;
    double recent[RECENT]; /* seconds of the last steps */
    long steps, ticks;     /* ticks since the last beat */
    long place;
};

static const char *const phase_name[BCOP_WATCHDOG_PHASES] = {
    "loading the checkpoint", "evaluation",
    "the Lipschitz bound",    "writing a checkpoint",
    "reading the batch",      "forward and backward",
    "agreeing on the step",   "summing the gradients",
    "updating the blocks",    "making the layers' operators"};

static int phase_of(long place) {
    return (int)(place % BCOP_WATCHDOG_PHASES);
}

static post *post_of(const bcop_watchdog *w, int place) {
    return bcop_board_slot(&w->board, place);
}

/* ---- what there is to say ---- */

/* "at step 12 in forward and backward" */
static void describe(long place, char text[128]) {
    snprintf(text, 128, "at step %ld in %s", place / BCOP_WATCHDOG_PHASES,
             phase_name[phase_of(place)]);
}

/* Whether the system holds the process (SIGSTOP, a debugger, a disk that does not answer). */
static bool is_stopped(int pid) {
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    if (!fgets(line, sizeof line, file))
        line[0] = 0;
    fclose(file);
    const char *name_end = strrchr(line, ')');
    return name_end && strlen(name_end) > 2 && strchr("TtDZ", name_end[2]);
}

/* The ranks of this node at `place`, "rank 3" or "ranks 0, 2, 5". */
static void list_ranks(const bcop_watchdog *w, long place, char text[128]) {
    int used = 0, found = 0;
    char list[128] = "";
    for (int i = 0; i < w->board.count; i++) {
        if (atomic_load(&post_of(w, i)->place) != place)
            continue;
        if (found++ < RANKS_TOLD)
            used += snprintf(list + used, sizeof list - (size_t)used, "%s%d", used ? ", " : "",
                             w->board.rank[i]);
    }
    snprintf(text, 128, "rank%s %s%s", found > 1 ? "s" : "", list,
             found > RANKS_TOLD ? ", ..." : "");
}

/* Who hangs, as far as this node's board shows. */
static void accuse(const bcop_watchdog *w, char text[512]) {
    char where[128], who[128];
    long least = w->place, most = w->place;
    for (int i = 0; i < w->board.count; i++) {
        const post *p = post_of(w, i);
        const long place = atomic_load(&p->place);
        least = place < least ? place : least;
        most = place > most ? place : most;
        if (i != w->board.own && is_stopped(atomic_load(&p->pid))) {
            describe(place, where);
            snprintf(text, 512, "rank %d (process %d on %s) is stopped %s", w->board.rank[i],
                     atomic_load(&p->pid), bcop_host_name(), where);
            return;
        }
    }
    describe(least, where);
    list_ranks(w, least, who);
    if (least < most)
        snprintf(text, 512, "%s on %s hang%s %s", who, bcop_host_name(), who[4] == 's' ? "" : "s",
                 where);
    else if (w->board.nodes > 1)
        snprintf(text, 512, "%s on %s wait%s %s, for a rank of another host", who, bcop_host_name(),
                 who[4] == 's' ? "" : "s", where);
    else
        snprintf(text, 512, "%s wait%s %s, and none is behind", who, who[4] == 's' ? "" : "s",
                 where);
}

/* ---- the thread ---- */

static double limit_of(const bcop_watchdog *w) {
    const double steps = 20 * w->median;
    const double limit = w->seconds > steps ? w->seconds : steps;
    const int phase = phase_of(w->place);
    const int turn = w->board.node < 2 ? w->board.node : 2; /* mpirun needs a few seconds */
    if (phase == BCOP_WATCHDOG_LOAD)
        return LOAD_FACTOR * limit + TURN_SECONDS * turn;
    if (phase == BCOP_WATCHDOG_SAVE)
        return SAVE_FACTOR * (limit > w->saving ? limit : w->saving) + TURN_SECONDS * turn;
    return limit + TURN_SECONDS * turn;
}

/* One rank of a node speaks; the others give it time to be heard. */
static void fire(const bcop_watchdog *w, double waited) {
    atomic_int *spoken = bcop_board_slot(&w->board, w->board.count);
    if (atomic_exchange(spoken, 1) != 0) {
        sleep(TURN_SECONDS);
        _exit(BCOP_HANG);
    }
    char text[512], where[128];
    accuse(w, text);
    describe(w->place, where);
    fprintf(stderr, "bcop: error: no progress for %.0f s: %s (seen by rank %d %s)\n", waited, text,
            w->rank, where);
    _exit(BCOP_HANG);
}

static void tick(void *context) {
    bcop_watchdog *w = context;
    pthread_mutex_lock(&w->lock);
    const double waited = (double)++w->ticks / TICKS_PER_SECOND;
    if (phase_of(w->place) != BCOP_WATCHDOG_BOUND && waited > limit_of(w))
        fire(w, waited);
    pthread_mutex_unlock(&w->lock);
}

/* ---- what the trainer calls ---- */

bcop_status bcop_watchdog_open(double seconds, const bcop_comm *comm, bcop_watchdog **watchdog) {
    *watchdog = NULL;
    if (seconds == 0)
        return BCOP_OK;
    bcop_watchdog *w = calloc(1, sizeof *w);
    bcop_status status = BCOP_OK;
    if (!w)
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for the watchdog");
    status = bcop_comm_agree(comm, status);
    if (status == BCOP_OK)
        status = bcop_board_open(comm, SLOT, &w->board);
    if (status != BCOP_OK) {
        free(w);
        return status;
    }
    w->seconds = seconds;
    w->rank = comm->rank;
    pthread_mutex_init(&w->lock, NULL);
    atomic_store(&post_of(w, w->board.own)->pid, (int)getpid());
    status = bcop_comm_agree(
        comm, bcop_ticker_open("the watchdog", 1.0 / TICKS_PER_SECOND, tick, w, &w->ticker));
    if (status == BCOP_OK)
        *watchdog = w;
    else
        bcop_watchdog_close(w);
    return status;
}

void bcop_watchdog_close(bcop_watchdog *w) {
    if (!w)
        return;
    bcop_ticker_close(w->ticker);
    bcop_board_close(&w->board);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void bcop_watchdog_beat(bcop_watchdog *w, long step, bcop_watchdog_phase phase) {
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->ticks = 0;
    w->place = step * BCOP_WATCHDOG_PHASES + (long)phase;
    atomic_store(&post_of(w, w->board.own)->place, w->place);
    pthread_mutex_unlock(&w->lock);
}

static double median_of(const double *value, int count) {
    double sorted[RECENT];
    for (int i = 0; i < count; i++) {
        int at = i;
        for (; at > 0 && sorted[at - 1] > value[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = value[i];
    }
    return sorted[count / 2];
}

void bcop_watchdog_step(bcop_watchdog *w, double seconds) {
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->recent[w->steps++ % RECENT] = seconds;
    w->median = median_of(w->recent, w->steps < RECENT ? (int)w->steps : RECENT);
    pthread_mutex_unlock(&w->lock);
}

void bcop_watchdog_saved(bcop_watchdog *w, double seconds) {
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->saving = seconds;
    pthread_mutex_unlock(&w->lock);
}
