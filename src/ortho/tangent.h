/* The tangent projection on the Stiefel manifold.
 *
 * At U with U^T U = I the derivative of W -> polar(W) at W = U maps a gradient G = dL/dU to
 *     xi = G - U sym(U^T G),   sym(A) = (A + A^T)/2,
 * so this is the exact gradient through the (converged) orthogonalization; tested against a float64
 * unrolled Bjorck iteration. */
#ifndef BCOP_ORTHO_TANGENT_H
#define BCOP_ORTHO_TANGENT_H

#include "ortho/rows.h"

/* Floats of scratch for one block: cols^2, or on a grid the parts of U, G and S. Local. */
long bcop_tangent_scratch(const bcop_rows *rows);

/* How many cols x cols sums over the rows it forms, on a grid none of these ranks' own; `depth`: of
 * the image, 0 without. Local. */
int bcop_tangent_sums(const bcop_rows *rows, int depth);

/* Flops on this rank's rows: 4 count cols^2, or 2 (count + depth) cols^2. */
double bcop_tangent_flops(const bcop_rows *rows, int depth);

/* The same where U^T G = image^T right is known from few examples, image[depth][cols] and
 * right[depth][cols]: half the flops and no sum over the rows. Not on a grid. Local. */
void bcop_tangent_project_image(const bcop_rows *rows, const float *u, int depth,
                                const float *image, const float *right, float *g, float *scratch);

/* u[count][cols], this rank's rows of an orthonormal block; g[count][cols]: in the gradient, out
 * its projection. Collective over the rows' group. */
void bcop_tangent_project(bcop_rows *rows, const float *u, float *g, float *scratch);

#endif
