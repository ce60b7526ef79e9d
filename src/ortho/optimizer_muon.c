/* muon: orthogonalised momentum on the manifold.
 *     M <- mu M + xi,   W = U - lr polar(M)
 * The step's spectral norm is at most lr whatever the shape, so it never leaves Bjorck's basin and
 * one step size serves all layers: steepest descent under the spectral norm (Bernstein and
 * Newhouse, arXiv 2409.20325; Jordan et al., Muon, 2024), on the Stiefel manifold. Plain parameters
 * use Adam.
 *
 * M sums gradients tangent at the U of their step. As U moves on they keep, relative to their size,
 * a part normal to it of about lr for each step passed, lr mu / (1 - mu) in all, which the
 * retraction takes out of W to first order. Projecting M again at each step costs a fifth of the
 * update and changed no result (docs/SCALING.md). */
#include "ortho/optimizer_kinds.h"
#include "ortho/polar.h"

#include <stddef.h>

typedef struct muon_options {
    double momentum;
    int iterations;
    bcop_adam_options bias;
} muon_options;

static const bcop_option options_table[] = {
    {.key = "momentum",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(muon_options, momentum),
     .max = 0.9999,
     .fallback = "0.9",
     .help = "decay of the momentum"},
    {.key = "iterations",
     .type = BCOP_OPTION_INT,
     .offset = offsetof(muon_options, iterations),
     .min = 1,
     .max = 30,
     .fallback = "2",
     .help = "quintic iterations on the momentum, towards its polar factor"},
    {.key = "beta1",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(muon_options, bias.beta1),
     .max = 0.9999,
     .fallback = "0.9",
     .help = "biases (Adam): decay of the first moment"},
    {.key = "beta2",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(muon_options, bias.beta2),
     .max = 0.999999,
     .fallback = "0.999",
     .help = "biases (Adam): decay of the second moment"},
    {.key = "epsilon",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(muon_options, bias.epsilon),
     .min = 1e-30,
     .max = 1,
     .fallback = "1.0e-8",
     .help = "biases (Adam): added to the root of the second moment"},
    {0},
};

static int slots(bool orthonormal, bcop_slot slot[]) {
    if (!orthonormal)
        return bcop_optimizer_adam.slots(orthonormal, slot);
    slot[0] = (bcop_slot){"momentum", false};
    return 1;
}

static int sums(const void *options, const bcop_rows *rows) {
    (void)options;
    return bcop_polar_sums(rows);
}

static double flops(const void *options, const bcop_rows *rows) {
    const muon_options *o = options;
    return bcop_polar_flops(rows, o->iterations);
}

static void step_on(const void *options, const bcop_step *s) {
    const muon_options *o = options;
    if (!s->rows) {
        bcop_optimizer_adam_step(&o->bias, s);
        return;
    }
    const float mu = (float)o->momentum;
    float *m = s->state[0];
    for (long i = 0; i < s->size; i++)
        m[i] = mu * m[i] + s->gradient[i];
    bcop_polar_add(o->iterations, s->rows, -(float)s->lr, m, s->value, s->scratch);
}

const bcop_optimizer_kind bcop_optimizer_muon = {
    .name = "muon",
    .help = "orthogonalised momentum: steps of spectral norm lr",
    .options = options_table,
    .options_size = sizeof(muon_options),
    .slots = slots,
    .scratch = bcop_polar_scratch,
    .sums = sums,
    .flops = flops,
    .step = step_on,
};
