/* cross_entropy: with offset u on the true logit and temperature T (Prach, Brau, Buttazzo and
 * Lampert, CVPR 2024): T CE((z - u onehot(y)) / T),   CE(a) = log sum_j exp(a_j) - a_y. */
#include "nn/loss_kinds.h"

#include <math.h>
#include <stddef.h>

typedef struct cross_entropy_options {
    double offset, temperature;
} cross_entropy_options;

static const bcop_option options_table[] = {
    {.key = "offset",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(cross_entropy_options, offset),
     .max = 1000,
     .fallback = "0.0",
     .help = "taken from the true logit: the margin asked for"},
    {.key = "temperature",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(cross_entropy_options, temperature),
     .max = 1000,
     .open_min = true,
     .fallback = "1.0",
     .help = "divides the logits and multiplies the loss"},
    {0},
};

static double shifted(const cross_entropy_options *o, const float *z, int j, int label) {
    return ((double)z[j] - (j == label ? o->offset : 0)) / o->temperature;
}

static double evaluate(const void *options, int classes, const float *z, int label, double scale,
                       float *gz) {
    const cross_entropy_options *o = options;
    double largest = -INFINITY, sum = 0;
    for (int j = 0; j < classes; j++)
        largest = fmax(largest, shifted(o, z, j, label));
    for (int j = 0; j < classes; j++)
        sum += exp(shifted(o, z, j, label) - largest);
    /* d/dz_j [T CE(z/T)] = softmax_j - [j = y]: the temperatures cancel. */
    for (int j = 0; gz && j < classes; j++)
        gz[j] = (float)(scale * (exp(shifted(o, z, j, label) - largest) / sum - (j == label)));
    return o->temperature * (log(sum) + largest - shifted(o, z, label, label));
}

const bcop_loss_kind bcop_loss_cross_entropy = {
    .name = "cross_entropy",
    .help = "cross-entropy with offset and temperature",
    .options = options_table,
    .options_size = sizeof(cross_entropy_options),
    .evaluate = evaluate,
};
