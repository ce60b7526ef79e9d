/* The shape of one example's activation: a map of height x width pixels with `channels` values
 * each, stored NHWC: value (y, x, c) of an example is at (y * width + x) * channels + c. A vector
 * is a 1 x 1 map. */
#ifndef BCOP_BASE_SHAPE_H
#define BCOP_BASE_SHAPE_H

#include <stdbool.h>

typedef struct bcop_shape {
    int height, width, channels;
} bcop_shape;

static inline long bcop_shape_size(bcop_shape s) {
    return (long)s.height * s.width * s.channels;
}

static inline bool bcop_shape_equal(bcop_shape a, bcop_shape b) {
    return a.height == b.height && a.width == b.width && a.channels == b.channels;
}

#endif
