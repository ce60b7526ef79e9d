/* run: serial */
#include "nn_fixture.h"
#include "nn_oracle.h"
#include "oracle.h"

#include "nn/certificate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RUN = 32, LAYERS_MAX = 8 };

static const bcop_reals means = {.count = 3, .value = {0.5, 0.25, 0.4}};
static const bcop_reals stds = {.count = 3, .value = {0.5, 0.25, 0.75}};

/* ---- networks and their certificates ---- */

typedef struct subject {
    nn_fixture f;
    bcop_certificate c;
    bcop_arena arena;
} subject;

static void open_certificate(subject *s) {
    s->arena = (bcop_arena){.name = "certificate"};
    bcop_certificate_plan(&s->c, s->f.model, RUN, &s->arena);
    assert_int_equal(bcop_arena_reserve(&s->arena), BCOP_OK);
    bcop_certificate_plan(&s->c, s->f.model, RUN, &s->arena);
    bcop_certificate_prepare(&s->c);
}

static subject open_subject(const char *list, bcop_shape in, int classes, bool scaled) {
    subject s = {0};
    s.f = nn_fixture_open(&(nn_setting){.list = list,
                                        .in = in,
                                        .classes = classes,
                                        .mean = scaled ? &means : NULL,
                                        .std = scaled ? &stds : NULL,
                                        .run = RUN,
                                        .evaluating = true},
                          7);
    open_certificate(&s);
    return s;
}

static void close_subject(subject *s) {
    bcop_arena_free(&s->arena);
    nn_fixture_close(&s->f);
}

/* Pixels as bytes / 255 with an uneven distribution, as images have. */
static float *random_images(uint64_t seed, long count) {
    double *noise = oracle_doubles(count);
    oracle_random(seed, count, noise);
    float *x = oracle_floats(count);
    for (long i = 0; i < count; i++)
        x[i] = (float)fmin(255, floor(fabs(noise[i]) * 100)) / 255;
    free(noise);
    return x;
}

/* ---- the network in long double, by definition ---- */

typedef long double wide;

static wide *wides(long count) {
    wide *x = calloc((size_t)count, sizeof *x);
    assert_non_null(x);
    return x;
}

/* From the layer's options as the configuration has them: convolutions as nn_oracle_conv_apply. */
typedef struct step {
    char kind; /* c: conv, d: dense, s: sort, h: householder */
    int channels, k, stride, zero, size;
} step;

/* Adds one tap (dy, dx) of all channels; x at the first sub-pixel of the pixel it reads. */
static wide tap_sum(const bcop_shape in, int s, int taps, const double *kernel, const wide *x) {
    wide sum = 0;
    for (int ch = 0; ch < in.channels; ch++)
        for (int sub = 0; sub < s * s; sub++, kernel += taps)
            sum += (wide)*kernel * x[(sub / s * in.width + sub % s) * in.channels + ch];
    return sum;
}

static void wide_conv(const step *t, const bcop_layer *layer, const double *stored, const wide *x,
                      wide *out) {
    const bcop_shape in = layer->in;
    const int s = t->stride, k = t->k, h = in.height / s, w = in.width / s;
    const long depth = (long)in.channels * s * s * k * k;
    const bcop_parameter *bias = bcop_layer_bias(layer);
    for (int y = 0; y < h; y++)
        for (int at = 0; at < w; at++, out += t->channels) {
            for (int o = 0; o < t->channels; o++)
                out[o] = bias ? (wide)bias->value[o] : 0;
            for (int tap = 0; tap < k * k; tap++) {
                int py = y + tap / k - k / 2, px = at + tap % k - k / 2;
                if (t->zero && (py < 0 || py >= h || px < 0 || px >= w))
                    continue;
                py = (py % h + h) % h;
                px = (px % w + w) % w;
                const wide *from = x + ((long)py * s * in.width + px * s) * in.channels;
                for (int o = 0; o < t->channels; o++)
                    out[o] += tap_sum(in, s, k * k, stored + o * depth + tap, from);
            }
        }
}

