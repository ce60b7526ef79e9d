/* dense: the orthogonal fully connected layer, y = x W^T + b with one block U.
 *
 * in >= units: U [in][units], W = U^T (1-Lipschitz); in < units: U [units][in], W = U (norm
 * preserving). A map is flattened in the order (channel, row, column), as PyTorch does.
 *
 * normalize: rows (Singla, Singla and Feizi, ICLR 2022): only as the last layer; W has rows of unit
 * norm, each a block U_i [in][1] of its own, and need not be orthonormal. Its certificates divide
 * margins by distances of rows, and losses may have gradients with respect to these.
 *
 * With few outputs the operator is packed for bcop_direct in the order of the map, so that no image
 * is flattened and the operator is read once for many images.
 *
 * The gradient of U is x^T gy or gy^T x over the batch. It goes by factors where these are fewer
 * numbers than an all-reduce of the product would move, else per lane. */
#include "linalg/product.h"
#include "linalg/spectral.h"
#include "nn/direct.h"
#include "nn/layer_kinds.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct dense_options {
    int units;
    bool bias;
    int normalize;
} dense_options;

enum { NORMALIZE_NONE, NORMALIZE_ROWS };

static const bcop_option options_table[] = {
    {.key = "units",
     .type = BCOP_OPTION_INT,
     .offset = offsetof(dense_options, units),
     .min = 1,
     .max = 65536,
     .help = "outputs"},
    {.key = "bias",
     .type = BCOP_OPTION_BOOL,
     .offset = offsetof(dense_options, bias),
     .fallback = "true",
     .help = "add a bias per output"},
    {.key = "normalize",
     .type = BCOP_OPTION_CHOICE,
     .offset = offsetof(dense_options, normalize),
     .choices = "none|rows",
     .fallback = "none",
     .help = "rows: not orthonormal, but rows of unit norm; only for the last layer, at most 1024"},
    {0},
};

typedef struct dense_state {
    int in, out;
    float *rows;             /* of unit norm: W [out][in]; else NULL */
    bool few;                /* outputs; then, in the order of the map: */
    float *packed, *adjoint; /* U [in][out] and W [out][in], packed */
    float *upright;          /* W, scratch of build */
} dense_state;

enum { FEW = 32 };

static bcop_status want_rows(bcop_layer *layer) {
    const dense_state *d = layer->state;
    if (d->out > BCOP_LAYER_ROWS_MAX)
        return bcop_config_fail(layer->where, "at most %d normalised rows (got %d)",
                                BCOP_LAYER_ROWS_MAX, d->out);
    for (int i = 0; i < d->out; i++) {
        char suffix[32];
        snprintf(suffix, sizeof suffix, "blocks/W%d", i);
        BCOP_TRY(bcop_layer_want(layer, suffix, d->in, 1, true));
    }
    return BCOP_OK;
}

static bcop_status plan(bcop_layer *layer) {
    const dense_options *o = layer->options;
    dense_state *d = layer->state;
    const long size = bcop_shape_size(layer->in);
    if (size > 1 << 24)
        return bcop_config_fail(layer->where, "%ld inputs are too many for a dense layer", size);
    *d = (dense_state){.in = (int)size, .out = o->units};
    d->few = d->out <= FEW && d->in > d->out && o->normalize == NORMALIZE_NONE;
    const int tall = d->in > d->out ? d->in : d->out, thin = d->in > d->out ? d->out : d->in;
    layer->out = (bcop_shape){1, 1, d->out};
    layer->normalised = o->normalize == NORMALIZE_ROWS;
    BCOP_TRY(layer->normalised ? want_rows(layer)
                               : bcop_layer_want(layer, "blocks/W", tall, thin, true));
    if (o->bias)
        BCOP_TRY(bcop_layer_want(layer, "bias", d->out, 1, false));
    layer->factored = layer->batch > 0 && !layer->normalised &&
                      (double)layer->batch * (d->in + d->out) <= 2.0 * d->in * d->out;
    layer->input_left = d->in >= d->out;
    layer->parameter[0].factored = layer->factored;
    layer->parameter[0].depth = layer->factored ? layer->batch : 0;
    if (layer->factored)
        layer->parameter[0].bundle++; /* not with the bias */
    else
        layer->saved = d->in;
    layer->lane_gradient = (layer->factored ? 0 : size * d->out) + (o->bias ? d->out : 0);
    layer->bound_work = (long)tall * thin + bcop_spectral_work(thin);
    layer->flops = 2.0 * d->in * d->out;
    layer->stored_dimensions = 2;
    layer->stored_size[0] = d->out;
    layer->stored_size[1] = d->in;
    return BCOP_OK;
}

