/* A plan: what a job of N ranks would hold, send and compute in a step, without running it.
 *
 * Memory, messages and flops are exact: every rank's worker is built on an imagined communicator
 * and asked. Seconds are a model (train/machine.h); the terms of one rank are
 *   compute   flops of forward and backward / gemm (whose rate takes in all that layers do);
 *   agree     reductions: 2 log2(N) latencies each, and their bytes there and back;
 *   exchange  nodes and factors, messages x latency + bytes / bandwidth, less what hides behind the
 *             backward of the last lane, then the finished sums likewise;
 *   form      trees finished (copies), gradients pulled out of sums, factors multiplied;
 *   rows      gradient rows of shared blocks, messages x latency + bytes / bandwidth;
 *   update    flops of the rows that it holds / ortho;
 *   sums      Gram and tangent sums of shared blocks, messages x latency + bytes / bandwidth;
 *   blocks    a gather of every block that moves: log2(N) latencies, all bytes through a ring;
 *   build     operators from the blocks / gemm, the same on every rank.
 * Bytes are those sent and received. A phase (worker.h) ends together for all ranks, so it lasts as
 * long as its slowest rank's terms. The model knows no contention between ranks and no jitter. */
#ifndef BCOP_TRAIN_PLAN_H
#define BCOP_TRAIN_PLAN_H

#include "train/machine.h"
#include "train/worker.h"

enum { BCOP_PLAN_PLACEMENTS = BCOP_PLACEMENT_GRID + 1 };

typedef enum bcop_plan_term {
    BCOP_PLAN_COMPUTE,
    BCOP_PLAN_AGREE,
    BCOP_PLAN_EXCHANGE,
    BCOP_PLAN_FORM,
    BCOP_PLAN_ROWS,
    BCOP_PLAN_UPDATE,
    BCOP_PLAN_SUMS,
    BCOP_PLAN_BLOCKS,
    BCOP_PLAN_BUILD,
    BCOP_PLAN_TERMS
} bcop_plan_term;

/* "compute", ...; and the phase that a term belongs to. */
const char *bcop_plan_term_name(bcop_plan_term term);
bcop_phase bcop_plan_phase_of(bcop_plan_term term);

/* What goes through a rank: early, while layers compute, or at all other times. */
typedef struct bcop_plan_flow {
    double messages, bytes; /* messages: latencies; bytes: sent and received */
} bcop_plan_flow;

typedef struct bcop_plan_rank {
    int lanes, images;
    size_t memory[BCOP_MEMORIES], bytes; /* by class, and all of it */
    bcop_traffic sent;
    long received[BCOP_TRAFFIC_KINDS];          /* bytes */
    bcop_plan_flow flow[BCOP_TRAFFIC_KINDS][2]; /* [1]: early */
    double compute, form, update, build;        /* flops */
    double added;                               /* bytes copied by form */
    double seconds[BCOP_PLAN_TERMS];
} bcop_plan_rank;

/* What a step takes. */
typedef struct bcop_plan_step {
    int ranks, lanes, batch;
    int placed[BCOP_PLAN_PLACEMENTS]; /* how many parameters, biases too */
    double term[BCOP_PLAN_TERMS];     /* of the slowest rank of the term's phase */
    double phase[BCOP_PHASES];
    double seconds;
} bcop_plan_step;

typedef struct bcop_plan {
    int iterations; /* of Bjorck in every block */
    bcop_comm comm;
    bcop_experiment experiment; /* a copy; what it points to is not owned */
    bcop_worker worker;         /* of rank 0: the model, the placements */
    bcop_plan_rank *rank;       /* [ranks], owned */
    bcop_traffic traffic;       /* of all ranks */
    bcop_plan_step step;
} bcop_plan;

/* Plans `ranks` ranks, Bjorck taking `iterations` in every block. `plan` must not be moved
 * afterwards; experiment and data must outlive it. BCOP_CONFIG (impossible layers, more ranks than
 * lanes) or BCOP_INTERNAL; to be closed then too. Local. */
bcop_status bcop_plan_open(bcop_plan *plan, const bcop_experiment *experiment,
                           const bcop_worker_data *data, int ranks, int iterations,
                           const bcop_machine *machine);
void bcop_plan_close(bcop_plan *plan);

/* The experiment with as many lanes as `ranks` (a power of two) need, and a batch that they divide:
 * the same when it has enough. A copy that shares all pointers. Local. */
bcop_experiment bcop_plan_grow(const bcop_experiment *experiment, int ranks);

/* Seconds from gradients of a lane on every rank to the updated blocks everywhere, of `count`
 * square blocks of side n, all placed alike, with the rule's optimizer; INFINITY when the placement
 * is not possible (fewer than two row panels to share). BCOP_INTERNAL without memory. Local. */
bcop_status bcop_plan_blocks(const bcop_stage_rule *rule, bcop_placement placement, int count,
                             int n, int ranks, int iterations, const bcop_machine *machine,
                             double *seconds);

/* The smallest n, a multiple of 64 up to 8192, at which that is faster than replicated; 0: none. */
bcop_status bcop_plan_crossover(const bcop_stage_rule *rule, bcop_placement placement, int count,
                                int ranks, int iterations, const bcop_machine *machine, int *n);

#endif
