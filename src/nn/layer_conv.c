/* conv: the orthogonal convolution (BCOP), applied densely.
 *
 * Stride s is pixel-unshuffle by s (sub-pixel (dy, dx) of channel ch becomes channel ch s^2 + dy s
 * + dx) followed by a stride-1 layer with kernel side k/s. Forward: pad the map, correlate it with
 * the kernel. The gradient of the input is the same operation with the flipped, transposed kernel
 * and the padding's sides exchanged, once for each row dy of sub-pixels. Kernels for applying, and
 * the lane gradient, have the order of the map before the unshuffle: [i s + dy][j s + dx][ch]. */
#include "linalg/product.h"
#include "linalg/spectral.h"
#include "nn/kernel.h"
#include "nn/layer_kinds.h"
#include "nn/window.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef enum padding { PAD_CYCLIC, PAD_ZERO } padding;

typedef struct conv_options {
    int channels, kernel, stride, pad;
    bool bias;
} conv_options;

static const bcop_option options_table[] = {
    {.key = "channels",
     .type = BCOP_OPTION_INT,
     .offset = offsetof(conv_options, channels),
     .min = 1,
     .max = 65536,
     .help = "output channels"},
    {.key = "kernel",
     .type = BCOP_OPTION_INT,
     .offset = offsetof(conv_options, kernel),
     .min = 1,
     .max = 64,
     .unit = "pixels",
     .help = "side of the kernel; a multiple of the stride, at most 7 strides"},
    {.key = "stride",
     .type = BCOP_OPTION_INT,
     .offset = offsetof(conv_options, stride),
     .min = 1,
     .max = 16,
     .fallback = "1",
     .unit = "pixels",
     .help = "stride, by pixel-unshuffle: divides the kernel and the map's sides"},
    {.key = "pad",
     .type = BCOP_OPTION_CHOICE,
     .offset = offsetof(conv_options, pad),
     .choices = "cyclic|zero",
     .fallback = "cyclic",
     .help = "cyclic keeps norms; zero is the same kernel on the zero-extended map"},
    {.key = "bias",
     .type = BCOP_OPTION_BOOL,
     .offset = offsetof(conv_options, bias),
     .fallback = "true",
     .help = "add a bias per output channel"},
    {0},
};

/* All sizes after the stride. */
typedef struct conv_state {
    int c_in, c_out, height, width, k, stride;
    bool zero_pad;
    bcop_kernel kernel;
    float *taps;    /* [k][k][c_in][c_out] */
    float *forward; /* packed for bcop_direct */
    float *adjoint; /* for each dy the kernel [k][k][c_out][dx][ch], taps reversed, packed */
    float *slope;   /* dL/dT [k][k][m][c] */
    float *tap;     /* scratch: [c_in][c_out] and a row of c_in */
} conv_state;

/* The windows of forward: over the map before the unshuffle. */
static bcop_window input_map(const conv_state *c) {
    const int s = c->stride;
    return (bcop_window){.height = c->height * s,
                         .width = c->width * s,
                         .channels = c->c_in / (s * s),
                         .k = c->k * s,
                         .stride = s,
                         .before = c->k / 2 * s,
                         .zero = c->zero_pad};
}

static bcop_direct forward_windows(const conv_state *c) {
    const bcop_window in = input_map(c);
    return bcop_window_direct(&in, c->c_out);
}

/* Those over the gradient of the output. */
static bcop_window output_map(const conv_state *c) {
    return (bcop_window){.height = c->height,
                         .width = c->width,
                         .channels = c->c_out,
                         .k = c->k,
                         .stride = 1,
                         .before = c->k - 1 - c->k / 2,
                         .zero = c->zero_pad};
}

/* They give every s-th row of the gradient of the input: (dx, ch) for one dy. */
static bcop_direct adjoint_windows(const conv_state *c) {
    const bcop_window out = output_map(c);
    bcop_direct d = bcop_window_direct(&out, c->c_in / c->stride);
    d.out_down *= c->stride;
    return d;
}

static const bcop_node *option_node(const bcop_layer *layer, const char *key) {
    const bcop_node *node = bcop_config_find(layer->where, key);
    return node ? node : layer->where;
}

