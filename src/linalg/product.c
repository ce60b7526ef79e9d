#include "linalg/product.h"

#include <cblas.h>
#include <stdio.h>

void bcop_product_nn(int m, int n, int k, float alpha, const float *a, const float *b, float beta,
                     float *c) {
    if (m > 0 && n > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, n, k, alpha, a, k > 0 ? k : 1, b,
                    n, beta, c, n);
}

void bcop_product_nt(int m, int n, int k, float alpha, const float *a, const float *b, float beta,
                     float *c) {
    if (m > 0 && n > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, alpha, a, k > 0 ? k : 1, b,
                    k > 0 ? k : 1, beta, c, n);
}

void bcop_product_nt_double(int m, int n, int k, const double *a, const double *b, double beta,
                            double *c) {
    if (m > 0 && n > 0)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, a, k > 0 ? k : 1, b,
                    k > 0 ? k : 1, beta, c, n);
}

typedef void product(int m, int n, int k, float alpha, const float *a, const float *b, float beta,
                     float *c);

static void by_rows(product *multiply, int rows, int unit, int n, int k, const float *a,
                    const float *b, float *c) {
    const double small = 1e6; /* OpenBLAS: interface/gemm.c and kernel/x86_64/sgemm_small_* */
    const int whole = rows - rows % unit;
    const int piece = (double)unit * n * k > small && whole > 0 ? whole : unit;
    for (int done = 0; done < rows; done += piece)
        multiply(rows - done < piece ? rows - done : piece, n, k, 1, a + (long)done * k, b, 0,
                 c + (long)done * n);
}

void bcop_product_nn_rows(int rows, int unit, int n, int k, const float *a, const float *b,
                          float *c) {
    by_rows(bcop_product_nn, rows, unit, n, k, a, b, c);
}

void bcop_product_nt_rows(int rows, int unit, int n, int k, const float *a, const float *b,
                          float *c) {
    by_rows(bcop_product_nt, rows, unit, n, k, a, b, c);
}

void bcop_product_tn(int m, int n, int k, float alpha, const float *a, const float *b, float beta,
                     float *c) {
    if (m > 0 && n > 0)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, m, n, k, alpha, a, m, b, n, beta, c,
                    n);
}

void bcop_product_outer(int m, int n, int k, const float *a, int stride, const float *b, float *c) {
    if (m > 0 && n > 0)
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, m, n, k, 1, a, stride, b, n, 0, c, n);
}

void bcop_product_gram(int rows, int cols, const float *w, float *g) {
    if (cols > 0)
        cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, cols, rows, 1, w, cols, 0, g, cols);
}

void bcop_product_inner(int rows, int cols, const float *u, const float *x, float *s) {
    if (cols > 0)
        cblas_ssyr2k(CblasRowMajor, CblasUpper, CblasTrans, cols, rows, 0.5f, u, cols, x, cols, 0,
                     s, cols);
}

void bcop_product_symmetric(int rows, int n, float alpha, const float *x, const float *s,
                            float beta, float *y) {
    if (rows > 0 && n > 0)
        cblas_ssymm(CblasRowMajor, CblasRight, CblasUpper, rows, n, alpha, s, n, x, n, beta, y, n);
}

void bcop_product_square(int n, float alpha, const float *s, float beta, float *y) {
    if (n > 0)
        cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, n, n, alpha, s, n, beta, y, n);
}

void bcop_product_commuting(int n, const float *a, const float *b, float *c) {
    const int strip = n > 8 * 32 ? (n + 7) / 8 : 32;
    for (int i = 0; i < n; i += strip) {
        const int rows = n - i < strip ? n - i : strip;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, n - i, n, 1, a + (long)i * n,
                    n, b + i, n, 0, c + (long)i * n + i, n);
    }
}

void bcop_product_mirror(int n, float *g) {
    enum { SQUARE = 32 }; /* both sides stay in cache */
    for (int i0 = 0; i0 < n; i0 += SQUARE)
        for (int j0 = i0; j0 < n; j0 += SQUARE)
            for (int i = i0; i < i0 + SQUARE && i < n; i++)
                for (int j = j0 > i ? j0 : i + 1; j < j0 + SQUARE && j < n; j++)
                    g[(long)j * n + i] = g[(long)i * n + j];
}

void bcop_product_gram_double(int rows, int cols, const double *w, double *g) {
    if (cols > 0)
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, cols, rows, 1, w, cols, 0, g, cols);
}

void bcop_product_gram_complex(int rows, int cols, const double complex *a, double complex *g) {
    if (cols > 0)
        cblas_zherk(CblasRowMajor, CblasUpper, CblasConjTrans, cols, rows, 1, a, cols, 0, g, cols);
}

void bcop_product_transpose(int rows, int cols, const float *from, float *to) {
    enum { SQUARE = 16 };
    for (int i0 = 0; i0 < rows; i0 += SQUARE)
        for (int j0 = 0; j0 < cols; j0 += SQUARE)
            for (int i = i0; i < i0 + SQUARE && i < rows; i++)
                for (int j = j0; j < j0 + SQUARE && j < cols; j++)
                    to[(long)j * rows + i] = from[(long)i * cols + j];
}

void bcop_product_threads(int threads) {
    openblas_set_num_threads(threads);
}

int bcop_product_thread_count(void) {
    return openblas_get_num_threads();
}

const char *bcop_product_library(void) {
    static char text[160];
    snprintf(text, sizeof text, "%s, core %s", openblas_get_config(), openblas_get_corename());
    return text;
}
