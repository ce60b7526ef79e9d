/* Optimizers: from a gradient to a step, on blocks and on plain parameters.
 *
 * On a block the gradient is tangent (tangent.h) and the stage retracts the result; a plain
 * parameter is stepped as usual. A kind is one file and one line in optimizer_registry.c. */
#ifndef BCOP_ORTHO_OPTIMIZER_H
#define BCOP_ORTHO_OPTIMIZER_H

#include "base/option.h"
#include "ortho/rows.h"

enum { BCOP_SLOTS_MAX = 2 };

/* One array of optimizer state that belongs to a parameter: of its size, divided over the ranks
 * like its rows, or a single number. */
typedef struct bcop_slot {
    const char *name; /* "first", "second", "momentum" */
    bool single;
} bcop_slot;

/* What an optimizer steps: the rows of a parameter that this rank holds. */
typedef struct bcop_step {
    double lr;
    long step;           /* counts from 1 */
    bcop_rows *rows;     /* of a block; NULL for a plain parameter */
    long size;           /* floats in value, gradient and slots that are not single */
    float *value;        /* in U, out W */
    float *gradient;     /* overwritten */
    float *const *state; /* [slots], zero at first */
    float *scratch;
} bcop_step;

typedef struct bcop_optimizer_kind {
    const char *name;
    const char *help;
    const bcop_option *options;
    size_t options_size;
    /* Fills slot[BCOP_SLOTS_MAX] and returns how many such a parameter needs. Local. */
    int (*slots)(bool orthonormal, bcop_slot slot[]);
    /* Floats of scratch for a block. NULL: none. Local. */
    long (*scratch)(const bcop_rows *rows);
    /* How many cols x cols sums over the rows of a block one step forms. NULL: none. Local. */
    int (*sums)(const void *options, const bcop_rows *rows);
    int squares; /* how many sums of squares */
    /* Flops of products in one step on a block, on this rank's rows. NULL: none. Local. */
    double (*flops)(const void *options, const bcop_rows *rows);
    /* value <- value - step. Allocates nothing. Collective over the rows' group. */
    void (*step)(const void *options, const bcop_step *s);
} bcop_optimizer_kind;

/* All kinds, ending with NULL. */
extern const bcop_optimizer_kind *const bcop_optimizer_kinds[];

/* The common keys of the `optimizer` section. */
typedef struct bcop_optimizer_options {
    int kind;       /* index in bcop_optimizer_kinds; read by the caller from `kind` */
    double lr;      /* step size on blocks */
    double bias_lr; /* step size on plain parameters */
} bcop_optimizer_options;

extern const bcop_option bcop_optimizer_table[]; /* lr, bias_lr */

#endif
