/* sgd: stochastic gradient descent with (Nesterov) momentum, on blocks and plain parameters:
 *     M <- mu M + g,   step = lr (g + mu M)   or   lr M without Nesterov. */
#include "ortho/optimizer_kinds.h"

#include <stddef.h>

typedef struct sgd_options {
    double momentum;
    bool nesterov;
} sgd_options;

static const bcop_option options_table[] = {
    {.key = "momentum",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(sgd_options, momentum),
     .max = 0.9999,
     .fallback = "0.9",
     .help = "decay of the momentum"},
    {.key = "nesterov",
     .type = BCOP_OPTION_BOOL,
     .offset = offsetof(sgd_options, nesterov),
     .fallback = "true",
     .help = "look ahead along the momentum"},
    {0},
};

static int slots(bool orthonormal, bcop_slot slot[]) {
    (void)orthonormal;
    slot[0] = (bcop_slot){"momentum", false};
    return 1;
}

static void step_on(const void *options, const bcop_step *s) {
    const sgd_options *o = options;
    const float mu = (float)o->momentum, rate = (float)s->lr;
    const float ahead = o->nesterov ? mu : 1, now = o->nesterov ? 1 : 0;
    float *restrict m = s->state[0], *restrict x = s->value;
    const float *restrict g = s->gradient;
    for (long i = 0; i < s->size; i++) {
        m[i] = mu * m[i] + g[i];
        x[i] -= rate * (now * g[i] + ahead * m[i]);
    }
}

const bcop_optimizer_kind bcop_optimizer_sgd = {
    .name = "sgd",
    .help = "gradient descent with momentum on the tangent gradient",
    .options = options_table,
    .options_size = sizeof(sgd_options),
    .slots = slots,
    .step = step_on,
};
