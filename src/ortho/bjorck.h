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
 * exceeds 2, W is divided by the latter's square root first. Of tall blocks (rows >= 3 cols) the
 * small matrices alone are iterated, Z <- Z P, G <- G P P, and U = W Z is applied once: of a group
 * one rank, the root, needs G for that, and the others may do something else until they get Z.
 * Blocks on a grid go there and back once, and take order 1 there. */
#ifndef BCOP_ORTHO_BJORCK_H
#define BCOP_ORTHO_BJORCK_H

#include "ortho/rows.h"

#include <stdbool.h>

typedef struct bcop_bjorck_rule {
    double tolerance;   /* of ||U^T U - I||_F / sqrt(cols); float32 reaches about 5e-7 */
    int max_iterations; /* more is an error */
} bcop_bjorck_rule;

/* rows >= 3 cols. Local. */
bool bcop_bjorck_is_tall(int rows, int cols);

/* Floats of scratch for one block, aligned as doubles. Local. */
long bcop_bjorck_scratch(const bcop_rows *rows);

/* An upper bound on ||I - W^T W||_F after an iteration of order 1, 2 or 4, from x >= 0 as above.
 * Local. */
double bcop_bjorck_left(int order, double x);

/* Flops of so many iterations of order 4 (on a grid 1) on this rank's rows: count cols^2 for each
 * Gram matrix (half of it is formed), 2 count cols^2 for each W P, tall blocks one of either; and
 * cols^3 for each square of a small matrix and 9/8 cols^3 for other products of them, of tall
 * blocks on the root, else on every rank of a group. Local. */
double bcop_bjorck_flops(const bcop_rows *rows, int iterations);

/* What this rank hands to MPI for so many iterations, beside what ScaLAPACK does, and for `sums`
 * more cols x cols sums and `squares` sums of squares. Local. */
void bcop_bjorck_list(const bcop_rows *rows, int iterations, int sums, int squares,
                      bcop_traffic_visitor v);

/* w[count][cols], this rank's rows of a block with rows >= cols >= 0: in W, out its polar factor U.
 * *iterations: how many were done. BCOP_DIVERGED naming `name` when W is not finite or
 * max_iterations do not suffice; w is then undefined. Allocates nothing. Collective over the rows'
 * group, with the same result on all of it. */
bcop_status bcop_bjorck_retract(bcop_bjorck_rule rule, const char *name, bcop_rows *rows, float *w,
                                float *scratch, int *iterations);

/* The same of a tall block in three parts, between which its group may do something else:
 * begin, G to the root (Collective over the group); settle, on the root alone, from G to Z (Local);
 * end, Z to all and W <- W Z (Collective). small[bcop_bjorck_small()] is kept from one to the next
 * on the root; elsewhere it is scratch. */
typedef struct bcop_bjorck_outcome {
    int iterations; /* done so far; 0 at first */
    bool finite, settled;
    bool moved;    /* Z is not I */
    bool again;    /* W Z is to be looked at again */
    double defect; /* of W Z, when it is not settled */
} bcop_bjorck_outcome;

long bcop_bjorck_small(const bcop_rows *rows); /* floats. Local */
void bcop_bjorck_begin(bcop_rows *rows, const float *w, float *small);
void bcop_bjorck_settle(bcop_bjorck_rule rule, const bcop_rows *rows, float *small, float *scratch,
                        bcop_bjorck_outcome *outcome);
bcop_status bcop_bjorck_end(bcop_bjorck_rule rule, const char *name, bcop_rows *rows, float *w,
                            float *small, float *scratch, bcop_bjorck_outcome *outcome);

#endif
