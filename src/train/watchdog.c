#include "train/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { TICKS_PER_SECOND = 4, TURN_SECONDS = 8 };

struct bcop_watchdog {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool closing;
    int rank;
    double seconds, typical;
    long ticks; /* since the last beat */
    long step;
    const char *phase;
};

static double limit_of(const bcop_watchdog *w) {
    const double steps = 20 * w->typical;
    const int turn = w->rank < 2 ? w->rank : 2; /* mpirun needs a few seconds */
    return (w->seconds > steps ? w->seconds : steps) + TURN_SECONDS * turn;
}

/* Sleeps for a tick, or until closing. */
static void tick(bcop_watchdog *w) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 1000000000 / TICKS_PER_SECOND;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    while (!w->closing && pthread_cond_timedwait(&w->wake, &w->lock, &until) != ETIMEDOUT)
        ;
}

static void *watch(void *context) {
    bcop_watchdog *w = context;
    pthread_mutex_lock(&w->lock);
    while (!w->closing) {
        tick(w);
        const double waited = (double)++w->ticks / TICKS_PER_SECOND;
        if (!w->closing && w->phase && waited > limit_of(w)) {
            fprintf(stderr,
                    "bcop: error: no progress for %.0f s: rank %d waits at step %ld in %s\n",
                    waited, w->rank, w->step, w->phase);
            _exit(BCOP_HANG);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

bcop_status bcop_watchdog_open(double seconds, int rank, bcop_watchdog **watchdog) {
    *watchdog = NULL;
    if (seconds == 0)
        return BCOP_OK;
    bcop_watchdog *w = calloc(1, sizeof *w);
    if (!w)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the watchdog");
    w->seconds = seconds;
    w->rank = rank;
    w->phase = "start";
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, &clock);
    pthread_condattr_destroy(&clock);
    /* Signals are for the main thread. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&w->thread, NULL, watch, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
        free(w);
        return bcop_status_fail(BCOP_INTERNAL, "no thread for the watchdog");
    }
    *watchdog = w;
    return BCOP_OK;
}

void bcop_watchdog_close(bcop_watchdog *w) {
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void bcop_watchdog_beat(bcop_watchdog *w, long step, const char *phase, double typical) {
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->ticks = 0;
    w->step = step;
    w->phase = phase;
    w->typical = typical;
    pthread_mutex_unlock(&w->lock);
}
