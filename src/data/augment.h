/* Augmentation: a random shift (crop of the zero-padded map) and a horizontal flip.
 *
 * What happens to an example depends on (seed, epoch, sample) alone, through the Philox stream
 * BCOP_RNG_AUGMENT, so it is the same on any number of ranks and after any restart. */
#ifndef BCOP_DATA_AUGMENT_H
#define BCOP_DATA_AUGMENT_H

#include "base/shape.h"

#include <stdint.h>

typedef enum bcop_augment_rule { /* in the order of the option's choices */
                                 BCOP_AUGMENT_NONE,
                                 BCOP_AUGMENT_FLIP,
                                 BCOP_AUGMENT_CROP,
                                 BCOP_AUGMENT_CROP_FLIP
} bcop_augment_rule;

/* x, out: [height][width][channels], not overlapping. crop: out(row, column) = x(row - dy, column -
 * dx), dy and dx each uniform in -padding .. padding, zeros outside; flip: then mirrored left to
 * right with probability 1/2. All three draws are taken under every rule, in the order dy, dx,
 * flip. Local. */
void bcop_augment_apply(bcop_augment_rule rule, int padding, bcop_shape shape, uint64_t seed,
                        uint32_t epoch, long sample, const float *x, float *out);

#endif
