/* run: serial */
#include "ortho/bjorck.h"

#include "oracle.h"
#include "whole.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static const bcop_bjorck_rule RULE = {.tolerance = 2e-6, .max_iterations = 30};

/* Square, nearly square, just not tall (3 cols - 1), just tall (3 cols), very tall, one column; and
   of several panels: 2, tall or not, 4, 8 and 16. */
static const int SHAPES[][2] = {
    {1, 1},    {2, 1},    {3, 1},     {50, 1},    {2, 2},    {5, 2},    {6, 2},   {7, 7},
    {9, 8},    {14, 5},   {15, 5},    {16, 5},    {16, 16},  {27, 9},   {26, 9},  {31, 17},
    {33, 33},  {40, 13},  {48, 16},   {64, 64},   {75, 25},  {130, 3},  {96, 32}, {65, 31},
    {200, 20}, {600, 40}, {530, 180}, {1100, 37}, {2050, 9}, {4200, 20}};

typedef struct result {
    bcop_status status;
    int iterations;
} result;

/* Retracts w in place; beyond the scratch nothing may be written. */
static result retract(bcop_bjorck_rule rule, int rows, int cols, float *w) {
    const long need = whole_bjorck_scratch(rows, cols);
    float *scratch = oracle_floats(need + 1);
    for (long i = 0; i <= need; i++)
        scratch[i] = NAN;
    scratch[need] = 54321;
    result r = {.iterations = -1};
    r.status = whole_retract(rule, "03-conv/blocks/P1", rows, cols, w, scratch, &r.iterations);
    assert_true(scratch[need] == 54321);
    free(scratch);
    return r;
}

static double defect(int rows, int cols, const float *u) {
    double *wide = oracle_doubles((long)rows * cols);
    oracle_to_double((long)rows * cols, u, wide);
    const double d = oracle_defect(rows, cols, wide) / sqrt(cols);
    free(wide);
    return d;
}

/* Retracts the float32 rounding of w and compares with that rounding's polar factor; returns the
 * iterations. `error` is allowed per root of a column, which is the norm of the answer. */
static int check_from(const double *w, int rows, int cols, double error) {
    const long count = (long)rows * cols;
    float *u = oracle_floats(count);
    double *expected = oracle_doubles(count);
    oracle_to_float(count, w, u);
    oracle_to_double(count, u, expected);
    oracle_polar(rows, cols, expected, expected);
    const result r = retract(RULE, rows, cols, u);
    if (r.status != BCOP_OK)
        fail_msg("%d x %d: %s", rows, cols, bcop_status_message());
    const double off = oracle_relative_error(count, expected, u), d = defect(rows, cols, u);
    if (!(off <= error))
        fail_msg("%d x %d: %.2e from the polar factor, %d iterations", rows, cols, off,
                 r.iterations);
    if (!(d <= RULE.tolerance))
        fail_msg("%d x %d: defect %.3e after %d iterations", rows, cols, d, r.iterations);
    free(u), free(expected);
    return r.iterations;
}

/* What training does: U less a step of spectral norm up to 0.1, and adam's of up to 0.4, of which
   tall blocks form G once as long as the singular values squared stay within 3/4 of 1. */
static void test_retract_near(void **state) {
    (void)state;
    static const double STEPS[] = {1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.2, 0.3, 0.4};
    static const int ITERATIONS[] = {1, 1, 1, 1, 1, 1, 2, 3, 4, 5};
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < COUNT(STEPS); k++) {
            const int rows = SHAPES[s][0], cols = SHAPES[s][1];
            const long count = (long)rows * cols;
            double *u = oracle_doubles(count), *e = oracle_doubles(count);
            oracle_random_orthonormal((uint64_t)(s + 1), rows, cols, u);
            oracle_random((uint64_t)(100 + 10 * s + k), count, e);
            const double norm = oracle_norm2(rows, cols, e);
            for (long i = 0; i < count; i++)
                u[i] -= STEPS[k] / norm * e[i];
            assert_in_range(check_from(u, rows, cols, 5e-6), 0, ITERATIONS[k]);
            free(u), free(e);
        }
}

