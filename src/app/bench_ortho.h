/* bcop bench ortho: one update of orthonormal blocks, in every placement. */
#ifndef BCOP_APP_BENCH_ORTHO_H
#define BCOP_APP_BENCH_ORTHO_H

#include "app/bench.h"

/* Prints its tables on rank 0 and puts the rows into the task's JSON. BCOP_INTERNAL without memory.
 * Collective. */
bcop_status bcop_bench_ortho_run(bcop_bench_task *task);

#endif