static void take(bcop_layer *layer, bool training, bcop_arena *arena) {
    dense_state *d = layer->state;
    if (d->few) {
        const bcop_direct up = bcop_direct_rows(1, d->in, d->out),
                          down = bcop_direct_rows(1, d->out, d->in);
        d->packed = bcop_arena_floats(arena, bcop_direct_packed(&up));
        d->adjoint = bcop_arena_floats(arena, bcop_direct_packed(&down));
        d->upright = bcop_arena_floats(arena, (long)d->out * d->in);
    }
    if (!layer->normalised)
        return;
    d->rows = bcop_arena_floats(arena, (long)d->out * d->in);
    layer->pairs.distance = bcop_arena_take(arena, (long)d->out * d->out, sizeof(double));
    if (!training)
        return;
    layer->pairs.label = bcop_arena_take(arena, layer->group, sizeof(int));
    layer->pairs.slope = bcop_arena_floats(arena, (long)layer->group * d->out);
}

/* ---- the operator ---- */

/* Whether the operator is kept as W [out][in]; else as its transpose. */
static bool is_upright(const bcop_layer *layer) {
    const dense_state *d = layer->state;
    return layer->normalised || d->in < d->out;
}

static float *operator_of(const bcop_layer *layer) {
    const dense_state *d = layer->state;
    return layer->normalised ? d->rows : layer->parameter[0].value;
}

/* ||w_i - w_j|| for all rows. A sum of n squares is off by at most n + 2 roundings, its root by
   half of that; the rest is for those who divide by it. */
static void measure(bcop_layer *layer) {
    const dense_state *d = layer->state;
    double *distance = layer->pairs.distance;
    for (int i = 0; i < d->out; i++)
        for (int j = 0; j <= i; j++) {
            const float *a = d->rows + (long)i * d->in, *b = d->rows + (long)j * d->in;
            double sum = 0;
            for (int k = 0; k < d->in; k++)
                sum += ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
            distance[i * d->out + j] = distance[j * d->out + i] =
                sqrt(sum) * (1 + (d->in + 8) * DBL_EPSILON);
        }
}

/* U [in][out] with its rows in the order of the map, as W [out][in]; or back. */
static void reorder(const bcop_layer *layer, bool back, const float *from, float *to) {
    const dense_state *d = layer->state;
    const int channels = layer->in.channels, pixels = d->in / channels;
    for (int p = 0; p < pixels; p++)
        for (int ch = 0; ch < channels; ch++)
            for (int o = 0; o < d->out; o++) {
                const long map = (long)o * d->in + (long)p * channels + ch;
                const long flat = ((long)ch * pixels + p) * d->out + o;
                to[back ? flat : map] = from[back ? map : flat];
            }
}

static void pack(const bcop_layer *layer) {
    const dense_state *d = layer->state;
    const bcop_direct up = bcop_direct_rows(1, d->in, d->out),
                      down = bcop_direct_rows(1, d->out, d->in);
    const int channels = layer->in.channels, pixels = d->in / channels;
    const float *u = layer->parameter[0].value;
    for (int p = 0; p < pixels; p++)
        for (int ch = 0; ch < channels; ch++)
            bcop_direct_pack(&up, (long)p * channels + ch, u + ((long)ch * pixels + p) * d->out,
                             d->packed);
    reorder(layer, false, u, d->upright);
    for (int o = 0; o < d->out; o++)
        bcop_direct_pack(&down, o, d->upright + (long)o * d->in, d->adjoint);
}

static void build(bcop_layer *layer) {
    const dense_state *d = layer->state;
    if (d->few)
        pack(layer);
    if (!layer->normalised)
        return;
    for (int i = 0; i < d->out; i++)
        memcpy(d->rows + (long)i * d->in, layer->parameter[i].value,
               (size_t)d->in * sizeof *d->rows);
    measure(layer);
}

/* Swaps (row, column, channel) and (channel, row, column) orders of one map. */
static void flatten(bcop_shape s, const float *x, float *flat) {
    bcop_product_transpose(s.height * s.width, s.channels, x, flat);
}

