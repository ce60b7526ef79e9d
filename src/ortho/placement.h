/* Who updates which parameters: the cost model, and the choice it leads to (ortho/stage.h says what
 * the placements are). */
#ifndef BCOP_ORTHO_PLACEMENT_H
#define BCOP_ORTHO_PLACEMENT_H

#include "linalg/parameter.h"

typedef enum bcop_placement {                      /* in the order of the option's choices */
                              BCOP_PLACEMENT_AUTO, /* by the cost model; only as a request */
                              BCOP_PLACEMENT_REPLICATED,
                              BCOP_PLACEMENT_OWNED,
                              BCOP_PLACEMENT_SHARED,
                              BCOP_PLACEMENT_GRID
} bcop_placement;

enum {
    BCOP_PLACEMENT_RANKS_MAX = 4096, /* no more ranks than lanes */
    BCOP_PLACEMENT_SHARED_MAX = 64   /* blocks that are tried */
};

typedef struct bcop_placement_rule {
    bcop_placement wanted; /* for all blocks */
    double share_above;    /* auto: flops above which a block is SHARED; 0: the costliest ones, as
                              many as leave the busiest rank the least to do */
    double grid_above;     /* auto: flops above which a block is on the GRID; 0: none */
    int grid_rows;         /* process rows of the grid; 0: the most nearly square */
    double step_wide;      /* auto: flops of the optimizer's step: step_wide rows cols^2 on the */
    double step_small;     /* holders' rows, and step_small cols^3 on each holder */
} bcop_placement_rule;

/* One parameter's placement. */
typedef struct bcop_placement_choice {
    bcop_placement placement;
    int owner; /* of its bundle: the rank that holds it when it is OWNED */
    int first; /* the first of the ranks that hold rows */
    int root;  /* of a SHARED tall block: which of these, counted from first, works on the small
                  matrices */
} bcop_placement_choice;

/* "replicated", "owned", ... */
const char *bcop_placement_name(bcop_placement placement);

/* Flops of one update of a block: tangent projection and one Bjorck iteration of order 4,
 * 7 rows cols^2 + 2 cols^3. Local. */
double bcop_placement_cost(int rows, int cols);

/* How many ranks hold rows of a SHARED block. Local. */
int bcop_placement_holders(int ranks, int rows);

/* Chooses for `ranks` <= BCOP_PLACEMENT_RANKS_MAX ranks: bundles that are not worth a message are
 * REPLICATED; longest processing time first, shared blocks are dealt to groups of consecutive
 * ranks, then whole bundles to ranks. Local. */
void bcop_placement_choose(const bcop_placement_rule *rule, int ranks, int count,
                           bcop_parameter *const parameter[], bcop_placement_choice choice[]);

#endif
