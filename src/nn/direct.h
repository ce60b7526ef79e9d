/* Direct convolution of one image: correlation with a kernel, and its derivative by the kernel.
 *
 * Neither knows channels or borders: x is memory in which each window is `lines` runs of `run`
 * floats, and every window gives `outputs` numbers,
 *     y[window][o] = bias[o] + sum over line, i of x[window + line + i] kernel[line][i][o].
 * For a padded NHWC map a run is k pixels with all their channels, and a stride is a longer way
 * from window to window. Nothing is gathered or copied: a tile of windows by outputs stays in
 * registers while the window is walked through.
 *
 * A sum is one chain of fused multiply-adds in the order of the window, whatever the tile: the bits
 * of a window's numbers depend on nothing but that window. All functions are Local and allocate
 * nothing. */
#ifndef BCOP_NN_DIRECT_H
#define BCOP_NN_DIRECT_H

/* All steps are in floats. */
typedef struct bcop_direct {
    int height, width;         /* windows */
    int lines, run;            /* what a window is made of */
    long line;                 /* from a line of a window to the next */
    long down, across;         /* from a window to the one below it, and to its right */
    int outputs;               /* of each window */
    long out_down, out_across; /* from its outputs to those of the window below, and right */
    const float *ahead;        /* what is wanted afterwards, to be brought to the second cache */
    long ahead_length;         /* floats; 0: nothing */
} bcop_direct;

/* `rows` rows of `run` floats, one after the other, to `outputs` each: a product of matrices. */
bcop_direct bcop_direct_rows(long rows, int run, int outputs);

/* Floats of a packed kernel, and the copying of row `row` < lines run of kernel[lines run][outputs]
 * into it. */
long bcop_direct_packed(const bcop_direct *d);
void bcop_direct_pack(const bcop_direct *d, long row, const float *outputs, float *packed);

/* y as above for all windows of one image, plus add, which is laid out as y and may be y; bias and
 * add may be NULL. */
void bcop_direct_correlate(const bcop_direct *d, const float *x, const float *packed,
                           const float *bias, const float *add, float *y);

/* The derivative: from gy, laid out as y, of n images that are x_image and gy_image floats apart,
 *     g[lines][run][outputs] = sum over windows of x[window + line + i] gy[window][o]
 * and, unless it is NULL, sum[outputs] = sum over windows of gy. At most 128 terms are added one
 * after the other, then these sums. A run of 0 floats leaves the sum alone. The second adds to what
 * g and sum hold. */
void bcop_direct_slope(const bcop_direct *d, int n, const float *x, long x_image, const float *gy,
                       long gy_image, float *g, float *sum);
void bcop_direct_slope_add(const bcop_direct *d, int n, const float *x, long x_image,
                           const float *gy, long gy_image, float *g, float *sum);

/* Fused multiply-adds of `rounds` rounds that touch no memory, what any of this is measured
 * against: their number of flops is returned, the result goes to *sink, which is zero before. */
double bcop_direct_peak(long rounds, float *sink);

#endif
