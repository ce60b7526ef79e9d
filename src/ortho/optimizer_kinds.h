/* The folder's list of optimizers; see optimizer.h. */
#ifndef BCOP_ORTHO_OPTIMIZER_KINDS_H
#define BCOP_ORTHO_OPTIMIZER_KINDS_H

#include "ortho/optimizer.h"

extern const bcop_optimizer_kind bcop_optimizer_adam;
extern const bcop_optimizer_kind bcop_optimizer_adam_block;
extern const bcop_optimizer_kind bcop_optimizer_sgd;
extern const bcop_optimizer_kind bcop_optimizer_muon;

/* Adam's options and its elementwise step, which muon uses for plain parameters too:
 *     m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,
 *     x <- x - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
 * (Kingma and Ba, ICLR 2015). */
typedef struct bcop_adam_options {
    double beta1, beta2, epsilon;
} bcop_adam_options;

void bcop_optimizer_adam_step(const void *options, const bcop_step *s);

#endif
