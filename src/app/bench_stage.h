/* Equal blocks under one placement, to be updated again and again by the stage. */
#ifndef BCOP_APP_BENCH_STAGE_H
#define BCOP_APP_BENCH_STAGE_H

#include "app/bench_timing.h"
#include "ortho/optimizer_kinds.h"
#include "ortho/stage.h"

enum { BCOP_BENCH_BLOCKS_MAX = 8 };

/* Blocks to update: all of one shape. */
typedef struct bcop_bench_shape {
    int rows, cols, blocks;
} bcop_bench_shape;

typedef struct bcop_bench_stage {
    const bcop_comm *comm;
    bool alone; /* one rank holds and does everything, and tells nobody */
    bcop_placement wanted;
    bcop_stage stage;
    bcop_parameter parameter[BCOP_BENCH_BLOCKS_MAX], *list[BCOP_BENCH_BLOCKS_MAX];
    bcop_adam_options options;
    const float *gradient; /* [rows][cols], of every block */
    const float *from;     /* [rows][cols], to be retracted */
    float *work;           /* [rows][cols] */
    long steps;
    double iterations; /* Bjorck's, of all steps together */
} bcop_bench_stage;

/* Opens the stage. It must not be moved until it is closed. Collective. */
bcop_status bcop_bench_stage_open(bcop_bench_stage *b, const bcop_comm *comm,
                                  bcop_placement placement, bool alone, bcop_bench_shape shape);
void bcop_bench_stage_close(bcop_bench_stage *b); /* Collective; zeros are allowed */

/* Takes the stage's memory, in both passes of the arena. Local. */
void bcop_bench_stage_plan(bcop_bench_stage *b, bcop_arena *arena);

/* Initial blocks: `from`'s, or, for NULL, new ones. `gradient` is used by every step. BCOP_INTERNAL
 * without memory. Local. */
bcop_status bcop_bench_stage_fill(bcop_bench_stage *b, const bcop_bench_stage *from,
                                  const float *gradient);

/* A step size after which the retraction of so many columns takes one iteration above order 1, as
 * in training. */
double bcop_bench_stage_step(int cols);

/* Whether the stage placed the blocks as it was asked to. Local. */
bool bcop_bench_stage_applies(const bcop_bench_stage *b);

/* One update as a thing to measure: tangent projection, adam, retraction, new blocks to everyone.
 * Local. */
bcop_bench_item bcop_bench_stage_item(bcop_bench_stage *b);

/* The retraction alone, of the first block: `from`[rows][cols], the same on every rank, is copied
 * to `work`[rows][cols] before each time. Both must outlive the item. Local. */
bcop_bench_item bcop_bench_stage_retraction(bcop_bench_stage *b, const float *from, float *work);

#endif
