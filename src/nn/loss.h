/* Losses: from logits and a label to a number and its gradient. A kind is one file and one line in
 * loss_registry.c. */
#ifndef BCOP_NN_LOSS_H
#define BCOP_NN_LOSS_H

#include "base/option.h"

typedef struct bcop_loss_kind {
    const char *name, *help;
    const bcop_option *options;
    size_t options_size;
    /* The loss of one example with logits z[classes] and 0 <= label < classes, in float64; when gz
     * is not NULL also gz[classes] = scale dloss/dz. Local. */
    double (*evaluate)(const void *options, int classes, const float *z, int label, double scale,
                       float *gz);
} bcop_loss_kind;

/* All kinds, ending with NULL. */
extern const bcop_loss_kind *const bcop_loss_kinds[];

/* z_label - max over j != label of z_j, in float64: positive iff the answer is right. With one
 * class it is +infinity. Local. */
double bcop_loss_margin(int classes, const float *z, int label);

#endif
