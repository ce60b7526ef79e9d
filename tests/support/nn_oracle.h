/* The independent side of the tests of nn/: float64, by definition, with nothing of src/nn in it.
 *
 * Maps are [channels][height][width] and kernels [c_out][c_in][k][k] as in PyTorch, one image at a
 * time. Deliberately naive: projectors are formed as c x c matrices, block convolutions and
 * correlations are direct loops. */
#ifndef BCOP_TESTS_NN_ORACLE_H
#define BCOP_TESTS_NN_ORACLE_H

#include "base/shape.h"

#include <stdbool.h>

/* In which order the pairs are convolved: the right one, or a mistake that tests must tell from it.
 */
typedef enum nn_oracle_order {
    NN_ORACLE_RIGHT,
    NN_ORACLE_FIRST_TWICE, /* pair 1 twice and the last never, as the first published code did */
    NN_ORACLE_REVERSED,    /* the last pair first */
    NN_ORACLE_EXCHANGED    /* P and Q of each pair exchanged */
} nn_oracle_order;

/* The BCOP kernel [c_out][c_in][k][k] from h [c][m] and the projector bases v[0 .. 2k-3] [c][r],
 * P1, Q1, P2, Q2, ..., with c, m the larger and smaller number of channels and r = floor(c/2). Any
 * matrices will do: the kernel is a polynomial in them. */
void nn_oracle_kernel(int c_in, int c_out, int k, nn_oracle_order order, const double *h,
                      const double *const v[], double *kernel);

/* A convolution with stride by pixel-unshuffle; k is the kernel's side after it. */
typedef struct nn_oracle_conv {
    bcop_shape in; /* before the stride */
    int stride, k, channels;
    bool zero; /* zero padding, else cyclic */
} nn_oracle_conv;

bcop_shape nn_oracle_conv_out(const nn_oracle_conv *conv);

/* y[c s^2 + dy s + dx][i][j] = x[c][i s + dy][j s + dx] for a map x of shape `in`. */
void nn_oracle_unshuffle(bcop_shape in, int stride, const double *x, double *y);

/* y[o][p] = bias[o] + sum over i, a, b of kernel[o][i][a][b] xpad[i][p + (a, b) - floor(k/2)] with
 * x unshuffled; bias may be NULL. */
void nn_oracle_conv_apply(const nn_oracle_conv *conv, const double *kernel, const double *bias,
                          const double *x, double *y);

/* The whole layer as a matrix [outputs][inputs], by applying it to unit vectors. */
void nn_oracle_conv_matrix(const nn_oracle_conv *conv, const double *kernel, double *matrix);

/* y[out] = bias + weight[out][in] x; bias may be NULL. */
void nn_oracle_dense_apply(int in, int out, const double *weight, const double *bias,
                           const double *x, double *y);

/* Channels i, i + C/size, i + 2 C/size, ... in descending order; y may be x. Returns the smallest
 * difference of two values of a group: how far the nearest kink is. */
double nn_oracle_groupsort(bcop_shape shape, int size, const double *x, double *y);

/* Losses of one example; `kink`, unless NULL, becomes min(kink, distance of a hinge from its bend).
 */
long double nn_oracle_hinge(int classes, const double *z, int label, double eps, double *kink);
long double nn_oracle_cross_entropy(int classes, const double *z, int label, double offset,
                                    double temperature);

/* max(0, (z_y - max over j != y of z_j) / sqrt(2)). */
long double nn_oracle_reward(int classes, const double *z, int label, double *kink);

/* With d[classes][classes] distances of rows: the logits z_y, z_y - (z_y - z_j) sqrt(2) / d_yj. */
void nn_oracle_stretch(int classes, const double *d, const double *z, int label, double *t);

/* Pairs i, i + C/2 reflected at the line through (cos t_i/2, sin t_i/2) where they lie on its left,
 * that is, where the component along (-sin t_i/2, cos t_i/2) is positive; y may be x. Returns the
 * smallest distance of a pair from its line. */
double nn_oracle_householder(bcop_shape shape, const double *angle, const double *x, double *y);

/* Between one NHWC image and [channels][height][width]. */
void nn_oracle_chw(bcop_shape shape, const float *nhwc, double *chw);
void nn_oracle_nhwc(bcop_shape shape, const double *chw, double *nhwc);

#endif
