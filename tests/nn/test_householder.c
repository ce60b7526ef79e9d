/* run: serial */
#include "nn_fixture.h"
#include "nn_oracle.h"
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

enum { IMAGES = 3 };

static const bcop_shape shape = {3, 2, 10};
enum { VALUES = 60, PAIRS = 5 };

/* `angles`: NULL for the fixture's own, which are standard normals. */
static nn_fixture open_activation(const float *angles, uint64_t seed) {
    nn_fixture f = nn_fixture_open(
        &(nn_setting){.list = "[householder]", .in = shape, .classes = VALUES, .run = IMAGES},
        seed);
    assert_int_equal(f.model->parameters, 1);
    assert_string_equal(f.model->parameter[0]->name, "00-householder/angle");
    assert_int_equal(bcop_parameter_size(f.model->parameter[0]), PAIRS);
    assert_false(f.model->parameter[0]->orthonormal);
    if (angles)
        memcpy(f.model->parameter[0]->value, angles, PAIRS * sizeof *angles);
    return f;
}

/* The angles of the definition. */
static void angles_of(const nn_fixture *f, double *angle) {
    oracle_to_double(PAIRS, f->model->parameter[0]->value, angle);
    for (int i = 0; i < PAIRS; i++)
        angle[i] += acos(-1) / 2;
}

/* It begins as MaxMin, bit for bit, with ties too. */
static void at_angle_zero_it_is_maxmin(void **state) {
    (void)state;
    static const float zero[PAIRS] = {0};
    nn_fixture a = open_activation(zero, 1);
    nn_fixture b = nn_fixture_open(
        &(nn_setting){.list = "[maxmin]", .in = shape, .classes = VALUES, .run = IMAGES}, 1);
    float *x = oracle_random_floats(1, IMAGES * VALUES, 1);
    float *gy = oracle_random_floats(2, IMAGES * VALUES, 1);
    float ga[IMAGES * VALUES], gb[IMAGES * VALUES];
    for (int i = 0; i < VALUES; i++)
        x[i] = roundf(x[i]);
    float *ya = nn_fixture_forward(&a, IMAGES, x), *yb = nn_fixture_forward(&b, IMAGES, x);
    nn_fixture_backward(&a, IMAGES, gy, ga);
    nn_fixture_backward(&b, IMAGES, gy, gb);
    for (int i = 0; i < IMAGES * VALUES; i++)
        assert_true(ya[i] == yb[i] && ga[i] == gb[i]);
    free(ya);
    free(yb);
    free(x);
    free(gy);
    nn_fixture_close(&a);
    nn_fixture_close(&b);
}

/* ---- against float64 ---- */

typedef struct inner_context {
    const double *angle, *x, *gy; /* [PAIRS]; of one image, [channels][height][width] */
} inner_context;

static double inner(const double *angle, const double *x, const double *gy) {
    double y[VALUES], sum = 0;
    nn_oracle_householder(shape, angle, x, y);
    for (int i = 0; i < VALUES; i++)
        sum += gy[i] * y[i];
    return sum;
}

static double inner_of_x(const double *x, const void *context) {
    const inner_context *c = context;
    return inner(c->angle, x, c->gy);
}

static double inner_of_angle(const double *angle, const void *context) {
    const inner_context *c = context;
    return inner(angle, c->x, c->gy);
}

/* Adds the gradient of the angles. False when a pair is too near to its line. */
static bool check_image(const nn_fixture *f, const float *x, const float *y, const float *gy,
                        const float *gx, double *slope) {
    double in[VALUES], out[VALUES], nhwc[VALUES], g[VALUES], angle[PAIRS], more[PAIRS];
    angles_of(f, angle);
    nn_oracle_chw(shape, x, in);
    nn_oracle_chw(shape, gy, g);
    if (nn_oracle_householder(shape, angle, in, out) < 1e-4)
        return false;
    nn_oracle_nhwc(shape, out, nhwc);
    for (int i = 0; i < VALUES; i++)
        assert_true(fabs((double)y[i] - nhwc[i]) <= 2e-6);
    inner_context c = {angle, in, g};
    oracle_gradient(inner_of_x, &c, VALUES, in, 2e-5, out);
    nn_oracle_nhwc(shape, out, nhwc);
    for (int i = 0; i < VALUES; i++)
        assert_true(fabs((double)gx[i] - nhwc[i]) <= 2e-6);
    oracle_gradient(inner_of_angle, &c, PAIRS, angle, 1e-6, more);
    for (int i = 0; i < PAIRS; i++)
        slope[i] += more[i];
    return true;
}

