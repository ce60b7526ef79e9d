/* Proven upper bounds on spectral norms, in float64 with their own rounding included.
 *
 * For A with n = the shorter side and G = A^H A (or A A^H) of size n x n,
 *     ||A||_2^2 = ||G||_2 <= 1 + ||G - I||_2 <= 1 + ||G - I||_F,
 * which is tight for near-orthonormal A, and
 *     ||A||_2 <= ||G^4||_F^(1/8) <= n^(1/16) ||A||_2
 * for any A; the smaller of the two is returned. No SVD, no power iteration.
 * Rounding: an entry of G is a sum of m = rows real products, or in its real and its imaginary part
 * of m = 2 rows, in any order (rounding.h), so the computed Gram matrix differs from the exact one
 * of the given A by at most gamma_m |A|^T|A|, sqrt(2) gamma_m |A|^H|A| when complex: in the
 * Frobenius norm at most sqrt(2) gamma_m ||A||_F^2. The caller adds the error of A itself. */
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
