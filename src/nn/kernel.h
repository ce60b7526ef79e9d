/* The BCOP kernel: from blocks to k x k taps, and gradients back (Li et al., NeurIPS 2019, section
 * 4; Xiao et al., ICML 2018, for the block convolution).
 *
 * c = max(c_in, c_out), m = min(c_in, c_out), r = floor(c/2). Blocks: H [c][m], and k-1 pairs V of
 * projector bases [c][r]: P1, Q1, P2, Q2, ... with P = V V^T. A pair is the 2x2 kernel
 *     [[P Q, P (I-Q)], [(I-P) Q, (I-P) (I-Q)]] = [P; I-P] * [Q, I-Q],
 * and A is the block convolution of the pairs in order, (A*B)[i,j] = sum_ab A[a,b] B[i-a,j-b]. The
 * taps are
 *     T[i,j] = H^T A[i,j]        [m][c]
 * built from H^T outward: a factor [P; I-P] turns the taps X[i] into X[i] P + X[i-1] (I - P), with
 * one product per tap, X(I-P) = X - XP and XP = (X V) V^T. c_in <= c_out: the layer's tap (c_out x
 * c_in) is T^T; c_in > c_out: it is T. Either way all m singular values are 1 at every frequency.
 */
#ifndef BCOP_NN_KERNEL_H
#define BCOP_NN_KERNEL_H

#include "base/arena.h"

#include <stdbool.h>

enum { BCOP_KERNEL_MAX = 7 };

typedef struct bcop_kernel {
    int c, m, r, k;
    int factors; /* 2 (k - 1): P1, Q1, P2, Q2, ... */
    float
        *taps[2 * BCOP_KERNEL_MAX]; /* taps before factor t: [height][width][m][c]; the last is T */
    float *projected[2 * BCOP_KERNEL_MAX]; /* taps V of factor t: [height][width][m][r] */
    float *product;                        /* scratch [k][k][m][c] */
    float *slope[2], *slope_projected;     /* scratch of backward */
} bcop_kernel;

/* Sizes from the channels after the stride and the kernel side k after it. Local. */
bcop_kernel bcop_kernel_plan(int c_in, int c_out, int k);

/* Takes the memory, in both passes of the arena. Local. */
void bcop_kernel_take(bcop_kernel *kernel, bool training, bcop_arena *arena);

/* Flops of bcop_kernel_forward's products: 4 m c r for each tap before each factor. Backward has
 * twice as many. Local. */
double bcop_kernel_flops(const bcop_kernel *kernel);

/* The taps T [k][k][m][c] (owned by the kernel, valid until the next call) from h [c][m] and
 * v[t] [c][r]. Local. */
const float *bcop_kernel_forward(bcop_kernel *kernel, const float *h, const float *const v[]);

/* After forward with the same blocks: from g = dL/dT [k][k][m][c] (overwritten) to gh [c][m] and
 * gv[t] [c][r]. Local. */
void bcop_kernel_backward(bcop_kernel *kernel, const float *const v[], const float *g, float *gh,
                          float *const gv[]);

#endif
