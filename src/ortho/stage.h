/* The orthogonalization stage: it owns the parameters, and turns gradients into new parameters:
 * tangent projection, optimizer step, retraction. It sees matrices, never layers.
 *
 * Whoever holds rows of a block updates them and keeps their optimizer state:
 *   REPLICATED  every rank holds all rows of it (biases, and blocks that are not worth a message);
 *   OWNED       one rank holds all rows, dealt out by longest processing time first;
 *   SHARED      runs of row panels over a group of min(ranks, panels) consecutive ranks; of tall
 *               blocks one of them, the root, works on the small matrices, while the others update
 *               what they own;
 *   GRID        equal runs of rows over all ranks, products on a two-dimensional grid of them
 *               (grid/grid.h), for the largest blocks, and only when asked for.
 * These are one mechanism, rows held by a group of one or of several; afterwards every rank gets
 * all rows of the new block. A block's update has the same bits in every placement but GRID
 * (ortho/rows.h).
 *
 * Gradients come to their holders before the update. Parameters of one bundle get theirs together,
 * from a sum that one rank finishes, the bundle's owner, who also holds what of it is not shared;
 * or every rank does, when the bundle is replicated. A factored block's rows are formed by whoever
 * holds them. */
#ifndef BCOP_ORTHO_STAGE_H
#define BCOP_ORTHO_STAGE_H

#include "base/arena.h"
#include "linalg/parameter.h"
#include "ortho/bjorck.h"
#include "ortho/optimizer.h"
#include "ortho/placement.h"

#include <stdint.h>

typedef struct bcop_stage_rule {
    bcop_bjorck_rule bjorck;
    const bcop_optimizer_kind *optimizer;
    const void *optimizer_options; /* of the kind's table; not owned */
    bcop_placement_rule placement;
} bcop_stage_rule;

typedef struct bcop_stage_entry {
    bcop_parameter *parameter; /* not owned; its memory is the stage's */
    bcop_placement placement;
    int owner, first; /* as chosen */
    int root;         /* in the group of ranks from first on */
    bool in_parts;    /* its retraction is done in parts, bcop_bjorck_begin to _end */
    long *offset;     /* [ranks + 1]: where in the value ranks' rows begin, in floats; NULL when
                         REPLICATED */
    bcop_rows rows;   /* of a block, on this rank; count 0: none here */
    long size;        /* floats of the value that this rank holds */
    float *gradient;  /* [size], to be filled before an update, which overwrites it; part of
                         parameter->gradient where that is formed as a whole */
    int slots;
    bcop_slot slot[BCOP_SLOTS_MAX];
    float *state[BCOP_SLOTS_MAX]; /* [size], or one number */
    float *small; /* [bcop_bjorck_small()] of a block in parts on its root, else NULL */
    bcop_bjorck_outcome outcome; /* of a block in parts */
} bcop_stage_entry;

enum {
    BCOP_STAGE_GROUPS = 5 /* of 2^g ranks; the first is not used */
};

typedef struct bcop_stage {
    bcop_stage_rule rule;
    const bcop_comm *comm;
    bcop_comm
        group[BCOP_STAGE_GROUPS]; /* this rank's of 2^g ranks; size 0: left over, or not used */
    bcop_grid grid;               /* of all ranks, when a block is on it */
    int count;
    bcop_parameter *const *parameter; /* [count], not owned */
    bcop_placement_choice *choice;    /* [count], owned */
    bcop_stage_entry *entry;          /* [count], owned */
    long *offsets;                    /* of the entries, owned */
    size_t state_bytes;               /* of the memory: optimizer state, of what this rank holds */
    float *scratch;
} bcop_stage;

/* Chooses placements for `count` parameters (rank 0's choice holds) and makes the groups. `comm`
 * and the parameters must outlive the stage. BCOP_CONFIG when grid_rows does not divide the ranks,
 * BCOP_INTERNAL without memory. Collective. */
bcop_status bcop_stage_open(bcop_stage *stage, const bcop_comm *comm, bcop_stage_rule rule,
                            int count, bcop_parameter *const parameter[]);
void bcop_stage_close(bcop_stage *stage); /* Collective; a stage of zeros is allowed */

/* Takes from `arena` what the stage needs, and gives each parameter its value, and its gradient
 * where that is formed as a whole. To be called in both passes of the arena. Local. */
void bcop_stage_plan(bcop_stage *stage, bcop_arena *arena);

/* Initial blocks: Q of a Householder QR of a Philox Gaussian keyed by (seed, block name); plain
 * parameters are zero. BCOP_INTERNAL without memory. Local, the same on every rank. */
bcop_status bcop_stage_initialise(bcop_stage *stage, uint64_t seed);

/* The rank that forms the whole gradient of parameter `i`, BCOP_LANE_EVERY when every rank does;
 * not for factored ones. Local. */
int bcop_stage_root(const bcop_stage *stage, int i);

/* One update, from parameter->gradient at the roots and, of factored parameters, entry->gradient
 * with their holders; then every rank has the new values whole. `step` counts from 1. *iterations:
 * the most Bjorck iterations that a block needed. BCOP_DIVERGED names the first block that failed
 * on the lowest rank where one did. Collective. */
bcop_status bcop_stage_update(bcop_stage *stage, double lr, double bias_lr, long step,
                              int *iterations);

/* What this rank hands to MPI in one update with so many Bjorck iterations in every block: each
 * message, and their sum added to `traffic`. Local. */
void bcop_stage_list(const bcop_stage *stage, int iterations, bcop_traffic_visitor v);
void bcop_stage_count(const bcop_stage *stage, int iterations, bcop_traffic *traffic);

/* Flops of this rank's part of one update of entry `i` with so many Bjorck iterations, the
 * optimizer's included; Gram matrices count half, as they are symmetric. Local. */
double bcop_stage_flops(const bcop_stage *stage, int i, int iterations);

/* Floats of a slot as a whole (Local), the whole from its holders to every rank (Collective), and
 * from the whole what this rank holds (Local). */
long bcop_stage_slot_size(const bcop_stage_entry *entry, int slot);
void bcop_stage_collect(const bcop_stage *stage, const bcop_stage_entry *entry, int slot,
                        float *whole);
void bcop_stage_deliver(const bcop_stage *stage, const bcop_stage_entry *entry, int slot,
                        const float *whole);

/* ||U^T U - I||_F / sqrt(cols) of u[rows][cols] in float64. Allocates; NAN without memory. Local.
 */
double bcop_stage_defect(int rows, int cols, const float *u);

#endif
