/* The independent side of the numerical tests: float64, row-major and tight, with nothing of
 * linalg/ or ortho/ in it. Products are plain loops; singular values come from LAPACK's dgesvd and
 * zgesvd. Functions that cannot do their work (no memory, no convergence) end the program. */
#ifndef BCOP_TESTS_ORACLE_H
#define BCOP_TESTS_ORACLE_H

#include <complex.h>
#include <stdint.h>

/* Zeros, to be given to free(). A count of 0 gives a pointer too. */
double *oracle_doubles(long count);
float *oracle_floats(long count);
double complex *oracle_complexes(long count);

/* Standard normals that depend on the seed alone (Philox). */
void oracle_random(uint64_t seed, long count, double *x);

/* The same times `factor`, rounded to float32; to be given to free(). */
float *oracle_random_floats(uint64_t seed, long count, double factor);

/* u[rows][cols], rows >= cols, with orthonormal columns: Gram-Schmidt, twice, of a Gaussian. */
void oracle_random_orthonormal(uint64_t seed, int rows, int cols, double *u);
void oracle_random_orthonormal_complex(uint64_t seed, int rows, int cols, double complex *u);

/* a[rows][cols], rows >= cols, with the given singular values and random singular vectors. */
void oracle_random_spectrum(uint64_t seed, int rows, int cols, const double *sv, double *a);

/* c[m][n] = a[m][k] b[k][n] */
void oracle_multiply(int m, int n, int k, const double *a, const double *b, double *c);

/* to[cols][rows] = from[rows][cols]^T */
void oracle_transpose(int rows, int cols, const double *from, double *to);

/* sv[min(rows, cols)], largest first. */
void oracle_singular_values(int rows, int cols, const double *a, double *sv);
void oracle_singular_values_complex(int rows, int cols, const double complex *a, double *sv);

/* a = u diag(sv) vt with n = min(rows, cols): u[rows][n], sv[n], vt[n][cols]. */
void oracle_svd(int rows, int cols, const double *a, double *u, double *sv, double *vt);

/* Replaces every singular value s of a[rows][cols] by map(s, context); to may be a. */
void oracle_map_spectrum(int rows, int cols, const double *a, double (*map)(double, const void *),
                         const void *context, double *to);

/* The polar factor U V^T of a = U S V^T; to may be a. */
void oracle_polar(int rows, int cols, const double *a, double *to);

/* The largest singular value; 0 for an empty matrix. */
double oracle_norm2(int rows, int cols, const double *a);
double oracle_norm2_complex(int rows, int cols, const double complex *a);

/* The root of the sum of squares. */
double oracle_frobenius(long count, const double *x);

/* ||u^T u - I||_F of u[rows][cols]. */
double oracle_defect(int rows, int cols, const double *u);

void oracle_to_float(long count, const double *from, float *to);
void oracle_to_double(long count, const float *from, double *to);

/* ||got - expected||_F / ||expected||_F; the plain ||got||_F where `expected` is zero; infinity
 * when something got is not finite. */
double oracle_relative_error(long count, const double *expected, const float *got);

/* The gradient of function(x, context) at x[count] by central differences with this step. x is as
 * it was afterwards. */
void oracle_gradient(double (*function)(const double *x, const void *context), const void *context,
                     long count, double *x, double step, double *gradient);

#endif
