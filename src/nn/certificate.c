#include "nn/certificate.h"

#include <float.h>
#include <math.h>

static const double UNIT = 0x1p-53, FLOAT_UNIT = 0x1p-24;
static const double LEAST = DBL_MIN, FLOAT_LEAST = FLT_MIN;

/* A few roundings upward. */
static const double UP = 1 + 16 * DBL_EPSILON, DOWN = 1 - 16 * DBL_EPSILON;

/* Sums in float32 below this cannot overflow, nor can their squares in float64. */
static const double FLOAT_SAFE = 1e36;

/* Terms of the sum that scales a pixel, (x - mean) / std: two operations, one spare. */
enum { INPUT_TERMS = 3 };

static const bcop_rounding INPUT = {.terms = INPUT_TERMS, .absolute = 1};

/* ---- planning ---- */

static long larger(long a, long b) {
    return a > b ? a : b;
}

void bcop_certificate_plan(bcop_certificate *c, const bcop_model *model, int run,
                           bcop_arena *arena) {
    *c = (bcop_certificate){.model = model, .run = run};
    long activation = bcop_shape_size(model->in), scratch = 0, narrow = 0;
    c->bound = bcop_arena_take(arena, model->count, sizeof(double));
    c->pair = bcop_arena_take(arena, (long)model->classes * model->classes, sizeof(double));
    c->stored = bcop_arena_take(arena, model->count, sizeof *c->stored);
    c->rounding = bcop_arena_take(arena, model->count, sizeof *c->rounding);
    c->error = bcop_arena_take(arena, run, sizeof(double));
    c->float_error = bcop_arena_take(arena, run, sizeof(double));
    for (int i = 0; i < model->count; i++) {
        const bcop_layer *layer = &model->layer[i];
        const long count = bcop_layer_stored_count(layer);
        double *stored = bcop_arena_take(arena, count, sizeof(double));
        if (c->stored)
            c->stored[i] = count ? stored : NULL;
        activation = larger(activation, bcop_shape_size(layer->out));
        scratch = larger(scratch, layer->kind->scratch64 ? layer->kind->scratch64(layer, run) : 0);
        narrow = larger(narrow, count);
    }
    for (int i = 0; i < 2; i++)
        c->buffer[i] = bcop_arena_take(arena, run * activation, sizeof(double));
    c->scratch = bcop_arena_take(arena, scratch, sizeof(double));
    c->narrow = bcop_arena_floats(arena, narrow);
}

/* ---- constants ---- */

static void widen(bcop_certificate *c, int i) {
    const bcop_layer *layer = &c->model->layer[i];
    const long count = bcop_layer_stored_count(layer);
    if (count > 0)
        layer->kind->store(layer, c->narrow);
    for (long k = 0; k < count; k++)
        c->stored[i][k] = (double)c->narrow[k];
}

/* The constants of z_i - z_j. `before`: L of all layers but the last. */
static void fill_pairs(bcop_certificate *c, double before) {
    const int classes = c->model->classes, last = c->model->count - 1;
    const bcop_layer *layer = &c->model->layer[last];
    for (int i = 0; i < classes; i++)
        for (int j = 0; j < classes; j++) {
            double pair = sqrt(2) * c->lipschitz * UP;
            if (layer->kind->pair && i != j)
                pair = fmin(pair, before * layer->kind->pair(layer, c->stored[last], i, j) * UP);
            c->pair[(long)i * classes + j] = pair;
        }
}

/* With a norm of at most v + P r at a point at distance r, and an error of at most E + D r before
   it, a step of constant L leaves E' + D' r:
       D' = L D + gamma (absolute (P + D)),   E' = L E + gamma (absolute (v + E) + offset). */
static double next_error(const bcop_rounding *step, double unit, double lipschitz, double norm,
                         double error, double offset) {
    const double gamma = bcop_rounding_gamma(step->terms + 1, unit);
    return (lipschitz * error + gamma * (step->absolute * (norm + error) + offset)) * UP;
}

void bcop_certificate_prepare(bcop_certificate *c) {
    const bcop_model *m = c->model;
    c->lipschitz = bcop_model_bound(m, c->bound);
    const double scale = bcop_model_input_scale(m);
    double prefix = scale, before = scale, steepest = fmax(scale, 1);
    c->float_slope = next_error(&INPUT, FLOAT_UNIT, 1, scale, 0, 0);
    for (int i = 0; i < m->count; i++) {
        const bcop_layer *layer = &m->layer[i];
        widen(c, i);
        before = prefix;
        if (layer->kind->rounding) {
            c->rounding[i] = layer->kind->rounding(layer, c->stored[i]);
            steepest = fmax(steepest, c->rounding[i].absolute * (prefix + c->float_slope));
            c->float_slope =
                next_error(&c->rounding[i], FLOAT_UNIT, c->bound[i], prefix, c->float_slope, 0);
        } else {
            c->float_slope *= c->bound[i] * UP;
        }
        prefix *= c->bound[i] * UP;
    }
    c->float_reach = FLOAT_SAFE / steepest;
    fill_pairs(c, before);
}