/* (1 - q)^(-1/2) up to q^order: binom(2k, k) / 4^k. */
static double series(int order, double q) {
    double sum = 0, term = 1;
    for (int k = 0; k <= order; k++, term *= q * (2 * k - 1) / (2 * k))
        sum += term;
    return sum;
}

static const int ORDERS[] = {1, 2, 4};

/* What an iteration leaves of one singular value: never more than bcop_bjorck_left says, exactly
 * that where it was too small, and of several together neither, measured by ||Q||_F or by the root
 * of ||Q^2||_F. */
static void test_left(void **state) {
    (void)state;
    enum { VALUES = 6 };
    for (int k = 0; k < COUNT(ORDERS); k++) {
        const int p = ORDERS[k];
        assert_true(fabs(bcop_bjorck_left(p, 1) - 1) <= 1e-15);
        for (int i = -1000; i <= 1000; i++) {
            const double q = i / 1000.0, left = 1 - (1 - q) * pow(series(p, q), 2);
            const double bound = bcop_bjorck_left(p, fabs(q));
            assert_true(series(p, q) > 0); /* no sign is changed */
            assert_true(fabs(left) <= bound + 1e-15);
            assert_true(q < 0 || fabs(left - bound) <= 4e-15);
            assert_true(bound <= pow(fabs(q), p + 1) + 1e-15);
        }
        for (int trial = 0; trial < 2000; trial++) {
            double q[VALUES], squares = 0, fourth = 0, left = 0;
            oracle_random((uint64_t)(4000 + trial), VALUES, q);
            for (int i = 0; i < VALUES; i++) {
                q[i] = tanh(0.3 * q[i]);
                squares += pow(q[i], 2);
                fourth += pow(q[i], 4);
                left += pow(1 - (1 - q[i]) * pow(series(p, q[i]), 2), 2);
            }
            assert_true(sqrt(left) <= bcop_bjorck_left(p, sqrt(squares)) + 1e-15);
            assert_true(sqrt(left) <= bcop_bjorck_left(p, pow(fourth, 0.25)) + 1e-15);
        }
    }
}

static double series_map(double s, const void *context) {
    return s * series(*(const int *)context, 1 - s * s);
}

/* One iteration of the order that the bound asks for, against the float64 map of the spectrum, with
 * the tolerance set so that just this order ends it. */
static void test_retract_order(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < COUNT(ORDERS); k++) {
            const int rows = SHAPES[s][0], cols = SHAPES[s][1], p = ORDERS[k];
            const long count = (long)rows * cols;
            double *sv = oracle_doubles(cols), *w = oracle_doubles(count), fourth = 0;
            float *got = oracle_floats(count);
            for (int j = 0; j < cols; j++) {
                sv[j] = 1 + 0.2 * sin(1 + 2.4 * j) / sqrt(cols);
                fourth += pow(1 - sv[j] * sv[j], 4);
            }
            oracle_random_spectrum((uint64_t)(700 + s), rows, cols, sv, w);
            oracle_to_float(count, w, got);
            oracle_to_double(count, got, w);
            oracle_map_spectrum(rows, cols, w, series_map, &p, w);
            const double enough = 1.01 * bcop_bjorck_left(p, pow(fourth, 0.25));
            const bcop_bjorck_rule rule = {enough / 0.375 / sqrt(cols), 1};
            const result r = retract(rule, rows, cols, got);
            assert_int_equal(r.status, BCOP_OK);
            assert_int_equal(r.iterations, 1);
            const double off = oracle_relative_error(count, w, got);
            if (!(off <= 2e-6))
                fail_msg("%d x %d, order %d: off by %.2e", rows, cols, p, off);
            free(sv), free(w), free(got);
        }
}

