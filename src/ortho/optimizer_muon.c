/* muon: orthogonalised momentum on the manifold.
 *     M <- mu M + xi,   T = M - U sym(U^T M),   W = U - lr polar(T)
 * The step's spectral norm is at most lr whatever the shape, so it never leaves Bjorck's basin and
 * one step size serves all layers: steepest descent under the spectral norm (Bernstein and
 * Newhouse, arXiv 2409.20325; Jordan et al., Muon, 2024), on the Stiefel manifold. Plain parameters
 * use Adam. */
#include "ortho/bjorck.h"
#include "ortho/optimizer_kinds.h"
#include "ortho/tangent.h"

#include <stddef.h>
#include <string.h>

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
     .fallback = "6",
     .help = "Bjorck iterations on the momentum"},
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

static int slots(const bcop_parameter *p, bcop_slot slot[]) {
    if (!p->orthonormal)
        return bcop_optimizer_adam.slots(p, slot);
    slot[0] = (bcop_slot){"momentum", p->rows, p->cols};
    return 1;
}

static long scratch_size(const bcop_parameter *p) {
    const long polar = bcop_bjorck_scratch(p->rows, p->cols);
    const long tangent = bcop_tangent_scratch(p->cols);
    return p->orthonormal ? (polar > tangent ? polar : tangent) : 0;
}

static void step_on(const void *options, double lr, long step, bcop_parameter *p,
                    float *const state[], float *scratch) {
    const muon_options *o = options;
    if (!p->orthonormal) {
        bcop_optimizer_adam_step(&o->bias, lr, step, p, state, scratch);
        return;
    }
    const long size = bcop_parameter_size(p);
    const float mu = (float)o->momentum, rate = (float)lr;
    float *m = state[0], *t = p->gradient;
    for (long i = 0; i < size; i++)
        m[i] = mu * m[i] + t[i];
    memcpy(t, m, (size_t)size * sizeof(float));
    bcop_tangent_project(p->rows, p->cols, p->value, t, scratch);
    bcop_bjorck_polar(o->iterations, p->rows, p->cols, t, scratch);
    for (long i = 0; i < size; i++)
        p->value[i] -= rate * t[i];
}

const bcop_optimizer_kind bcop_optimizer_muon = {
    .name = "muon",
    .help = "orthogonalised momentum: steps of spectral norm lr",
    .options = options_table,
    .options_size = sizeof(muon_options),
    .slots = slots,
    .scratch = scratch_size,
    .step = step_on,
};
