/* Proven bounds on the rounding of sums of products (Higham, Accuracy and Stability of Numerical
 * Algorithms, chapters 3 and 4), and what a map must say of itself so that its own can be bounded.
 */
#ifndef BCOP_LINALG_ROUNDING_H
#define BCOP_LINALG_ROUNDING_H

/* gamma_n = n u / (1 - n u): a sum of n products, in any order of summation and with or without
 * fused multiply-adds, errs by at most gamma_n times the sum of their absolute values. Infinity
 * from n u = 1/2 on. `unit` is the unit roundoff u: 2^-53 or 2^-24. Local. */
double bcop_rounding_gamma(double terms, double unit);

/* Of a map y = A x + b whose every output is one sum of at most `terms` products and an entry of
 * b. Then, with x as given and ||.|| the L2 norm,
 *     ||computed y - y|| <= gamma_(terms+1) (absolute ||x|| + offset) + what underflows. */
typedef struct bcop_rounding {
    double terms;
    double absolute; /* upper bound on the spectral norm of |A| */
    double offset;   /* upper bound on ||b|| */
} bcop_rounding;

/* Upper bound on the spectral norm of |A| for the convolution A (any padding) with the kernel
 * stored[out][in][taps]; a matrix has one tap. |A| is dominated by the convolution with |stored|,
 * whose norm on any torus is that of S = sum over taps of |stored|, and ||S||_2^2 <= ||S||_1
 * ||S||_inf. Its own rounding is included. Local. */
double bcop_rounding_absolute(int out, int in, int taps, const double *stored);

/* The decimal of `places` places next to value that is not below it, or not above it: a bound
 * printed with %.*f must stay one. Local. */
double bcop_rounding_up(double value, int places);
double bcop_rounding_down(double value, int places);

/* Upper bound on the L2 norm of x[count], its own rounding included. Local. */
double bcop_rounding_norm(long count, const double *x);

#endif
