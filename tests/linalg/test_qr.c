/* run: serial */
#include "linalg/qr.h"

#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static const int SHAPES[][2] = {{1, 1},  {2, 1},   {2, 2},   {3, 2},    {7, 7},  {9, 4},
                                {33, 1}, {40, 40}, {64, 17}, {130, 70}, {200, 3}};

/* R = Q^T A of a good Q is upper triangular with a positive diagonal, and Q R gives A back, which
 * says that the span of the first columns is that of A's for every number of columns. Q is the only
 * matrix with these three properties. */
static void check(int rows, int cols, const double *a, const double *q, double tolerance) {
    const long square = (long)cols * cols, count = (long)rows * cols;
    double *qt = oracle_doubles(count), *r = oracle_doubles(square), *qr = oracle_doubles(count);
    assert_true(oracle_defect(rows, cols, q) <= tolerance);
    oracle_transpose(rows, cols, q, qt);
    oracle_multiply(cols, cols, rows, qt, a, r);
    const double size = oracle_frobenius(count, a);
    for (int i = 0; i < cols; i++) {
        assert_true(r[(long)i * cols + i] > 0);
        for (int j = 0; j < i; j++)
            assert_true(fabs(r[(long)i * cols + j]) <= tolerance * size);
    }
    oracle_multiply(rows, cols, cols, q, r, qr);
    for (long i = 0; i < count; i++)
        assert_true(fabs(qr[i] - a[i]) <= tolerance * size);
    free(qt), free(r), free(qr);
}

static void test_qr_gaussian(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < 5; k++) {
            const int rows = SHAPES[s][0], cols = SHAPES[s][1];
            const long count = (long)rows * cols;
            double *a = oracle_doubles(count), *q = oracle_doubles(count);
            oracle_random((uint64_t)(100 * s + k), count, a);
            memcpy(q, a, (size_t)count * sizeof *q);
            assert_int_equal(bcop_qr_orthonormal(rows, cols, q), BCOP_OK);
            check(rows, cols, a, q, 1e-13);
            free(a), free(q);
        }
}

/* Q does not depend on a positive scaling of the columns, and an A that already is orthonormal
 * times a positive upper triangle gives that orthonormal matrix back. */
static void test_qr_unique(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++) {
        const int rows = SHAPES[s][0], cols = SHAPES[s][1];
        const long count = (long)rows * cols;
        double *q = oracle_doubles(count), *r = oracle_doubles((long)cols * cols);
        double *a = oracle_doubles(count);
        oracle_random_orthonormal((uint64_t)(500 + s), rows, cols, q);
        oracle_random((uint64_t)(600 + s), (long)cols * cols, r);
        for (int i = 0; i < cols; i++)
            for (int j = 0; j <= i; j++)
                r[(long)i * cols + j] = j == i ? 20 + i : 0;
        oracle_multiply(rows, cols, cols, q, r, a);
        assert_int_equal(bcop_qr_orthonormal(rows, cols, a), BCOP_OK);
        for (long i = 0; i < count; i++)
            assert_true(fabs(a[i] - q[i]) <= 1e-12);
        free(q), free(r), free(a);
    }
}

/* A negative entry alone must come out as +1 times -1: R positive means Q = sign. */
static void test_qr_sign(void **state) {
    (void)state;
    double negative = -3, column[2] = {0, -2};
    assert_int_equal(bcop_qr_orthonormal(1, 1, &negative), BCOP_OK);
    assert_true(negative == -1);
    assert_int_equal(bcop_qr_orthonormal(2, 1, column), BCOP_OK);
    assert_true(fabs(column[0]) <= 1e-15 && fabs(column[1] + 1) <= 1e-15);
}

static void test_qr_empty(void **state) {
    (void)state;
    double untouched = 7;
    assert_int_equal(bcop_qr_orthonormal(5, 0, &untouched), BCOP_OK);
    assert_int_equal(bcop_qr_orthonormal(0, 0, &untouched), BCOP_OK);
    assert_true(untouched == 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qr_gaussian),
        cmocka_unit_test(test_qr_unique),
        cmocka_unit_test(test_qr_sign),
        cmocka_unit_test(test_qr_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
