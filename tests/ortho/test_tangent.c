/* run: serial */
#include "ortho/tangent.h"

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

enum { UNROLLED = 40 };

static const int SHAPES[][2] = {{1, 1}, {4, 1}, {2, 2}, {5, 3}, {6, 6}, {7, 7}, {12, 4}, {20, 5}};

/* The paper's procedure, all of it: W <- W (3 I - W^T W) / 2, many times. */
static void unrolled_bjorck(int rows, int cols, const double *from, double *w) {
    const long count = (long)rows * cols, square = (long)cols * cols;
    double *wt = oracle_doubles(count), *g = oracle_doubles(square), *next = oracle_doubles(count);
    memcpy(w, from, (size_t)count * sizeof *w);
    for (int i = 0; i < UNROLLED; i++) {
        oracle_transpose(rows, cols, w, wt);
        oracle_multiply(cols, cols, rows, wt, w, g);
        for (long k = 0; k < square; k++)
            g[k] = (k % (cols + 1) == 0 ? 1.5 : 0) - 0.5 * g[k];
        oracle_multiply(rows, cols, cols, w, g, next);
        memcpy(w, next, (size_t)count * sizeof *w);
    }
    free(wt), free(g), free(next);
}

/* A loss of the orthonormalised matrix: sum of c u + u^3 / 3, or for a projector basis the same of
 * P = V V^T with another c. */
typedef struct loss {
    int rows, cols;
    int projector;
    const double *c;
} loss;

static void project_onto(int rows, int cols, const double *v, double *p) {
    double *vt = oracle_doubles((long)rows * cols);
    oracle_transpose(rows, cols, v, vt);
    oracle_multiply(rows, rows, cols, v, vt, p);
    free(vt);
}

static double evaluate(const double *w, const void *context) {
    const loss *l = context;
    const long count = (long)l->rows * l->cols;
    const long size = l->projector ? (long)l->rows * l->rows : count;
    double *u = oracle_doubles(count), *p = oracle_doubles(size), sum = 0;
    unrolled_bjorck(l->rows, l->cols, w, u);
    if (l->projector)
        project_onto(l->rows, l->cols, u, p);
    else
        memcpy(p, u, (size_t)count * sizeof *p);
    for (long i = 0; i < size; i++)
        sum += l->c[i] * p[i] + p[i] * p[i] * p[i] / 3;
    free(u), free(p);
    return sum;
}

/* dL/dU at U, without the orthonormalisation: c + u^2, or (D + D^T) V with D = c + p^2. */
static void outer_gradient(const loss *l, const double *u, double *g) {
    const long count = (long)l->rows * l->cols;
    if (!l->projector) {
        for (long i = 0; i < count; i++)
            g[i] = l->c[i] + u[i] * u[i];
        return;
    }
    const int n = l->rows;
    double *p = oracle_doubles((long)n * n), *d = oracle_doubles((long)n * n);
    project_onto(n, l->cols, u, p);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            const long at = (long)i * n + j, mirror = (long)j * n + i;
            d[at] = l->c[at] + l->c[mirror] + p[at] * p[at] + p[mirror] * p[mirror];
        }
    oracle_multiply(n, l->cols, n, d, u, g);
    free(p), free(d);
}

/* Projects in float32, with nothing written beyond the scratch. */
static void project(int rows, int cols, const float *u, float *g) {
    const long need = whole_tangent_scratch(rows, cols);
    float *scratch = oracle_floats(need + 1);
    for (long i = 0; i <= need; i++)
        scratch[i] = NAN;
    scratch[need] = 54321;
    whole_project(rows, cols, u, g, scratch);
    assert_true(scratch[need] == 54321);
    free(scratch);
}

/* U^T g of u, g [rows][cols]. */
static void inner(int rows, int cols, const double *u, const double *g, double *s) {
    double *ut = oracle_doubles((long)rows * cols);
    oracle_transpose(rows, cols, u, ut);
    oracle_multiply(cols, cols, rows, ut, g, s);
    free(ut);
}

static void check(uint64_t seed, int rows, int cols, int projector) {
    const long count = (long)rows * cols, size = projector ? (long)rows * rows : count;
    double *u = oracle_doubles(count), *c = oracle_doubles(size), *g = oracle_doubles(count);
    double *expected = oracle_doubles(count), *s = oracle_doubles((long)cols * cols);
    float *fu = oracle_floats(count), *fg = oracle_floats(count);
    oracle_random_orthonormal(seed, rows, cols, u);
    oracle_random(seed + 1, size, c);
    const loss l = {rows, cols, projector, c};
    oracle_gradient(evaluate, &l, count, u, 1e-5, expected);

    outer_gradient(&l, u, g);
    inner(rows, cols, u, g, s);
    const double outer = oracle_frobenius(count, g);
    double skew = 0;
    for (int i = 0; i < cols; i++)
        for (int j = 0; j < cols; j++)
            skew += fabs(s[(long)i * cols + j] - s[(long)j * cols + i]);
    if (projector)
        assert_true(skew <= 1e-12 * outer * cols * cols);

    oracle_to_float(count, u, fu);
    oracle_to_float(count, g, fg);
    project(rows, cols, fu, fg);
    /* The norm of the unprojected gradient is what float32 rounding is relative to; a square block
       of one column has a tangent space of dimension 0. */
    oracle_to_double(count, fg, g);
    for (long i = 0; i < count; i++)
        g[i] -= expected[i];
    const double off = oracle_frobenius(count, g), norm = oracle_frobenius(count, expected);
    if (!(off <= 1e-5 * norm + 2e-7 * outer))
        fail_msg("%d x %d%s: off by %.2e of %.2e", rows, cols, projector ? " projector" : "", off,
                 norm);
    free(u), free(c), free(g), free(expected), free(s), free(fu), free(fg);
}

