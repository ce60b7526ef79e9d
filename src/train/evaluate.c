#include "train/evaluate.h"

#include "nn/pairs.h"

#include <float.h>
#include <math.h>
#include <string.h>

void bcop_evaluate_plan(bcop_evaluator *e, bcop_arena *arena) {
    const long count = bcop_dataset_count(e->dataset);
    e->x = bcop_arena_floats(arena, e->model->group * bcop_shape_size(e->model->in));
    e->margin = bcop_arena_take(arena, 2 * count, sizeof(double));
    e->value = e->margin ? e->margin + count : NULL;
}

double bcop_evaluate_threshold(double constant, double eps) {
    /* three roundings, each at most half an ulp, and sqrt(2) itself */
    return sqrt(2) * constant * eps * (1 + 4 * DBL_EPSILON);
}

/* Margins and losses of the examples first .. first + n - 1. */
static void run_images(bcop_evaluator *e, long first, int n) {
    const long size = bcop_shape_size(e->model->in);
    const int classes = e->model->classes;
    for (int i = 0; i < n; i++)
        bcop_dataset_read(e->dataset, first + i, e->x + i * size);
    const float *z = bcop_model_forward(e->model, n, 0, e->x);
    for (int i = 0; i < n; i++, z += classes) {
        const int label = bcop_dataset_label(e->dataset, first + i);
        e->margin[first + i] = bcop_pairs_margin(e->model, z, label);
        e->value[first + i] =
            bcop_pairs_loss(e->model, 0, e->loss, e->loss_options, z, label, 1, NULL);
    }
}

static double share_above(const double *margin, long count, double threshold) {
    long above = 0;
    for (long i = 0; i < count; i++)
        above += margin[i] > threshold;
    return (double)above / (double)count;
}

void bcop_evaluate_run(bcop_evaluator *e, const bcop_reals *eps, bcop_evaluation *result,
                       void (*work)(void *context, bool long_work), void *context) {
    const long count = bcop_dataset_count(e->dataset), run = e->model->group;
    memset(e->margin, 0, 2 * (size_t)count * sizeof(double));
    for (long i = e->comm->rank; i * run < count; i += e->comm->size) {
        const long left = count - i * run;
        run_images(e, i * run, (int)(left < run ? left : run));
        if (work)
            work(context, false);
    }
    bcop_comm_merge(e->comm, e->margin, 2 * count);
    if (work)
        work(context, true);
    *result = (bcop_evaluation){.examples = count, .lipschitz = bcop_model_bound(e->model, NULL)};
    result->constant = bcop_pairs_constant(e->model, result->lipschitz);
    for (long i = 0; i < count; i++)
        result->loss += e->value[i] / (double)count;
    result->clean = share_above(e->margin, count, 0);
    for (int i = 0; i < eps->count; i++)
        result->certified[i] =
            share_above(e->margin, count, bcop_evaluate_threshold(result->constant, eps->value[i]));
}
