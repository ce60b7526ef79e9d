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

static float *random_floats(uint64_t seed, long count) {
    double *value = oracle_doubles(count);
    float *rounded = oracle_floats(count);
    oracle_random(seed, count, value);
    oracle_to_float(count, value, rounded);
    free(value);
    return rounded;
}

static nn_fixture open_activation(const char *list, bcop_shape shape) {
    return nn_fixture_open(
        &(nn_setting){
            .list = list, .in = shape, .classes = (int)bcop_shape_size(shape), .run = IMAGES},
        1);
}

static nn_fixture open_groupsort(int size, bcop_shape shape) {
    char list[64];
    snprintf(list, sizeof list, "[groupsort: {size: %d}]", size);
    return open_activation(list, shape);
}

/* Channel i of one pixel with i + C/2, written out. */
static void maxmin_pairs_i_with_i_plus_half(void **state) {
    (void)state;
    static const float x[6] = {1, -2, 5, 3, -4, 5}, gy[6] = {10, 20, 30, 40, 50, 60};
    static const float max_min[6] = {3, -2, 5, 1, -4, 5}, back[6] = {40, 20, 30, 10, 50, 60};
    nn_fixture f =
        nn_fixture_open(&(nn_setting){.list = "[maxmin]", .in = {1, 1, 6}, .classes = 6}, 1);
    float *y = nn_fixture_forward(&f, 1, x), gx[6];
    nn_fixture_backward(&f, 1, gy, gx);
    assert_memory_equal(y, max_min, sizeof max_min);
    assert_memory_equal(gx, back, sizeof back);
    free(y);
    nn_fixture_close(&f);
}

/* Groups are channels i, i + C/3, i + 2C/3. */
static void groupsort_by_hand(void **state) {
    (void)state;
    static const float x[6] = {1, 9, 3, 8, 2, 7}, gy[6] = {10, 20, 30, 40, 50, 60};
    static const float sorted[6] = {3, 9, 2, 8, 1, 7}, back[6] = {50, 20, 10, 40, 30, 60};
    nn_fixture f = nn_fixture_open(
        &(nn_setting){.list = "[groupsort: {size: 3}]", .in = {1, 1, 6}, .classes = 6}, 1);
    float *y = nn_fixture_forward(&f, 1, x), gx[6];
    nn_fixture_backward(&f, 1, gy, gx);
    assert_memory_equal(y, sorted, sizeof sorted);
    assert_memory_equal(gx, back, sizeof back);
    free(y);
    nn_fixture_close(&f);
}

/* ---- against float64 ---- */

typedef struct inner_context {
    bcop_shape shape;
    int size;
    const double *gy;
} inner_context;

/* <gy, f(x)> of one image, [channels][height][width] */
static double inner(const double *x, const void *context) {
    const inner_context *c = context;
    const long values = bcop_shape_size(c->shape);
    double *y = oracle_doubles(values), sum = 0;
    nn_oracle_groupsort(c->shape, c->size, x, y);
    for (long i = 0; i < values; i++)
        sum += c->gy[i] * y[i];
    free(y);
    return sum;
}

/* The oracle's map moves values, so output and gradient must be the same numbers; central
   differences of a map that is linear within `gap` are exact but for float64 rounding. */
static void check_image(bcop_shape shape, int size, const float *x, const float *y, const float *gy,
                        const float *gx) {
    const long values = bcop_shape_size(shape);
    double *in = oracle_doubles(values), *out = oracle_doubles(values);
    double *nhwc = oracle_doubles(values), *slope = oracle_doubles(values);
    nn_oracle_chw(shape, x, in);
    const double gap = nn_oracle_groupsort(shape, size, in, out);
    assert_true(gap > 1e-5);
    nn_oracle_nhwc(shape, out, nhwc);
    for (long i = 0; i < values; i++)
        assert_true((double)y[i] == nhwc[i]);
    nn_oracle_chw(shape, gy, slope);
    oracle_gradient(inner, &(inner_context){shape, size, slope}, values, in, gap / 4, out);
    nn_oracle_nhwc(shape, out, nhwc);
    for (long i = 0; i < values; i++)
        assert_true(fabs((double)gx[i] - nhwc[i]) <= 1e-6);
    free(in);
    free(out);
    free(nhwc);
    free(slope);
}

