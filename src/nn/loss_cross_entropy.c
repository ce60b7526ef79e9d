/* cross_entropy: with offset u on the true logit and temperature T (Prach, Brau, Buttazzo and
 * Lampert, CVPR 2024), and the certificate regulariser gamma (Singla, Singla and Feizi, ICLR 2022):
 *     T CE((z - u onehot(y)) / T) - gamma max(0, r),   CE(a) = log sum_j exp(a_j) - a_y,
 * with r = (z_y - max over j != y of z_j) / sqrt(2) the certified radius with constant 1. */
#include "nn/loss_kinds.h"

#include <math.h>
#include <stddef.h>

typedef struct cross_entropy_options {
    double offset, temperature, gamma;
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
    {.key = "gamma",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(cross_entropy_options, gamma),
     .max = 1000,
     .fallback = "0.0",
     .help = "so many times the certified radius of a right answer is taken from the loss"},
    {0},
};

static double shifted(const cross_entropy_options *o, const float *z, int j, int label) {
    return ((double)z[j] - (j == label ? o->offset : 0)) / o->temperature;
}

/* gamma max(0, r); takes its gradient from gz. */
static double reward(double gamma, int classes, const float *z, int label, double scale,
                     float *gz) {
    const double radius = bcop_loss_margin(classes, z, label) / sqrt(2);
    int nearest = -1;
    for (int j = 0; j < classes; j++)
        if (j != label && (nearest < 0 || z[j] > z[nearest]))
            nearest = j;
    if (nearest < 0 || radius <= 0)
        return 0;
    if (gz) {
        gz[label] -= (float)(scale * gamma / sqrt(2));
        gz[nearest] += (float)(scale * gamma / sqrt(2));
    }
    return gamma * radius;
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
    const double loss = o->temperature * (log(sum) + largest - shifted(o, z, label, label));
    return o->gamma > 0 ? loss - reward(o->gamma, classes, z, label, scale, gz) : loss;
}

const bcop_loss_kind bcop_loss_cross_entropy = {
    .name = "cross_entropy",
    .help = "cross-entropy with offset, temperature and certificate regulariser",
    .options = options_table,
    .options_size = sizeof(cross_entropy_options),
    .evaluate = evaluate,
};
