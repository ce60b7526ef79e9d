/* maxmin and groupsort: sorting activations (Anil, Lucas and Grosse, ICML 2019).
 *
 * Channels are cut into groups of n: group i holds the channels i, i + C/n, i + 2C/n, ... and its
 * values come out in descending order. MaxMin is n = 2: channel i becomes max(x_i, x_{i+C/2}) and
 * i + C/2 the min. The map permutes values, so it is 1-Lipschitz and its gradient keeps norms. What
 * is saved is one byte per value: which member of the group it was; for MaxMin, which is on every
 * step's way after each convolution, one bit per pair: whether they were exchanged. */
#include "nn/layer_kinds.h"

#include <stddef.h>
#include <stdint.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

enum { GROUP_MAX = 64, PAIRS = 8 /* of one byte of bits */ };

/* One float of PAIRS pairs, anywhere in memory. */
typedef float half_pairs __attribute__((vector_size(4 * PAIRS), aligned(4), may_alias));
typedef int32_t pair_mask __attribute__((vector_size(4 * PAIRS))); /* -1: yes */

typedef struct sort_options {
    int size;
} sort_options;

static const bcop_option maxmin_table[] = {{0}};

static const bcop_option groupsort_table[] = {
    {.key = "size",
     .type = BCOP_OPTION_INT,
     .offset = offsetof(sort_options, size),
     .min = 2,
     .max = GROUP_MAX,
     .help = "values per group; divides the channels"},
    {0},
};

static int group_size(const bcop_layer *layer) {
    const sort_options *o = layer->options;
    return layer->kind == &bcop_act_maxmin ? 2 : o->size;
}

/* Bytes of a pixel's bits. */
static int swap_bytes(const bcop_layer *layer) {
    return (layer->in.channels / 2 + PAIRS - 1) / PAIRS;
}

static bcop_status plan(bcop_layer *layer) {
    const int n = group_size(layer), channels = layer->in.channels;
    if (channels % n)
        return bcop_config_fail(layer->where, "%d channels do not divide into groups of %d",
                                channels, n);
    layer->out = layer->in;
    const long pixels = (long)layer->in.height * layer->in.width;
    const long bytes = pixels * (layer->kind == &bcop_act_maxmin ? swap_bytes(layer) : channels);
    layer->saved = (bytes + 3) / 4; /* in floats */
    return BCOP_OK;
}

static uint8_t *members(const bcop_layer *layer, const bcop_tape *tape, int image) {
    return (uint8_t *)(tape->saved + image * layer->saved);
}

/* Exchanges the masked pairs, first[i] with second[i], on the way from x to y. */
static inline void exchange(pair_mask mask, const float *x, float *y, int half) {
    const pair_mask a = (pair_mask) * (const half_pairs *)x,
                    b = (pair_mask) * (const half_pairs *)(x + half);
    *(half_pairs *)y = (half_pairs)((b & mask) | (a & ~mask));
    *(half_pairs *)(y + half) = (half_pairs)((a & mask) | (b & ~mask));
}

static inline uint8_t bits_of(pair_mask mask) {
#if defined(__AVX__)
    return (uint8_t)_mm256_movemask_ps((__m256)mask);
#else
    uint8_t bits = 0;
    for (int i = 0; i < PAIRS; i++)
        bits |= (uint8_t)((mask[i] & 1) << i);
    return bits;
#endif
}

static inline pair_mask mask_of(uint8_t bits) {
    const pair_mask weight = {1, 2, 4, 8, 16, 32, 64, 128};
    return (weight & (int32_t)bits) != 0;
}

/* One pixel of `half` pairs, the last byte's perhaps not all there. */
static inline void sort_pixel(int half, const float *x, float *y, uint8_t *swapped) {
    int i = 0;
    for (; i + PAIRS <= half; i += PAIRS) {
        const half_pairs a = *(const half_pairs *)(x + i), b = *(const half_pairs *)(x + i + half);
        const pair_mask mask = a < b;
        swapped[i / PAIRS] = bits_of(mask);
        exchange(mask, x + i, y + i, half);
    }
    if (i < half)
        swapped[i / PAIRS] = 0;
    for (; i < half; i++) {
        const float a = x[i], b = x[i + half];
        const bool swap = a < b;
        swapped[i / PAIRS] |= (uint8_t)(swap << i % PAIRS);
        y[i] = swap ? b : a;
        y[i + half] = swap ? a : b;
    }
}

static inline void unsort_pixel(int half, const float *gy, float *gx, const uint8_t *swapped) {
    int i = 0;
    for (; i + PAIRS <= half; i += PAIRS)
        exchange(mask_of(swapped[i / PAIRS]), gy + i, gx + i, half);
    for (; i < half; i++) {
        const float a = gy[i], b = gy[i + half];
        const bool swap = swapped[i / PAIRS] >> i % PAIRS & 1;
        gx[i] = swap ? b : a;
        gx[i + half] = swap ? a : b;
    }
}

