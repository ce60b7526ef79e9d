#include "base/ticker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

struct bcop_ticker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool closing;
    double seconds;
    void (*tick)(void *context);
    void *context;
};

/* Sleeps until the next tick; true when it is time to end. */
static bool rest(bcop_ticker *t) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    const double at = (double)until.tv_nsec + 1e9 * t->seconds;
    until.tv_sec += (time_t)(at / 1e9);
    until.tv_nsec = (long)(at - 1e9 * (double)(time_t)(at / 1e9));
    pthread_mutex_lock(&t->lock);
    while (!t->closing && pthread_cond_timedwait(&t->wake, &t->lock, &until) != ETIMEDOUT)
        ;
    const bool closing = t->closing;
    pthread_mutex_unlock(&t->lock);
    return closing;
}

static void *run(void *context) {
    bcop_ticker *t = context;
    while (!rest(t))
        t->tick(t->context);
    return NULL;
}

/* Signals are for the main thread. */
static int start(bcop_ticker *t) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&t->thread, NULL, run, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static void discard(bcop_ticker *t) {
    pthread_cond_destroy(&t->wake);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

bcop_status bcop_ticker_open(const char *what, double seconds, void (*tick)(void *context),
                             void *context, bcop_ticker **ticker) {
    *ticker = NULL;
    bcop_ticker *t = calloc(1, sizeof *t);
    if (!t)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %s", what);
    t->seconds = seconds;
    t->tick = tick;
    t->context = context;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, &clock);
    pthread_condattr_destroy(&clock);
    if (start(t) != 0) {
        discard(t);
        return bcop_status_fail(BCOP_INTERNAL, "no thread for %s", what);
    }
    *ticker = t;
    return BCOP_OK;
}

void bcop_ticker_close(bcop_ticker *t) {
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->closing = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    discard(t);
}
