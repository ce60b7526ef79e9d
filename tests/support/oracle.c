#include "oracle.h"

#include "base/rng.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The last two arguments are the lengths of the two characters, as gfortran passes them. */
extern void dgesvd_(const char *jobu, const char *jobvt, const int *m, const int *n, double *a,
                    const int *lda, double *s, double *u, const int *ldu, double *vt,
                    const int *ldvt, double *work, const int *lwork, int *info, size_t, size_t);
extern void zgesvd_(const char *jobu, const char *jobvt, const int *m, const int *n,
                    double complex *a, const int *lda, double *s, double complex *u, const int *ldu,
                    double complex *vt, const int *ldvt, double complex *work, const int *lwork,
                    double *rwork, int *info, size_t, size_t);

static void stop(const char *what) {
    fprintf(stderr, "oracle: %s\n", what);
    abort();
}

static void *allocate(long count, size_t size) {
    void *memory = calloc(count > 0 ? (size_t)count : 1, size);
    if (!memory)
        stop("out of memory");
    return memory;
}

double *oracle_doubles(long count) {
    return allocate(count, sizeof(double));
}

float *oracle_floats(long count) {
    return allocate(count, sizeof(float));
}

double complex *oracle_complexes(long count) {
    return allocate(count, sizeof(double complex));
}

void oracle_random(uint64_t seed, long count, double *x) {
    bcop_rng rng = bcop_rng_open(seed, BCOP_RNG_TEST, 0, 0);
    for (long i = 0; i < count; i++)
        x[i] = bcop_rng_normal(&rng);
}

float *oracle_random_floats(uint64_t seed, long count, double factor) {
    double *wide = oracle_doubles(count);
    float *x = oracle_floats(count);
    oracle_random(seed, count, wide);
    for (long i = 0; i < count; i++)
        x[i] = (float)(factor * wide[i]);
    free(wide);
    return x;
}

void oracle_random_orthonormal_complex(uint64_t seed, int rows, int cols, double complex *u) {
    const long count = (long)rows * cols;
    double *x = oracle_doubles(2 * count);
    oracle_random(seed, 2 * count, x);
    for (long i = 0; i < count; i++)
        u[i] = x[2 * i] + x[2 * i + 1] * I;
    free(x);
    for (int j = 0; j < cols; j++) {
        for (int pass = 0; pass < 2; pass++)
            for (int p = 0; p < j; p++) {
                double complex dot = 0;
                for (int i = 0; i < rows; i++)
                    dot += conj(u[(long)i * cols + p]) * u[(long)i * cols + j];
                for (int i = 0; i < rows; i++)
                    u[(long)i * cols + j] -= dot * u[(long)i * cols + p];
            }
        double square = 0;
        for (int i = 0; i < rows; i++) {
            const double size = cabs(u[(long)i * cols + j]);
            square += size * size;
        }
        for (int i = 0; i < rows; i++)
            u[(long)i * cols + j] /= sqrt(square);
    }
}

void oracle_random_orthonormal(uint64_t seed, int rows, int cols, double *u) {
    oracle_random(seed, (long)rows * cols, u);
    for (int j = 0; j < cols; j++) {
        for (int pass = 0; pass < 2; pass++)
            for (int p = 0; p < j; p++) {
                double dot = 0;
                for (int i = 0; i < rows; i++)
                    dot += u[(long)i * cols + p] * u[(long)i * cols + j];
                for (int i = 0; i < rows; i++)
                    u[(long)i * cols + j] -= dot * u[(long)i * cols + p];
            }
        double square = 0;
        for (int i = 0; i < rows; i++)
            square += u[(long)i * cols + j] * u[(long)i * cols + j];
        for (int i = 0; i < rows; i++)
            u[(long)i * cols + j] /= sqrt(square);
    }
}

/* u[rows][n] diag(sv) vt[n][cols]; spoils u. */
static void compose(int rows, int cols, int n, double *u, const double *sv, const double *vt,
                    double *a) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < n; j++)
            u[(long)i * n + j] *= sv[j];
    oracle_multiply(rows, cols, n, u, vt, a);
}

void oracle_random_spectrum(uint64_t seed, int rows, int cols, const double *sv, double *a) {
    double *u = oracle_doubles((long)rows * cols), *v = oracle_doubles((long)cols * cols);
    oracle_random_orthonormal(seed, rows, cols, u);
    oracle_random_orthonormal(seed + 0x10000000, cols, cols, v);
    compose(rows, cols, cols, u, sv, v, a);
    free(u);
    free(v);
}

void oracle_multiply(int m, int n, int k, const double *a, const double *b, double *c) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int p = 0; p < k; p++)
                sum += a[(long)i * k + p] * b[(long)p * n + j];
            c[(long)i * n + j] = sum;
        }
}

void oracle_transpose(int rows, int cols, const double *from, double *to) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++)
            to[(long)j * rows + i] = from[(long)i * cols + j];
}