static bcop_status plan(bcop_layer *layer) {
    const conv_options *o = layer->options;
    conv_state *c = layer->state;
    const int s = o->stride;
    if (o->kernel % s)
        return bcop_config_fail(option_node(layer, "kernel"), "must divide by stride %d (got %d)",
                                s, o->kernel);
    if (o->kernel / s > BCOP_KERNEL_MAX)
        return bcop_config_fail(option_node(layer, "kernel"),
                                "at most %d times the stride %d (got %d)", BCOP_KERNEL_MAX, s,
                                o->kernel);
    if (layer->in.height % s || layer->in.width % s)
        return bcop_config_fail(option_node(layer, "stride"),
                                "must divide the map's sides %d x %d (got %d)", layer->in.height,
                                layer->in.width, s);
    if ((long)layer->in.channels * s * s > 1 << 20)
        return bcop_config_fail(option_node(layer, "stride"), "gives more than 2^20 channels");
    *c = (conv_state){.c_in = layer->in.channels * s * s,
                      .c_out = o->channels,
                      .height = layer->in.height / s,
                      .width = layer->in.width / s,
                      .k = o->kernel / s,
                      .stride = s,
                      .zero_pad = o->pad == PAD_ZERO};
    c->kernel = bcop_kernel_plan(c->c_in, c->c_out, c->k);
    layer->out = (bcop_shape){c->height, c->width, c->c_out};
    BCOP_TRY(bcop_layer_want(layer, "blocks/H", c->kernel.c, c->kernel.m, true));
    for (int t = 0; t < c->kernel.factors; t++) {
        char suffix[32];
        snprintf(suffix, sizeof suffix, "blocks/%c%d", t % 2 ? 'Q' : 'P', t / 2 + 1);
        BCOP_TRY(bcop_layer_want(layer, suffix, c->kernel.c, c->kernel.r, true));
    }
    if (o->bias)
        BCOP_TRY(bcop_layer_want(layer, "bias", c->c_out, 1, false));
    const long taps = (long)c->k * c->k;
    layer->lane_gradient = taps * c->c_in * c->c_out + (o->bias ? c->c_out : 0);
    const bcop_window map = input_map(c);
    layer->saved = bcop_window_padded(&map);
    layer->bound_work = 2 * (c->k + 1L) * c->c_in * c->c_out + bcop_spectral_work(c->kernel.m);
    const double pixels = (double)c->height * c->width;
    layer->flops = 2.0 * (double)taps * c->c_in * c->c_out * pixels;
    layer->build_flops = bcop_kernel_flops(&c->kernel);
    layer->pull_flops = 2 * layer->build_flops;
    layer->stored_dimensions = 4;
    layer->stored_size[0] = c->c_out;
    layer->stored_size[1] = c->c_in;
    layer->stored_size[2] = layer->stored_size[3] = c->k;
    return BCOP_OK;
}

static void take(bcop_layer *layer, bool training, bcop_arena *arena) {
    conv_state *c = layer->state;
    const bcop_direct forward = forward_windows(c), adjoint = adjoint_windows(c);
    const long tap = (long)c->c_in * c->c_out, size = (long)c->k * c->k * tap;
    bcop_kernel_take(&c->kernel, training, arena);
    c->taps = bcop_arena_floats(arena, size);
    c->forward = bcop_arena_floats(arena, bcop_direct_packed(&forward));
    c->adjoint = bcop_arena_floats(arena, c->stride * bcop_direct_packed(&adjoint));
    c->tap = bcop_arena_floats(arena, tap + c->c_in);
    if (training)
        c->slope = bcop_arena_floats(arena, size);
}

/* ---- the operator ---- */

static const float *basis(const bcop_layer *layer, int t) {
    return layer->parameter[1 + t].value;
}

/* The place in [k][k][c_in] of row `row` of [k s][k s][ch]. */
static long unshuffled(const conv_state *c, long row) {
    const int s = c->stride, channels = c->c_in / (s * s);
    const int ch = (int)(row % channels), x = (int)(row / channels % (c->k * s)),
              y = (int)(row / channels / (c->k * s));
    return ((long)(y / s) * c->k + x / s) * c->c_in + (ch * s + y % s) * s + x % s;
}

static void pack_forward(const conv_state *c) {
    const bcop_direct d = forward_windows(c);
    for (long row = 0; row < (long)c->k * c->k * c->c_in; row++)
        bcop_direct_pack(&d, row, c->taps + unshuffled(c, row) * c->c_out, c->forward);
}