/* Singular values spread evenly on a log scale from `low` to `high`. */
static int check_spectrum(uint64_t seed, int rows, int cols, double low, double high,
                          double error) {
    double *sv = oracle_doubles(cols), *w = oracle_doubles((long)rows * cols);
    for (int j = 0; j < cols; j++)
        sv[j] = high * pow(low / high, cols > 1 ? (double)j / (cols - 1) : 0);
    oracle_random_spectrum(seed, rows, cols, sv, w);
    const int iterations = check_from(w, rows, cols, error);
    free(sv), free(w);
    return iterations;
}

/* Without scaling a singular value of sqrt 3 would go to 0 and those above it to -1: the polar
 * factor with the wrong sign. */
static void test_retract_sign_trap(void **state) {
    (void)state;
    const double root = sqrt(3);
    const double ranges[][2] = {{root, root},  {root, 3},   {1.75, 1.75},
                                {2, 3},        {1.3, 1.45}, {1.4, 1.42},
                                {0.7, 1.7321}, {1, 3},      {1.4142, 1.7320}};
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < COUNT(ranges); k++)
            check_spectrum((uint64_t)(31 * s + k), SHAPES[s][0], SHAPES[s][1], ranges[k][0],
                           ranges[k][1], 1e-5);
}

static void test_retract_scaling(void **state) {
    (void)state;
    /* lowest, highest; the error of a polar factor in float32 grows with the condition number */
    static const double RANGES[][3] = {{50, 50, 1e-5},     {10, 50, 2e-5},    {1e6, 2e6, 1e-5},
                                       {1e10, 2e10, 1e-5}, {0.3, 0.6, 1e-5},  {0.05, 0.05, 1e-5},
                                       {0.01, 0.03, 1e-5}, {0.02, 1, 3e-5},   {0.05, 50, 1e-3},
                                       {0.002, 1, 3e-4},   {1e-3, 1e-3, 1e-5}};
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < COUNT(RANGES); k++)
            check_spectrum((uint64_t)(57 * s + k), SHAPES[s][0], SHAPES[s][1], RANGES[k][0],
                           RANGES[k][1], RANGES[k][2]);
}

/* A few hundred starts at every distance from the manifold, among them many whose defect is next to
 * the tolerance and next to where the predicted stop decides. */
static void test_retract_defect(void **state) {
    (void)state;
    for (int k = 0; k < 600; k++) {
        const int s = k % COUNT(SHAPES), rows = SHAPES[s][0], cols = SHAPES[s][1];
        const long count = (long)rows * cols;
        double *u = oracle_doubles(count), *e = oracle_doubles(count);
        oracle_random_orthonormal((uint64_t)(3000 + k), rows, cols, u);
        oracle_random((uint64_t)(5000 + k), count, e);
        const double norm = oracle_norm2(rows, cols, e), size = pow(10, -6.3 + 6.3 * k / 600);
        for (long i = 0; i < count; i++)
            u[i] += size / norm * e[i];
        float *w = oracle_floats(count);
        oracle_to_float(count, u, w);
        const result r = retract(RULE, rows, cols, w);
        assert_int_equal(r.status, BCOP_OK);
        const double d = defect(rows, cols, w);
        if (!(d <= RULE.tolerance))
            fail_msg("start %d, %d x %d, step %.2e: defect %.3e after %d", k, rows, cols, size, d,
                     r.iterations);
        free(u), free(e), free(w);
    }
}

