#include "data/augment.h"

#include "base/rng.h"

#include <string.h>

static int draw_shift(bcop_rng *rng, int padding) {
    return (int)bcop_rng_below(rng, (uint32_t)(2 * padding + 1)) - padding;
}

/* Row y of the shifted map: zeros, or a piece of one row of x. */
static void shift_row(bcop_shape shape, int y, int dx, const float *row, float *out) {
    const int first = dx > 0 ? dx : 0, last = dx < 0 ? shape.width + dx : shape.width;
    const long pixel = shape.channels;
    float *target = out + (long)y * shape.width * pixel;
    memset(target, 0, (size_t)(shape.width * pixel) * sizeof(float));
    if (row && first < last)
        memcpy(target + first * pixel, row + (first - dx) * pixel,
               (size_t)((last - first) * pixel) * sizeof(float));
}

static void mirror(bcop_shape shape, float *x) {
    for (int y = 0; y < shape.height; y++)
        for (int left = 0, right = shape.width - 1; left < right; left++, right--) {
            float *a = x + ((long)y * shape.width + left) * shape.channels;
            float *b = x + ((long)y * shape.width + right) * shape.channels;
            for (int c = 0; c < shape.channels; c++) {
                const float kept = a[c];
                a[c] = b[c];
                b[c] = kept;
            }
        }
}

void bcop_augment_apply(bcop_augment_rule rule, int padding, bcop_shape shape, uint64_t seed,
                        uint32_t epoch, long sample, const float *x, float *out) {
    bcop_rng rng = bcop_rng_open(seed, BCOP_RNG_AUGMENT, epoch, (uint64_t)sample);
    const bool crops = rule == BCOP_AUGMENT_CROP || rule == BCOP_AUGMENT_CROP_FLIP;
    const bool flips = rule == BCOP_AUGMENT_FLIP || rule == BCOP_AUGMENT_CROP_FLIP;
    const int dy = draw_shift(&rng, padding), dx = draw_shift(&rng, padding);
    const bool flipped = bcop_rng_below(&rng, 2) == 1;
    if (crops)
        for (int y = 0; y < shape.height; y++) {
            const int from = y - dy;
            const bool inside = from >= 0 && from < shape.height;
            shift_row(shape, y, dx, inside ? x + (long)from * shape.width * shape.channels : NULL,
                      out);
        }
    else
        memcpy(out, x, (size_t)bcop_shape_size(shape) * sizeof(float));
    if (flips && flipped)
        mirror(shape, out);
}