/* Tap (i, j) transposed goes to (k-1-i, k-1-j). */
static void pack_adjoint(const conv_state *c) {
    const bcop_direct d = adjoint_windows(c);
    const int s = c->stride, channels = c->c_in / (s * s);
    const long taps = (long)c->k * c->k, tap = (long)c->c_in * c->c_out;
    float *row = c->tap + tap; /* [dx][ch] */
    for (long t = 0; t < taps; t++) {
        bcop_product_transpose(c->c_in, c->c_out, c->taps + t * tap, c->tap);
        for (int o = 0; o < c->c_out; o++)
            for (int dy = 0; dy < s; dy++) {
                for (int dx = 0; dx < s; dx++)
                    for (int ch = 0; ch < channels; ch++)
                        row[dx * channels + ch] =
                            c->tap[(long)o * c->c_in + (ch * s + dy) * s + dx];
                bcop_direct_pack(&d, (taps - 1 - t) * c->c_out + o, row,
                                 c->adjoint + dy * bcop_direct_packed(&d));
            }
    }
}

static void pack(const conv_state *c) {
    pack_forward(c);
    pack_adjoint(c);
}

static void build(bcop_layer *layer) {
    conv_state *c = layer->state;
    const float *v[2 * BCOP_KERNEL_MAX];
    for (int t = 0; t < c->kernel.factors; t++)
        v[t] = basis(layer, t);
    const float *taps = bcop_kernel_forward(&c->kernel, layer->parameter[0].value, v);
    const long count = (long)c->k * c->k, tap = (long)c->c_in * c->c_out;
    if (c->c_in <= c->c_out)
        memcpy(c->taps, taps, (size_t)(count * tap) * sizeof(float));
    else
        for (long t = 0; t < count; t++)
            bcop_product_transpose(c->c_out, c->c_in, taps + t * tap, c->taps + t * tap);
    pack(c);
}

/* dL/dT [k][k][m][c] from the lane gradient [k s][k s][ch][c_out]. */
static const float *order_slope(const conv_state *c, const float *lane_gradient) {
    const long count = (long)c->k * c->k, tap = (long)c->c_in * c->c_out;
    const float *ordered = lane_gradient;
    if (c->stride > 1) {
        for (long row = 0; row < count * c->c_in; row++)
            memcpy(c->slope + unshuffled(c, row) * c->c_out, lane_gradient + row * c->c_out,
                   (size_t)c->c_out * sizeof(float));
        ordered = c->slope;
    }
    if (c->c_in <= c->c_out)
        return ordered;
    for (long t = 0; t < count; t++) {
        memcpy(c->tap, ordered + t * tap, (size_t)tap * sizeof(float));
        bcop_product_transpose(c->c_in, c->c_out, c->tap, c->slope + t * tap);
    }
    return c->slope;
}

static void pull(bcop_layer *layer, const float *lane_gradient) {
    conv_state *c = layer->state;
    const float *slope = order_slope(c, lane_gradient);
    const float *v[2 * BCOP_KERNEL_MAX];
    float *gv[2 * BCOP_KERNEL_MAX];
    for (int t = 0; t < c->kernel.factors; t++) {
        v[t] = basis(layer, t);
        gv[t] = layer->parameter[1 + t].gradient;
    }
    bcop_kernel_backward(&c->kernel, v, slope, layer->parameter[0].gradient, gv);
    const bcop_parameter *bias = bcop_layer_bias(layer);
    if (bias)
        memcpy(bias->gradient, lane_gradient + (long)c->k * c->k * c->c_in * c->c_out,
               (size_t)c->c_out * sizeof(float));
}

static void store(const bcop_layer *layer, float *stored) {
    const conv_state *c = layer->state;
    const long taps = (long)c->k * c->k;
    for (long t = 0; t < taps; t++)
        for (int i = 0; i < c->c_in; i++)
            for (int o = 0; o < c->c_out; o++)
                stored[((long)o * c->c_in + i) * taps + t] =
                    c->taps[(t * c->c_in + i) * c->c_out + o];
}

