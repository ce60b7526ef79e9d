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

/* c[m][n] = alpha a[k][m]^T b[k][n] + beta c */
void bcop_product_tn(int m, int n, int k, float alpha, const float *a, const float *b, float beta,
                     float *c);

/* c[m][n] = a^T b[k][n], where a are m columns of a matrix with `stride` columns and k rows */
void bcop_product_outer(int m, int n, int k, const float *a, int stride, const float *b, float *c);

/* g[cols][cols] = w[rows][cols]^T w, both triangles. */
void bcop_product_gram(int rows, int cols, const float *w, float *g);

/* The same, the upper triangle alone; and from such a g[n][n] both triangles. */
void bcop_product_gram_upper(int rows, int cols, const float *w, float *g);
void bcop_product_mirror(int n, float *g);

/* s[n][n] = (s + s^T)/2 */
void bcop_product_symmetrise(int n, float *s);

/* The same in float64: g = w^T w (real) and g = a^H a (complex). Only the upper triangle is set. */
void bcop_product_gram_double(int rows, int cols, const double *w, double *g);
void bcop_product_gram_complex(int rows, int cols, const double complex *a, double complex *g);

/* to[cols][rows] = from[rows][cols]^T */
void bcop_product_transpose(int rows, int cols, const float *from, float *to);

/* Threads of one product (1 where several ranks share a machine). */
void bcop_product_threads(int threads);

/* "OpenBLAS 0.3.21 SkylakeX": part of what decides the bits of a result. */
const char *bcop_product_library(void);

#endif