static void maxmin_forward(const bcop_layer *layer, int n, const float *x, float *y,
                           const bcop_tape *tape, float *scratch) {
    (void)scratch;
    const int channels = layer->in.channels, bytes = swap_bytes(layer);
    const long pixels = (long)layer->in.height * layer->in.width;
    for (int image = 0; image < n; image++) {
        uint8_t *swapped = members(layer, tape, image);
        for (long p = 0; p < pixels; p++, x += channels, y += channels, swapped += bytes)
            sort_pixel(channels / 2, x, y, swapped);
    }
}

static void maxmin_backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy,
                            float *gx, float *scratch) {
    (void)scratch;
    const int channels = layer->in.channels, bytes = swap_bytes(layer);
    const long pixels = (long)layer->in.height * layer->in.width;
    for (int image = 0; image < n; image++) {
        const uint8_t *swapped = members(layer, tape, image);
        for (long p = 0; p < pixels; p++, gy += channels, gx += channels, swapped += bytes)
            unsort_pixel(channels / 2, gy, gx, swapped);
    }
}

/* Insertion sort of one group, descending and stable; from[j] says which member came to place j. */
static void sort_group(int size, int stride, const float *x, float *y, uint8_t *from) {
    float value[GROUP_MAX];
    uint8_t member[GROUP_MAX];
    for (int j = 0; j < size; j++) {
        const float v = x[(long)j * stride];
        int place = j;
        for (; place > 0 && value[place - 1] < v; place--) {
            value[place] = value[place - 1];
            member[place] = member[place - 1];
        }
        value[place] = v;
        member[place] = (uint8_t)j;
    }
    for (int j = 0; j < size; j++) {
        y[(long)j * stride] = value[j];
        from[(long)j * stride] = member[j];
    }
}

static void groupsort_forward(const bcop_layer *layer, int n, const float *x, float *y,
                              const bcop_tape *tape, float *scratch) {
    (void)scratch;
    const int size = group_size(layer), channels = layer->in.channels, groups = channels / size;
    const long pixels = (long)layer->in.height * layer->in.width;
    for (int image = 0; image < n; image++) {
        uint8_t *from = members(layer, tape, image);
        for (long p = 0; p < pixels; p++, x += channels, y += channels, from += channels)
            for (int g = 0; g < groups; g++)
                sort_group(size, groups, x + g, y + g, from + g);
    }
}

static void groupsort_backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy,
                               float *gx, float *scratch) {
    (void)scratch;
    const int size = group_size(layer), channels = layer->in.channels, groups = channels / size;
    const long pixels = (long)layer->in.height * layer->in.width;
    for (int image = 0; image < n; image++) {
        const uint8_t *from = members(layer, tape, image);
        for (long p = 0; p < pixels; p++, gy += channels, gx += channels, from += channels)
            for (int g = 0; g < groups; g++) {
                float group[GROUP_MAX];
                for (int j = 0; j < size; j++)
                    group[from[g + j * groups]] = gy[g + j * groups];
                for (int j = 0; j < size; j++)
                    gx[g + j * groups] = group[j];
            }
    }
}

static void forward64(const bcop_layer *layer, int n, const double *stored, const double *x,
                      double *y, double *scratch) {
    (void)stored;
    (void)scratch;
    const int size = group_size(layer), channels = layer->in.channels, groups = channels / size;
    const long pixels = (long)n * layer->in.height * layer->in.width;
    for (long p = 0; p < pixels; p++, x += channels, y += channels)
        for (int g = 0; g < groups; g++)
            for (int j = 0; j < size; j++) { /* insertion sort, in place too */
                const double v = x[g + j * groups];
                int place = j;
                for (; place > 0 && y[g + (place - 1) * groups] < v; place--)
                    y[g + place * groups] = y[g + (place - 1) * groups];
                y[g + place * groups] = v;
            }
}

const bcop_layer_kind bcop_act_maxmin = {
    .name = "maxmin",
    .help = "MaxMin: channel i becomes max and i + C/2 min of the pair",
    .options = maxmin_table,
    .in_place = true,
    .torch = "a, b = x.chunk(2, dim=1)\n"
             "return torch.cat((torch.maximum(a, b), torch.minimum(a, b)), dim=1)\n",
    .plan = plan,
    .forward = maxmin_forward,
    .backward = maxmin_backward,
    .forward64 = forward64,
};

const bcop_layer_kind bcop_act_groupsort = {
    .name = "groupsort",
    .help = "GroupSort: the values of each group in descending order",
    .options = groupsort_table,
    .options_size = sizeof(sort_options),
    .in_place = true,
    .torch = "groups = x.unflatten(1, (self.options['size'], -1))\n"
             "return groups.sort(dim=1, descending=True)[0].flatten(1, 2)\n",
    .plan = plan,
    .forward = groupsort_forward,
    .backward = groupsort_backward,
    .forward64 = forward64,
};
