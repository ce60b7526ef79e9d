/* Windows of a convolution over a map NHWC: its borders, and the map as bcop_direct sees it.
 *
 * A layer of stride s is pixel-unshuffle by s and a kernel of side k/s on s^2 times the channels,
 * which is the same sum as a kernel of side k whose windows stand s pixels apart, padded by whole
 * strides. That is how it is computed: nothing is unshuffled. All functions are Local and allocate
 * nothing. */
#ifndef BCOP_NN_WINDOW_H
#define BCOP_NN_WINDOW_H

#include "nn/direct.h"

#include <stdbool.h>

/* A map and the windows over it: window (y, x) covers the rows y stride - before .. y stride -
 * before + k - 1 of the map, and columns alike; outside of it the map repeats (cyclic) or is zero.
 * The stride divides height, width, k and before. */
typedef struct bcop_window {
    int height, width, channels, k, stride, before;
    bool zero;
} bcop_window;

/* Floats of one padded map [height + k - stride][width + k - stride][channels]. */
long bcop_window_padded(const bcop_window *w);

/* One image x[height][width][channels] into a padded map. */
void bcop_window_pad(const bcop_window *w, const float *x, float *padded);

/* The windows of a padded map, each giving outputs of y[height/stride][width/stride][outputs]. */
bcop_direct bcop_window_direct(const bcop_window *w, int outputs);

#endif
