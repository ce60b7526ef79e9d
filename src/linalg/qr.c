#include "linalg/qr.h"

#include <stdlib.h>

extern void dgeqrf_(const int *m, const int *n, double *a, const int *lda, double *tau,
                    double *work, const int *lwork, int *info);
extern void dorgqr_(const int *m, const int *n, const int *k, double *a, const int *lda,
                    const double *tau, double *work, const int *lwork, int *info);

bcop_status bcop_qr_orthonormal(int rows, int cols, double *a) {
    if (cols == 0)
        return BCOP_OK;
    const long size = (long)rows * cols;
    const int lwork = 64 * cols;
    double *q = malloc((size_t)(size + 2L * cols + lwork) * sizeof *q);
    if (!q)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: QR of %d x %d", rows, cols);
    double *tau = q + size, *sign = tau + cols, *work = sign + cols;
    for (int i = 0; i < rows; i++) /* LAPACK wants columns */
        for (int j = 0; j < cols; j++)
            q[(long)j * rows + i] = a[(long)i * cols + j];
    int info = 0;
    dgeqrf_(&rows, &cols, q, &rows, tau, work, &lwork, &info);
    for (int j = 0; j < cols; j++)
        sign[j] = q[(long)j * rows + j] < 0 ? -1 : 1;
    if (info == 0)
        dorgqr_(&rows, &cols, &cols, q, &rows, tau, work, &lwork, &info);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++)
            a[(long)i * cols + j] = sign[j] * q[(long)j * rows + i];
    free(q);
    if (info != 0)
        return bcop_status_fail(BCOP_INTERNAL, "QR of %d x %d failed (info %d)", rows, cols, info);
    return BCOP_OK;
}
