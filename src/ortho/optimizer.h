/* Optimizers: from a gradient to a step, on blocks and on plain parameters.
 *
 * On a block the gradient is tangent (tangent.h) and the stage retracts the result; a plain
 * parameter is stepped as usual. A kind is one file and one line in optimizer_registry.c. */
#ifndef BCOP_ORTHO_OPTIMIZER_H
#define BCOP_ORTHO_OPTIMIZER_H

#include "base/option.h"
#include "linalg/parameter.h"

enum { BCOP_SLOTS_MAX = 2 };

/* One array of optimizer state that belongs to a parameter. */
typedef struct bcop_slot {
    const char *name; /* "first", "second", "momentum" */
    int rows, cols;
} bcop_slot;

typedef struct bcop_optimizer_kind {
    const char *name;
    const char *help;
    const bcop_option *options;
    size_t options_size;
    /* Fills slot[BCOP_SLOTS_MAX] and returns how many the parameter needs. Local. */
    int (*slots)(const bcop_parameter *parameter, bcop_slot slot[]);
    /* Floats of scratch for this parameter. Local. */
    long (*scratch)(const bcop_parameter *parameter);
    /* parameter->value <- value - step of size `lr`; `step` counts from 1; the gradient is
     * overwritten; state[i] belongs to slot i and starts as zeros. Local, allocates nothing. */
    void (*step)(const void *options, double lr, long step, bcop_parameter *parameter,
                 float *const state[], float *scratch);
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
