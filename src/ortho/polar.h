/* The polar factor of any matrix to low accuracy, for orthogonalised momentum (Jordan et al., Muon,
 * 2024): few products, none of them far from the peak of the machine.
 *
 * M, scaled below 1, goes through odd quintics M <- M (a I + b G + c G^2), G = M^T M, which take
 * every singular value s to a s + b s^3 + c s^5 in [0, 1]. Each is the nearest to 1, in the largest
 * error, on the interval that the one before leaves of [0.1, 1], divided by its maximum; together
 * they are then the best of their kind (Amsel et al., The Polar Express, arXiv 2505.16932). Two of
 * them take what is above a tenth of the largest singular value to 0.88 .. 1, and multiply what is
 * far below it by 11.2: as far as six iterations s -> (3s - s^3)/2 would, with a fifth of their
 * products. More of them converge to the factor.
 *
 * All but M^T M and one product with M is on the small matrices, which every rank of a group has.
 */
#ifndef BCOP_ORTHO_POLAR_H
#define BCOP_ORTHO_POLAR_H

#include "ortho/rows.h"

/* a, b, c of the i-th quintic from 0; from the fourth on the one that stays at 1 to the third
 * order, (15, -10, 3) / 8. Local. */
const double *bcop_polar_quintic(int i);

/* Floats of scratch for one block, aligned as doubles. Local. */
long bcop_polar_scratch(const bcop_rows *rows);

/* How many cols x cols sums over the rows it forms, on a grid none of these ranks' own. Local. */
int bcop_polar_sums(const bcop_rows *rows);

/* Flops on this rank's rows: 3 count cols^2, and on every rank of a group cols^3 for each square of
 * a small matrix and 9/8 cols^3 for each product of two; on a grid 5 i count cols^2. Local.
 */
double bcop_polar_flops(const bcop_rows *rows, int iterations);

/* w <- w + alpha F, where F is the polar factor of m after so many quintics; w, m[count][cols] with
 * rows >= cols >= 0. An m whose squares leave the range of float32, zero among them, is taken as it
 * is, and so is what is not finite. Allocates nothing. Collective over the rows' group. */
void bcop_polar_add(int iterations, bcop_rows *rows, float alpha, const float *m, float *w,
                    float *scratch);

#endif
