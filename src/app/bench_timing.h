/* How the benchmarks measure: things in turn, A B C A B C, so that whatever else happens on the
 * machine meets all of them alike; medians; and how much of the time others had the cores. */
#ifndef BCOP_APP_BENCH_TIMING_H
#define BCOP_APP_BENCH_TIMING_H

#include "comm/comm.h"

enum { BCOP_BENCH_ITEMS_MAX = 24, BCOP_BENCH_ROUNDS_MAX = 41 };

/* One thing to measure. */
typedef struct bcop_bench_item {
    void (*prepare)(void *of);    /* before each time, not measured; NULL: nothing to do */
    bcop_status (*run)(void *of); /* what is measured */
    void *of;
    bool alone;     /* on rank 0 while the others sleep; else on all ranks at once */
    double seconds; /* out: the median over the rounds of the slowest rank's time */
    double without; /* out: the median part of it in which some rank had no core, because of others
                       on the machine or more ranks than cores */
} bcop_bench_item;

/* At least `least` rounds, then as many as fit into `seconds` (at most BCOP_BENCH_ROUNDS_MAX);
 * after `limit` seconds no further round, so that a slow machine gets an answer too. */
typedef struct bcop_bench_rounds {
    int least;
    double seconds, limit;
    bool warm; /* one more round at first, which does not count */
} bcop_bench_rounds;

/* Measures item[count], count <= BCOP_BENCH_ITEMS_MAX. An item that fails ends it on all ranks with
 * its status. Allocates nothing. Collective. */
bcop_status bcop_bench_timing_run(const bcop_comm *comm, bcop_bench_rounds rule, int count,
                                  bcop_bench_item item[]);

/* The median of value[count >= 1], which is sorted by this. Local. */
double bcop_bench_timing_median(int count, double value[]);

#endif