/* A looser tolerance is kept too, with fewer iterations, and also when it is met at once. */
static void test_retract_tolerance(void **state) {
    (void)state;
    static const double TOLERANCES[] = {1e-5, 1e-3, 0.1, 0.5, 2};
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < COUNT(TOLERANCES); k++) {
            const int rows = SHAPES[s][0], cols = SHAPES[s][1];
            const long count = (long)rows * cols;
            double *u = oracle_doubles(count), *e = oracle_doubles(count);
            float *w = oracle_floats(count);
            oracle_random_orthonormal((uint64_t)(800 + s), rows, cols, u);
            oracle_random((uint64_t)(900 + s), count, e);
            const double norm = oracle_norm2(rows, cols, e);
            for (long i = 0; i < count; i++)
                w[i] = (float)(u[i] + 0.3 / norm * e[i]);
            const bcop_bjorck_rule rule = {.tolerance = TOLERANCES[k], .max_iterations = 30};
            const result r = retract(rule, rows, cols, w);
            assert_int_equal(r.status, BCOP_OK);
            assert_true(defect(rows, cols, w) <= TOLERANCES[k]);
            assert_in_range(r.iterations, 0, 5);
            free(u), free(e), free(w);
        }
}

static void expect_diverged(int rows, int cols, float *w) {
    const result r = retract(RULE, rows, cols, w);
    assert_int_equal(r.status, BCOP_DIVERGED);
    assert_non_null(strstr(bcop_status_message(), "03-conv/blocks/P1"));
    assert_in_range(r.iterations, 0, RULE.max_iterations);
}

static void test_retract_not_finite(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < COUNT(bad); k++)
            for (int where = 0; where < 3; where++) {
                const int rows = SHAPES[s][0], cols = SHAPES[s][1];
                const long count = (long)rows * cols;
                double *u = oracle_doubles(count);
                float *w = oracle_floats(count);
                oracle_random_orthonormal((uint64_t)(s + 1), rows, cols, u);
                oracle_to_float(count, u, w);
                w[where == 0 ? 0 : where == 1 ? count / 2 : count - 1] = bad[k];
                expect_diverged(rows, cols, w);
                free(u), free(w);
            }
}

/* A matrix without a polar factor. */
static void test_retract_rank_deficient(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++) {
        const int rows = SHAPES[s][0], cols = SHAPES[s][1];
        const long count = (long)rows * cols;
        double *u = oracle_doubles(count);
        float *w = oracle_floats(count);
        expect_diverged(rows, cols, w); /* zero */
        oracle_random_orthonormal((uint64_t)(s + 1), rows, cols, u);
        oracle_to_float(count, u, w);
        for (int i = 0; i < rows; i++) /* a zero column */
            w[(long)i * cols + cols / 2] = 0;
        expect_diverged(rows, cols, w);
        if (cols > 1) {
            oracle_to_float(count, u, w);
            for (int i = 0; i < rows; i++) /* two equal columns */
                w[(long)i * cols] = w[(long)i * cols + cols - 1];
            expect_diverged(rows, cols, w);
        }
        free(u), free(w);
    }
}

static void test_retract_cap(void **state) {
    (void)state;
    const bcop_bjorck_rule rule = {.tolerance = 2e-6, .max_iterations = 4};
    float square[4] = {0.01f, 0, 0, 1}, tall[6] = {0, 0.01f, 0, 0, 0, 0};
    assert_int_equal(retract(rule, 2, 2, square).status, BCOP_DIVERGED);
    assert_int_equal(retract(rule, 6, 1, tall).status, BCOP_DIVERGED);
    assert_non_null(strstr(bcop_status_message(), "03-conv/blocks/P1"));
}

static void test_retract_no_columns(void **state) {
    (void)state;
    float untouched = 7;
    const result r = retract(RULE, 5, 0, &untouched);
    assert_int_equal(r.status, BCOP_OK);
    assert_int_equal(r.iterations, 0);
    assert_true(untouched == 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_left),
        cmocka_unit_test(test_retract_near),
        cmocka_unit_test(test_retract_order),
        cmocka_unit_test(test_retract_sign_trap),
        cmocka_unit_test(test_retract_scaling),
        cmocka_unit_test(test_retract_defect),
        cmocka_unit_test(test_retract_tolerance),
        cmocka_unit_test(test_retract_not_finite),
        cmocka_unit_test(test_retract_rank_deficient),
        cmocka_unit_test(test_retract_cap),
        cmocka_unit_test(test_retract_no_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
