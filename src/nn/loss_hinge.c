/* hinge: the paper's multi-class hinge,
 *     (1/C) sum over j != y of max(0, m - z_y + z_j),   m = sqrt(2) eps,
 * which is zero for an example certified at eps with constant 1. */
#include "nn/loss_kinds.h"

#include <math.h>
#include <stddef.h>

typedef struct hinge_options {
    double eps;
} hinge_options;

static const bcop_option options_table[] = {
    {.key = "eps",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(hinge_options, eps),
     .max = 1000,
     .unit = "pixel units (L2)",
     .help = "radius to train for; the margin is sqrt(2) eps"},
    {0},
};

static double evaluate(const void *options, int classes, const float *z, int label, double scale,
                       float *gz) {
    const hinge_options *o = options;
    const double margin = sqrt(2) * o->eps, share = 1.0 / classes;
    double loss = 0;
    int active = 0;
    for (int j = 0; j < classes; j++) {
        const double gap = margin - (double)z[label] + (double)z[j];
        /* written so that a NaN counts as active and reaches the sum */
        const bool in = j != label && !(gap <= 0);
        loss += in ? share * gap : 0;
        active += in;
        if (gz)
            gz[j] = in ? (float)(scale * share) : 0;
    }
    if (gz)
        gz[label] = (float)(-scale * share * active);
    return loss;
}

const bcop_loss_kind bcop_loss_hinge = {
    .name = "hinge",
    .help = "multi-class hinge with margin sqrt(2) eps",
    .options = options_table,
    .options_size = sizeof(hinge_options),
    .evaluate = evaluate,
};
