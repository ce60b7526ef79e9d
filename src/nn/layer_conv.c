/* conv: the orthogonal convolution (BCOP), applied densely.
 *
 * Stride s is pixel-unshuffle by s (sub-pixel (dy, dx) of channel ch becomes channel ch s^2 + dy s
 * + dx) followed by a stride-1 layer with kernel side k/s. Forward: pad the map, gather the rows of
 * windows (im2row), one product with the kernel [k k c_in][c_out]. The gradient of the input is the
 * same operation with the flipped, transposed kernel and the padding's sides exchanged. */
#include "linalg/product.h"
#include "linalg/spectral.h"
#include "nn/kernel.h"
#include "nn/layer_kinds.h"

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
    float *forward; /* [k][k][c_in][c_out] */
    float *adjoint; /* [k][k][c_out][c_in], taps reversed */
    float *slope;   /* dL/dT [k][k][m][c] */
} conv_state;

/* Rows of windows are gathered for so many floats at a time: half a megabyte stays in the second
   cache beside the kernel. */
enum { CHUNK_FLOATS = 1 << 17 };

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
    bcop_layer_want(layer, "blocks/H", c->kernel.c, c->kernel.m, true);
    for (int t = 0; t < c->kernel.factors; t++) {
        char suffix[32];
        snprintf(suffix, sizeof suffix, "blocks/%c%d", t % 2 ? 'Q' : 'P', t / 2 + 1);
        bcop_layer_want(layer, suffix, c->kernel.c, c->kernel.r, true);
    }
    if (o->bias)
        bcop_layer_want(layer, "bias", c->c_out, 1, false);
    const long taps = (long)c->k * c->k;
    layer->lane_gradient = taps * c->c_in * c->c_out + (o->bias ? c->c_out : 0);
    layer->saved = (long)(c->height + c->k - 1) * (c->width + c->k - 1) * c->c_in;
    layer->bound_work = 2 * (c->k + 1L) * c->c_in * c->c_out + bcop_spectral_work(c->kernel.m);
    layer->stored_dimensions = 4;
    layer->stored_size[0] = c->c_out;
    layer->stored_size[1] = c->c_in;
    layer->stored_size[2] = layer->stored_size[3] = c->k;
    return BCOP_OK;
}

static void take(bcop_layer *layer, bool training, bcop_arena *arena) {
    conv_state *c = layer->state;
    const long size = (long)c->k * c->k * c->c_in * c->c_out;
    bcop_kernel_take(&c->kernel, training, arena);
    c->forward = bcop_arena_floats(arena, size);
    if (training) {
        c->adjoint = bcop_arena_floats(arena, size);
        c->slope = bcop_arena_floats(arena, size);
    }
}

/* ---- the operator ---- */

static const float *basis(const bcop_layer *layer, int t) {
    return layer->parameter[1 + t].value;
}

/* From `forward` to `adjoint`: tap (i, j) transposed goes to (k-1-i, k-1-j). */
static void reverse(conv_state *c) {
    const long taps = (long)c->k * c->k, tap = (long)c->c_in * c->c_out;
    if (c->adjoint)
        for (long t = 0; t < taps; t++)
            bcop_product_transpose(c->c_in, c->c_out, c->forward + t * tap,
                                   c->adjoint + (taps - 1 - t) * tap);
}

static void build(bcop_layer *layer) {
    conv_state *c = layer->state;
    const float *v[2 * BCOP_KERNEL_MAX];
    for (int t = 0; t < c->kernel.factors; t++)
        v[t] = basis(layer, t);
    const float *taps = bcop_kernel_forward(&c->kernel, layer->parameter[0].value, v);
    const long count = (long)c->k * c->k, tap = (long)c->c_in * c->c_out;
    if (c->c_in <= c->c_out)
        memcpy(c->forward, taps, (size_t)(count * tap) * sizeof(float));
    else
        for (long t = 0; t < count; t++)
            bcop_product_transpose(c->c_out, c->c_in, taps + t * tap, c->forward + t * tap);
    reverse(c);
}

