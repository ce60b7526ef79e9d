/* A conv layer applied densely: pad the map, correlate it with the kernel. The gradient of the
 * input is the same operation with the flipped, transposed kernel and the padding's sides
 * exchanged, once for each row dy of sub-pixels. Kernels for applying, and the lane gradient, have
 * the order of the map before the unshuffle: [i s + dy][j s + dx][ch]. */
#include "linalg/product.h"
#include "nn/conv.h"
#include "nn/window.h"

#include <string.h>

/* The windows of forward: over the map before the unshuffle. */
static bcop_window input_map(const bcop_conv *c) {
    const int s = c->stride;
    return (bcop_window){.height = c->height * s,
                         .width = c->width * s,
                         .channels = c->c_in / (s * s),
                         .k = c->k * s,
                         .stride = s,
                         .before = c->k / 2 * s,
                         .zero = c->zero_pad};
}

static bcop_direct forward_windows(const bcop_conv *c) {
    const bcop_window in = input_map(c);
    return bcop_window_direct(&in, c->c_out);
}

/* Those over the gradient of the output. */
static bcop_window output_map(const bcop_conv *c) {
    return (bcop_window){.height = c->height,
                         .width = c->width,
                         .channels = c->c_out,
                         .k = c->k,
                         .stride = 1,
                         .before = c->k - 1 - c->k / 2,
                         .zero = c->zero_pad};
}

/* They give every s-th row of the gradient of the input: (dx, ch) for one dy. */
static bcop_direct adjoint_windows(const bcop_conv *c) {
    const bcop_window out = output_map(c);
    bcop_direct d = bcop_window_direct(&out, c->c_in / c->stride);
    d.out_down *= c->stride;
    return d;
}

double bcop_conv_dense_count(const bcop_conv *c) {
    return (double)c->k * c->k * c->c_in * c->c_out;
}

static void plan(bcop_layer *layer) {
    const bcop_conv *c = layer->state;
    const bcop_window map = input_map(c);
    layer->lane_gradient =
        (long)c->k * c->k * c->c_in * c->c_out + (bcop_layer_bias(layer) ? c->c_out : 0);
    layer->saved = bcop_window_padded(&map);
    layer->flops = 2 * bcop_conv_dense_count(c) * c->height * c->width;
    layer->build_flops = bcop_kernel_flops(&c->kernel);
    layer->pull_flops = 2 * layer->build_flops;
}

static void take(bcop_layer *layer, bool training, bcop_arena *arena) {
    bcop_conv *c = layer->state;
    const bcop_direct forward = forward_windows(c), adjoint = adjoint_windows(c);
    const long tap = (long)c->c_in * c->c_out;
    c->dense.forward = bcop_arena_floats(arena, bcop_direct_packed(&forward));
    c->dense.adjoint = bcop_arena_floats(arena, c->stride * bcop_direct_packed(&adjoint));
    c->dense.tap = bcop_arena_floats(arena, tap + c->c_in);
    if (training)
        c->dense.slope = bcop_arena_floats(arena, (long)c->k * c->k * tap);
}

/* ---- the operator ---- */

/* The place in [k][k][c_in] of row `row` of [k s][k s][ch]. */
static long unshuffled(const bcop_conv *c, long row) {
    const int s = c->stride, channels = c->c_in / (s * s);
    const int ch = (int)(row % channels), x = (int)(row / channels % (c->k * s)),
              y = (int)(row / channels / (c->k * s));
    return ((long)(y / s) * c->k + x / s) * c->c_in + (ch * s + y % s) * s + x % s;
}

static void pack_forward(const bcop_conv *c) {
    const bcop_direct d = forward_windows(c);
    for (long row = 0; row < (long)c->k * c->k * c->c_in; row++)
        bcop_direct_pack(&d, row, c->taps + unshuffled(c, row) * c->c_out, c->dense.forward);
}

/* Tap (i, j) transposed goes to (k-1-i, k-1-j). */
static void pack_adjoint(const bcop_conv *c) {
    const bcop_direct d = adjoint_windows(c);
    const int s = c->stride, channels = c->c_in / (s * s);
    const long taps = (long)c->k * c->k, tap = (long)c->c_in * c->c_out;
    float *row = c->dense.tap + tap; /* [dx][ch] */
    for (long t = 0; t < taps; t++) {
        bcop_product_transpose(c->c_in, c->c_out, c->taps + t * tap, c->dense.tap);
        for (int o = 0; o < c->c_out; o++)
            for (int dy = 0; dy < s; dy++) {
                for (int dx = 0; dx < s; dx++)
                    for (int ch = 0; ch < channels; ch++)
                        row[dx * channels + ch] =
                            c->dense.tap[(long)o * c->c_in + (ch * s + dy) * s + dx];
                bcop_direct_pack(&d, (taps - 1 - t) * c->c_out + o, row,
                                 c->dense.adjoint + dy * bcop_direct_packed(&d));
            }
    }
}

