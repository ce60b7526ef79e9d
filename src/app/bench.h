/* What the benchmarks share: each is one file and one line in bench_command.c. */
#ifndef BCOP_APP_BENCH_H
#define BCOP_APP_BENCH_H

#include "comm/comm.h"
#include "train/machine.h"

#include <jansson.h>

typedef struct bcop_bench_task {
    const bcop_comm *comm;
    int max_size;           /* of the blocks of `ortho` */
    const char *config;     /* of `step` */
    const char *const *set; /* of `step`: --set values, ended by NULL */
    int warmup, steps;      /* of `step`: not counted, and counted */
    json_t *json;           /* rank 0: where the benchmark puts its results; else NULL */
    /* Rank 0: what benchmarks found of the machine that plans are made for; 0: not measured.
     * gemm_gflops: conv, all ranks at once, or step, within a training; ortho_gflops: ortho, one
     * rank alone by bcop_placement_cost, or step, this rank's part of real updates; copy_gbs: conv;
     * latency and bandwidth: comm, a small and a large message between two ranks. */
    bcop_machine machine;
} bcop_bench_task;

enum { BCOP_BENCH_SIZE_MIN = 128, BCOP_BENCH_SIZE_MAX = 16384 };

#endif