static void pull(bcop_layer *layer, const float *lane_gradient, int rows, const float *input_factor,
                 const float *output_factor) {
    (void)rows;
    (void)input_factor;
    (void)output_factor;
    conv_state *c = layer->state;
    const long count = (long)c->k * c->k, tap = (long)c->c_in * c->c_out;
    const float *slope = lane_gradient;
    if (c->c_in > c->c_out) {
        for (long t = 0; t < count; t++)
            bcop_product_transpose(c->c_in, c->c_out, lane_gradient + t * tap, c->slope + t * tap);
        slope = c->slope;
    }
    const float *v[2 * BCOP_KERNEL_MAX];
    float *gv[2 * BCOP_KERNEL_MAX];
    for (int t = 0; t < c->kernel.factors; t++) {
        v[t] = basis(layer, t);
        gv[t] = layer->parameter[1 + t].gradient;
    }
    bcop_kernel_backward(&c->kernel, v, slope, layer->parameter[0].gradient, gv);
    const bcop_parameter *bias = bcop_layer_bias(layer);
    if (bias)
        memcpy(bias->gradient, lane_gradient + count * tap, (size_t)c->c_out * sizeof(float));
}

static void store(const bcop_layer *layer, float *stored) {
    const conv_state *c = layer->state;
    const long taps = (long)c->k * c->k;
    for (long t = 0; t < taps; t++)
        for (int i = 0; i < c->c_in; i++)
            for (int o = 0; o < c->c_out; o++)
                stored[((long)o * c->c_in + i) * taps + t] =
                    c->forward[(t * c->c_in + i) * c->c_out + o];
}

static void load(bcop_layer *layer, const float *stored) {
    conv_state *c = layer->state;
    const long taps = (long)c->k * c->k;
    for (long t = 0; t < taps; t++)
        for (int i = 0; i < c->c_in; i++)
            for (int o = 0; o < c->c_out; o++)
                c->forward[(t * c->c_in + i) * c->c_out + o] =
                    stored[((long)o * c->c_in + i) * taps + t];
    reverse(c);
}

/* ---- applying it ---- */

/* One map [height][width][channels] into the middle of a padded one with `before` pixels above and
   to the left and k - 1 - before below and to the right. */
typedef struct map {
    int height, width, channels, k, before;
    bool zero;
} map;

static void pad_sides(const map *m, float *padded) {
    const int pw = m->width + m->k - 1, after = m->k - 1 - m->before;
    const size_t pixel = (size_t)m->channels * sizeof(float);
    const long row = (long)pw * m->channels;
    for (int y = 0; y < m->height; y++) {
        float *line = padded + (y + m->before) * row;
        for (int x = 0; x < m->before; x++) {
            /* the cyclic neighbour, for maps smaller than the padding too */
            const int from = ((x - m->before) % m->width + m->width) % m->width;
            if (m->zero)
                memset(line + (long)x * m->channels, 0, pixel);
            else
                memcpy(line + (long)x * m->channels, line + (long)(m->before + from) * m->channels,
                       pixel);
        }
        for (int x = 0; x < after; x++) {
            float *to = line + (long)(m->before + m->width + x) * m->channels;
            if (m->zero)
                memset(to, 0, pixel);
            else
                memcpy(to, line + (long)(m->before + x % m->width) * m->channels, pixel);
        }
    }
    for (int y = 0; y < m->k - 1; y++) {
        const int line = y < m->before ? y : m->height + y;
        const int from = ((line - m->before) % m->height + m->height) % m->height + m->before;
        if (m->zero)
            memset(padded + line * row, 0, (size_t)row * sizeof(float));
        else
            memcpy(padded + line * row, padded + from * row, (size_t)row * sizeof(float));
    }
}

/* Pixel-unshuffle by s of one image x[height s][width s][channels / s^2] into the middle of the
   padded map. */
