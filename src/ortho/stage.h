/* The orthogonalization stage: it owns the parameters, and turns gradients into new parameters:
 * tangent projection, optimizer step, retraction. It sees matrices, never layers.
 *
 * Today every rank updates every parameter from the same reduced gradient (placement REPLICATED).
 */
#ifndef BCOP_ORTHO_STAGE_H
#define BCOP_ORTHO_STAGE_H

#include "base/arena.h"
#include "ortho/bjorck.h"
#include "ortho/optimizer.h"

#include <stdint.h>

typedef struct bcop_stage_rule {
    bcop_bjorck_rule bjorck;
    const bcop_optimizer_kind *optimizer;
    const void *optimizer_options; /* of the kind's table; not owned */
} bcop_stage_rule;

typedef struct bcop_stage_entry {
    bcop_parameter *parameter; /* not owned; its memory is the stage's */
    int slots;
    bcop_slot slot[BCOP_SLOTS_MAX];
    float *state[BCOP_SLOTS_MAX];
} bcop_stage_entry;

typedef struct bcop_stage {
    bcop_stage_rule rule;
    int count;
    bcop_stage_entry *entry; /* [count] */
    float *scratch;
} bcop_stage;

/* Takes from `arena` what the stage needs for `count` parameters, and gives each parameter its
 * value and gradient. To be called in both passes of the arena with the same arguments. Local. */
void bcop_stage_plan(bcop_stage *stage, bcop_stage_rule rule, int count,
                     bcop_parameter *const parameter[], bcop_arena *arena);

/* Initial blocks: Q of a Householder QR of a Philox Gaussian keyed by (seed, block name); plain
 * parameters are zero. BCOP_INTERNAL without memory. Local, the same on every rank. */
bcop_status bcop_stage_initialise(bcop_stage *stage, uint64_t seed);

/* One update from the gradients; `step` counts from 1. *iterations: the most Bjorck iterations that
 * a block needed. BCOP_DIVERGED names the block. Local. */
bcop_status bcop_stage_update(bcop_stage *stage, double lr, double bias_lr, long step,
                              int *iterations);

/* ||U^T U - I||_F / sqrt(cols) of u[rows][cols] in float64. Allocates; NAN without memory. Local.
 */
double bcop_stage_defect(int rows, int cols, const float *u);

#endif
