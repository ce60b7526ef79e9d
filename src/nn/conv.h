/* The parts of a `conv` layer: layer_conv.c has its options, its sizes and its stored kernel, and
 * applies it in one of two ways, equal to rounding:
 *   conv_dense.c     builds the taps, then it is an ordinary convolution: k^2 c_in c_out
 *                    multiply-adds per pixel;
 *   conv_factored.c  applies the blocks one after the other and never builds the kernel:
 *                    2 (k-1) 2 c r + c_in c_out of them; its lane gradient is that of the blocks.
 * conv_check.c has what certificates need. Functions are those of bcop_layer_kind. */
#ifndef BCOP_NN_CONV_H
#define BCOP_NN_CONV_H

#include "nn/kernel.h"
#include "nn/layer.h"

typedef struct bcop_conv_apply {
    void (*plan)(bcop_layer *layer); /* lane_gradient, saved, and what it costs */
    void (*take)(bcop_layer *layer, bool training, bcop_arena *arena);
    long (*scratch)(const bcop_layer *layer, int n);
    void (*build)(bcop_layer *layer); /* from the blocks, to what it is applied with */
    void (*pack)(bcop_layer *layer);  /* the same from the taps; NULL: it cannot */
    void (*forward)(const bcop_layer *layer, int n, const float *x, float *y, const bcop_tape *tape,
                    float *scratch);
    void (*slope)(const bcop_layer *layer, int n, const bcop_tape *tape, const float *gy,
                  float *lane_gradient, float *scratch);
    void (*backward)(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy, float *gx,
                     float *scratch);
    void (*pull)(bcop_layer *layer, const float *lane_gradient);
} bcop_conv_apply;

extern const bcop_conv_apply bcop_conv_dense, bcop_conv_factored;

/* A layer's state. All sizes are those after the stride. */
typedef struct bcop_conv {
    int c_in, c_out, height, width, k, stride;
    bool zero_pad;
    const bcop_conv_apply *apply;
    bcop_kernel kernel;
    float *taps;        /* [k][k][c_in][c_out] */
    bool has_taps;      /* of the blocks, or of the kernel that was loaded */
    struct {            /* dense */
        float *forward; /* packed for bcop_direct */
        float *adjoint; /* for each dy the kernel [k][k][c_out][dx][ch], taps reversed, packed */
        float *slope;   /* dL/dT [k][k][m][c] */
        float *tap;     /* scratch: [c_in][c_out] and a row of c_in */
    } dense;
    struct {                           /* factored, all packed for bcop_direct */
        float *h, *ht;                 /* H [c][m], and H^T */
        float *v[2 * BCOP_KERNEL_MAX]; /* V [c][r] of factor t, and V^T */
        float *vt[2 * BCOP_KERNEL_MAX];
        float *transposed; /* scratch of build */
    } factored;
} bcop_conv;

/* Sees to it that the taps are those of the blocks, unless a kernel was loaded since. Local. */
void bcop_conv_make_taps(const bcop_layer *layer);

/* Multiply-adds per pixel of forward. Local. */
double bcop_conv_dense_count(const bcop_conv *c);
double bcop_conv_factored_count(const bcop_conv *c);

/* Those of the last product of backward, which gives the gradient of the input. Local. */
double bcop_conv_factored_first(const bcop_conv *c);

/* bound, forward64, scratch64 and rounding of bcop_layer_kind. */
double bcop_conv_check_bound(const bcop_layer *layer, double *work);
void bcop_conv_check_forward64(const bcop_layer *layer, int n, const double *stored,
                               const double *x, double *y, double *rows);
long bcop_conv_check_scratch64(const bcop_layer *layer, int n);
bcop_rounding bcop_conv_check_rounding(const bcop_layer *layer, const double *stored);

#endif
