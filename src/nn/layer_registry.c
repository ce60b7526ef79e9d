#include "nn/layer.h"
#include "nn/layer_kinds.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const bcop_layer_kind *const bcop_layer_kinds[] = {
    &bcop_layer_conv,    &bcop_layer_dense,     &bcop_act_maxmin,
    &bcop_act_groupsort, &bcop_act_householder, NULL,
};

bcop_status bcop_layer_want(bcop_layer *layer, const char *suffix, int rows, int cols,
                            bool orthonormal) {
    bcop_parameter *list =
        realloc(layer->parameter, ((size_t)layer->parameters + 1) * sizeof *list);
    if (!list)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for layer %s", layer->name);
    layer->parameter = list;
    bcop_parameter *p = &list[layer->parameters++];
    *p = (bcop_parameter){
        .rows = rows, .cols = cols, .orthonormal = orthonormal, .bundle = 2 * layer->index};
    snprintf(p->name, sizeof p->name, "%s/%s", layer->name, suffix);
    return BCOP_OK;
}

long bcop_layer_stored_count(const bcop_layer *layer) {
    long count = layer->stored_dimensions ? 1 : 0;
    for (int d = 0; d < layer->stored_dimensions; d++)
        count *= layer->stored_size[d];
    return count;
}

bcop_parameter *bcop_layer_bias(const bcop_layer *layer) {
    const bcop_parameter *last =
        layer->parameters ? &layer->parameter[layer->parameters - 1] : NULL;
    return last && !last->orthonormal ? (bcop_parameter *)last : NULL;
}

void bcop_layer_fill_bias64(const bcop_layer *layer, long rows, int channels, double *y) {
    const bcop_parameter *bias = bcop_layer_bias(layer);
    for (long i = 0; i < rows; i++)
        for (int c = 0; c < channels; c++)
            y[i * channels + c] = bias ? (double)bias->value[c] : 0;
}

bcop_rounding bcop_layer_rounding(const bcop_layer *layer, long rows, int out, int in, int taps,
                                  const double *stored) {
    const bcop_parameter *bias = bcop_layer_bias(layer);
    double square = 0;
    for (int c = 0; bias && c < out; c++)
        square += (double)bias->value[c] * (double)bias->value[c];
    return (bcop_rounding){
        .terms = (double)in * taps,
        .absolute = bcop_rounding_absolute(out, in, taps, stored),
        .offset = sqrt(square * (double)rows) * (1 + bcop_rounding_gamma(out + 16, 0x1p-53)),
    };
}
