/* run: serial */
#include "linalg/product.h"

#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* Around the micro-kernels' widths and the squares of the transposition, odd and even. */
static const int SIZES[] = {0, 1, 2, 3, 5, 8, 15, 16, 17, 32, 33, 64, 67};

typedef void (*product)(int m, int n, int k, float alpha, const float *a, const float *b,
                        float beta, float *c);

/* Floats that are exact in float64, so that both sides start from the same numbers. */
static void random_floats(uint64_t seed, long count, float *x, double *wide) {
    oracle_random(seed, count, wide);
    oracle_to_float(count, wide, x);
    oracle_to_double(count, x, wide);
}

/* alpha a b + beta c element by element; the bound is the textbook one, k u |a| |b|. */
static void compare(int m, int n, int k, float alpha, const double *a, const double *b, float beta,
                    const double *before, const float *got) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0, size = 0;
            for (int p = 0; p < k; p++) {
                const double term = a[(long)i * k + p] * b[(long)p * n + j];
                sum += term;
                size += fabs(term);
            }
            const long at = (long)i * n + j;
            /* beta 0 means that what stood in c does not count, not even a NaN. */
            const double old = beta != 0 ? (double)beta * before[at] : 0;
            const double expected = (double)alpha * sum + old;
            const double allowed = (k + 3) * 6e-8 * (fabs((double)alpha) * size + fabs(old));
            if (!(fabs((double)got[at] - expected) <= allowed))
                fail_msg("%d x %d x %d alpha %g beta %g: [%d][%d] is %.9g, not %.9g", m, n, k,
                         (double)alpha, (double)beta, i, j, (double)got[at], expected);
        }
}

/* `flip_a`: the function wants a as [k][m]; `flip_b`: it wants b as [n][k]. */
static void check(product multiply, int flip_a, int flip_b, int m, int n, int k, float alpha,
                  float beta) {
    const long sa = (long)m * k, sb = (long)k * n, sc = (long)m * n;
    float *fa = oracle_floats(sa), *fb = oracle_floats(sb), *fc = oracle_floats(sc + 1);
    double *a = oracle_doubles(sa), *b = oracle_doubles(sb), *c = oracle_doubles(sc);
    double *given = oracle_doubles(sa > sb ? sa : sb);
    const uint64_t seed = (uint64_t)(m * 10000 + n * 100 + k);
    random_floats(seed, sa, fa, given);
    if (flip_a)
        oracle_transpose(k, m, given, a);
    else
        oracle_to_double(sa, fa, a);
    random_floats(seed + 1000000, sb, fb, given);
    if (flip_b)
        oracle_transpose(n, k, given, b);
    else
        oracle_to_double(sb, fb, b);
    random_floats(seed + 2000000, sc, fc, c);
    if (beta == 0)
        for (long i = 0; i < sc; i++)
            fc[i] = NAN;
    fc[sc] = 12345;
    multiply(m, n, k, alpha, fa, fb, beta, fc);
    compare(m, n, k, alpha, a, b, beta, c, fc);
    assert_true(fc[sc] == 12345);
    free(fa), free(fb), free(fc);
    free(a), free(b), free(c), free(given);
}

static void check_all(product multiply, int flip_a, int flip_b) {
    for (int i = 0; i < COUNT(SIZES); i++)
        for (int j = 0; j < COUNT(SIZES); j++)
            for (int k = 0; k < COUNT(SIZES); k++) {
                check(multiply, flip_a, flip_b, SIZES[i], SIZES[j], SIZES[k], 1, 0);
                check(multiply, flip_a, flip_b, SIZES[i], SIZES[j], SIZES[k], -0.5f, 1.75f);
            }
    check(multiply, flip_a, flip_b, 200, 3, 70, -1, 1);
    check(multiply, flip_a, flip_b, 3, 200, 301, -1, 1);
}

static void test_nn(void **state) {
    (void)state;
    check_all(bcop_product_nn, 0, 0);
}

static void test_nt(void **state) {
    (void)state;
    check_all(bcop_product_nt, 0, 1);
}

static void test_tn(void **state) {
    (void)state;
    check_all(bcop_product_tn, 1, 0);
}