static void load(bcop_layer *layer, const float *stored) {
    conv_state *c = layer->state;
    const long taps = (long)c->k * c->k;
    for (long t = 0; t < taps; t++)
        for (int i = 0; i < c->c_in; i++)
            for (int o = 0; o < c->c_out; o++)
                c->taps[(t * c->c_in + i) * c->c_out + o] =
                    stored[((long)o * c->c_in + i) * taps + t];
    pack(c);
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
    const conv_state *c = layer->state;
    const bcop_window in = input_map(c);
    const bcop_direct d = forward_windows(c);
    const bcop_parameter *bias = bcop_layer_bias(layer);
    for (int i = 0; i < n; i++) {
        float *padded = tape->saved + i * layer->saved;
        bcop_window_pad(&in, x + i * bcop_shape_size(layer->in), padded);
        bcop_direct_correlate(&d, padded, c->forward, bias ? bias->value : NULL,
                              y + i * bcop_shape_size(layer->out));
    }
}

static void slope(const bcop_layer *layer, int n, const bcop_tape *tape, const float *gy,
                  float *lane_gradient, float *scratch) {
    const conv_state *c = layer->state;
    const bcop_direct windows = forward_windows(c);
    const long kernel = (long)c->k * c->k * c->c_in * c->c_out;
    (void)scratch;
    bcop_direct_slope(&windows, n, tape->saved, layer->saved, gy, bcop_shape_size(layer->out),
                      lane_gradient, bcop_layer_bias(layer) ? lane_gradient + kernel : NULL);
}

static void backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy, float *gx,
                     float *scratch) {
    (void)tape;
    const conv_state *c = layer->state;
    const long out = bcop_shape_size(layer->out), in = bcop_shape_size(layer->in);
    const bcop_direct adjoint = adjoint_windows(c);
    const bcop_window map = output_map(c);
    for (int i = 0; i < n; i++) {
        bcop_window_pad(&map, gy + i * out, scratch);
        for (int dy = 0; dy < c->stride; dy++)
            bcop_direct_correlate(&adjoint, scratch, c->adjoint + dy * bcop_direct_packed(&adjoint),
                                  NULL, gx + i * in + dy * adjoint.out_down / c->stride);
    }
}

/* ---- for certificates ---- */

static long scratch64(const bcop_layer *layer, int n) {
    (void)n;
    const conv_state *c = layer->state;
    return (long)c->height * c->width * c->c_in * c->k * c->k;
}

/* Tap i of a window at place p of `length`: the place it reads, or -1 for a padding's zero. */
static int tap_place(const conv_state *c, int p, int i, int length) {
    const int at = p + i - c->k / 2;
    if (at >= 0 && at < length)
        return at;
    return c->zero_pad ? -1 : ((at % length) + length) % length;
}

/* The windows of one image x as rows [height width][c_in][k][k], the order of a stored kernel. */
static void gather64(const bcop_layer *layer, const double *x, double *rows) {
    const conv_state *c = layer->state;
    const int s = c->stride, channels = layer->in.channels, taps = c->k * c->k;
    const long line = (long)layer->in.width * channels, depth = (long)c->c_in * taps;
    memset(rows, 0, (size_t)scratch64(layer, 1) * sizeof *rows);
    for (int py = 0; py < c->height; py++)
        for (int px = 0; px < c->width; px++, rows += depth)
            for (int t = 0; t < taps; t++) {
                const int ty = tap_place(c, py, t / c->k, c->height);
                const int tx = tap_place(c, px, t % c->k, c->width);
                if (ty < 0 || tx < 0)
                    continue;
                for (int sub = 0; sub < s * s; sub++) {
                    const int y = ty * s + sub / s, at = tx * s + sub % s;
                    const double *from = x + y * line + (long)at * channels;
                    for (int ch = 0; ch < channels; ch++)
                        rows[((long)ch * s * s + sub) * taps + t] = from[ch];
                }
            }
}

static void forward64(const bcop_layer *layer, int n, const double *stored, const double *x,
                      double *y, double *rows) {
    const conv_state *c = layer->state;
    const int pixels = c->height * c->width;
    bcop_layer_fill_bias64(layer, (long)n * pixels, c->c_out, y);
    for (int i = 0; i < n; i++) {
        gather64(layer, x + i * bcop_shape_size(layer->in), rows);
        bcop_product_nt_double(pixels, c->c_out, c->c_in * c->k * c->k, rows, stored, 1,
                               y + (long)i * pixels * c->c_out);
    }
}

static bcop_rounding rounding(const bcop_layer *layer, const double *stored) {
    const conv_state *c = layer->state;
    return bcop_layer_rounding(layer, (long)c->height * c->width, c->c_out, c->c_in, c->k * c->k,
                               stored);
}

