/* Householder QR (LAPACK) in float64. */
#ifndef BCOP_LINALG_QR_H
#define BCOP_LINALG_QR_H

#include "base/status.h"

/* Replaces a[rows][cols] (rows >= cols, row-major) by the Q of its QR factorization with the
 * diagonal of R positive, which makes Q unique; for a Gaussian `a` Q is then uniform (Haar;
 * Mezzadri, Notices of the AMS 54, 2007). Allocates its workspace. BCOP_INTERNAL without memory.
 * Local. */
bcop_status bcop_qr_orthonormal(int rows, int cols, double *a);

#endif
