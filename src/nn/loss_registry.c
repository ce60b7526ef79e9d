#include "nn/loss.h"
#include "nn/loss_kinds.h"

#include <math.h>

const bcop_loss_kind *const bcop_loss_kinds[] = {&bcop_loss_hinge, &bcop_loss_cross_entropy, NULL};

double bcop_loss_margin(int classes, const float *z, int label) {
    double other = -INFINITY;
    /* A NaN is taken and stays, so that it never certifies. */
    for (int j = 0; j < classes; j++)
        if (j != label && !isnan(other) && !((double)z[j] <= other))
            other = (double)z[j];
    return (double)z[label] - other;
}