/* ---- values ---- */

/* What one step adds to the errors of its n images, whose inputs as computed are x[n][size]. */
static void add_errors(bcop_certificate *c, const bcop_rounding *step, double lipschitz, int n,
                       long size, long out, const double *x) {
    /* each of the operations of an output may lose as much to underflow */
    const double lost = 2 * (step->terms + 2) * sqrt((double)out) * UP;
    for (int i = 0; i < n; i++) {
        const double norm = bcop_rounding_norm(size, x + i * size);
        const double at_most = (norm + c->error[i]) * UP; /* of the exact value */
        double *e = &c->error[i], *f = &c->float_error[i];
        const double sum = step->absolute * (at_most + *f) + step->offset;
        *f = next_error(step, FLOAT_UNIT, lipschitz, at_most, *f, step->offset);
        *f = sum < FLOAT_SAFE ? *f + lost * FLOAT_LEAST : INFINITY;
        const double gamma = bcop_rounding_gamma(step->terms + 1, UNIT);
        *e = (lipschitz * *e + gamma * (step->absolute * norm + step->offset)) * UP + lost * LEAST;
    }
}

/* The scaled input, its error relative to itself. In float32 a pixel may be too far from the mean.
 */
static void scale_input(bcop_certificate *c, int n, const float *x, double *y) {
    const bcop_model *m = c->model;
    const int channels = m->in.channels;
    const long size = bcop_shape_size(m->in);
    for (int i = 0; i < n; i++) {
        double farthest = 0;
        for (long k = i * size; k < (i + 1) * size; k++) {
            const long ch = k % channels;
            const double apart = (double)x[k] - (double)m->mean[ch];
            farthest = fmax(farthest, fabs(apart));
            y[k] = apart * (double)m->inverse_std[ch];
        }
        c->error[i] = 0;
        c->float_error[i] = farthest < FLOAT_SAFE ? 0 : INFINITY;
    }
    add_errors(c, &INPUT, 1, n, size, size, y);
}

const double *bcop_certificate_forward(bcop_certificate *c, int n, const float *x) {
    const bcop_model *m = c->model;
    int side = 0;
    scale_input(c, n, x, c->buffer[0]);
    for (int i = 0; i < m->count; i++) {
        const bcop_layer *layer = &m->layer[i];
        const long in = bcop_shape_size(layer->in), out = bcop_shape_size(layer->out);
        const double *from = c->buffer[side];
        if (layer->kind->rounding)
            add_errors(c, &c->rounding[i], c->bound[i], n, in, out, from);
        else
            for (int k = 0; k < n; k++) {
                c->error[k] *= c->bound[i] * UP;
                c->float_error[k] *= c->bound[i] * UP;
            }
        side = layer->kind->in_place ? side : 1 - side;
        layer->kind->forward64(layer, n, c->stored[i], from, c->buffer[side], c->scratch);
    }
    return c->buffer[side];
}

/* ---- judging ---- */

/* 0 for a NaN too, and below where a rounding is relative. */
static double positive(double radius) {
    return radius > LEAST ? radius : 0;
}

bcop_verdict bcop_certificate_judge(const bcop_certificate *c, int i, const double *z, int label) {
    const int classes = c->model->classes;
    const double error = sqrt(2) * c->error[i] * UP, wide = sqrt(2) * c->float_error[i] * UP;
    const double slope = sqrt(2) * c->float_slope * UP;
    bcop_verdict v = {.margin = INFINITY, .radius = INFINITY, .float_radius = c->float_reach};
    for (int j = 0; j < classes; j++) {
        if (j == label)
            continue;
        const double gap = z[label] - z[j], pair = c->pair[(long)label * classes + j];
        const double rounding = (error + fabs(gap) * UNIT) * UP;
        if (!(gap >= v.margin)) { /* a NaN is taken; it certifies nothing */
            v.margin = gap;
            v.rounding = rounding;
        }
        v.radius = fmin(v.radius, positive((gap - rounding) * DOWN / pair * DOWN));
        v.float_radius = fmin(v.float_radius, positive((gap - rounding - wide) * DOWN /
                                                       ((pair + slope) * UP) * DOWN));
    }
    v.float_rounding = (v.rounding + wide) * UP;
    return v;
}

bool bcop_certificate_covers(double radius, double eps) {
    return radius > eps * UP;
}
