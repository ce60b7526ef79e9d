/* The Bjorck retraction: W to its polar factor (Bjorck and Bowie, SIAM J. Numer. Anal. 8, 1971;
 * Anil et al., ICML 2019). With G = W^T W and Q = I - G one iteration of order p is
 *     W <- W P(Q),   P(q) = 1 + 1/2 q + 3/8 q^2 + ... + binom(2p, p) / 4^p q^p,
 * the beginning of (1 - q)^(-1/2); order 1 is W (3 I - G) / 2. All of it but two products, G and
 * the last one with W, is on the small matrix Q.
 *
 * What is left, Q' = f(Q) with f(q) = 1 - (1 - q) P(q)^2, is q^(p+1) times a polynomial; its
 * coefficients are positive and sum to 1 (bcop_bjorck_left has them). So ||Q'||_F <= f(x) for any x
 * with ||Q^k||_F <= x^k, k = 2, 3, ...: x = ||Q||_F, or the root of ||Q^2||_F, which is smaller.
 * The smallest order of 1, 2 (one product more, Q^2) and 4 (two more) that so brings W within the
 * tolerance is taken once, and ends it without forming G again: the usual step.
 *
 * Far away: at order 1 every singular value goes s -> (3s - s^3)/2, which maps [0, sqrt 3] into
 * [0, 1] and converges to 1 from (0, sqrt 3); so there, and wherever x exceeds 3/4, order 1 it is.
 * Safe scaling: when x >= sigma_max^2 - 1 exceeds 1, and min(||G||_inf, ||G||_F) >= sigma_max^2
 * exceeds 2, W is divided by the latter's square root first. Where one iteration is not enough,
 * tall blocks (rows >= 3 cols) go on with the small matrices alone, Z <- Z P, G <- G P P, and apply
 * U = W Z once. Blocks on a grid go there and back once, and take order 1 there. */
#ifndef BCOP_ORTHO_BJORCK_H
#define BCOP_ORTHO_BJORCK_H

#include "ortho/rows.h"

typedef struct bcop_bjorck_rule {
    double tolerance;   /* of ||U^T U - I||_F / sqrt(cols); float32 reaches about 5e-7 */
    int max_iterations; /* more is an error */
} bcop_bjorck_rule;

/* Floats of scratch for one block, aligned as doubles. Local. */
long bcop_bjorck_scratch(const bcop_rows *rows);

/* An upper bound on ||I - W^T W||_F after an iteration of order 1, 2 or 4, from x >= 0 as above.
 * Local. */
double bcop_bjorck_left(int order, double x);

/* How many Gram matrices so many iterations form: of tall blocks one in all, on a grid none of
 * these ranks' own. Local. */
int bcop_bjorck_sums(const bcop_rows *rows, int iterations);

/* Flops of so many iterations of order 4 (on a grid 1) on this rank's rows: count cols^2 for each
 * Gram matrix (half of it is formed), 2 count cols^2 for each W P, tall blocks one of either, and
 * on every rank of a group cols^3 for each square of a small matrix and 9/8 cols^3 for other
 * products of them. Local. */
double bcop_bjorck_flops(const bcop_rows *rows, int iterations);

/* w[count][cols], this rank's rows of a block with rows >= cols >= 0: in W, out its polar factor U.
 * *iterations: how many were done. BCOP_DIVERGED naming `name` when W is not finite or
 * max_iterations do not suffice; w is then undefined. Allocates nothing. Collective over the rows'
 * group, with the same result on all of it. */
bcop_status bcop_bjorck_retract(bcop_bjorck_rule rule, const char *name, bcop_rows *rows, float *w,
                                float *scratch, int *iterations);

#endif