static void unflatten(bcop_shape s, const float *flat, float *x) {
    bcop_product_transpose(s.channels, s.height * s.width, flat, x);
}

/* Where the flattened input is kept. */
static float *input_of(const bcop_layer *layer, const bcop_tape *tape) {
    return layer->factored ? tape->input : tape->saved;
}

/* y = product + bias, in place too. */
static void add_bias(const bcop_layer *layer, int n, const float *product, float *y) {
    const dense_state *d = layer->state;
    const bcop_parameter *bias = bcop_layer_bias(layer);
    if (!bias && product == y)
        return;
    for (long i = 0; i < n; i++)
        for (int j = 0; j < d->out; j++)
            y[i * d->out + j] = product[i * d->out + j] + (bias ? bias->value[j] : 0);
}

static void forward(const bcop_layer *layer, int n, const float *x, float *y, const bcop_tape *tape,
                    float *scratch) {
    (void)scratch;
    const dense_state *d = layer->state;
    float *flat = input_of(layer, tape);
    if (d->few && !layer->factored)
        memcpy(flat, x, (size_t)n * (size_t)d->in * sizeof *x);
    else
        for (int i = 0; i < n; i++)
            flatten(layer->in, x + (long)i * d->in, flat + (long)i * d->in);
    const float *w = operator_of(layer);
    float *product = layer->factored && layer->input_left ? tape->image : y;
    const bcop_direct up = bcop_direct_rows(n, d->in, d->out);
    if (d->few)
        bcop_direct_correlate(&up, x, d->packed, NULL, NULL, product);
    else if (is_upright(layer))
        bcop_product_nt_rows(n, layer->run, d->out, d->in, flat, w, product);
    else
        bcop_product_nn_rows(n, layer->run, d->out, d->in, flat, w, product);
    add_bias(layer, n, product, y);
}

static long scratch(const bcop_layer *layer, int n) {
    return n * bcop_shape_size(layer->in);
}

/* d||w_y - w_j||/dw_y = (w_y - w_j)/||w_y - w_j||, and the opposite for w_j. Equal rows: none. */
static void add_distances(const bcop_layer *layer, int n, int first, float *sum) {
    const dense_state *d = layer->state;
    for (int i = first; i < first + n; i++)
        for (int j = 0; j < d->out; j++) {
            const int y = layer->pairs.label[i];
            const double distance = layer->pairs.distance[y * d->out + j];
            const float slope = layer->pairs.slope[(long)i * d->out + j];
            if (y == j || slope == 0 || distance == 0)
                continue;
            const float *a = d->rows + (long)y * d->in, *b = d->rows + (long)j * d->in;
            const float unit = (float)((double)slope / distance);
            for (int k = 0; k < d->in; k++) {
                sum[(long)y * d->in + k] += unit * (a[k] - b[k]);
                sum[(long)j * d->in + k] -= unit * (a[k] - b[k]);
            }
        }
}

/* The lane gradient: the bias's, then, unless it goes by factors, the block's; with few outputs as
   that of W in the order of the map. */
static void slope(const bcop_layer *layer, int n, const bcop_tape *tape, const float *gy,
                  float *sum, float *scratch) {
    (void)scratch;
    const dense_state *d = layer->state;
    if (bcop_layer_bias(layer)) {
        memset(sum, 0, (size_t)d->out * sizeof *sum);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < d->out; j++)
                sum[j] += gy[(long)i * d->out + j];
        sum += d->out;
    }
    if (layer->factored)
        return;
    const bcop_direct down = bcop_direct_rows(n, d->out, d->in);
    if (d->few)
        bcop_direct_slope(&down, 1, gy, 0, tape->saved, 0, sum, NULL);
    else if (is_upright(layer))
        bcop_product_tn(d->out, d->in, n, 1, gy, tape->saved, 0, sum);
    else
        bcop_product_tn(d->in, d->out, n, 1, tape->saved, gy, 0, sum);
    if (layer->normalised)
        add_distances(layer, n, tape->first, sum);
}

