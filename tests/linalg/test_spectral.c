/* run: serial */
#include "linalg/spectral.h"

#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static const int SHAPES[][2] = {{1, 1},   {2, 1},   {9, 1},  {2, 2},   {3, 3},   {5, 4},   {8, 8},
                                {12, 3},  {16, 16}, {17, 9}, {31, 31}, {40, 13}, {64, 40}, {90, 5},
                                {128, 1}, {75, 75}, {6, 5},  {33, 32}, {20, 19}, {100, 2}};

enum { REPEATS = 4 };

static double bound_of(int rows, int cols, const double *a, double error) {
    double *work = oracle_doubles(bcop_spectral_work(cols));
    const double bound = bcop_spectral_bound(rows, cols, a, error, work);
    free(work);
    return bound;
}

static double bound_of_complex(int rows, int cols, const double complex *a, double error) {
    double *work = oracle_doubles(bcop_spectral_work(cols));
    const double bound = bcop_spectral_bound_complex(rows, cols, a, error, work);
    free(work);
    return bound;
}

/* Nothing is allowed below: a bound that is smaller than the norm by one unit is no bound. */
static void between(double bound, double norm, double highest, int rows, int cols) {
    if (!(bound >= norm))
        fail_msg("%d x %d: the bound %.17g is below the norm %.17g", rows, cols, bound, norm);
    if (!(bound <= highest))
        fail_msg("%d x %d: the bound %.17g is above %.17g, norm %.17g", rows, cols, bound, highest,
                 norm);
}

/* The factor by which the bound may exceed the norm of a matrix that is not near-orthonormal. */
static double loosest(int cols) {
    return pow(cols, 1.0 / 16) * (1 + 1e-9);
}

static void round_to_float(long count, double *x) {
    for (long i = 0; i < count; i++)
        x[i] = (double)(float)x[i];
}

/* x[count] += size * Gaussian */
static void perturb(uint64_t seed, double size, long count, double *x) {
    double *e = oracle_doubles(count);
    oracle_random(seed, count, e);
    for (long i = 0; i < count; i++)
        x[i] += size * e[i];
    free(e);
}

static void check_real(uint64_t seed, int rows, int cols) {
    const long count = (long)rows * cols;
    double *a = oracle_doubles(count);

    oracle_random_orthonormal(seed, rows, cols, a);
    double norm = oracle_norm2(rows, cols, a);
    between(bound_of(rows, cols, a, 0), norm, norm * (1 + 1e-7), rows, cols);

    round_to_float(count, a);
    norm = oracle_norm2(rows, cols, a);
    between(bound_of(rows, cols, a, 0), norm, norm * (1 + 1e-5), rows, cols);

    /* sqrt(1 + ||G - I||_F) with ||G - I||_F at most 3 ||E||_F, up to the switch at 1e-3 and
     * beyond. */
    const double sizes[] = {1e-5, 1e-4, 1e-3, 1e-2, 0.1};
    const double size = sizes[seed % 5];
    perturb(seed + 1, size / sqrt((double)count), count, a);
    norm = oracle_norm2(rows, cols, a);
    between(bound_of(rows, cols, a, 0), norm, norm * (1 + 3 * size), rows, cols);

    oracle_random(seed + 2, count, a);
    norm = oracle_norm2(rows, cols, a);
    between(bound_of(rows, cols, a, 0), norm, norm * loosest(cols), rows, cols);
    free(a);
}

static void test_bound_real(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < REPEATS; k++)
            check_real((uint64_t)(100 * s + 13 * k), SHAPES[s][0], SHAPES[s][1]);
}

static void check_complex(uint64_t seed, int rows, int cols) {
    const long count = (long)rows * cols;
    double complex *a = oracle_complexes(count);

    oracle_random_orthonormal_complex(seed, rows, cols, a);
    double norm = oracle_norm2_complex(rows, cols, a);
    between(bound_of_complex(rows, cols, a, 0), norm, norm * (1 + 1e-7), rows, cols);

    for (long i = 0; i < count; i++)
        a[i] = (double)(float)creal(a[i]) + (double)(float)cimag(a[i]) * I;
    norm = oracle_norm2_complex(rows, cols, a);
    between(bound_of_complex(rows, cols, a, 0), norm, norm * (1 + 1e-5), rows, cols);

    double *e = oracle_doubles(2 * count);
    oracle_random(seed + 1, 2 * count, e);
    const double size = seed % 2 ? 1e-4 : 1e-2;
    for (long i = 0; i < count; i++)
        a[i] += size / sqrt(2.0 * (double)count) * (e[2 * i] + e[2 * i + 1] * I);
    norm = oracle_norm2_complex(rows, cols, a);
    between(bound_of_complex(rows, cols, a, 0), norm, norm * (1 + 3 * size), rows, cols);

    for (long i = 0; i < count; i++)
        a[i] = e[2 * i] + e[2 * i + 1] * I;
    norm = oracle_norm2_complex(rows, cols, a);
    between(bound_of_complex(rows, cols, a, 0), norm, norm * loosest(cols), rows, cols);
    free(e), free(a);
}

