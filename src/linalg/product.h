/* Local dense products, row-major and tight (the leading dimension is the number of columns): the
 * only door to BLAS. All are Local and allocate nothing. A size of 0 is allowed. */
#ifndef BCOP_LINALG_PRODUCT_H
#define BCOP_LINALG_PRODUCT_H

#include <complex.h>

/* c[m][n] = alpha a[m][k] b[k][n] + beta c */
void bcop_product_nn(int m, int n, int k, float alpha, const float *a, const float *b, float beta,
                     float *c);

/* c[m][n] = alpha a[m][k] b[n][k]^T + beta c */
void bcop_product_nt(int m, int n, int k, float alpha, const float *a, const float *b, float beta,
                     float *c);

/* c[rows][n] = a[rows][k] b[k][n], and with b[n][k]^T. A row has the same bits whatever
 * `rows` is: the library has other kernels for small products (m n k <= 10^6), so where a unit is
 * one of these the product is taken unit by unit, elsewhere at once; what is left over beyond whole
 * units goes by itself. */
void bcop_product_nn_rows(int rows, int unit, int n, int k, const float *a, const float *b,
                          float *c);
void bcop_product_nt_rows(int rows, int unit, int n, int k, const float *a, const float *b,
                          float *c);

/* c[m][n] = alpha a[k][m]^T b[k][n] + beta c */
void bcop_product_tn(int m, int n, int k, float alpha, const float *a, const float *b, float beta,
                     float *c);

/* The same as nt with alpha = 1 in float64. */
void bcop_product_nt_double(int m, int n, int k, const double *a, const double *b, double beta,
                            double *c);

/* c[m][n] = a^T b[k][n], where a are m columns of a matrix with `stride` columns and k rows */
void bcop_product_outer(int m, int n, int k, const float *a, int stride, const float *b, float *c);

/* Symmetric matrices, of which the upper triangle alone is set and read:
 *     g[cols][cols] = w[rows][cols]^T w
 *     s[cols][cols] = (u^T x + x^T u)/2                 u, x[rows][cols]
 *     y[rows][n] = alpha x[rows][n] s[n][n] + beta y
 * and both triangles of such a g[n][n]. */
void bcop_product_gram(int rows, int cols, const float *w, float *g);
void bcop_product_inner(int rows, int cols, const float *u, const float *x, float *s);
void bcop_product_symmetric(int rows, int n, float alpha, const float *x, const float *s,
                            float beta, float *y);
void bcop_product_mirror(int n, float *g);

/* The upper triangle of y[n][n] = alpha s s + beta y for a symmetric s[n][n] with both triangles.
 */
void bcop_product_square(int n, float alpha, const float *s, float beta, float *y);

/* The upper triangle of c[n][n] = a b for symmetric a, b[n][n], with both triangles, whose product
 * is symmetric: they commute. Cut into strips of rows, so that about 9/16 of it is formed. */
void bcop_product_commuting(int n, const float *a, const float *b, float *c);

/* The upper triangle of g = w^T w (real) and g = a^H a (complex) in float64. */
void bcop_product_gram_double(int rows, int cols, const double *w, double *g);
void bcop_product_gram_complex(int rows, int cols, const double complex *a, double complex *g);

/* to[cols][rows] = from[rows][cols]^T */
void bcop_product_transpose(int rows, int cols, const float *from, float *to);

/* Threads of one product (1 where several ranks share a machine). */
void bcop_product_threads(int threads);

/* How many it uses. Local. */
int bcop_product_thread_count(void);

/* "OpenBLAS 0.3.21 SkylakeX": part of what decides the bits of a result. */
const char *bcop_product_library(void);

#endif
