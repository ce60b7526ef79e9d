/* dense: the orthogonal fully connected layer, y = x W^T + b with one block U.
 *
 * in >= units: U [in][units], W = U^T (1-Lipschitz); in < units: U [units][in], W = U (norm
 * preserving). A map is flattened in the order (channel, row, column), as PyTorch does.
 *
 * The gradient of U is x^T gy or gy^T x over the batch. It goes by factors where these are fewer
 * numbers than an all-reduce of the product would move, else per lane. */
#include "linalg/product.h"
#include "linalg/spectral.h"
#include "nn/layer_kinds.h"

#include <stddef.h>
#include <string.h>

typedef struct dense_options {
    int units;
    bool bias;
} dense_options;

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
    {0},
};

typedef struct dense_state {
    int in, out;
} dense_state;

static bcop_status plan(bcop_layer *layer) {
    const dense_options *o = layer->options;
    dense_state *d = layer->state;
    const long size = bcop_shape_size(layer->in);
    if (size > 1 << 24)
        return bcop_config_fail(layer->where, "%ld inputs are too many for a dense layer", size);
    *d = (dense_state){(int)size, o->units};
    const int tall = d->in > d->out ? d->in : d->out, thin = d->in > d->out ? d->out : d->in;
    layer->out = (bcop_shape){1, 1, d->out};
    bcop_layer_want(layer, "blocks/W", tall, thin, true);
    if (o->bias)
        bcop_layer_want(layer, "bias", d->out, 1, false);
    layer->factored =
        layer->batch > 0 && (double)layer->batch * (d->in + d->out) <= 2.0 * d->in * d->out;
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
    for (int i = 0; i < n; i++)
        flatten(layer->in, x + (long)i * d->in, flat + (long)i * d->in);
    const float *u = layer->parameter[0].value;
    float *product = layer->factored && layer->input_left ? tape->image : y;
    if (d->in >= d->out)
        bcop_product_nn_rows(n, layer->run, d->out, d->in, flat, u, product);
    else
        bcop_product_nt_rows(n, layer->run, d->out, d->in, flat, u, product);
    add_bias(layer, n, product, y);
}

static long scratch(const bcop_layer *layer, int n) {
    return n * bcop_shape_size(layer->in);
}

/* The lane gradient: the bias's, then, unless it goes by factors, the block's. */
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
    if (d->in >= d->out)
        bcop_product_tn(d->in, d->out, n, 1, tape->saved, gy, 0, sum);
    else
        bcop_product_tn(d->out, d->in, n, 1, gy, tape->saved, 0, sum);
}

static void backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy, float *gx,
                     float *scratch) {
    const dense_state *d = layer->state;
    const float *u = layer->parameter[0].value;
    const bool image = layer->factored && !layer->input_left;
    float *to = image ? tape->image : layer->in.height * layer->in.width == 1 ? gx : scratch;
    if (d->in >= d->out)
        bcop_product_nt_rows(n, layer->run, d->in, d->out, gy, u, to);
    else
        bcop_product_nn_rows(n, layer->run, d->in, d->out, gy, u, to);
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
    if (!layer->factored)
        memcpy(layer->parameter[0].gradient, sum, (size_t)d->in * (size_t)d->out * sizeof *sum);
}

/* The block and the weight [out][in] are the same matrix, transposed when in >= out. */
static void store(const bcop_layer *layer, float *stored) {
    const dense_state *d = layer->state;
    const float *u = layer->parameter[0].value;
    if (d->in >= d->out)
        bcop_product_transpose(d->in, d->out, u, stored);
    else
        memcpy(stored, u, (size_t)d->in * (size_t)d->out * sizeof *u);
}

static void load(bcop_layer *layer, const float *stored) {
    const dense_state *d = layer->state;
    float *u = layer->parameter[0].value;
    if (d->in >= d->out)
        bcop_product_transpose(d->out, d->in, stored, u);
    else
        memcpy(u, stored, (size_t)d->in * (size_t)d->out * sizeof *u);
}

static double bound(const bcop_layer *layer, double *work) {
    const bcop_parameter *u = &layer->parameter[0];
    const long size = bcop_parameter_size(u);
    for (long i = 0; i < size; i++)
        work[i] = (double)u->value[i];
    return bcop_spectral_bound(u->rows, u->cols, work, 0, work + size);
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

const bcop_layer_kind bcop_layer_dense = {
    .name = "dense",
    .help = "orthogonal fully connected layer",
    .options = options_table,
    .options_size = sizeof(dense_options),
    .state_size = sizeof(dense_state),
    .stored_name = "weight",
    .torch = "return F.linear(x.flatten(1), self.weight, self.bias)[:, :, None, None]\n",
    .plan = plan,
    .scratch = scratch,
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
};
