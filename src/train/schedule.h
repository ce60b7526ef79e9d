/* Step-size schedules: the factor on optimizer.lr and optimizer.bias_lr at a step. */
#ifndef BCOP_TRAIN_SCHEDULE_H
#define BCOP_TRAIN_SCHEDULE_H

#include "base/option.h"

typedef enum bcop_schedule_kind { /* in the order of the option's choices */
                                  BCOP_SCHEDULE_CONSTANT,
                                  BCOP_SCHEDULE_EXPONENTIAL,
                                  BCOP_SCHEDULE_COSINE,
                                  BCOP_SCHEDULE_ONE_CYCLE
} bcop_schedule_kind;

typedef struct bcop_schedule {
    int kind;
    double warmup; /* epochs of linear rise from 0, not for one-cycle */
    double final;  /* factor at the end */
    double peak;   /* one-cycle: fraction of the run at which the factor is 1 */
    double start;  /* one-cycle: factor at the start */
} bcop_schedule;

extern const bcop_option bcop_schedule_table[];

/* The factor in [0, 1] for the update that takes the run from `step` to `step` + 1, of `total`
 * steps with `per_epoch` each. With p = (step + 1/2) / total: constant 1;  exponential final^p;
 * cosine final + (1 - final) (1 + cos(pi p)) / 2; one-cycle: cosine from start to 1 up to p = peak,
 * then cosine to final (Smith and Topin, 2019). Warm-up multiplies by min(1, (step + 1) / (warmup
 * per_epoch)). Local. */
double bcop_schedule_factor(const bcop_schedule *schedule, long step, long total, long per_epoch);

#endif
