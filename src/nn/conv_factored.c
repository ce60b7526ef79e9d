/* A conv layer applied factor by factor.
 *
 * With (S x)[p] = x[p+1], cyclic along rows (P) or columns (Q), a factor is V V^T + (I - V V^T) S.
 * Shifts commute with everything, so all are taken out but one per factor,
 *     y = x + V w,   w = S^T t - t,   t = V^T x,
 * and the k-1 - floor(k/2) that are left on both axes move the map once, while it is copied. Back:
 *     dV += gy w^T + x e^T,   gx = gy + V e,   e = S b - b,   b = V^T gy.
 * The stages are H, P1, Q1, P2, ... when c_in <= c_out, else ..., P2, Q1, P1, H^T. Products run
 * over all pixels of as many images as stay in cache: a piece.
 *
 * The tape holds, for each piece, the input of every stage, then w of every factor. slope writes
 * the gradient of a stage's input over that input, and e over w; backward has only stage 0 left to
 * do. An input could be had again by x = y - V w, but that product takes longer (85 us of 256
 * channels and 256 pixels) than the input takes to be written and fetched (about 50 us). */
#include "linalg/product.h"
#include "nn/conv.h"
#include "nn/direct.h"

#include <string.h>

enum { PIECE = 1 << 16 }; /* floats of a map of c channels, if one image is not more */

double bcop_conv_factored_count(const bcop_conv *c) {
    const bcop_kernel *k = &c->kernel;
    return 2.0 * k->factors * k->c * k->r + (double)c->c_in * c->c_out;
}

static bool lifts(const bcop_conv *c) {
    return c->c_in <= c->c_out;
}

/* The factor that is stage s; -1: H. */
static int factor_of(const bcop_conv *c, int s) {
    return lifts(c) ? s - 1 : c->kernel.factors - 1 - s;
}

double bcop_conv_factored_first(const bcop_conv *c) {
    return (double)c->kernel.c * (factor_of(c, 0) < 0 ? c->kernel.m : c->kernel.r);
}

static void plan(bcop_layer *layer) {
    const bcop_conv *c = layer->state;
    const bcop_kernel *k = &c->kernel;
    const double pixels = (double)c->height * c->width;
    const long h = (long)k->c * k->m, v = (long)k->c * k->r;
    layer->lane_gradient = h + k->factors * v + (bcop_layer_bias(layer) ? c->c_out : 0);
    layer->saved = c->height * c->width * (c->c_in + (long)k->factors * (k->c + k->r));
    layer->flops = 2 * bcop_conv_factored_count(c) * pixels;
    layer->slope_share = layer->flops - 2 * bcop_conv_factored_first(c) * pixels;
}

static float *take_packed(bcop_arena *arena, int run, int outputs) {
    const bcop_direct d = bcop_direct_rows(1, run, outputs);
    return bcop_arena_floats(arena, bcop_direct_packed(&d));
}

static void take(bcop_layer *layer, bool training, bcop_arena *arena) {
    (void)training;
    bcop_conv *c = layer->state;
    const bcop_kernel *k = &c->kernel;
    c->factored.h = take_packed(arena, k->c, k->m);
    c->factored.ht = take_packed(arena, k->m, k->c);
    for (int t = 0; t < k->factors; t++) {
        c->factored.v[t] = take_packed(arena, k->c, k->r);
        c->factored.vt[t] = take_packed(arena, k->r, k->c);
    }
    c->factored.transposed = bcop_arena_floats(arena, (long)k->c * (k->m > k->r ? k->m : k->r));
}

/* ---- the operator ---- */

static void pack_matrix(int rows, int cols, const float *a, float *packed) {
    const bcop_direct d = bcop_direct_rows(1, rows, cols);
    for (int i = 0; i < rows; i++)
        bcop_direct_pack(&d, i, a + (long)i * cols, packed);
}