static void backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy, float *gx,
                     float *scratch) {
    const dense_state *d = layer->state;
    if (d->few) {
        const bcop_direct down = bcop_direct_rows(n, d->out, d->in);
        bcop_direct_correlate(&down, gy, d->adjoint, NULL, NULL, gx);
        return;
    }
    const float *w = operator_of(layer);
    const bool image = layer->factored && !layer->input_left;
    float *to = image ? tape->image : layer->in.height * layer->in.width == 1 ? gx : scratch;
    if (is_upright(layer))
        bcop_product_nn_rows(n, layer->run, d->in, d->out, gy, w, to);
    else
        bcop_product_nt_rows(n, layer->run, d->in, d->out, gy, w, to);
    for (int i = 0; to != gx && i < n; i++)
        unflatten(layer->in, to + (long)i * d->in, gx + (long)i * d->in);
}

static void pull(bcop_layer *layer, const float *sum) {
    const dense_state *d = layer->state;
    const bcop_parameter *bias = bcop_layer_bias(layer);
    if (bias) {
        memcpy(bias->gradient, sum, (size_t)d->out * sizeof *sum);
        sum += d->out;
    }
    if (layer->factored)
        return;
    if (d->few) {
        reorder(layer, true, sum, layer->parameter[0].gradient);
        return;
    }
    const long size = layer->normalised ? d->in : (long)d->in * d->out;
    for (int i = 0; i < (layer->normalised ? d->out : 1); i++, sum += size)
        memcpy(layer->parameter[i].gradient, sum, (size_t)size * sizeof *sum);
}

/* What is kept and the weight [out][in] are the same matrix, or its transpose. */
static void store(const bcop_layer *layer, float *stored) {
    const dense_state *d = layer->state;
    const float *w = operator_of(layer);
    if (is_upright(layer))
        memcpy(stored, w, (size_t)d->in * (size_t)d->out * sizeof *w);
    else
        bcop_product_transpose(d->in, d->out, w, stored);
}

static void load(bcop_layer *layer, const float *stored) {
    const dense_state *d = layer->state;
    float *w = operator_of(layer);
    if (is_upright(layer))
        memcpy(w, stored, (size_t)d->in * (size_t)d->out * sizeof *w);
    else
        bcop_product_transpose(d->out, d->in, stored, w);
    if (d->few)
        pack(layer);
    if (layer->normalised)
        measure(layer);
}

static double bound(const bcop_layer *layer, double *work) {
    const dense_state *d = layer->state;
    const int high = is_upright(layer) ? d->out : d->in, wide = d->in + d->out - high;
    const long size = (long)high * wide;
    const float *w = operator_of(layer);
    /* the longer side must be rows */
    for (long i = 0; i < size; i++)
        work[high >= wide ? i : i % wide * high + i / wide] = (double)w[i];
    return bcop_spectral_bound(high >= wide ? high : wide, high >= wide ? wide : high, work, 0,
                               work + size);
}

static void forward64(const bcop_layer *layer, int n, const double *stored, const double *x,
                      double *y, double *flat) {
    const dense_state *d = layer->state;
    const int channels = layer->in.channels, pixels = d->in / channels;
    for (int i = 0; i < n; i++, x += d->in)
        for (int p = 0; p < pixels; p++)
            for (int c = 0; c < channels; c++)
                flat[(long)i * d->in + (long)c * pixels + p] = x[(long)p * channels + c];
    bcop_layer_fill_bias64(layer, n, d->out, y);
    bcop_product_nt_double(n, d->out, d->in, flat, stored, 1, y);
}

static bcop_rounding rounding(const bcop_layer *layer, const double *stored) {
    const dense_state *d = layer->state;
    return bcop_layer_rounding(layer, 1, d->out, d->in, 1, stored);
}

/* Of orthonormal rows sqrt(2) says as much. */
static double pair(const bcop_layer *layer, const double *stored, int i, int j) {
    (void)stored;
    return layer->normalised ? layer->pairs.distance[(long)i * bcop_shape_size(layer->out) + j]
                             : INFINITY;
}

const bcop_layer_kind bcop_layer_dense = {
    .name = "dense",
    .help = "orthogonal fully connected layer",
    .options = options_table,
    .options_size = sizeof(dense_options),
    .state_size = sizeof(dense_state),
    .stored_name = "weight",
    .torch = "return F.linear(x.flatten(1), self.weight, self.bias)[:, :, None, None]\n",
    .plan = plan,
    .take = take,
    .scratch = scratch,
    .build = build,
    .by_rows = true,
    .forward = forward,
    .slope = slope,
    .backward = backward,
    .pull = pull,
    .store = store,
    .load = load,
    .bound = bound,
    .forward64 = forward64,
    .scratch64 = scratch,
    .rounding = rounding,
    .pair = pair,
};
