#include "app/bench_timing.h"

#include "base/clock.h"
#include "comm/probe.h"

#include <stdlib.h>
#include <time.h>

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bcop_bench_timing_median(int count, double value[]) {
    qsort(value, (size_t)count, sizeof *value, compare);
    return (value[(count - 1) / 2] + value[count / 2]) / 2;
}

/* Seconds of a core that this process has had. Waiting in MPI counts: it spins. */
static double core_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct sample {
    double seconds, without;
} sample;

static bcop_status measure(const bcop_comm *comm, const bcop_bench_item *item, sample *out) {
    const bool takes_part = !item->alone || comm->rank == 0;
    if (takes_part && item->prepare)
        item->prepare(item->of);
    bcop_status status = bcop_comm_agree(comm, BCOP_OK); /* all start together */
    const double core = core_seconds(), begin = bcop_clock_seconds();
    if (takes_part)
        status = item->run(item->of);
    const double mine = takes_part ? bcop_clock_seconds() - begin : 0;
    const double had = takes_part ? core_seconds() - core : 0;
    bcop_probe_idle(comm);
    out->seconds = bcop_comm_max(comm, mine);
    out->without = bcop_comm_max(comm, mine > had ? (mine - had) / mine : 0);
    return bcop_comm_agree(comm, status);
}

/* The same answer on every rank. */
static bool go_on(const bcop_comm *comm, const bcop_bench_rounds *rule, int done, double begin) {
    const double elapsed = bcop_comm_max(comm, bcop_clock_seconds() - begin);
    if (done == 0)
        return true;
    return done < BCOP_BENCH_ROUNDS_MAX && elapsed < rule->limit &&
           (done < rule->least || elapsed < rule->seconds);
}

bcop_status bcop_bench_timing_run(const bcop_comm *comm, bcop_bench_rounds rule, int count,
                                  bcop_bench_item item[]) {
    double seconds[BCOP_BENCH_ITEMS_MAX][BCOP_BENCH_ROUNDS_MAX];
    double without[BCOP_BENCH_ITEMS_MAX][BCOP_BENCH_ROUNDS_MAX];
    sample last;
    const double begin = bcop_clock_seconds();
    for (int i = 0; rule.warm && i < count; i++)
        BCOP_TRY(measure(comm, &item[i], &last));
    int rounds = 0;
    for (; go_on(comm, &rule, rounds, begin); rounds++)
        for (int i = 0; i < count; i++) {
            BCOP_TRY(measure(comm, &item[i], &last));
            seconds[i][rounds] = last.seconds;
            without[i][rounds] = last.without;
        }
    for (int i = 0; i < count; i++) {
        item[i].seconds = bcop_bench_timing_median(rounds, seconds[i]);
        item[i].without = bcop_bench_timing_median(rounds, without[i]);
    }
    return BCOP_OK;
}