static void build(bcop_layer *layer) {
    const bcop_conv *c = layer->state;
    const bcop_kernel *k = &c->kernel;
    for (int t = -1; t < k->factors; t++) {
        const float *a = layer->parameter[1 + t].value;
        const int cols = t < 0 ? k->m : k->r;
        pack_matrix(k->c, cols, a, t < 0 ? c->factored.h : c->factored.v[t]);
        bcop_product_transpose(k->c, cols, a, c->factored.transposed);
        pack_matrix(cols, k->c, c->factored.transposed, t < 0 ? c->factored.ht : c->factored.vt[t]);
    }
}

/* The lane gradient is that of the parameters, in their order. */
static void pull(bcop_layer *layer, const float *lane_gradient) {
    for (int p = 0; p < layer->parameters; p++) {
        const long size = bcop_parameter_size(&layer->parameter[p]);
        memcpy(layer->parameter[p].gradient, lane_gradient, (size_t)size * sizeof(float));
        lane_gradient += size;
    }
}

/* ---- a piece ---- */

typedef struct piece {
    const bcop_layer *layer;
    const bcop_conv *c;
    const bcop_kernel *k;
    int images, last;    /* last stage */
    bool first;          /* of the run */
    long pixels;         /* of all images */
    float *saved, *thin; /* thin: scratch [pixels][r] */
} piece;

static int piece_images(const bcop_layer *layer, int n) {
    const bcop_conv *c = layer->state;
    const long image = (long)c->height * c->width * c->kernel.c;
    return image >= PIECE ? 1 : n * image <= PIECE ? n : (int)(PIECE / image);
}

/* Of n images those from `done` on. */
static piece cut_piece(const bcop_layer *layer, int n, int done, const bcop_tape *tape,
                       float *scratch) {
    const bcop_conv *c = layer->state;
    const int most = piece_images(layer, n), images = n - done < most ? n - done : most;
    return (piece){.layer = layer,
                   .c = c,
                   .k = &c->kernel,
                   .images = images,
                   .first = done == 0,
                   .last = c->kernel.factors,
                   .pixels = (long)images * c->height * c->width,
                   .saved = tape->saved + done * layer->saved,
                   .thin = scratch};
}

/* The input of stage s. */
static float *input_of(const piece *p, int s) {
    return p->saved + (s > 0 ? p->pixels * (p->c->c_in + (s - 1L) * p->k->c) : 0);
}

/* w of factor t, then e. */
static float *shift_of(const piece *p, int t) {
    return p->saved + p->pixels * (p->c->c_in + (long)p->k->factors * p->k->c + t * (long)p->k->r);
}

static long scratch(const bcop_layer *layer, int n) {
    const bcop_conv *c = layer->state;
    const int wide = c->kernel.r > c->c_in ? c->kernel.r : c->c_in;
    return (long)piece_images(layer, n) * c->height * c->width * wide;
}

/* ---- moving maps ---- */

static void subtract(long count, const float *restrict a, const float *restrict b,
                     float *restrict to) {
    for (long i = 0; i < count; i++)
        to[i] = a[i] - b[i];
}

/* to[p] = from[p + step] - from[p] along the axis of factor t, step 1 or -1, r numbers a pixel. */
static void shift_less(const piece *p, int t, int step, const float *from, float *to) {
    const int height = p->c->height, width = p->c->width, r = p->k->r;
    const long row = (long)width * r, rest = row - r;
    for (int y = 0; y < p->images * height; y++, from += row, to += row) {
        if (t % 2 == 0) {
            const int at = y % height, other = (at + height + step) % height;
            subtract(row, from + (other - at) * row, from, to);
        } else if (step > 0) {
            subtract(rest, from + r, from, to);
            subtract(r, from, from + rest, to + rest);
        } else {
            subtract(r, from + rest, from, to);
            subtract(rest, from, from + r, to + r);
        }
    }
}

