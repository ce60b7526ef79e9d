/* run: serial */
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

/* ---- no pair of points ---- */

typedef struct cloud {
    int count, in, out;
    float *x;  /* [count][in] */
    double *z; /* [count][out] */
} cloud;

static void evaluate(nn_subject *s, int count, const float *x, double *z) {
    const long in = bcop_shape_size(s->f.model->in), out = s->f.model->classes;
    for (int first = 0; first < count; first += NN_SUBJECT_RUN) {
        const int n = count - first < NN_SUBJECT_RUN ? count - first : NN_SUBJECT_RUN;
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
static double steepest_of_pairs(nn_subject *s, int count) {
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

/* An adversary: around a point, keeps the steepest direction and tries to turn it, each of
   NN_SUBJECT_RUN - 1 attempts a round. */
static double steepest_of_search(nn_subject *s, int rounds, uint64_t seed) {
    const int in = (int)bcop_shape_size(s->f.model->in), out = s->f.model->classes;
    double *direction = oracle_doubles(in), *noise = oracle_doubles((long)NN_SUBJECT_RUN * in);
    double *z = oracle_doubles((long)NN_SUBJECT_RUN * out), steepest = 0, turn = 1;
    float *x = oracle_random_floats(seed, (long)NN_SUBJECT_RUN * in, 0.5);
    for (int round = 0; round < rounds; round++) {
        oracle_random(1000 * seed + (uint64_t)round, (long)NN_SUBJECT_RUN * in, noise);
        for (int i = 1; i < NN_SUBJECT_RUN; i++) {
            double *d = noise + (long)i * in;
            for (int k = 0; k < in; k++)
                d[k] = direction[k] + turn * d[k] / sqrt(in);
            const double scale = 0.01 / oracle_frobenius(in, d);
            for (int k = 0; k < in; k++)
                x[(long)i * in + k] = (float)((double)x[k] + scale * d[k]);
        }
        evaluate(s, NN_SUBJECT_RUN, x, z);
        int best = 0;
        for (int i = 1; i < NN_SUBJECT_RUN; i++) {
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
    nn_subject s = nn_subject_open(list, in, classes, scaled ? &nn_subject_means : NULL,
                                   scaled ? &nn_subject_stds : NULL);
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
    nn_subject_close(&s);
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
    nn_subject s =
        nn_subject_open("[dense: {units: 30}, maxmin, dense: {units: 4, normalize: rows}]",
                        (bcop_shape){1, 1, 20}, 4, NULL, NULL);
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
    nn_subject_close(&s);
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
    nn_subject s = nn_subject_open("[conv: {channels: 4, kernel: 3}, maxmin, dense: {units: 3}]",
                                   (bcop_shape){3, 3, 3}, 3, &nn_subject_means, &nn_subject_stds);
    float *x = nn_subject_images(1, 27);
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
    nn_subject_close(&s);
}

static void nothing_is_certified_without_numbers(void **state) {
    (void)state;
    nn_subject s = nn_subject_open("[dense: {units: 3}]", (bcop_shape){1, 1, 3}, 3, NULL, NULL);
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
    nn_subject_close(&s);
}

/* x - mean overflows in float32 alone, however small it becomes after the division by std. */
static void pixels_far_from_the_mean(void **state) {
    (void)state;
    const bcop_reals mean = {.count = 1, .value = {-3e38}}, std = {.count = 1, .value = {1e30}};
    nn_subject s = nn_subject_open("[dense: {units: 3}]", (bcop_shape){1, 1, 3}, 3, &mean, &std);
    for (int far = 0; far < 2; far++) {
        const float near[3] = {-3e38F, 1e35F - 3e38F, -3e38F}, beyond[3] = {3e38F, -3e38F, 0};
        const double *z = bcop_certificate_forward(&s.c, 1, far ? beyond : near);
        int best = 0;
        for (int j = 1; j < 3; j++)
            best = z[j] > z[best] ? j : best;
        const bcop_verdict v = bcop_certificate_judge(&s.c, 0, z, best);
        assert_true(v.radius > 0 && (v.float_radius > 0) == !far);
    }
    nn_subject_close(&s);
}

/* What a certificate needs of a kind is not optional. */
static void every_kind_evaluates_in_float64(void **state) {
    (void)state;
    for (int i = 0; bcop_layer_kinds[i]; i++)
        assert_non_null(bcop_layer_kinds[i]->forward64);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_pair_violates),
        cmocka_unit_test(rows_give_the_pairs),
        cmocka_unit_test(pairs_have_their_own_constants),
        cmocka_unit_test(nothing_is_certified_without_numbers),
        cmocka_unit_test(pixels_far_from_the_mean),
        cmocka_unit_test(every_kind_evaluates_in_float64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