static void test_tangent_unrolled(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < 3; k++)
            check((uint64_t)(10 * s + k), SHAPES[s][0], SHAPES[s][1], 0);
}

static void test_tangent_unrolled_projector(void **state) {
    (void)state;
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int k = 0; k < 3; k++)
            check((uint64_t)(500 + 10 * s + k), SHAPES[s][0], SHAPES[s][1], 1);
}

/* From factors G = left^T right and image = left U: the definition in float64. */
static void test_tangent_image(void **state) {
    (void)state;
    static const int shape[][3] = {{1, 1, 1}, {5, 3, 2}, {33, 33, 7}, {64, 31, 40}, {700, 100, 16}};
    for (int k = 0; k < COUNT(shape); k++) {
        const int rows = shape[k][0], cols = shape[k][1], depth = shape[k][2];
        const long count = (long)rows * cols;
        double *u = oracle_doubles(count), *g = oracle_doubles(count), *us = oracle_doubles(count);
        double *left = oracle_doubles((long)depth * rows), *lt = oracle_doubles((long)depth * rows);
        double *right = oracle_doubles((long)depth * cols), *s = oracle_doubles((long)cols * cols);
        double *image = oracle_doubles((long)depth * cols);
        float *fu = oracle_floats(count), *fg = oracle_floats(count);
        float *fi = oracle_floats((long)depth * cols), *fr = oracle_floats((long)depth * cols);
        float *scratch = oracle_floats(whole_tangent_scratch(rows, cols));
        oracle_random_orthonormal((uint64_t)(k + 7), rows, cols, u);
        oracle_random((uint64_t)(k + 17), (long)depth * rows, left);
        oracle_random((uint64_t)(k + 27), (long)depth * cols, right);
        oracle_transpose(depth, rows, left, lt);
        oracle_multiply(rows, cols, depth, lt, right, g);
        oracle_multiply(depth, cols, rows, left, u, image);
        oracle_to_float(count, u, fu), oracle_to_float(count, g, fg);
        oracle_to_float((long)depth * cols, image, fi);
        oracle_to_float((long)depth * cols, right, fr);
        inner(rows, cols, u, g, s);
        for (int i = 0; i < cols; i++)
            for (int j = 0; j <= i; j++)
                s[(long)i * cols + j] = s[(long)j * cols + i] =
                    0.5 * (s[(long)i * cols + j] + s[(long)j * cols + i]);
        oracle_multiply(rows, cols, cols, u, s, us);
        const double norm = oracle_frobenius(count, g);
        whole w;
        whole_open(&w, rows, cols);
        bcop_tangent_project_image(&w.rows, fu, depth, fi, fr, fg, scratch);
        whole_close(&w);
        for (long i = 0; i < count; i++)
            assert_true(fabs((double)fg[i] - (g[i] - us[i])) <= 1e-6 * norm);
        free(u), free(g), free(us), free(left), free(lt), free(right), free(s), free(image);
        free(fu), free(fg), free(fi), free(fr), free(scratch);
    }
}

/* U^T xi is skew, projecting again changes nothing, and what is removed is U times a symmetric
 * matrix; at sizes where differences would take too long. */
static void test_tangent_algebra(void **state) {
    (void)state;
    static const int LARGE[][2] = {{1, 1},     {33, 33},   {64, 32},  {100, 7},  {129, 64},
                                   {600, 100}, {1100, 37}, {2050, 9}, {4200, 20}};
    for (int k = 0; k < COUNT(LARGE); k++) {
        const int rows = LARGE[k][0], cols = LARGE[k][1];
        const long count = (long)rows * cols, square = (long)cols * cols;
        double *u = oracle_doubles(count), *g = oracle_doubles(count), *xi = oracle_doubles(count);
        double *s = oracle_doubles(square), *removed = oracle_doubles(count);
        float *fu = oracle_floats(count), *fg = oracle_floats(count);
        oracle_random_orthonormal((uint64_t)(k + 70), rows, cols, u);
        oracle_random((uint64_t)(k + 90), count, g);
        oracle_to_float(count, u, fu);
        oracle_to_float(count, g, fg);
        project(rows, cols, fu, fg);
        oracle_to_double(count, fg, xi);
        const double norm = oracle_frobenius(count, g);

        inner(rows, cols, u, xi, s);
        for (int i = 0; i < cols; i++)
            for (int j = 0; j < cols; j++)
                assert_true(fabs(s[(long)i * cols + j] + s[(long)j * cols + i]) <= 1e-6 * norm);

        for (long i = 0; i < count; i++)
            g[i] -= xi[i];
        inner(rows, cols, u, g, s);
        for (int i = 0; i < cols; i++)
            for (int j = 0; j < cols; j++)
                assert_true(fabs(s[(long)i * cols + j] - s[(long)j * cols + i]) <= 1e-6 * norm);
        oracle_multiply(rows, cols, cols, u, s, removed);
        for (long i = 0; i < count; i++)
            assert_true(fabs(removed[i] - g[i]) <= 1e-6 * norm);

        project(rows, cols, fu, fg);
        for (long i = 0; i < count; i++)
            assert_true(fabs((double)fg[i] - xi[i]) <= 1e-6 * norm);
        free(u), free(g), free(xi), free(s), free(removed), free(fu), free(fg);
    }
}

static void test_tangent_no_columns(void **state) {
    (void)state;
    float untouched = 7;
    project(5, 0, &untouched, &untouched);
    assert_true(untouched == 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tangent_unrolled),
        cmocka_unit_test(test_tangent_unrolled_projector),
        cmocka_unit_test(test_tangent_image),
        cmocka_unit_test(test_tangent_algebra),
        cmocka_unit_test(test_tangent_no_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