static void test_bound_complex(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < REPEATS; k++)
            check_complex((uint64_t)(7000 + 100 * s + 13 * k), SHAPES[s][0], SHAPES[s][1]);
}

/* The worst spectra: all singular values equal makes the bound as loose as it gets, a single one
 * (rank 1) makes it tight, and both at sizes far from 1. */
static void test_bound_extreme_spectra(void **state) {
    (void)state;
    static const double SCALES[] = {1e-60, 1e-45, 1e-38, 1e-30, 1e-10, 0.5, 3, 1e10, 1e30};
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < COUNT(SCALES); k++) {
            const int rows = SHAPES[s][0], cols = SHAPES[s][1];
            double *sv = oracle_doubles(cols), *a = oracle_doubles((long)rows * cols);
            for (int flat = 0; flat <= 1; flat++) {
                for (int j = 0; j < cols; j++)
                    sv[j] = j == 0 || flat ? SCALES[k] : 0;
                oracle_random_spectrum((uint64_t)(50 + s), rows, cols, sv, a);
                const double norm = oracle_norm2(rows, cols, a);
                /* High powers underflow for tiny norms, where a small absolute term is due, and
                   overflow for huge ones, where sqrt(||G||_F) is left. A flat spectrum also shows
                   most of the rounding that the bound counts. */
                double highest = norm * (flat ? loosest(cols) : 1) * (1 + 1e-9) + 1e-17;
                if (SCALES[k] > 1e18)
                    highest = norm * pow(cols, 0.25) * (1 + 1e-9);
                between(bound_of(rows, cols, a, 0), norm, highest, rows, cols);
            }
            free(sv), free(a);
        }
}

/* diag(z, ...) with |z| = s: the norm is known without an SVD. */
static void test_bound_complex_diagonal(void **state) {
    (void)state;
    static const double SCALES[] = {1e-60, 1e-38, 0.25, 1, 1.5, 40};
    for (int n = 1; n <= 6; n++)
        for (int k = 0; k < COUNT(SCALES); k++) {
            double complex *a = oracle_complexes((long)n * n);
            for (int i = 0; i < n; i++) /* 3-4-5, so that the modulus is exact */
                a[(long)i * n + i] = SCALES[k] * (i % 2 ? 0.75 + I : 1 - 0.75 * I);
            const double norm = 1.25 * SCALES[k];
            between(bound_of_complex(n, n, a, 0), norm * (1 - 1e-15), norm * loosest(n) + 1e-17, n,
                    n);
            free(a);
        }
}

/* a += error E with E of Frobenius norm 1: random, or the worst there is, that of the largest
 * singular pair. */
static void add_error(uint64_t seed, int worst, double error, int rows, int cols, double *a) {
    const long count = (long)rows * cols;
    double *e = oracle_doubles(count);
    if (worst) {
        double *u = oracle_doubles(count), *sv = oracle_doubles(cols);
        double *vt = oracle_doubles((long)cols * cols);
        oracle_svd(rows, cols, a, u, sv, vt);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < cols; j++)
                e[(long)i * cols + j] = u[(long)i * cols] * vt[j];
        free(u), free(sv), free(vt);
    } else {
        oracle_random(seed, count, e);
    }
    const double size = oracle_frobenius(count, e);
    for (long i = 0; i < count; i++)
        a[i] += error * e[i] / size;
    free(e);
}

static void test_bound_error(void **state) {
    (void)state;
    static const double ERRORS[] = {1e-9, 1e-4, 0.03, 1, 20};
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < COUNT(ERRORS); k++)
            for (int kind = 0; kind < 4; kind++) {
                const int rows = SHAPES[s][0], cols = SHAPES[s][1];
                const uint64_t seed = (uint64_t)(40 * s + k);
                double *a = oracle_doubles((long)rows * cols);
                if (kind % 2)
                    oracle_random(seed, (long)rows * cols, a);
                else
                    oracle_random_orthonormal(seed, rows, cols, a);
                const double bound = bound_of(rows, cols, a, ERRORS[k]);
                const double highest = bound_of(rows, cols, a, 0) + ERRORS[k];
                add_error(seed + 9, kind / 2, ERRORS[k], rows, cols, a);
                between(bound, oracle_norm2(rows, cols, a) * (1 - 1e-15), highest * (1 + 1e-12),
                        rows, cols);
                free(a);
            }
}

