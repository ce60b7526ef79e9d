/* run: serial */
/* The rounding bounds of certificates against the network by definition in long double. */
#include "nn_subject.h"
#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS_MAX = 8 };

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

static void examine_image(const step *steps, nn_subject *s, double *const stored[], int i, float *x,
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
    nn_subject s = nn_subject_open(list, in, classes, scaled ? &nn_subject_means : NULL,
                                   scaled ? &nn_subject_stds : NULL);
    double *stored[LAYERS_MAX] = {0};
    for (int i = 0; i < s.f.model->count; i++)
        if (s.f.model->layer[i].kind->store)
            stored[i] = nn_fixture_stored(&s.f.model->layer[i]);
    seen worst = {0};
    const long size = bcop_shape_size(in);
    for (int first = 0; first < images; first += NN_SUBJECT_RUN) {
        const int n = images - first < NN_SUBJECT_RUN ? images - first : NN_SUBJECT_RUN;
        float *x = nn_subject_images((uint64_t)first, n * size);
        const double *z = bcop_certificate_forward(&s.c, n, x);
        for (int i = 0; i < n; i++)
            examine_image(steps, &s, stored, i, x + i * size, z + (long)i * classes, &worst);
        free(x);
    }
    for (int i = 0; i < LAYERS_MAX; i++)
        free(stored[i]);
    nn_subject_close(&s);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding_of_the_mnist_network),
        cmocka_unit_test(rounding_of_a_cifar_network),
        cmocka_unit_test(rounding_of_odd_shapes),
        cmocka_unit_test(rounding_with_householder_and_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