static void unshuffle(const map *m, int s, const float *x, float *padded) {
    const int pw = m->width + m->k - 1, channels = m->channels / (s * s);
    const long line = (long)m->width * m->channels;
    for (int y = 0; y < m->height; y++) {
        float *to = padded + ((long)(y + m->before) * pw + m->before) * m->channels;
        const float *from = x + y * line;
        if (s == 1) {
            memcpy(to, from, (size_t)line * sizeof(float));
            continue;
        }
        for (int dy = 0; dy < s; dy++)
            for (int p = 0; p < m->width; p++)
                for (int dx = 0; dx < s; dx++)
                    for (int ch = 0; ch < channels; ch++)
                        to[(long)p * m->channels + ch * s * s + dy * s + dx] =
                            from[((long)(dy * m->width + p) * s + dx) * channels + ch];
    }
}

/* The inverse: from[height][width][channels] to x[height s][width s][channels / s^2]. */
static void shuffle(const map *m, int s, const float *from, float *x) {
    const int channels = m->channels / (s * s);
    for (int y = 0; y < m->height; y++)
        for (int dy = 0; dy < s; dy++)
            for (int p = 0; p < m->width; p++)
                for (int dx = 0; dx < s; dx++)
                    for (int ch = 0; ch < channels; ch++)
                        x[((((long)y * s + dy) * m->width + p) * s + dx) * channels + ch] =
                            from[((long)y * m->width + p) * m->channels + ch * s * s + dy * s + dx];
}

static long padded_size(const map *m) {
    return (long)(m->height + m->k - 1) * (m->width + m->k - 1) * m->channels;
}

/* Windows of `n` padded images as rows [n height width][k k channels]. */
static void gather_rows(const map *m, int n, const float *padded, float *rows) {
    const int pw = m->width + m->k - 1;
    const long run = (long)m->k * m->channels;
    for (int image = 0; image < n; image++, padded += padded_size(m))
        for (int y = 0; y < m->height; y++)
            for (int x = 0; x < m->width; x++)
                for (int i = 0; i < m->k; i++, rows += run)
                    memcpy(rows, padded + ((long)(y + i) * pw + x) * m->channels,
                           (size_t)run * sizeof(float));
}

static int chunk_images(const map *m, int n) {
    const long one = (long)m->height * m->width * m->k * m->k * m->channels;
    const long images = CHUNK_FLOATS / one;
    return images < 1 ? 1 : images < n ? (int)images : n;
}

static long rows_size(const map *m, int n) {
    return (long)chunk_images(m, n) * m->height * m->width * m->k * m->k * m->channels;
}

/* y[n height width][c_out] (+)= windows of the padded images times kernel [k k channels][c_out] */
static void correlate(const map *m, int n, const float *padded, const float *kernel, int c_out,
                      float beta, float *y, float *rows) {
    const int chunk = chunk_images(m, n), pixels = m->height * m->width;
    const int depth = m->k * m->k * m->channels;
    for (int done = 0; done < n; done += chunk) {
        const int images = n - done < chunk ? n - done : chunk;
        const float *window = padded + done * padded_size(m);
        if (m->k > 1) {
            gather_rows(m, images, window, rows);
            window = rows;
        }
        bcop_product_nn(images * pixels, c_out, depth, 1, window, kernel, beta,
                        y + (long)done * pixels * c_out);
    }
}

static map input_map(const conv_state *c) {
    return (map){c->height, c->width, c->c_in, c->k, c->k / 2, c->zero_pad};
}

static map output_map(const conv_state *c) {
    return (map){c->height, c->width, c->c_out, c->k, c->k - 1 - c->k / 2, c->zero_pad};
}

static long larger(long a, long b) {
    return a > b ? a : b;
}

/* Scratch: the rows of either direction (at least a pixel of sums), the padded output gradient, and
   the unshuffled input gradient. */