/* Sub-pixel `sub` of a pixel, as one of its s^2 channels. */
static void copy_channels(int channels, int ss, bool back, const float *from, float *to) {
    if (ss == 1)
        memcpy(to, from, (size_t)channels * sizeof *to);
    else
        for (int ch = 0; ch < channels; ch++)
            to[back ? ch : ch * ss] = from[back ? ch * ss : ch];
}

/* From images to the unshuffled map that is shifted, to[p] = from[p + shift] on both axes; or back.
 */
static void copy_map(const piece *p, bool back, const float *from, float *to) {
    const bcop_conv *c = p->c;
    const int s = c->stride, ss = s * s, channels = p->layer->in.channels;
    const int shift = c->k - 1 - c->k / 2, line = p->layer->in.width;
    for (int i = 0; i < p->images * c->height; i++)
        for (int j = 0; j < c->width; j++) {
            const int image = i / c->height, row = (i % c->height + shift) % c->height;
            const long flat = ((long)i * c->width + j) * c->c_in;
            const long y = ((long)image * c->height + row) * s, x = (j + shift) % c->width * s;
            for (int sub = 0; sub < ss; sub++) {
                const long at = ((y + sub / s) * line + x + sub % s) * channels;
                copy_channels(channels, ss, back, from + (back ? flat + sub : at),
                              to + (back ? at : flat + sub));
            }
        }
}

/* ---- forward ---- */

static void advance(const piece *p, int s, float *y) {
    const bcop_conv *c = p->c;
    const int t = factor_of(c, s), wide = p->k->c, r = p->k->r;
    const bcop_parameter *b = s == p->last ? bcop_layer_bias(p->layer) : NULL;
    const float *x = input_of(p, s), *bias = b ? b->value : NULL;
    if (t < 0) {
        const bcop_direct d = bcop_direct_rows(p->pixels, lifts(c) ? c->c_in : wide, c->c_out);
        bcop_direct_correlate(&d, x, lifts(c) ? c->factored.ht : c->factored.h, bias, NULL, y);
        return;
    }
    bcop_direct thin = bcop_direct_rows(p->pixels, wide, r);
    const bcop_direct back = bcop_direct_rows(p->pixels, r, wide);
    thin.ahead = y;
    thin.ahead_length = p->pixels * wide;
    bcop_direct_correlate(&thin, x, c->factored.v[t], NULL, NULL, p->thin);
    shift_less(p, t, -1, p->thin, shift_of(p, t));
    bcop_direct_correlate(&back, shift_of(p, t), c->factored.vt[t], bias, x, y);
}

static void forward(const bcop_layer *layer, int n, const float *x, float *y, const bcop_tape *tape,
                    float *scratch) {
    piece p;
    for (int done = 0; done < n; done += p.images) {
        p = cut_piece(layer, n, done, tape, scratch);
        copy_map(&p, false, x + done * bcop_shape_size(layer->in), input_of(&p, 0));
        for (int s = 0; s <= p.last; s++)
            advance(&p, s,
                    s < p.last ? input_of(&p, s + 1) : y + done * bcop_shape_size(layer->out));
    }
}

/* ---- backward ---- */

/* The derivative by a block, in the first piece the first term of it. */
static void add_slope(const piece *p, int cols, const float *left, const float *right, bool more,
                      const float *ahead, float *sum) {
    bcop_direct d = bcop_direct_rows(p->pixels, p->k->c, cols);
    d.ahead = ahead;
    d.ahead_length = ahead ? p->pixels * p->k->c : 0;
    if (p->first && !more)
        bcop_direct_slope(&d, 1, left, 0, right, 0, sum, NULL);
    else
        bcop_direct_slope_add(&d, 1, left, 0, right, 0, sum, NULL);
}

/* Adds the gradient of stage s's block, from that of its output, to the lane gradient (NULL: there
   is none); e of a factor takes the place of w. */
