/* adam, and adam-block: Adam with one second moment per block, the mean of the squared gradient, so
 * that the direction of the momentum is kept and the step does not depend on the block's basis. */
#include "ortho/optimizer_kinds.h"

#include <math.h>
#include <stddef.h>

static const bcop_option adam_options[] = {
    {.key = "beta1",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(bcop_adam_options, beta1),
     .max = 0.9999,
     .fallback = "0.9",
     .help = "decay of the first moment"},
    {.key = "beta2",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(bcop_adam_options, beta2),
     .max = 0.999999,
     .fallback = "0.999",
     .help = "decay of the second moment"},
    {.key = "epsilon",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(bcop_adam_options, epsilon),
     .min = 1e-30,
     .max = 1,
     .fallback = "1.0e-8",
     .help = "added to the root of the second moment"},
    {0},
};

static int slots(bool orthonormal, bcop_slot slot[]) {
    (void)orthonormal;
    slot[0] = (bcop_slot){"first", false};
    slot[1] = (bcop_slot){"second", false};
    return 2;
}

/* The corrected step size and epsilon, so that the loop has one division:
   lr mhat / (sqrt(vhat) + eps) = rate m / (sqrt(v) + small). */
typedef struct rates {
    float beta1, beta2, rate, small;
} rates;

static rates correct(const bcop_adam_options *o, double lr, long step) {
    /* corrected for the decays that the moments really use, rounded to float32 */
    const float beta1 = (float)o->beta1, beta2 = (float)o->beta2;
    const double first = 1 - pow((double)beta1, (double)step);
    const double second = sqrt(1 - pow((double)beta2, (double)step));
    return (rates){beta1, beta2, (float)(lr * second / first), (float)(o->epsilon * second)};
}

void bcop_optimizer_adam_step(const void *options, const bcop_step *s) {
    const rates r = correct(options, s->lr, s->step);
    float *restrict m = s->state[0], *restrict v = s->state[1], *restrict x = s->value;
    const float *restrict g = s->gradient;
    for (long i = 0; i < s->size; i++) {
        m[i] = r.beta1 * m[i] + (1 - r.beta1) * g[i];
        v[i] = r.beta2 * v[i] + (1 - r.beta2) * g[i] * g[i];
        x[i] -= r.rate * m[i] / (sqrtf(v[i]) + r.small);
    }
}

const bcop_optimizer_kind bcop_optimizer_adam = {
    .name = "adam",
    .help = "Adam on the tangent gradient, element by element",
    .options = adam_options,
    .options_size = sizeof(bcop_adam_options),
    .slots = slots,
    .step = bcop_optimizer_adam_step,
};

static int block_slots(bool orthonormal, bcop_slot slot[]) {
    slot[0] = (bcop_slot){"first", false};
    slot[1] = (bcop_slot){"second", orthonormal};
    return 2;
}

static void block_step(const void *options, const bcop_step *s) {
    if (!s->rows) {
        bcop_optimizer_adam_step(options, s);
        return;
    }
    const double whole = (double)s->rows->rows * s->rows->cols;
    if (whole == 0)
        return;
    const rates r = correct(options, s->lr, s->step);
    float *restrict m = s->state[0], *restrict v = s->state[1], *restrict x = s->value;
    const float *restrict g = s->gradient;
    v[0] = r.beta2 * v[0] + (1 - r.beta2) * (float)(bcop_rows_squares(s->rows, g) / whole);
    const float rate = r.rate / (sqrtf(v[0]) + r.small);
    for (long i = 0; i < s->size; i++) {
        m[i] = r.beta1 * m[i] + (1 - r.beta1) * g[i];
        x[i] -= rate * m[i];
    }
}

const bcop_optimizer_kind bcop_optimizer_adam_block = {
    .name = "adam-block",
    .help = "Adam with one second moment per block",
    .options = adam_options,
    .options_size = sizeof(bcop_adam_options),
    .slots = block_slots,
    .squares = 1,
    .step = block_step,
};