static void check_activation(nn_fixture *f, bcop_shape shape, int size) {
    const long values = bcop_shape_size(shape);
    float *x = random_floats((uint64_t)(10 * size), IMAGES * values);
    float *gy = random_floats((uint64_t)(10 * size + 1), IMAGES * values);
    float *y = nn_fixture_forward(f, IMAGES, x), *gx = oracle_floats(IMAGES * values);
    nn_fixture_backward(f, IMAGES, gy, gx);
    assert_true(bcop_shape_equal(f->layer->out, shape));
    for (long i = 0; i < IMAGES; i++)
        check_image(shape, size, x + i * values, y + i * values, gy + i * values, gx + i * values);
    free(gx);
    free(y);
    free(gy);
    free(x);
}

static void groupsort_equals_sorting(void **state) {
    (void)state;
    for (int size = 2; size <= 6; size++)
        for (int groups = 1; groups <= 3; groups += 2) {
            const bcop_shape shape = {2, 3, size * groups};
            nn_fixture f = open_groupsort(size, shape);
            check_activation(&f, shape, size);
            nn_fixture_close(&f);
        }
}

static void maxmin_equals_sorting_pairs(void **state) {
    (void)state;
    for (int channels = 2; channels <= 70; channels += channels < 40 ? 2 : 10) {
        const bcop_shape shape = {3, 2, channels};
        nn_fixture f = open_activation("[maxmin]", shape);
        check_activation(&f, shape, 2);
        nn_fixture_close(&f);
    }
}

/* Ties too: a third of the values are equal. */
static void groupsort_of_two_is_maxmin(void **state) {
    (void)state;
    const bcop_shape shape = {3, 3, 38};
    const long count = IMAGES * bcop_shape_size(shape);
    nn_fixture a = open_activation("[maxmin: {}]", shape), b = open_groupsort(2, shape);
    float *x = random_floats(3, count), *gy = random_floats(4, count);
    for (long i = 0; i < count; i++)
        x[i] = roundf(x[i]);
    float *ya = nn_fixture_forward(&a, IMAGES, x), *yb = nn_fixture_forward(&b, IMAGES, x);
    float *ga = oracle_floats(count), *gb = oracle_floats(count);
    nn_fixture_backward(&a, IMAGES, gy, ga);
    nn_fixture_backward(&b, IMAGES, gy, gb);
    assert_memory_equal(ya, yb, (size_t)count * sizeof *ya);
    assert_memory_equal(ga, gb, (size_t)count * sizeof *ga);
    free(ga);
    free(gb);
    free(ya);
    free(yb);
    free(x);
    free(gy);
    nn_fixture_close(&a);
    nn_fixture_close(&b);
}

static void expect_nan_survives(nn_fixture *f, int channels) {
    for (int at = 0; at < channels; at++) {
        float *x = random_floats((uint64_t)at, channels);
        x[at] = NAN;
        float *y = nn_fixture_forward(f, 1, x);
        int nans = 0;
        for (int i = 0; i < channels; i++)
            nans += isnan(y[i]) != 0;
        assert_int_equal(nans, 1);
        free(y);
        free(x);
    }
}

/* A NaN must come out again, so that the loss sees it. */
static void a_nan_is_not_lost(void **state) {
    (void)state;
    const bcop_shape shape = {1, 1, 18};
    nn_fixture a = open_activation("[maxmin]", shape), b = open_groupsort(3, shape);
    expect_nan_survives(&a, 18);
    expect_nan_survives(&b, 18);
    nn_fixture_close(&a);
    nn_fixture_close(&b);
}

static void channels_must_divide_into_groups(void **state) {
    (void)state;
    nn_fixture f;
    assert_int_equal(
        nn_fixture_create(&(nn_setting){.list = "[maxmin]", .in = {2, 2, 5}, .classes = 20}, &f),
        78);
    assert_string_equal(bcop_status_message(),
                        "test.yaml:2:9: model[0]: 5 channels do not divide into groups of 2");
    assert_int_equal(
        nn_fixture_create(
            &(nn_setting){.list = "[groupsort: {size: 4}]", .in = {1, 1, 6}, .classes = 6}, &f),
        78);
    assert_string_equal(
        bcop_status_message(),
        "test.yaml:2:9: model[0].groupsort: 6 channels do not divide into groups of 4");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maxmin_pairs_i_with_i_plus_half),
        cmocka_unit_test(groupsort_by_hand),
        cmocka_unit_test(groupsort_equals_sorting),
        cmocka_unit_test(maxmin_equals_sorting_pairs),
        cmocka_unit_test(groupsort_of_two_is_maxmin),
        cmocka_unit_test(a_nan_is_not_lost),
        cmocka_unit_test(channels_must_divide_into_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
