/* bcop bench comm: messages between two ranks, and the collectives that training uses. */
#ifndef BCOP_APP_BENCH_COMM_H
#define BCOP_APP_BENCH_COMM_H

#include "app/bench.h"

/* Prints two tables on rank 0 and puts the same into the task's JSON; on one rank there is nothing
 * to measure, and both are empty. BCOP_INTERNAL without memory. Collective. */
bcop_status bcop_bench_comm_run(bcop_bench_task *task);

#endif