static void equals_the_definition(void **state) {
    (void)state;
    int checked = 0;
    for (uint64_t seed = 1; checked < 20; seed++) {
        nn_fixture f = open_activation(NULL, seed);
        float *x = oracle_random_floats(10 * seed, IMAGES * VALUES, 1);
        float *gy = oracle_random_floats(10 * seed + 1, IMAGES * VALUES, 1), gx[IMAGES * VALUES];
        float *y = nn_fixture_forward(&f, IMAGES, x);
        nn_fixture_backward(&f, IMAGES, gy, gx);
        double slope[PAIRS] = {0};
        bool good = true;
        for (int i = 0; i < IMAGES; i++)
            good &= check_image(&f, x + i * VALUES, y + i * VALUES, gy + i * VALUES,
                                gx + i * VALUES, slope);
        for (int i = 0; good && i < PAIRS; i++)
            assert_true(fabs((double)f.model->parameter[0]->gradient[i] - slope[i]) <= 2e-5);
        checked += good;
        free(x);
        free(y);
        free(gy);
        nn_fixture_close(&f);
        assert_true(seed < 60);
    }
}

static double distance(const float *a, const float *b) {
    double sum = 0;
    for (int i = 0; i < VALUES; i++)
        sum = hypot(sum, (double)a[i] - (double)b[i]);
    return sum;
}

/* No two points come apart, whatever the angles (large ones too); norms are kept. */
static void it_is_1_lipschitz(void **state) {
    (void)state;
    static const float zeros[VALUES] = {0};
    for (uint64_t seed = 1; seed <= 300; seed++) {
        float *angles = oracle_random_floats(seed, PAIRS, seed % 3 ? 1 : 100);
        nn_fixture f = open_activation(angles, 1);
        float *x = oracle_random_floats(10 * seed, 2L * VALUES, 1);
        for (int i = 0; i < VALUES && seed % 2; i++) /* near ones lie on both sides of a line */
            x[VALUES + i] = x[i] + 0.01F * x[VALUES + i];
        float *y = nn_fixture_forward(&f, 2, x);
        assert_true(distance(y, y + VALUES) <= distance(x, x + VALUES) * (1 + 1e-6) + 1e-6);
        assert_true(fabs(distance(y, zeros) / distance(x, zeros) - 1) <= 1e-6);
        free(y);
        free(x);
        free(angles);
        nn_fixture_close(&f);
    }
}

static void a_nan_is_not_lost(void **state) {
    (void)state;
    nn_fixture f = open_activation(NULL, 1);
    for (int at = 0; at < VALUES; at++) {
        float *x = oracle_random_floats((uint64_t)at, VALUES, 1);
        x[at] = NAN;
        float *y = nn_fixture_forward(&f, 1, x);
        int nans = 0;
        for (int i = 0; i < VALUES; i++)
            nans += isnan(y[i]) != 0;
        assert_true(nans >= 1);
        free(y);
        free(x);
    }
    nn_fixture_close(&f);
}

static void channels_must_divide_into_pairs(void **state) {
    (void)state;
    nn_fixture f;
    assert_int_equal(
        nn_fixture_create(&(nn_setting){.list = "[householder]", .in = {2, 2, 5}, .classes = 20},
                          &f),
        78);
    assert_string_equal(bcop_status_message(),
                        "test.yaml:2:9: model[0]: 5 channels do not divide into pairs");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_angle_zero_it_is_maxmin),
        cmocka_unit_test(equals_the_definition),
        cmocka_unit_test(it_is_1_lipschitz),
        cmocka_unit_test(a_nan_is_not_lost),
        cmocka_unit_test(channels_must_divide_into_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
