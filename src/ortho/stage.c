#include "ortho/stage.h"

#include "base/rng.h"
#include "linalg/product.h"
#include "linalg/qr.h"
#include "ortho/tangent.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static long larger(long a, long b) {
    return a > b ? a : b;
}

static long scratch_for(const bcop_stage_rule *rule, const bcop_parameter *p) {
    long need = rule->optimizer->scratch(p);
    if (p->orthonormal) {
        need = larger(need, bcop_tangent_scratch(p->cols));
        need = larger(need, bcop_bjorck_scratch(p->rows, p->cols));
    }
    return need;
}

void bcop_stage_plan(bcop_stage *stage, bcop_stage_rule rule, int count,
                     bcop_parameter *const parameter[], bcop_arena *arena) {
    *stage = (bcop_stage){.rule = rule, .count = count};
    stage->entry = bcop_arena_take(arena, count, sizeof *stage->entry);
    long scratch = 0;
    for (int i = 0; i < count; i++) {
        bcop_parameter *p = parameter[i];
        bcop_stage_entry entry = {.parameter = p};
        p->value = bcop_arena_floats(arena, bcop_parameter_size(p));
        p->gradient = bcop_arena_floats(arena, bcop_parameter_size(p));
        entry.slots = rule.optimizer->slots(p, entry.slot);
        for (int s = 0; s < entry.slots; s++)
            entry.state[s] =
                bcop_arena_floats(arena, (long)entry.slot[s].rows * entry.slot[s].cols);
        if (stage->entry)
            stage->entry[i] = entry;
        scratch = larger(scratch, scratch_for(&rule, p));
    }
    stage->scratch = bcop_arena_floats(arena, scratch);
}

static bcop_status initialise(const bcop_parameter *p, uint64_t seed) {
    const long size = bcop_parameter_size(p);
    double *a = malloc((size_t)larger(size, 1) * sizeof *a);
    if (!a)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: %ld bytes for the initial %s",
                                size * (long)sizeof *a, p->name);
    bcop_rng rng = bcop_rng_open(seed, BCOP_RNG_INIT, 0, bcop_rng_name(p->name));
    for (long i = 0; i < size; i++)
        a[i] = bcop_rng_normal(&rng);
    const bcop_status status = bcop_qr_orthonormal(p->rows, p->cols, a);
    for (long i = 0; i < size; i++)
        p->value[i] = (float)a[i];
    free(a);
    return status;
}

bcop_status bcop_stage_initialise(bcop_stage *stage, uint64_t seed) {
    for (int i = 0; i < stage->count; i++) {
        const bcop_parameter *p = stage->entry[i].parameter;
        if (p->orthonormal)
            BCOP_TRY(initialise(p, seed));
        else
            memset(p->value, 0, (size_t)bcop_parameter_size(p) * sizeof(float));
    }
    return BCOP_OK;
}

bcop_status bcop_stage_update(bcop_stage *stage, double lr, double bias_lr, long step,
                              int *iterations) {
    const bcop_stage_rule *rule = &stage->rule;
    *iterations = 0;
    for (int i = 0; i < stage->count; i++) {
        const bcop_stage_entry *e = &stage->entry[i];
        bcop_parameter *p = e->parameter;
        if (p->orthonormal)
            bcop_tangent_project(p->rows, p->cols, p->value, p->gradient, stage->scratch);
        rule->optimizer->step(rule->optimizer_options, p->orthonormal ? lr : bias_lr, step, p,
                              e->state, stage->scratch);
        if (p->orthonormal) {
            int needed;
            BCOP_TRY(bcop_bjorck_retract(rule->bjorck, p->name, p->rows, p->cols, p->value,
                                         stage->scratch, &needed));
            *iterations = needed > *iterations ? needed : *iterations;
        }
    }
    return BCOP_OK;
}

double bcop_stage_defect(int rows, int cols, const float *u) {
    const long size = (long)rows * cols, square = (long)cols * cols;
    double *wide = malloc((size_t)(size + square + 1) * sizeof *wide);
    if (!wide)
        return NAN;
    double *g = wide + size, sum = 0;
    for (long i = 0; i < size; i++)
        wide[i] = (double)u[i];
    bcop_product_gram_double(rows, cols, wide, g);
    for (int i = 0; i < cols; i++)
        for (int j = i; j < cols; j++)
            sum += (j > i ? 2 : 1) * pow(g[(long)i * cols + j] - (i == j), 2);
    free(wide);
    return cols ? sqrt(sum / cols) : 0;
}
