/* bcop bench step CONFIG: steps of a real training, phase by phase. */
#ifndef BCOP_APP_BENCH_STEP_H
#define BCOP_APP_BENCH_STEP_H

#include "app/bench.h"

/* Trains from new blocks on the configuration's data, and writes nothing: task->warmup steps that
 * do not count, then task->steps that do. A phase takes as long as on its slowest rank. Prints
 * medians and what each rank sent on rank 0, and puts the same into the task's JSON. Fails as
 * training does. Collective. */
bcop_status bcop_bench_step_run(bcop_bench_task *task);

#endif