static void wide_dense(const bcop_layer *layer, const double *stored, const wide *x, wide *out) {
    const bcop_shape in = layer->in;
    const long size = bcop_shape_size(in), pixels = (long)in.height * in.width;
    const bcop_parameter *bias = bcop_layer_bias(layer);
    for (int o = 0; o < layer->out.channels; o++) {
        out[o] = bias ? (wide)bias->value[o] : 0;
        for (int c = 0; c < in.channels; c++)
            for (long p = 0; p < pixels; p++)
                out[o] += (wide)stored[o * size + c * pixels + p] * x[p * in.channels + c];
    }
}

static int descending(const void *a, const void *b) {
    const wide x = *(const wide *)a, y = *(const wide *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void wide_sort(const step *t, const bcop_layer *layer, const wide *x, wide *out) {
    const int channels = layer->in.channels, groups = channels / t->size;
    for (long p = 0; p < bcop_shape_size(layer->in); p += channels)
        for (int g = 0; g < groups; g++) {
            wide value[64];
            for (int j = 0; j < t->size; j++)
                value[j] = x[p + g + j * groups];
            qsort(value, (size_t)t->size, sizeof *value, descending);
            for (int j = 0; j < t->size; j++)
                out[p + g + j * groups] = value[j];
        }
}

/* The component n along the normal of a pair's line changes its sign where it is positive. */
static void wide_householder(const bcop_layer *layer, const wide *x, wide *out) {
    const int channels = layer->in.channels, half = channels / 2;
    for (long k = 0; k < bcop_shape_size(layer->in); k++) {
        const int i = (int)(k % channels);
        if (i >= half)
            continue;
        const wide t = ((wide)layer->parameter[0].value[i] + acosl(0)) / 2;
        const wide n = fmaxl(0, x[k + half] * cosl(t) - x[k] * sinl(t));
        out[k] = x[k] + 2 * n * sinl(t);
        out[k + half] = x[k + half] - 2 * n * cosl(t);
    }
}

/* z[classes] of one image. */
static void wide_forward(const step *steps, const bcop_model *m, double *const stored[],
                         const float *image, wide *z) {
    const long size = bcop_shape_size(m->in);
    wide *x = wides(size);
    for (long i = 0; i < size; i++) {
        const long ch = i % m->in.channels;
        x[i] = ((wide)image[i] - (wide)m->mean[ch]) * (wide)m->inverse_std[ch];
    }
    for (int i = 0; i < m->count; i++) {
        wide *y = wides(bcop_shape_size(m->layer[i].out));
        if (steps[i].kind == 'c')
            wide_conv(&steps[i], &m->layer[i], stored[i], x, y);
        else if (steps[i].kind == 'd')
            wide_dense(&m->layer[i], stored[i], x, y);
        else if (steps[i].kind == 'h')
            wide_householder(&m->layer[i], x, y);
        else
            wide_sort(&steps[i], &m->layer[i], x, y);
        free(x);
        x = y;
    }
    memcpy(z, x, (size_t)m->classes * sizeof *z);
    free(x);
}

/* ---- rounding ---- */

/* What was seen of the errors of a network's images, as fractions of their bounds. */
typedef struct seen {
    double error, float_error; /* largest */
    double rounding;           /* largest allowance of a margin */
    long lost;                 /* images whose margin is right but within the allowance */
} seen;

static double apart(int classes, const wide *exact, const double *z, const float *z32) {
    wide sum = 0;
    for (int j = 0; j < classes; j++) {
        const wide d = exact[j] - (z ? (wide)z[j] : (wide)z32[j]);
        sum += d * d;
    }
    return (double)sqrtl(sum);
}

/* A point at a distance of about r, rounded to float32; returns the distance. */
static double move(uint64_t seed, long size, double r, float *x) {
    double *noise = oracle_doubles(size), square = 0;
    oracle_random(seed, size, noise);
    const double norm = oracle_frobenius(size, noise);
    for (long i = 0; i < size; i++) {
        const float to = (float)((double)x[i] + r * noise[i] / norm);
        square += pow((double)to - (double)x[i], 2);
        x[i] = to;
    }
    free(noise);
    return sqrt(square) * (1 + 1e-12);
}

static void examine_image(const step *steps, subject *s, double *const stored[], int i, float *x,
                          const double *z, seen *worst) {
    const bcop_model *m = s->f.model;
    const long size = bcop_shape_size(m->in);
    wide *exact = wides(m->classes);
    wide_forward(steps, m, stored, x, exact);
    const double ratio = apart(m->classes, exact, z, NULL) / s->c.error[i];
    assert_true(ratio <= 1);
    worst->error = fmax(worst->error, ratio);
    int best = 0;
    for (int j = 1; j < m->classes; j++)
        best = exact[j] > exact[best] ? j : best;
    const bcop_verdict v = bcop_certificate_judge(&s->c, i, z, best);
    worst->rounding = fmax(worst->rounding, v.rounding);
    worst->lost += !(v.radius > 0);
    /* the float32 pass at the image, and for one in eight away from it */
    for (int far = 0; far <= (i % 8 == 0); far++) {
        const double r = far ? move((uint64_t)i, size, 0.5, x) : 0;
        if (far)
            wide_forward(steps, m, stored, x, exact);
        const float *z32 = bcop_model_forward(s->f.model, 1, 0, x);
        const double allowed = s->c.float_error[i] + s->c.float_slope * r;
        const double part = apart(m->classes, exact, NULL, z32) / allowed;
        assert_true(part <= 1);
        worst->float_error = fmax(worst->float_error, part);
    }
    free(exact);
}

static seen examine(const char *list, const step *steps, bcop_shape in, int classes, bool scaled,
                    int images) {
    subject s = open_subject(list, in, classes, scaled);
    double *stored[LAYERS_MAX] = {0};
    for (int i = 0; i < s.f.model->count; i++)
        if (s.f.model->layer[i].kind->store)
            stored[i] = nn_fixture_stored(&s.f.model->layer[i]);
    seen worst = {0};
    const long size = bcop_shape_size(in);
    for (int first = 0; first < images; first += RUN) {
        const int n = images - first < RUN ? images - first : RUN;
        float *x = random_images((uint64_t)first, n * size);
        const double *z = bcop_certificate_forward(&s.c, n, x);
        for (int i = 0; i < n; i++)
            examine_image(steps, &s, stored, i, x + i * size, z + (long)i * classes, &worst);
        free(x);
    }
    for (int i = 0; i < LAYERS_MAX; i++)
        free(stored[i]);
    close_subject(&s);
    print_message("%d images: errors up to %.2g of the bound, float32 %.2g; rounding %.2g\n",
                  images, worst.error, worst.float_error, worst.rounding);
    assert_true(worst.error > 1e-5 && worst.float_error > 1e-5); /* they are compared at all */
    assert_int_equal(worst.lost, 0);
    return worst;
}

static void rounding_of_the_mnist_network(void **state) {
    (void)state;
    static const step steps[] = {{'c', 16, 2, 2, 0, 0}, {.kind = 's', .size = 2},
                                 {'c', 32, 2, 2, 0, 0}, {.kind = 's', .size = 2},
                                 {.kind = 'd'},         {.kind = 's', .size = 2},
                                 {.kind = 'd'}};
    const seen worst =
        examine("[conv: {channels: 16, kernel: 4, stride: 2}, maxmin, conv: {channels: 32, kernel: "
                "4, stride: 2}, maxmin, dense: {units: 100}, maxmin, dense: {units: 10}]",
                steps, (bcop_shape){28, 28, 1}, 10, false, 1000);
    assert_true(worst.rounding < 1e-9);
}

static void rounding_of_a_cifar_network(void **state) {
    (void)state;
    static const step steps[] = {{'c', 16, 2, 2, 0, 0}, {.kind = 's', .size = 4},
                                 {'c', 32, 2, 2, 1, 0}, {.kind = 's', .size = 2},
                                 {.kind = 'd'},         {.kind = 's', .size = 2},
                                 {.kind = 'd'}};
    const seen worst = examine(
        "[conv: {channels: 16, kernel: 4, stride: 2}, groupsort: {size: 4}, conv: {channels: 32, "
        "kernel: 4, stride: 2, pad: zero}, maxmin, dense: {units: 100}, maxmin, dense: {units: 10}]",
        steps, (bcop_shape){32, 32, 3}, 10, true, 1000);
    assert_true(worst.rounding < 1e-9);
}

static void rounding_of_odd_shapes(void **state) {
    (void)state;
    static const step steps[] = {{'c', 7, 5, 1, 0, 0},
                                 {'c', 3, 3, 1, 1, 0},
                                 {'c', 12, 1, 3, 0, 0},
                                 {.kind = 's', .size = 6},
                                 {.kind = 'd', .channels = 1},
                                 {.kind = 's', .size = 5},
                                 {.kind = 'd'}};
    examine("[conv: {channels: 7, kernel: 5}, conv: {channels: 3, kernel: 3, pad: zero, bias: "
            "false}, conv: {channels: 12, kernel: 3, stride: 3}, groupsort: {size: 6}, dense: "
            "{units: 45}, groupsort: {size: 5}, dense: {units: 4}]",
            steps, (bcop_shape){3, 6, 3}, 4, true, 320);
}

static void rounding_with_householder_and_rows(void **state) {
    (void)state;
    static const step steps[] = {
        {'c', 16, 2, 2, 0, 0}, {.kind = 'h'}, {.kind = 'd'}, {.kind = 'h'}, {.kind = 'd'}};
    examine("[conv: {channels: 16, kernel: 4, stride: 2}, householder, dense: {units: 40}, "
            "householder, dense: {units: 6, normalize: rows}]",
            steps, (bcop_shape){8, 8, 3}, 6, true, 1000);
}

/* ---- no pair of points ---- */

typedef struct cloud {
    int count, in, out;
    float *x;  /* [count][in] */
    double *z; /* [count][out] */
} cloud;

static void evaluate(subject *s, int count, const float *x, double *z) {
    const long in = bcop_shape_size(s->f.model->in), out = s->f.model->classes;
    for (int first = 0; first < count; first += RUN) {
        const int n = count - first < RUN ? count - first : RUN;
        memcpy(z + first * out, bcop_certificate_forward(&s->c, n, x + first * in),
               (size_t)(n * out) * sizeof *z);
    }
}

static double slope(int in, int out, const float *a, const float *b, const double *za,
                    const double *zb) {
    double dx = 0, dz = 0;
    for (int i = 0; i < in; i++)
        dx += pow((double)a[i] - (double)b[i], 2);
    for (int i = 0; i < out; i++)
        dz += pow(za[i] - zb[i], 2);
    return sqrt(dz / dx);
}

/* Random points: bunches of eight at distances from 1 down to 1e-4; every pair of them. */
static double steepest_of_pairs(subject *s, int count) {
    const int in = (int)bcop_shape_size(s->f.model->in), out = s->f.model->classes;
    double *noise = oracle_doubles((long)count * in), *z = oracle_doubles((long)count * out);
    float *x = oracle_floats((long)count * in);
    oracle_random(99, (long)count * in, noise);
    for (int i = 0; i < count; i++)
        for (int k = 0; k < in; k++) {
            const double near = pow(10, -(i / 8 % 5)) * noise[(long)i * in + k];
            x[(long)i * in + k] =
                (float)(i % 8 ? (double)x[(long)(i - i % 8) * in + k] + near : near);
        }
    evaluate(s, count, x, z);
    double steepest = 0;
    for (long i = 0; i < count; i++)
        for (long j = 0; j < i; j++)
            steepest =
                fmax(steepest, slope(in, out, x + i * in, x + j * in, z + i * out, z + j * out));
    free(noise);
    free(x);
    free(z);
    return steepest;
}

/* An adversary: around a point, keeps the steepest direction and tries to turn it, each of RUN - 1
   attempts a round. */
static double steepest_of_search(subject *s, int rounds, uint64_t seed) {
    const int in = (int)bcop_shape_size(s->f.model->in), out = s->f.model->classes;
    double *direction = oracle_doubles(in), *noise = oracle_doubles((long)RUN * in);
    double *z = oracle_doubles((long)RUN * out), steepest = 0, turn = 1;
    float *x = oracle_random_floats(seed, (long)RUN * in, 0.5);
    for (int round = 0; round < rounds; round++) {
        oracle_random(1000 * seed + (uint64_t)round, (long)RUN * in, noise);
        for (int i = 1; i < RUN; i++) {
            double *d = noise + (long)i * in;
            for (int k = 0; k < in; k++)
                d[k] = direction[k] + turn * d[k] / sqrt(in);
            const double scale = 0.01 / oracle_frobenius(in, d);
            for (int k = 0; k < in; k++)
                x[(long)i * in + k] = (float)((double)x[k] + scale * d[k]);
        }
        evaluate(s, RUN, x, z);
        int best = 0;
        for (int i = 1; i < RUN; i++) {
            const double ratio = slope(in, out, x, x + (long)i * in, z, z + (long)i * out);
            if (ratio > steepest) {
                steepest = ratio;
                best = i;
            }
        }
        turn = best ? turn : fmax(turn * 0.7, 1e-3);
        for (int k = 0; best && k < in; k++)
            direction[k] = ((double)x[(long)best * in + k] - (double)x[k]) / 0.01;
    }
    free(direction);
    free(noise);
    free(x);
    free(z);
    return steepest;
}

/* 4 x 832 x 831 / 2 random pairs and 4 x 4 x 100 x 31 of the search: above 10^6. */
static void try_pairs(const char *list, bcop_shape in, int classes, bool scaled, float scale,
                      double least) {
    subject s = open_subject(list, in, classes, scaled);
    for (int i = 0; i < s.f.model->count && scale != 1; i++) {
        bcop_layer *layer = &s.f.model->layer[i];
        const long count = bcop_layer_stored_count(layer);
        float *stored = oracle_floats(count);
        if (layer->kind->store) {
            layer->kind->store(layer, stored);
            for (long k = 0; k < count; k++)
                stored[k] *= scale;
            layer->kind->load(layer, stored);
        }
        free(stored);
    }
    bcop_certificate_prepare(&s.c);
    const double pairs = steepest_of_pairs(&s, 832);
    double search = 0;
    for (uint64_t seed = 1; seed <= 4; seed++)
        search = fmax(search, steepest_of_search(&s, 100, seed));
    print_message("L %.9g, random pairs up to %.9g, search up to %.9g\n", s.c.lipschitz, pairs,
                  search);
    assert_true(pairs <= s.c.lipschitz && search <= s.c.lipschitz);
    assert_true(fmax(pairs, search) >= least * s.c.lipschitz);
    close_subject(&s);
}

static void no_pair_violates(void **state) {
    (void)state;
    /* keeps norms: every pair on one side of all kinks attains the constant */
    try_pairs(
        "[conv: {channels: 4, kernel: 3}, maxmin, conv: {channels: 16, kernel: 4, stride: 2}, "
        "maxmin, dense: {units: 64}]",
        (bcop_shape){4, 4, 2}, 64, false, 1, 1 - 2e-5);
    try_pairs("[conv: {channels: 6, kernel: 2, pad: zero}, groupsort: {size: 3}, conv: {channels: "
              "4, kernel: 5}, maxmin, dense: {units: 20}, maxmin, dense: {units: 5}]",
              (bcop_shape){4, 3, 3}, 5, true, 1, 0.1);
    try_pairs("[dense: {units: 30}, maxmin, dense: {units: 40}, groupsort: {size: 4}, dense: "
              "{units: 40}]",
              (bcop_shape){2, 2, 5}, 40, false, 1.3F, 0.5);
    try_pairs("[dense: {units: 30}, householder, dense: {units: 40}, householder, dense: {units: "
              "40, normalize: rows}]",
              (bcop_shape){2, 2, 5}, 40, false, 1, 0.3);
}

/* ---- verdicts ---- */

/* With normalised rows a pair's constant is the distance of its rows times what comes before, and
   the radius is never less than with sqrt(2) L. */
static void rows_give_the_pairs(void **state) {
    (void)state;
    subject s = open_subject("[dense: {units: 30}, maxmin, dense: {units: 4, normalize: rows}]",
                             (bcop_shape){1, 1, 20}, 4, false);
    double *row = nn_fixture_stored(&s.f.model->layer[2]);
    const double before = bcop_model_input_scale(s.f.model) * s.c.bound[0];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            double square = 0;
            for (int k = 0; k < 30; k++)
                square += pow(row[30 * i + k] - row[30 * j + k], 2);
            const double pair = s.c.pair[4 * i + j], exact = sqrt(square) * before;
            if (i == j)
                continue;
            assert_true(pair >= exact && pair <= exact * (1 + 1e-12));
            assert_true(pair < sqrt(2) * s.c.lipschitz);
        }
    free(row);
    close_subject(&s);
}

static double three_quarters(const bcop_layer *layer, const double *stored, int i, int j) {
    (void)layer;
    (void)stored;
    return i + j == 1 ? 0.75 : 100;
}

static bool close_to(double a, double b) {
    return fabs(a - b) <= 1e-6 * fabs(b);
}

/* Two classes as near, but the last layer knows that one pair is flatter. */
static void pairs_have_their_own_constants(void **state) {
    (void)state;
    subject s = open_subject("[conv: {channels: 4, kernel: 3}, maxmin, dense: {units: 3}]",
                             (bcop_shape){3, 3, 3}, 3, true);
    float *x = random_images(1, 27);
    bcop_certificate_forward(&s.c, 1, x);
    const double z[] = {2, 1, 1.2}, l = s.c.lipschitz;
    const double e = s.c.error[0];
    assert_true(l >= 4 && l < 4.001); /* 1 / 0.25 */
    bcop_verdict v = bcop_certificate_judge(&s.c, 0, z, 0);
    assert_true(v.margin == 0.8 && close_to(v.radius, 0.8 / (sqrt(2) * l)));
    assert_true(v.radius * sqrt(2) * l < 0.8 - sqrt(2) * e);
    assert_true(close_to(v.rounding, sqrt(2) * e + 0.8 * 0x1p-53) && v.float_rounding > v.rounding);
    assert_true(v.float_radius > 0 && v.float_radius < v.radius);
    v = bcop_certificate_judge(&s.c, 0, z, 1);
    assert_true(v.margin == -1 && v.radius == 0 && v.float_radius == 0);
    bcop_layer *last = &s.f.model->layer[2];
    bcop_layer_kind kind = *last->kind;
    kind.pair = three_quarters;
    last->kind = &kind;
    bcop_certificate_prepare(&s.c);
    v = bcop_certificate_judge(&s.c, 0, z, 0);
    /* 1 / (0.75 * 4) against 0.8 / (sqrt(2) 4); sqrt(2) L stands where the layer knows no better */
    assert_true(close_to(v.radius, 0.8 / (sqrt(2) * l)));
    const double even[] = {2, 1, -9};
    v = bcop_certificate_judge(&s.c, 0, even, 0);
    assert_true(fabs(v.radius - 1 / (0.75 * l)) < 1e-5);
    free(x);
    close_subject(&s);
}

static void nothing_is_certified_without_numbers(void **state) {
    (void)state;
    subject s = open_subject("[dense: {units: 3}]", (bcop_shape){1, 1, 3}, 3, false);
    float x[3] = {1, 2, NAN};
    const double *z = bcop_certificate_forward(&s.c, 1, x);
    bcop_verdict v = bcop_certificate_judge(&s.c, 0, z, 0);
    assert_true(v.radius == 0 && v.float_radius == 0);
    const double nan_last[] = {5, 1, NAN}, nan_label[] = {NAN, 1, 2};
    x[2] = 3;
    bcop_certificate_forward(&s.c, 1, x);
    assert_true(bcop_certificate_judge(&s.c, 0, nan_last, 0).radius == 0);
    assert_true(bcop_certificate_judge(&s.c, 0, nan_label, 0).radius == 0);
    /* Sums of float32 may overflow: f is certified, the float32 pass is not. */
    float far[3] = {3e38F, -3e38F, 3e38F};
    z = bcop_certificate_forward(&s.c, 1, far);
    int best = 0;
    for (int j = 1; j < 3; j++)
        best = z[j] > z[best] ? j : best;
    v = bcop_certificate_judge(&s.c, 0, z, best);
    assert_true(v.radius > 1e30 && v.float_radius == 0);
    assert_false(bcop_certificate_covers(0, 0));
    assert_true(bcop_certificate_covers(0.1, 0.0999999) && !bcop_certificate_covers(0.1, 0.1));
    close_subject(&s);
}

/* What a certificate needs of a kind is not optional. */
static void every_kind_evaluates_in_float64(void **state) {
    (void)state;
    for (int i = 0; bcop_layer_kinds[i]; i++)
        assert_non_null(bcop_layer_kinds[i]->forward64);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding_of_the_mnist_network),
        cmocka_unit_test(rounding_of_a_cifar_network),
        cmocka_unit_test(rounding_of_odd_shapes),
        cmocka_unit_test(rounding_with_householder_and_rows),
        cmocka_unit_test(no_pair_violates),
        cmocka_unit_test(rows_give_the_pairs),
        cmocka_unit_test(pairs_have_their_own_constants),
        cmocka_unit_test(nothing_is_certified_without_numbers),
        cmocka_unit_test(every_kind_evaluates_in_float64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
