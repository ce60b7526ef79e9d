/* bcop bench conv: the layers' own rate, and what bounds it. */
#ifndef BCOP_APP_BENCH_CONV_H
#define BCOP_APP_BENCH_CONV_H

#include "app/bench.h"

/* Measures the convolutions and dense layers of the paper's Large net, the product of matrices,
 * the copy of memory and the CPU's peak of multiply-adds, on all ranks at once; prints a table on
 * rank 0 and puts the same into the task's JSON. BCOP_INTERNAL without memory. Collective. */
bcop_status bcop_bench_conv_run(bcop_bench_task *task);

#endif