static void pack(bcop_layer *layer) {
    const bcop_conv *c = layer->state;
    pack_forward(c);
    pack_adjoint(c);
}

static void build(bcop_layer *layer) {
    bcop_conv_make_taps(layer);
    pack(layer);
}

/* dL/dT [k][k][m][c] from the lane gradient [k s][k s][ch][c_out]. */
static const float *order_slope(const bcop_conv *c, const float *lane_gradient) {
    const long count = (long)c->k * c->k, tap = (long)c->c_in * c->c_out;
    const float *ordered = lane_gradient;
    if (c->stride > 1) {
        for (long row = 0; row < count * c->c_in; row++)
            memcpy(c->dense.slope + unshuffled(c, row) * c->c_out, lane_gradient + row * c->c_out,
                   (size_t)c->c_out * sizeof(float));
        ordered = c->dense.slope;
    }
    if (c->c_in <= c->c_out)
        return ordered;
    for (long t = 0; t < count; t++) {
        memcpy(c->dense.tap, ordered + t * tap, (size_t)tap * sizeof(float));
        bcop_product_transpose(c->c_in, c->c_out, c->dense.tap, c->dense.slope + t * tap);
    }
    return c->dense.slope;
}

static void pull(bcop_layer *layer, const float *lane_gradient) {
    bcop_conv *c = layer->state;
    const float *slope = order_slope(c, lane_gradient);
    const float *v[2 * BCOP_KERNEL_MAX];
    float *gv[2 * BCOP_KERNEL_MAX];
    for (int t = 0; t < c->kernel.factors; t++) {
        v[t] = layer->parameter[1 + t].value;
        gv[t] = layer->parameter[1 + t].gradient;
    }
    bcop_kernel_backward(&c->kernel, v, slope, layer->parameter[0].gradient, gv);
    const bcop_parameter *bias = bcop_layer_bias(layer);
    if (bias)
        memcpy(bias->gradient, lane_gradient + (long)c->k * c->k * c->c_in * c->c_out,
               (size_t)c->c_out * sizeof(float));
}

/* ---- applying it ---- */

/* Scratch: one padded image of the output's gradient. */
static long scratch(const bcop_layer *layer, int n) {
    (void)n;
    const bcop_window out = output_map(layer->state);
    return bcop_window_padded(&out);
}

static void forward(const bcop_layer *layer, int n, const float *x, float *y, const bcop_tape *tape,
                    float *scratch) {
    (void)scratch;
    const bcop_conv *c = layer->state;
    const bcop_window in = input_map(c);
    const bcop_direct d = forward_windows(c);
    const bcop_parameter *bias = bcop_layer_bias(layer);
    for (int i = 0; i < n; i++) {
        float *padded = tape->saved + i * layer->saved;
        bcop_window_pad(&in, x + i * bcop_shape_size(layer->in), padded);
        bcop_direct_correlate(&d, padded, c->dense.forward, bias ? bias->value : NULL, NULL,
                              y + i * bcop_shape_size(layer->out));
    }
}

static void slope(const bcop_layer *layer, int n, const bcop_tape *tape, const float *gy,
                  float *lane_gradient, float *scratch) {
    const bcop_conv *c = layer->state;
    const bcop_direct windows = forward_windows(c);
    const long kernel = (long)c->k * c->k * c->c_in * c->c_out;
    (void)scratch;
    bcop_direct_slope(&windows, n, tape->saved, layer->saved, gy, bcop_shape_size(layer->out),
                      lane_gradient, bcop_layer_bias(layer) ? lane_gradient + kernel : NULL);
}

static void backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy, float *gx,
                     float *scratch) {
    (void)tape;
    const bcop_conv *c = layer->state;
    const long out = bcop_shape_size(layer->out), in = bcop_shape_size(layer->in);
    const bcop_direct adjoint = adjoint_windows(c);
    const bcop_window map = output_map(c);
    for (int i = 0; i < n; i++) {
        bcop_window_pad(&map, gy + i * out, scratch);
        for (int dy = 0; dy < c->stride; dy++)
            bcop_direct_correlate(&adjoint, scratch,
                                  c->dense.adjoint + dy * bcop_direct_packed(&adjoint), NULL, NULL,
                                  gx + i * in + dy * adjoint.out_down / c->stride);
    }
}

const bcop_conv_apply bcop_conv_dense = {
    .plan = plan,
    .take = take,
    .scratch = scratch,
    .build = build,
    .pack = pack,
    .forward = forward,
    .slope = slope,
    .backward = backward,
    .pull = pull,
};
