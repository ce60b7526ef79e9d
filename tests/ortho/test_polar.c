/* run: serial */
#include "ortho/polar.h"

#include "oracle.h"
#include "quintic.h"
#include "whole.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* Square, nearly square, just not tall (3 cols - 1), just tall (3 cols), very tall, one column; and
   of several panels: 2, tall or not, 4, 8 and 16. */
static const int SHAPES[][2] = {
    {1, 1},    {2, 1},    {3, 1},     {50, 1},    {2, 2},    {5, 2},    {6, 2},   {7, 7},
    {9, 8},    {14, 5},   {15, 5},    {16, 5},    {16, 16},  {27, 9},   {26, 9},  {31, 17},
    {33, 33},  {40, 13},  {48, 16},   {64, 64},   {75, 25},  {130, 3},  {96, 32}, {65, 31},
    {200, 20}, {600, 40}, {530, 180}, {1100, 37}, {2050, 9}, {4200, 20}};

static double evaluate(const double q[3], double x) {
    return x * (q[0] + x * x * (q[1] + x * x * q[2]));
}

/* The coefficients are what they are said to be, and [0, 1] stays in [0, 1]: the extremes are at
 * its ends and where the slope is 0. */
static void test_polar_quintics(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++) {
        const double *q = bcop_polar_quintic(i);
        double found[3];
        quintic_find(i, found);
        for (int k = 0; k < 3; k++)
            assert_true(fabs(q[k] - found[k]) <= 1e-8);
        assert_true(fabs(evaluate(q, 1) - 1) <= 1e-8);
        const double inside = 9 * q[1] * q[1] - 20 * q[0] * q[2];
        assert_true(inside >= 0);
        for (int sign = -1; sign <= 1; sign += 2) {
            const double x = sqrt((-3 * q[1] + sign * sqrt(inside)) / (10 * q[2]));
            assert_true(x > 0);
            if (x <= 1)
                assert_true(evaluate(q, x) >= 0 && evaluate(q, x) <= 1 + 1e-8);
        }
    }
    /* the header's figures */
    const quintic_rule two = {1, 2};
    assert_true(fabs(quintic_map(1e-6, &two) / 1e-6 - 11.2) <= 0.05);
    for (double x = 0.1; x <= 1; x += 1e-4)
        assert_true(quintic_map(x, &two) >= 0.88);
}

/* Both the map, and what people rely on: nothing above 1, and 2 quintics bring everything from a
 * third of the largest up to 0.88. */
static void check_polar(uint64_t seed, int rows, int cols, double largest, int iterations) {
    const long count = (long)rows * cols;
    double *sv = oracle_doubles(cols), *m = oracle_doubles(count);
    float *got = oracle_floats(count);
    float *scratch = oracle_floats(whole_polar_scratch(rows, cols));
    for (int j = 0; j < cols; j++)
        sv[j] = largest * pow(3, cols > 1 ? -(double)j / (cols - 1) : 0);
    oracle_random_spectrum(seed, rows, cols, sv, m);
    oracle_to_float(count, m, got);
    oracle_to_double(count, got, m);
    const quintic_rule rule = {quintic_scale(rows, cols, m), iterations};
    oracle_map_spectrum(rows, cols, m, quintic_map, &rule, m);
    whole_polar(iterations, rows, cols, got, scratch);
    const double off = oracle_relative_error(count, m, got);
    if (!(off <= 5e-6))
        fail_msg("%d x %d, %d iterations: off by %.2e", rows, cols, iterations, off);
    oracle_to_double(count, got, m);
    oracle_singular_values(rows, cols, m, sv);
    assert_true(sv[0] <= 1 + 1e-5);
    if (iterations >= 2 && cols <= 16)
        assert_true(sv[cols - 1] >= 0.88);
    free(sv), free(m), free(got), free(scratch);
}

static void test_polar_spectrum(void **state) {
    (void)state;
    static const double SIZES[] = {1e-12, 1e-3, 1, 1.6, 2.5, 1e5};
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < COUNT(SIZES); k++)
            for (int iterations = 1; iterations <= 5; iterations++)
                check_polar((uint64_t)(s + 40 * k), SHAPES[s][0], SHAPES[s][1], SIZES[k],
                            iterations);
}

static void test_polar_zero(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++) {
        const int rows = SHAPES[s][0], cols = SHAPES[s][1];
        float *m = oracle_floats((long)rows * cols);
        float *scratch = oracle_floats(whole_polar_scratch(rows, cols));
        whole_polar(3, rows, cols, m, scratch);
        for (long i = 0; i < (long)rows * cols; i++)
            assert_true(m[i] == 0);
        free(m), free(scratch);
    }
    whole_polar(3, 5, 0, NULL, NULL);
}

/* A momentum without gradients shrinks through every size down to zero. Where its squares leave the
 * range of float32 it may stay as it is, but it must not blow up. */
static void test_polar_tiny(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int power = -46; power < -10; power++) {
            const int rows = SHAPES[s][0], cols = SHAPES[s][1];
            const long count = (long)rows * cols;
            double *m = oracle_doubles(count);
            float *got = oracle_floats(count);
            float *scratch = oracle_floats(whole_polar_scratch(rows, cols));
            oracle_random_orthonormal((uint64_t)(s + 1), rows, cols, m);
            for (long i = 0; i < count; i++)
                got[i] = (float)(m[i] * pow(10, power));
            whole_polar(3, rows, cols, got, scratch);
            oracle_to_double(count, got, m);
            for (long i = 0; i < count; i++)
                assert_true(isfinite(m[i]));
            assert_true(oracle_norm2(rows, cols, m) <= 1 + 1e-5);
            free(m), free(got), free(scratch);
        }
}

/* What is not finite must not come out as numbers, so that the retraction sees it. */
static void test_polar_not_finite(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY};
    for (int k = 0; k < COUNT(bad); k++) {
        float m[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, scratch[64] = {0};
        assert_true(whole_polar_scratch(6, 2) <= COUNT(scratch));
        m[5] = bad[k];
        whole_polar(3, 6, 2, m, scratch);
        int lost = 0;
        for (int i = 0; i < 12; i++)
            lost += !isfinite(m[i]);
        assert_true(lost > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_polar_quintics),   cmocka_unit_test(test_polar_spectrum),
        cmocka_unit_test(test_polar_zero),       cmocka_unit_test(test_polar_tiny),
        cmocka_unit_test(test_polar_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
