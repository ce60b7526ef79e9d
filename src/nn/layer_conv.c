/* conv: the orthogonal convolution (BCOP): its options, its sizes, its stored kernel; nn/conv.h has
 * its other parts.
 *
 * Stride s is pixel-unshuffle by s (sub-pixel (dy, dx) of channel ch becomes channel ch s^2 + dy s
 * + dx) followed by a stride-1 layer with kernel side k/s. */
#include "linalg/product.h"
#include "linalg/spectral.h"
#include "nn/conv.h"
#include "nn/layer_kinds.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { PAD_CYCLIC, PAD_ZERO };
enum { APPLY_AUTO, APPLY_DENSE, APPLY_FACTORED };

typedef struct conv_options {
    int channels, kernel, stride, pad, apply;
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
    {.key = "apply",
     .type = BCOP_OPTION_CHOICE,
     .offset = offsetof(conv_options, apply),
     .choices = "auto|dense|factored",
     .fallback = "auto",
     .help =
         "in training, by the kernel or by its blocks one after the other (not with pad: zero); "
         "auto: what takes fewer operations, when there are 128 channels or more after the stride"},
    {.key = "bias",
     .type = BCOP_OPTION_BOOL,
     .offset = offsetof(conv_options, bias),
     .fallback = "true",
     .help = "add a bias per output channel"},
    {0},
};

static const bcop_node *option_node(const bcop_layer *layer, const char *key) {
    const bcop_node *node = bcop_config_find(layer->where, key);
    return node ? node : layer->where;
}

static bcop_status check_options(const bcop_layer *layer) {
    const conv_options *o = layer->options;
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
    if (o->apply == APPLY_FACTORED && o->pad == PAD_ZERO)
        return bcop_config_fail(option_node(layer, "apply"),
                                "factored needs pad: cyclic (got pad: zero)");
    return BCOP_OK;
}

/* Channels from which on fewer operations take less time: below, there is little to compute for
   each number that is kept from forward to backward. */
enum { FEWEST = 128 };

/* Multiply-adds per pixel of forward and backward: dense it has three products, factored every
   factor has three pairs of them; of the first layer nobody wants the input's gradient, which saves
   a product of the stage next to the input. */
static bool takes_less(const bcop_layer *layer) {
    const bcop_conv *c = layer->state;
    const bool first = layer->index == 0;
    const double dense = (first ? 2 : 3) * bcop_conv_dense_count(c);
    const double factored =
        3 * bcop_conv_factored_count(c) - (first ? bcop_conv_factored_first(c) : 0);
    return c->kernel.c >= FEWEST && !c->zero_pad && factored < dense;
}

/* A layer that is only evaluated has the stored kernel and nothing else. On a map of one pixel the
   factors between do nothing; and layers behind a dense one, which have such maps, run backward
   before slope, in other pieces. */
static const bcop_conv_apply *choose(const bcop_layer *layer) {
    const conv_options *o = layer->options;
    const bcop_conv *c = layer->state;
    const bool trains = layer->batch > 0 && c->height * c->width > 1;
    const bool factored =
        o->apply == APPLY_FACTORED || (o->apply == APPLY_AUTO && takes_less(layer));
    return trains && factored ? &bcop_conv_factored : &bcop_conv_dense;
}

static bcop_status want_parameters(bcop_layer *layer) {
    const conv_options *o = layer->options;
    const bcop_conv *c = layer->state;
    BCOP_TRY(bcop_layer_want(layer, "blocks/H", c->kernel.c, c->kernel.m, true));
    for (int t = 0; t < c->kernel.factors; t++) {
        char suffix[32];
        snprintf(suffix, sizeof suffix, "blocks/%c%d", t % 2 ? 'Q' : 'P', t / 2 + 1);
        BCOP_TRY(bcop_layer_want(layer, suffix, c->kernel.c, c->kernel.r, true));
    }
    return o->bias ? bcop_layer_want(layer, "bias", c->c_out, 1, false) : BCOP_OK;
}

