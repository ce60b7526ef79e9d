#include "nn/loss.h"
#include "nn/loss_kinds.h"

#include <math.h>

const bcop_loss_kind *const bcop_loss_kinds[] = {&bcop_loss_hinge, &bcop_loss_cross_entropy, NULL};

double bcop_loss_margin(int classes, const float *z, int label) {
    double other = -INFINITY;
    for (int j = 0; j < classes; j++)
        if (j != label && !((double)z[j] <= other)) /* a NaN wins, so that it never certifies */
            other = (double)z[j];
    return (double)z[label] - other;
}
