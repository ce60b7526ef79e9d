/* What the benchmarks share: each is one file and one line in bench_command.c. */
#ifndef BCOP_APP_BENCH_H
#define BCOP_APP_BENCH_H

#include "comm/comm.h"

#include <jansson.h>

/* The constants of the machine model that benchmarks calibrate; 0: not measured. */
typedef struct bcop_bench_machine {
    double gemm_gflops;   /* layers, per rank, all ranks at once (conv; step: within a training) */
    double ortho_gflops;  /* the stage on one rank, bcop_placement_cost() over time (ortho; step:
                             flops over time of rank 0's part of real updates) */
    double copy_gbs;      /* bytes copied in memory, per rank, all ranks at once (conv) */
    double latency_us;    /* one small message (comm) */
    double bandwidth_gbs; /* one large message (comm) */
} bcop_bench_machine;

typedef struct bcop_bench_task {
    const bcop_comm *comm;
    int max_size;               /* of the blocks of `ortho` */
    const char *config;         /* of `step` */
    const char *const *set;     /* of `step`: --set values, ended by NULL */
    int warmup, steps;          /* of `step`: not counted, and counted */
    json_t *json;               /* rank 0: where the benchmark puts its results; else NULL */
    bcop_bench_machine machine; /* rank 0 */
} bcop_bench_task;

enum { BCOP_BENCH_SIZE_MIN = 128, BCOP_BENCH_SIZE_MAX = 16384 };

#endif
