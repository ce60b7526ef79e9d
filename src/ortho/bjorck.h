/* The Bjorck retraction: W to its polar factor (Bjorck and Bowie, SIAM J. Numer. Anal. 8, 1971;
 * Anil et al., ICML 2019):
 *     W <- W (3 I - G) / 2,   G = W^T W.
 * Every singular value goes x -> (3x - x^3)/2, which maps [0, sqrt 3] into [0, 1] and converges to
 * 1 quadratically from (0, sqrt 3).
 *
 * Safe scaling: when ||G - I||_F >= sigma_max^2 - 1 exceeds 1, and min(||G||_inf, ||G||_F) >=
 * sigma_max^2 exceeds 2, W is divided by the latter's square root first. Free stop test: one
 * iteration maps e = ||G - I|| to at most 3/4 e^2 + 1/4 e^3, so when that is small enough, one more
 * iteration ends it without forming G again. Tall blocks (rows >= 3 cols) iterate on the small
 * matrices alone, B = (3I - G)/2, Z <- Z B, G <- G B B, and apply U = W Z once. Blocks on a grid go
 * there and back once, and iterate there as they are. */
#ifndef BCOP_ORTHO_BJORCK_H
#define BCOP_ORTHO_BJORCK_H

#include "ortho/rows.h"

typedef struct bcop_bjorck_rule {
    double tolerance;   /* of ||U^T U - I||_F / sqrt(cols); float32 reaches about 5e-7 */
    int max_iterations; /* more is an error */
} bcop_bjorck_rule;

/* Floats of scratch for one block, aligned as doubles. Local. */
long bcop_bjorck_scratch(const bcop_rows *rows);

/* How many Gram matrices so many iterations from next to the manifold form: with the small
 * iteration one in all, on a grid none of these ranks' own. Local. */
int bcop_bjorck_sums(const bcop_rows *rows, int iterations);

/* Flops of so many iterations on this rank's rows: count cols^2 for each Gram matrix (half of it is
 * formed), 2 count cols^2 for each W B; tall blocks one of either, and 2 cols^3 for each product of
 * the small iteration, which every rank of a group does. Local. */
double bcop_bjorck_flops(const bcop_rows *rows, int iterations);

/* w[count][cols], this rank's rows of a block with rows >= cols >= 0: in W, out its polar factor U.
 * *iterations: how many were done. BCOP_DIVERGED naming `name` when W is not finite or
 * max_iterations do not suffice; w is then undefined. Allocates nothing. Collective over the rows'
 * group, with the same result on all of it. */
bcop_status bcop_bjorck_retract(bcop_bjorck_rule rule, const char *name, bcop_rows *rows, float *w,
                                float *scratch, int *iterations);

/* One polar factor to low accuracy: `iterations` Bjorck steps on M scaled below 1, no test.
 * Singular values of M far below the largest stay below 1. Used for orthogonalised momentum.
 * m[count][cols]; scratch as above. Zero, and what is below about 1e-15, stays as it is. Collective
 * over the rows' group. */
void bcop_bjorck_polar(int iterations, bcop_rows *rows, float *m, float *scratch);

#endif
