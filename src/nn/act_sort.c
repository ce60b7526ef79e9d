/* maxmin and groupsort: sorting activations (Anil, Lucas and Grosse, ICML 2019).
 *
 * Channels are cut into groups of n: group i holds the channels i, i + C/n, i + 2C/n, ... and its
 * values come out in descending order. MaxMin is n = 2: channel i becomes max(x_i, x_{i+C/2}) and
 * i + C/2 the min. The map permutes values, so it is 1-Lipschitz and its gradient keeps norms. What
 * is saved is one byte per value: which member of the group it was. */
#include "nn/layer_kinds.h"

#include <stddef.h>
#include <stdint.h>

enum { GROUP_MAX = 64 };

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

static bcop_status plan(bcop_layer *layer) {
    const int n = group_size(layer), channels = layer->in.channels;
    if (channels % n)
        return bcop_config_fail(layer->where, "%d channels do not divide into groups of %d",
                                channels, n);
    layer->out = layer->in;
    layer->saved = (bcop_shape_size(layer->in) + 3) / 4; /* bytes in floats */
    return BCOP_OK;
}

static uint8_t *members(const bcop_layer *layer, const bcop_tape *tape, int image) {
    return (uint8_t *)(tape->saved + image * layer->saved);
}

static void maxmin_forward(const bcop_layer *layer, int n, const float *x, float *y,
                           const bcop_tape *tape, float *scratch) {
    (void)scratch;
    const int half = layer->in.channels / 2;
    const long pixels = (long)layer->in.height * layer->in.width;
    for (int image = 0; image < n; image++) {
        uint8_t *restrict swapped = members(layer, tape, image);
        for (long p = 0; p < pixels; p++, x += 2 * half, y += 2 * half, swapped += half)
            for (int i = 0; i < half; i++) {
                const float a = x[i], b = x[i + half];
                const bool swap = a < b;
                swapped[i] = swap;
                y[i] = swap ? b : a;
                y[i + half] = swap ? a : b;
            }
    }
}

static void maxmin_backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy,
                            float *gx, float *scratch) {
    (void)scratch;
    const int half = layer->in.channels / 2;
    const long pixels = (long)layer->in.height * layer->in.width;
    for (int image = 0; image < n; image++) {
        const uint8_t *restrict swapped = members(layer, tape, image);
        for (long p = 0; p < pixels; p++, gy += 2 * half, gx += 2 * half, swapped += half)
            for (int i = 0; i < half; i++) {
                const float a = gy[i], b = gy[i + half];
                gx[i] = swapped[i] ? b : a;
                gx[i + half] = swapped[i] ? a : b;
            }
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