static void test_bound_error_complex(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++) {
        const int rows = SHAPES[s][0], cols = SHAPES[s][1];
        const long count = (long)rows * cols;
        double complex *a = oracle_complexes(count);
        double *e = oracle_doubles(2 * count);
        oracle_random_orthonormal_complex((uint64_t)s, rows, cols, a);
        oracle_random((uint64_t)(900 + s), 2 * count, e);
        const double size = oracle_frobenius(2 * count, e), error = 0.2;
        const double bound = bound_of_complex(rows, cols, a, error);
        for (long i = 0; i < count; i++)
            a[i] += error / size * (e[2 * i] + e[2 * i + 1] * I);
        between(bound, oracle_norm2_complex(rows, cols, a), 1 + error + 1e-7, rows, cols);
        /* The worst error points along A itself. */
        oracle_random_orthonormal_complex((uint64_t)s, rows, 1, a);
        const double along = bound_of_complex(rows, 1, a, error);
        assert_true(along >= (1 + error) * (1 - 1e-15) && along <= 1 + error + 1e-7);
        free(a), free(e);
    }
}

/* The rounding that the bound counts must not swallow it at the sizes of real layers. */
static void test_bound_large(void **state) {
    (void)state;
    const int rows = 300, cols = 200;
    const long count = (long)rows * cols;
    double *a = oracle_doubles(count);
    oracle_random_orthonormal(77, rows, cols, a);
    round_to_float(count, a);
    double norm = oracle_norm2(rows, cols, a);
    between(bound_of(rows, cols, a, 0), norm, norm * (1 + 1e-5), rows, cols);
    for (long i = 0; i < count; i++)
        a[i] *= 2;
    between(bound_of(rows, cols, a, 0), 2 * norm, 2 * norm * loosest(cols) * (1 + 1e-9), rows,
            cols);
    oracle_random(78, count, a);
    norm = oracle_norm2(rows, cols, a);
    between(bound_of(rows, cols, a, 0), norm, norm * loosest(cols), rows, cols);
    free(a);
}

/* A column of 2^20 equal numbers c: the norm is 1024 c exactly, while the sum of squares drifts up
 * or down by much more than one rounding. */
static void test_bound_long_sum(void **state) {
    (void)state;
    const int rows = 1 << 20;
    double *a = oracle_doubles(rows), *c = oracle_doubles(16);
    oracle_random(88, 16, c);
    for (int k = 0; k < 16; k++) {
        for (int i = 0; i < rows; i++)
            a[i] = c[k];
        const double norm = 1024 * fabs(c[k]);
        between(bound_of(rows, 1, a, 0), norm, norm * (1 + 1e-9), rows, 1);
    }
    free(a), free(c);
}

static void test_bound_degenerate(void **state) {
    (void)state;
    double zero[6] = {0}, bad[6] = {0.5, 0.25, -0.5, 0.125, 1, 0.75};
    assert_true(bound_of(3, 2, zero, 0) >= 0 && bound_of(3, 2, zero, 0) <= 1e-17);
    assert_true(bound_of(3, 0, zero, 0) <= 1 + 1e-12);
    /* What is not finite has no bound. */
    for (int i = 0; i < 6; i++) {
        const double kept = bad[i];
        bad[i] = NAN;
        assert_false(bound_of(3, 2, bad, 0) < INFINITY);
        bad[i] = -INFINITY;
        assert_false(bound_of(3, 2, bad, 0) < INFINITY);
        bad[i] = kept;
    }
    for (int i = 0; i < 6; i++) {
        double complex z[6] = {0.5, 0.25 * I, -0.5, 0.125, 1 + I, 0.75};
        z[i] = i % 2 ? NAN : NAN * I;
        assert_false(bound_of_complex(3, 2, z, 0) < INFINITY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound_real),
        cmocka_unit_test(test_bound_complex),
        cmocka_unit_test(test_bound_extreme_spectra),
        cmocka_unit_test(test_bound_complex_diagonal),
        cmocka_unit_test(test_bound_error),
        cmocka_unit_test(test_bound_error_complex),
        cmocka_unit_test(test_bound_large),
        cmocka_unit_test(test_bound_long_sum),
        cmocka_unit_test(test_bound_degenerate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