static int smaller(int a, int b) {
    return a < b ? a : b;
}

static int workspace(int rows, int cols) {
    return 64 * (rows + cols) + 64;
}

/* Row-major a[rows][cols] is what LAPACK calls the cols x rows matrix a^T = v diag(sv) u^T, so its
 * left vectors are our vt and its right vectors our u, each already in row-major order. */
void oracle_svd(int rows, int cols, const double *a, double *u, double *sv, double *vt) {
    const int n = smaller(rows, cols), lwork = workspace(rows, cols);
    if (n == 0)
        return;
    const long count = (long)rows * cols;
    double *copy = oracle_doubles(count), *work = oracle_doubles(lwork);
    memcpy(copy, a, (size_t)count * sizeof *copy);
    const char *job = u ? "S" : "N";
    int info = 0;
    dgesvd_(job, job, &cols, &rows, copy, &cols, sv, vt, &cols, u, &n, work, &lwork, &info, 1, 1);
    if (info != 0)
        stop("dgesvd failed");
    free(copy);
    free(work);
}

void oracle_singular_values(int rows, int cols, const double *a, double *sv) {
    oracle_svd(rows, cols, a, NULL, sv, NULL);
}

void oracle_singular_values_complex(int rows, int cols, const double complex *a, double *sv) {
    const int n = smaller(rows, cols), lwork = workspace(rows, cols);
    if (n == 0)
        return;
    const long count = (long)rows * cols;
    double complex *copy = oracle_complexes(count + 8), *work = oracle_complexes(lwork);
    double *rwork = oracle_doubles(5L * n);
    memcpy(copy, a, (size_t)count * sizeof *copy);
    int info = 0;
    zgesvd_("N", "N", &cols, &rows, copy, &cols, sv, NULL, &cols, NULL, &n, work, &lwork, rwork,
            &info, 1, 1);
    if (info != 0)
        stop("zgesvd failed");
    free(copy);
    free(work);
    free(rwork);
}

void oracle_map_spectrum(int rows, int cols, const double *a, double (*map)(double, const void *),
                         const void *context, double *to) {
    const int n = smaller(rows, cols);
    double *u = oracle_doubles((long)rows * n), *vt = oracle_doubles((long)n * cols);
    double *sv = oracle_doubles(n);
    oracle_svd(rows, cols, a, u, sv, vt);
    for (int i = 0; i < n; i++)
        sv[i] = map(sv[i], context);
    compose(rows, cols, n, u, sv, vt, to);
    free(u);
    free(vt);
    free(sv);
}

static double one(double value, const void *context) {
    (void)value;
    (void)context;
    return 1;
}

void oracle_polar(int rows, int cols, const double *a, double *to) {
    oracle_map_spectrum(rows, cols, a, one, NULL, to);
}

double oracle_norm2(int rows, int cols, const double *a) {
    double *sv = oracle_doubles(smaller(rows, cols));
    oracle_singular_values(rows, cols, a, sv);
    const double largest = sv[0];
    free(sv);
    return largest;
}

double oracle_norm2_complex(int rows, int cols, const double complex *a) {
    double *sv = oracle_doubles(smaller(rows, cols));
    oracle_singular_values_complex(rows, cols, a, sv);
    const double largest = sv[0];
    free(sv);
    return largest;
}

double oracle_frobenius(long count, const double *x) {
    double square = 0;
    for (long i = 0; i < count; i++)
        square += x[i] * x[i];
    return sqrt(square);
}

double oracle_defect(int rows, int cols, const double *u) {
    double square = 0;
    for (int i = 0; i < cols; i++)
        for (int j = 0; j < cols; j++) {
            double dot = i == j ? -1 : 0;
            for (int k = 0; k < rows; k++)
                dot += u[(long)k * cols + i] * u[(long)k * cols + j];
            square += dot * dot;
        }
    return sqrt(square);
}

void oracle_to_float(long count, const double *from, float *to) {
    for (long i = 0; i < count; i++)
        to[i] = (float)from[i];
}

void oracle_to_double(long count, const float *from, double *to) {
    for (long i = 0; i < count; i++)
        to[i] = (double)from[i];
}

double oracle_relative_error(long count, const double *expected, const float *got) {
    double square = 0;
    for (long i = 0; i < count; i++) {
        const double d = (double)got[i] - expected[i];
        square += d * d;
    }
    const double size = oracle_frobenius(count, expected);
    if (!isfinite(square))
        return INFINITY;
    return size > 0 ? sqrt(square) / size : sqrt(square);
}

void oracle_gradient(double (*function)(const double *x, const void *context), const void *context,
                     long count, double *x, double step, double *gradient) {
    for (long i = 0; i < count; i++) {
        const double at = x[i];
        x[i] = at + step;
        const double above = function(x, context);
        x[i] = at - step;
        const double below = function(x, context);
        x[i] = at;
        gradient[i] = (above - below) / (2 * step);
    }
}