static long rows_scratch(const map *in, const map *out, int n) {
    return larger(larger(rows_size(in, n), rows_size(out, n)), out->channels);
}

static long scratch(const bcop_layer *layer, int n) {
    const conv_state *c = layer->state;
    const map in = input_map(c), out = output_map(c);
    return rows_scratch(&in, &out, n) + n * padded_size(&out) +
           (c->stride > 1 ? n * bcop_shape_size(layer->in) : 0);
}

static void forward(const bcop_layer *layer, int n, const float *x, float *y, const bcop_tape *tape,
                    float *scratch) {
    const conv_state *c = layer->state;
    const map m = input_map(c);
    for (int i = 0; i < n; i++) {
        float *padded = tape->saved + i * layer->saved;
        unshuffle(&m, c->stride, x + i * bcop_shape_size(layer->in), padded);
        pad_sides(&m, padded);
    }
    bcop_layer_fill_bias(layer, (long)n * c->height * c->width, c->c_out, y);
    correlate(&m, n, tape->saved, c->forward, c->c_out, 1, y, scratch);
}

/* Sums over pixels: each image by itself first, which keeps the rounding of long sums down. */
static void sum_pixels(int n, int pixels, int channels, const float *gy, float *sum, float *image) {
    memset(sum, 0, (size_t)channels * sizeof *sum);
    for (int i = 0; i < n; i++) {
        memset(image, 0, (size_t)channels * sizeof *image);
        for (int p = 0; p < pixels; p++, gy += channels)
            for (int ch = 0; ch < channels; ch++)
                image[ch] += gy[ch];
        for (int ch = 0; ch < channels; ch++)
            sum[ch] += image[ch];
    }
}

static void backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy, float *gx,
                     float *lane_gradient, float *scratch) {
    const conv_state *c = layer->state;
    const map in = input_map(c), out = output_map(c);
    const int pixels = c->height * c->width, depth = c->k * c->k * c->c_in;
    const int chunk = chunk_images(&in, n);
    for (int done = 0; done < n; done += chunk) {
        const int images = n - done < chunk ? n - done : chunk;
        const float *window = tape->saved + done * layer->saved;
        if (c->k > 1) {
            gather_rows(&in, images, window, scratch);
            window = scratch;
        }
        bcop_product_tn(depth, c->c_out, images * pixels, 1, window,
                        gy + (long)done * pixels * c->c_out, done > 0, lane_gradient);
    }
    if (bcop_layer_bias(layer))
        sum_pixels(n, pixels, c->c_out, gy, lane_gradient + (long)depth * c->c_out, scratch);
    if (!gx)
        return;
    float *padded = scratch + rows_scratch(&in, &out, n),
          *unshuffled = padded + n * padded_size(&out);
    for (int i = 0; i < n; i++) {
        unshuffle(&out, 1, gy + (long)i * pixels * c->c_out, padded + i * padded_size(&out));
        pad_sides(&out, padded + i * padded_size(&out));
    }
    float *to = c->stride > 1 ? unshuffled : gx;
    correlate(&out, n, padded, c->adjoint, c->c_in, 0, to, scratch);
    if (c->stride > 1)
        for (int i = 0; i < n; i++)
            shuffle(&in, c->stride, unshuffled + i * bcop_shape_size(layer->in),
                    gx + i * bcop_shape_size(layer->in));
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
        const float *k = c->forward + ((long)i * c->k + j) * m * tall;
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
            sum += pow((double)c->forward[t * tap + i], 2);
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

const bcop_layer_kind bcop_layer_conv = {
    .name = "conv",
    .help = "orthogonal convolution (BCOP)",
    .options = options_table,
    .options_size = sizeof(conv_options),
    .state_size = sizeof(conv_state),
    .stored_name = "kernel",
    .plan = plan,
    .take = take,
    .scratch = scratch,
    .build = build,
    .forward = forward,
    .backward = backward,
    .pull = pull,
    .store = store,
    .load = load,
    .bound = bound,
};
