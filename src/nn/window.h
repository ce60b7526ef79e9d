/* Convolution of maps by windows: pad, gather the k x k windows as rows (im2row), one product.
 *
 * All maps are NHWC, stride 1. What a layer's stride asks for is pixel-unshuffle on the way in and
 * its inverse on the way out. All functions are Local and allocate nothing. */
#ifndef BCOP_NN_WINDOW_H
#define BCOP_NN_WINDOW_H

#include <stdbool.h>

/* A map and the windows over it: window (y, x) covers the rows y - before .. y - before + k - 1 of
 * the map, and columns alike; outside of it the map repeats (cyclic) or is zero. */
typedef struct bcop_window {
    int height, width, channels, k, before;
    bool zero;
} bcop_window;

/* Floats of one padded map [height + k - 1][width + k - 1][channels]. */
long bcop_window_padded(const bcop_window *w);

/* Floats of the rows that correlate and slope gather at a time, for n images. */
long bcop_window_rows(const bcop_window *w, int n);

/* x[height s][width s][channels / s^2] by pixel-unshuffle (sub-pixel (dy, dx) of channel c becomes
 * channel c s^2 + dy s + dx) into a padded map. */
void bcop_window_pad(const bcop_window *w, int s, const float *x, float *padded);

/* Pixel-shuffle, the inverse: from[height][width][channels] to x[height s][width s][channels /
 * s^2]. */
void bcop_window_shuffle(const bcop_window *w, int s, const float *from, float *x);

/* Cross-correlation: y[n][height][width][c_out] = beta y + windows of n padded maps times
 * kernel[k][k][channels][c_out]. */
void bcop_window_correlate(const bcop_window *w, int n, const float *padded, const float *kernel,
                           int c_out, float beta, float *y, float *rows);

/* Its derivative by the kernel: g[k][k][channels][c_out] = windows^T gy[n][height][width][c_out].
 */
void bcop_window_slope(const bcop_window *w, int n, const float *padded, const float *gy, int c_out,
                       float *g, float *rows);

#endif
