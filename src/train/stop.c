#include "train/stop.h"

#include "base/clock.h"
#include "base/host.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static volatile sig_atomic_t system_asked;
static atomic_int person_asked; /* how often: two threads may take two signals at once */
static char stop_file[4096 + 16];
static double looked_at;

static volatile sig_atomic_t in_job; /* then TERM is SLURM's: preemption, requeue, its limit */

static void on_signal(int number) {
    if (number == SIGUSR1 || (number == SIGTERM && in_job)) {
        system_asked = 1;
        return;
    }
    if (atomic_fetch_add(&person_asked, 1) > 0) {
        signal(number, SIG_DFL);
        raise(number); /* comes when this handler has returned */
    }
}

void bcop_stop_install(void) {
    in_job = bcop_host_job() != NULL;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

void bcop_stop_watch(const char *run) {
    looked_at = -1e9;
    stop_file[0] = 0;
    if (run)
        snprintf(stop_file, sizeof stop_file, "%s/stop", run);
}

bcop_status bcop_stop_requested(void) {
    const double now = bcop_clock_seconds();
    if (stop_file[0] && !person_asked && now - looked_at >= 1) {
        looked_at = now;
        if (access(stop_file, F_OK) == 0)
            person_asked++;
    }
    if (person_asked)
        return BCOP_STOPPED;
    if (!system_asked)
        return BCOP_OK;
    const char *file = getenv("BCOP_STOP_FILE");
    return file && access(file, F_OK) == 0 ? BCOP_STOPPED : BCOP_INTERRUPTED;
}

void bcop_stop_obeyed(bool finished) {
    if (stop_file[0] && (finished || person_asked))
        unlink(stop_file);
}