static bcop_status plan(bcop_layer *layer) {
    const conv_options *o = layer->options;
    bcop_conv *c = layer->state;
    const int s = o->stride;
    BCOP_TRY(check_options(layer));
    *c = (bcop_conv){.c_in = layer->in.channels * s * s,
                     .c_out = o->channels,
                     .height = layer->in.height / s,
                     .width = layer->in.width / s,
                     .k = o->kernel / s,
                     .stride = s,
                     .zero_pad = o->pad == PAD_ZERO};
    c->kernel = bcop_kernel_plan(c->c_in, c->c_out, c->k);
    c->apply = choose(layer);
    layer->out = (bcop_shape){c->height, c->width, c->c_out};
    BCOP_TRY(want_parameters(layer));
    c->apply->plan(layer);
    layer->bound_work = 2 * (c->k + 1L) * c->c_in * c->c_out + bcop_spectral_work(c->kernel.m);
    layer->stored_dimensions = 4;
    layer->stored_size[0] = c->c_out;
    layer->stored_size[1] = c->c_in;
    layer->stored_size[2] = layer->stored_size[3] = c->k;
    return BCOP_OK;
}

static void take(bcop_layer *layer, bool training, bcop_arena *arena) {
    bcop_conv *c = layer->state;
    bcop_kernel_take(&c->kernel, training && c->apply == &bcop_conv_dense, arena);
    c->taps = bcop_arena_floats(arena, (long)c->k * c->k * c->c_in * c->c_out);
    c->apply->take(layer, training, arena);
}

/* ---- the stored kernel ---- */

void bcop_conv_make_taps(const bcop_layer *layer) {
    bcop_conv *c = layer->state;
    if (c->has_taps)
        return;
    const float *v[2 * BCOP_KERNEL_MAX];
    for (int t = 0; t < c->kernel.factors; t++)
        v[t] = layer->parameter[1 + t].value;
    const float *taps = bcop_kernel_forward(&c->kernel, layer->parameter[0].value, v);
    const long count = (long)c->k * c->k, tap = (long)c->c_in * c->c_out;
    if (c->c_in <= c->c_out)
        memcpy(c->taps, taps, (size_t)(count * tap) * sizeof(float));
    else
        for (long t = 0; t < count; t++)
            bcop_product_transpose(c->c_out, c->c_in, taps + t * tap, c->taps + t * tap);
    c->has_taps = true;
}

static void store(const bcop_layer *layer, float *stored) {
    const bcop_conv *c = layer->state;
    const long taps = (long)c->k * c->k;
    bcop_conv_make_taps(layer);
    for (long t = 0; t < taps; t++)
        for (int i = 0; i < c->c_in; i++)
            for (int o = 0; o < c->c_out; o++)
                stored[((long)o * c->c_in + i) * taps + t] =
                    c->taps[(t * c->c_in + i) * c->c_out + o];
}

static void load(bcop_layer *layer, const float *stored) {
    bcop_conv *c = layer->state;
    const long taps = (long)c->k * c->k;
    for (long t = 0; t < taps; t++)
        for (int i = 0; i < c->c_in; i++)
            for (int o = 0; o < c->c_out; o++)
                c->taps[(t * c->c_in + i) * c->c_out + o] =
                    stored[((long)o * c->c_in + i) * taps + t];
    c->has_taps = true;
    c->apply->pack(layer);
}

/* ---- the way it is applied ---- */

static const bcop_conv_apply *way(const bcop_layer *layer) {
    return ((const bcop_conv *)layer->state)->apply;
}

static void build(bcop_layer *layer) {
    ((bcop_conv *)layer->state)->has_taps = false;
    way(layer)->build(layer);
}

static long scratch(const bcop_layer *layer, int n) {
    return way(layer)->scratch(layer, n);
}

static void forward(const bcop_layer *layer, int n, const float *x, float *y, const bcop_tape *tape,
                    float *scratch) {
    way(layer)->forward(layer, n, x, y, tape, scratch);
}

static void slope(const bcop_layer *layer, int n, const bcop_tape *tape, const float *gy,
                  float *lane_gradient, float *scratch) {
    way(layer)->slope(layer, n, tape, gy, lane_gradient, scratch);
}

static void backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy, float *gx,
                     float *scratch) {
    way(layer)->backward(layer, n, tape, gy, gx, scratch);
}

static void pull(bcop_layer *layer, const float *lane_gradient) {
    way(layer)->pull(layer, lane_gradient);
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
    .state_size = sizeof(bcop_conv),
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
    .bound = bcop_conv_check_bound,
    .forward64 = bcop_conv_check_forward64,
    .scratch64 = bcop_conv_check_scratch64,
    .rounding = bcop_conv_check_rounding,
};