static void differentiate(const piece *p, int s, const float *g, float *lane_gradient) {
    const bcop_conv *c = p->c;
    const int t = factor_of(c, s), wide = p->k->c, m = p->k->m, r = p->k->r;
    const float *x = input_of(p, s);
    if (t < 0) {
        if (lane_gradient)
            add_slope(p, m, lifts(c) ? g : x, lifts(c) ? x : g, false, NULL, lane_gradient);
        return;
    }
    bcop_direct d = bcop_direct_rows(p->pixels, wide, r);
    const int next = s > 0 ? factor_of(c, s - 1) : -1;
    d.ahead = next >= 0 ? shift_of(p, next) : s > 0 ? input_of(p, s - 1) : NULL;
    d.ahead_length = s > 0 ? p->pixels * (next >= 0 ? r : c->c_in) : 0;
    float *shift = shift_of(p, t);
    float *sum = lane_gradient ? lane_gradient + (long)wide * m + t * (long)wide * r : NULL;
    if (sum)
        add_slope(p, r, g, shift, false, x, sum);
    bcop_direct_correlate(&d, g, c->factored.v[t], NULL, NULL, p->thin);
    shift_less(p, t, 1, p->thin, shift);
    if (sum)
        add_slope(p, r, x, shift, true, NULL, sum);
}

/* The gradient of stage s's input, after differentiate. */
static void retreat(const piece *p, int s, const float *g, float *gx) {
    const bcop_conv *c = p->c;
    const int t = factor_of(c, s), wide = p->k->c, m = p->k->m, r = p->k->r;
    const bcop_direct d = t >= 0     ? bcop_direct_rows(p->pixels, r, wide)
                          : lifts(c) ? bcop_direct_rows(p->pixels, wide, m)
                                     : bcop_direct_rows(p->pixels, m, wide);
    if (t < 0)
        bcop_direct_correlate(&d, g, lifts(c) ? c->factored.h : c->factored.ht, NULL, NULL, gx);
    else
        bcop_direct_correlate(&d, shift_of(p, t), c->factored.vt[t], NULL, g, gx);
}

/* All stages, but for the gradient of the first one's input. */
static void go_back(const piece *p, const float *gy, float *lane_gradient) {
    for (int s = p->last; s >= 0; s--) {
        const float *g = s < p->last ? input_of(p, s + 1) : gy;
        differentiate(p, s, g, lane_gradient);
        if (s > 0)
            retreat(p, s, g, input_of(p, s));
    }
}

static void slope(const bcop_layer *layer, int n, const bcop_tape *tape, const float *gy,
                  float *lane_gradient, float *scratch) {
    const bcop_conv *c = layer->state;
    const long blocks = layer->lane_gradient - (bcop_layer_bias(layer) ? c->c_out : 0);
    memset(lane_gradient + blocks, 0, (size_t)(layer->lane_gradient - blocks) * sizeof(float));
    piece p;
    for (int done = 0; done < n; done += p.images) {
        p = cut_piece(layer, n, done, tape, scratch);
        const float *g = gy + done * bcop_shape_size(layer->out);
        const bcop_direct sum = bcop_direct_rows(p.pixels, 0, c->c_out);
        if (bcop_layer_bias(layer))
            bcop_direct_slope_add(&sum, 1, g, 0, g, 0, lane_gradient, lane_gradient + blocks);
        go_back(&p, g, lane_gradient);
    }
}

static void backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy, float *gx,
                     float *scratch) {
    piece p;
    for (int done = 0; done < n; done += p.images) {
        p = cut_piece(layer, n, done, tape, scratch);
        const float *g = gy + done * bcop_shape_size(layer->out);
        if (tape->input_only)
            go_back(&p, g, NULL);
        retreat(&p, 0, p.last > 0 ? input_of(&p, 1) : g, scratch);
        copy_map(&p, true, scratch, gx + done * bcop_shape_size(layer->in));
    }
}

const bcop_conv_apply bcop_conv_factored = {
    .plan = plan,
    .take = take,
    .scratch = scratch,
    .build = build,
    .forward = forward,
    .slope = slope,
    .backward = backward,
    .pull = pull,
};