/* ---- the bound ---- */

static double complex phase(long numerator, int denominator) {
    const double angle = -6.283185307179586477 * (double)numerator / denominator;
    return cos(angle) + I * sin(angle);
}

/* Column j of taps at vertical frequency p: sum_i K[i,j] w^(p i), as [tall][m]. */
static void phase_column(const conv_state *c, int p, int height, int j, double complex *out) {
    const int m = c->kernel.m, tall = c->kernel.c;
    memset(out, 0, (size_t)m * (size_t)tall * sizeof *out);
    for (int i = 0; i < c->k; i++) {
        const double complex w = phase(p * (long)i % height, height);
        const float *k = c->taps + ((long)i * c->k + j) * m * tall;
        for (int in = 0; in < c->c_in; in++)
            for (int o = 0; o < c->c_out; o++, k++)
                out[c->c_in >= c->c_out ? (long)in * m + o : (long)o * m + in] += w * (double)*k;
    }
}

/* At the frequency (p/height, q/width) the layer is the matrix A = sum_ij K[i,j] w_p^i w_q^j, so
   its norm is the largest ||A||_2 over the map's frequencies. Zero padding is a crop of the cyclic
   convolution on the map extended by k - 1. A real kernel has conjugate pairs of frequencies: half
   of the columns do. */
static double bound(const bcop_layer *layer, double *work) {
    const conv_state *c = layer->state;
    const int extra = c->zero_pad ? c->k - 1 : 0;
    const int height = c->height + extra, width = c->width + extra;
    const int m = c->kernel.m, tall = c->kernel.c;
    const long tap = (long)m * tall;
    double complex *a = (double complex *)work, *column = a + tap;
    double *spectral = (double *)(column + c->k * tap);
    double taps_norm = 0;
    for (long t = 0; t < (long)c->k * c->k; t++) {
        double sum = 0;
        for (long i = 0; i < tap; i++)
            sum += pow((double)c->taps[t * tap + i], 2);
        taps_norm += sqrt(sum);
    }
    /* Each entry of A is a sum of k^2 products of a weight and two computed phases. */
    const double error = (2.0 * c->k * c->k + 64) * DBL_EPSILON * taps_norm;
    if (!isfinite(error)) /* fmax would drop a NaN */
        return INFINITY;
    double largest = 0;
    for (int p = 0; p < height; p++) {
        for (int j = 0; j < c->k; j++)
            phase_column(c, p, height, j, column + j * tap);
        for (int q = 0; q <= width / 2; q++) {
            memset(a, 0, (size_t)tap * sizeof *a);
            for (int j = 0; j < c->k; j++) {
                const double complex w = phase(q * (long)j % width, width);
                for (long i = 0; i < tap; i++)
                    a[i] += w * column[j * tap + i];
            }
            largest = fmax(largest, bcop_spectral_bound_complex(tall, m, a, error, spectral));
        }
    }
    return largest;
}

/* Rows and columns are picked one by one, because PyTorch's own circular padding refuses kernels
   larger than twice the map. */
static const char torch[] =
    "x = F.pixel_unshuffle(x, self.options['stride'])\n"
    "side = self.kernel.shape[-1]\n"
    "before, after = side // 2, side - 1 - side // 2\n"
    "if self.options['pad'] == 'zero':\n"
    "    x = F.pad(x, (before, after, before, after))\n"
    "else:\n"
    "    for dim in (2, 3):\n"
    "        index = torch.arange(-before, x.shape[dim] + after, device=x.device)\n"
    "        x = x.index_select(dim, index.remainder(x.shape[dim]))\n"
    "return F.conv2d(x, self.kernel, self.bias)\n";

const bcop_layer_kind bcop_layer_conv = {
    .name = "conv",
    .help = "orthogonal convolution (BCOP)",
    .options = options_table,
    .options_size = sizeof(conv_options),
    .state_size = sizeof(conv_state),
    .stored_name = "kernel",
    .torch = torch,
    .plan = plan,
    .take = take,
    .scratch = scratch,
    .build = build,
    .forward = forward,
    .slope = slope,
    .backward = backward,
    .pull = pull,
    .store = store,
    .load = load,
    .bound = bound,
    .forward64 = forward64,
    .scratch64 = scratch64,
    .rounding = rounding,
};
