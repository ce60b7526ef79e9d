/* Proven upper bounds on spectral norms, in float64 with their own rounding included.
 *
 * For A with n = the shorter side and G = A^H A (or A A^H) of size n x n,
 *     ||A||_2^2 = ||G||_2 <= 1 + ||G - I||_2 <= 1 + ||G - I||_F,
 * which is tight for near-orthonormal A, and
 *     ||A||_2 <= ||G^4||_F^(1/8) <= n^(1/16) ||A||_2
 * for any A; the smaller of the two is returned. No SVD, no power iteration.
 * Rounding: with unit roundoff u = 2^-53 and inner dimension m, the computed Gram matrix differs
 * from the exact one of the given A by at most gamma_{m+2} |A|^H|A| elementwise (Higham, Accuracy
 * and Stability, section 3.5; for complex arithmetic section 3.6 gives sqrt(2) gamma_{m+2} ), so in
 * Frobenius norm by at most 2 gamma_{m+2} ||A||_F^2. The caller adds the error of A itself. */
#ifndef BCOP_LINALG_SPECTRAL_H
#define BCOP_LINALG_SPECTRAL_H

#include <complex.h>

/* Doubles of workspace for either function: the shorter side is `n`. */
long bcop_spectral_work(int n);

/* Upper bound on ||A + E||_2 for any E with ||E||_F <= error; a[rows][cols] with rows >= cols.
 * work: bcop_spectral_work(cols) doubles. Local. */
double bcop_spectral_bound(int rows, int cols, const double *a, double error, double *work);
double bcop_spectral_bound_complex(int rows, int cols, const double complex *a, double error,
                                   double *work);

#endif