static void check_gram(int rows, int cols) {
    const long count = (long)rows * cols, square = (long)cols * cols;
    float *fw = oracle_floats(count), *fg = oracle_floats(square + 1);
    double *w = oracle_doubles(count), *wt = oracle_doubles(count), *g = oracle_doubles(square + 1);
    random_floats((uint64_t)(rows * 1000 + cols), count, fw, w);
    oracle_transpose(rows, cols, w, wt);
    for (long i = 0; i < square; i++)
        fg[i] = NAN, g[i] = NAN;
    fg[square] = 12345, g[square] = 12345;
    bcop_product_gram(rows, cols, fw, fg);
    for (int i = 1; i < cols; i++)
        assert_true(isnan(fg[(long)i * cols])); /* the lower triangle is left alone */
    bcop_product_mirror(cols, fg);
    compare(cols, cols, rows, 1, wt, w, 0, NULL, fg);
    for (int i = 0; i < cols; i++)
        for (int j = 0; j < cols; j++)
            assert_true(fg[(long)i * cols + j] == fg[(long)j * cols + i]);
    assert_true(fg[square] == 12345);

    double *expected = oracle_doubles(square);
    oracle_multiply(cols, cols, rows, wt, w, expected);
    bcop_product_gram_double(rows, cols, w, g);
    for (int i = 0; i < cols; i++)
        for (int j = i; j < cols; j++)
            assert_true(fabs(g[(long)i * cols + j] - expected[(long)i * cols + j]) <=
                        1e-14 * (rows + 1) * 5);
    assert_true(g[square] == 12345);
    free(fw), free(fg), free(w), free(wt), free(g), free(expected);
}

/* Of a symmetric matrix, added to another; the lower triangle is left alone. */
static void check_square(int n) {
    const long square = (long)n * n;
    float *fs = oracle_floats(square), *fy = oracle_floats(square + 1);
    double *s = oracle_doubles(square), *y = oracle_doubles(square);
    random_floats((uint64_t)n, square, fs, s);
    bcop_product_mirror(n, fs);
    oracle_to_double(square, fs, s);
    random_floats((uint64_t)(n + 1), square, fy, y);
    bcop_product_mirror(n, fy);
    oracle_to_double(square, fy, y);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            fy[(long)i * n + j] = NAN;
    fy[square] = 12345;
    bcop_product_square(n, 0.75f, fs, -2, fy);
    for (int i = 1; i < n; i++)
        assert_true(isnan(fy[(long)i * n]));
    bcop_product_mirror(n, fy);
    compare(n, n, n, 0.75, s, s, -2, y, fy);
    assert_true(fy[square] == 12345);
    free(fs), free(fy), free(s), free(y);
}

/* s (3 s - s^2), whose factors commute, to rounding; sizes of one, several and eight strips. */
static void check_commuting(int n) {
    const long square = (long)n * n;
    float *fa = oracle_floats(square), *fb = oracle_floats(square), *fc = oracle_floats(square + 1);
    double *a = oracle_doubles(square), *b = oracle_doubles(square);
    random_floats((uint64_t)n, square, fa, a);
    for (long i = 0; i < square; i++)
        fa[i] /= (float)n;
    bcop_product_mirror(n, fa);
    oracle_to_double(square, fa, a);
    oracle_multiply(n, n, n, a, a, b);
    for (long i = 0; i < square; i++)
        b[i] = 3 * a[i] - b[i];
    oracle_to_float(square, b, fb);
    oracle_to_double(square, fb, b);
    for (long i = 0; i < square; i++)
        fc[i] = NAN;
    fc[square] = 12345;
    bcop_product_commuting(n, fa, fb, fc);
    bcop_product_mirror(n, fc);
    compare(n, n, n, 1, a, b, 0, NULL, fc);
    assert_true(fc[square] == 12345);
    free(fa), free(fb), free(fc), free(a), free(b);
}

static void test_square(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(SIZES); i++) {
        check_square(SIZES[i]);
        check_commuting(SIZES[i]);
    }
    check_commuting(259);
    check_commuting(256);
}

static void test_gram(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(SIZES); i++)
        for (int j = 0; j < COUNT(SIZES); j++)
            check_gram(SIZES[i], SIZES[j]);
    check_gram(300, 101);
    check_gram(7, 130);
}

static void check_gram_complex(int rows, int cols) {
    const long count = (long)rows * cols, square = (long)cols * cols;
    double *x = oracle_doubles(2 * count);
    double complex *a = oracle_complexes(count), *g = oracle_complexes(square);
    oracle_random((uint64_t)(rows * 1000 + cols), 2 * count, x);
    for (long i = 0; i < count; i++)
        a[i] = x[2 * i] + x[2 * i + 1] * I;
    for (long i = 0; i < square; i++)
        g[i] = NAN;
    bcop_product_gram_complex(rows, cols, a, g);
    for (int i = 0; i < cols; i++)
        for (int j = i; j < cols; j++) {
            double complex dot = 0;
            for (int k = 0; k < rows; k++)
                dot += conj(a[(long)k * cols + i]) * a[(long)k * cols + j];
            const double complex got = g[(long)i * cols + j];
            assert_true(fabs(creal(got - dot)) <= 1e-14 * (rows + 1) * 10);
            assert_true(fabs(cimag(got - dot)) <= 1e-14 * (rows + 1) * 10);
        }
    free(x), free(a), free(g);
}

static void test_gram_complex(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(SIZES); i++)
        for (int j = 0; j < COUNT(SIZES); j++)
            check_gram_complex(SIZES[i], SIZES[j]);
}

static void test_transpose(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(SIZES); i++)
        for (int j = 0; j < COUNT(SIZES); j++) {
            const int rows = SIZES[i], cols = SIZES[j];
            float *from = oracle_floats((long)rows * cols);
            float *to = oracle_floats((long)rows * cols + 1);
            for (long k = 0; k < (long)rows * cols; k++)
                from[k] = (float)k;
            to[(long)rows * cols] = -1;
            bcop_product_transpose(rows, cols, from, to);
            for (int r = 0; r < rows; r++)
                for (int c = 0; c < cols; c++)
                    assert_true(to[(long)c * rows + r] == (float)((long)r * cols + c));
            assert_true(to[(long)rows * cols] == -1);
            free(from), free(to);
        }
}

typedef void (*rows_product)(int rows, int unit, int n, int k, const float *a, const float *b,
                             float *c);

/* Every row as when its unit is multiplied alone: bits that do not depend on how many rows a rank
   has. Shapes on both sides of the library's limit for small products. */
static void check_rows(rows_product multiply, product plain, int unit, int n, int k) {
    const int rows_max = 11 * unit + unit / 2;
    float *a = oracle_random_floats(1, (long)rows_max * k, 1);
    float *b = oracle_random_floats(2, (long)n * k, 1);
    float *one = oracle_floats((long)unit * n), *c = oracle_floats((long)rows_max * n);
    const int units[] = {1, 2, 3, 4, 5, 8, 11};
    for (int i = 0; i < COUNT(units); i++)
        for (int rest = 0; rest <= unit / 2; rest += unit > 1 ? unit / 2 : 1) {
            multiply(units[i] * unit + rest, unit, n, k, a, b, c);
            for (int first = 0; first < units[i] * unit + rest; first += unit) {
                const int rows = first < units[i] * unit ? unit : rest;
                plain(rows, n, k, 1, a + (long)first * k, b, 0, one);
                assert_memory_equal(c + (long)first * n, one,
                                    (size_t)rows * (size_t)n * sizeof(float));
            }
        }
    free(a), free(b), free(one), free(c);
}

static void test_rows(void **state) {
    (void)state;
    static const int shape[][2] = {{10, 100},  {100, 1568}, {512, 10},   {512, 512},
                                   {512, 515}, {509, 1030}, {1024, 257}, {131, 4096}};
    static const int unit[] = {1, 2, 3, 4, 8, 16};
    for (int s = 0; s < COUNT(shape); s++)
        for (int u = 0; u < COUNT(unit); u++) {
            check_rows(bcop_product_nn_rows, bcop_product_nn, unit[u], shape[s][0], shape[s][1]);
            check_rows(bcop_product_nt_rows, bcop_product_nt, unit[u], shape[s][0], shape[s][1]);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nn),           cmocka_unit_test(test_nt),
        cmocka_unit_test(test_rows),         cmocka_unit_test(test_tn),
        cmocka_unit_test(test_square),       cmocka_unit_test(test_gram),
        cmocka_unit_test(test_gram_complex), cmocka_unit_test(test_transpose),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
