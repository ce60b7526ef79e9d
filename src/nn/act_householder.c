/* householder: the Householder activation of order 1 (Singla, Singla and Feizi, ICLR 2022).
 *
 * Channels i and i + C/2 form a pair z = (z1, z2) with an angle t_i that is learned. On one side of
 * the line through (cos t/2, sin t/2) a pair stays, on the other it is reflected at that line:
 *     y = z                      where z1 sin(t/2) - z2 cos(t/2) >= 0,
 *     y = [cos t, sin t; sin t, -cos t] z   elsewhere.
 * Both are isometries and agree on the line, so for any t the map is 1-Lipschitz and its gradient
 * keeps norms. The parameter is t - pi/2, which begins at 0: at t = pi/2 it is MaxMin. */
#include "nn/layer_kinds.h"

#include <math.h>
#include <string.h>

static const bcop_option options_table[] = {{0}};

static bcop_status plan(bcop_layer *layer) {
    const int channels = layer->in.channels;
    if (channels % 2)
        return bcop_config_fail(layer->where, "%d channels do not divide into pairs", channels);
    layer->out = layer->in;
    layer->saved = bcop_shape_size(layer->in);
    layer->lane_gradient = channels / 2;
    return bcop_layer_want(layer, "angle", channels / 2, 1, false);
}

/* Of every pair cos t and sin t, and cos t/2 and sin t/2 times sqrt(2). */
enum { COSINE, SINE, HALF_COSINE, HALF_SINE, TABLES };

static long scratch_floats(const bcop_layer *layer, int n) {
    (void)n;
    return (TABLES + 1L) * (layer->in.channels / 2);
}

static void fill_tables(const bcop_layer *layer, float *table) {
    const int half = layer->in.channels / 2;
    for (int i = 0; i < half; i++) {
        const double a = (double)layer->parameter[0].value[i];
        table[COSINE * half + i] = (float)-sin(a);
        table[SINE * half + i] = (float)cos(a);
        table[HALF_COSINE * half + i] = (float)(cos(a / 2) - sin(a / 2));
        table[HALF_SINE * half + i] = (float)(cos(a / 2) + sin(a / 2));
    }
}

static void forward(const bcop_layer *layer, int n, const float *x, float *y, const bcop_tape *tape,
                    float *scratch) {
    const int half = layer->in.channels / 2;
    const long pixels = (long)n * layer->in.height * layer->in.width;
    const float *c = scratch, *s = c + half, *hc = s + half, *hs = hc + half;
    fill_tables(layer, scratch);
    memcpy(tape->saved, x, (size_t)(n * layer->saved) * sizeof *x);
    for (long p = 0; p < pixels; p++, x += 2 * half, y += 2 * half)
        for (int i = 0; i < half; i++) {
            const float a = x[i], b = x[i + half];
            const bool reflect = a * hs[i] < b * hc[i];
            y[i] = reflect ? a * c[i] + b * s[i] : a;
            y[i + half] = reflect ? a * s[i] - b * c[i] : b;
        }
}

/* dy/dt = (-y2, y1) where a pair is reflected. */
static void slope(const bcop_layer *layer, int n, const bcop_tape *tape, const float *gy,
                  float *lane_gradient, float *scratch) {
    const int half = layer->in.channels / 2;
    const long pixels = (long)layer->in.height * layer->in.width;
    const float *c = scratch, *s = c + half, *hc = s + half, *hs = hc + half, *x = tape->saved;
    float *sum = scratch + (long)TABLES * half;
    fill_tables(layer, scratch);
    memset(lane_gradient, 0, (size_t)half * sizeof *lane_gradient);
    for (int image = 0; image < n; image++) {
        memset(sum, 0, (size_t)half * sizeof *sum);
        for (long p = 0; p < pixels; p++, x += 2 * half, gy += 2 * half)
            for (int i = 0; i < half; i++) {
                const float a = x[i], b = x[i + half];
                const float y1 = a * c[i] + b * s[i], y2 = a * s[i] - b * c[i];
                sum[i] += a * hs[i] < b * hc[i] ? gy[i + half] * y1 - gy[i] * y2 : 0;
            }
        for (int i = 0; i < half; i++)
            lane_gradient[i] += sum[i];
    }
}

/* The reflection is its own transpose. */
static void backward(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy, float *gx,
                     float *scratch) {
    const int half = layer->in.channels / 2;
    const long pixels = (long)n * layer->in.height * layer->in.width;
    const float *c = scratch, *s = c + half, *hc = s + half, *hs = hc + half, *x = tape->saved;
    fill_tables(layer, scratch);
    for (long p = 0; p < pixels; p++, x += 2 * half, gy += 2 * half, gx += 2 * half)
        for (int i = 0; i < half; i++) {
            const float ga = gy[i], gb = gy[i + half];
            const bool reflect = x[i] * hs[i] < x[i + half] * hc[i];
            gx[i] = reflect ? ga * c[i] + gb * s[i] : ga;
            gx[i + half] = reflect ? ga * s[i] - gb * c[i] : gb;
        }
}

static void pull(bcop_layer *layer, const float *lane_gradient) {
    memcpy(layer->parameter[0].gradient, lane_gradient,
           (size_t)(layer->in.channels / 2) * sizeof *lane_gradient);
}

static void forward64(const bcop_layer *layer, int n, const double *stored, const double *x,
                      double *y, double *scratch) {
    (void)stored;
    (void)scratch;
    const int half = layer->in.channels / 2;
    const long pixels = (long)n * layer->in.height * layer->in.width;
    for (int i = 0; i < half; i++) {
        const double a = (double)layer->parameter[0].value[i], c = -sin(a), s = cos(a);
        const double hc = cos(a / 2) - sin(a / 2), hs = cos(a / 2) + sin(a / 2);
        for (long p = 0; p < pixels; p++) {
            const double *z = x + p * 2 * half + i;
            const double z1 = z[0], z2 = z[half];
            const bool reflect = z1 * hs < z2 * hc;
            y[p * 2 * half + i] = reflect ? z1 * c + z2 * s : z1;
            y[p * 2 * half + i + half] = reflect ? z1 * s - z2 * c : z2;
        }
    }
}

/* With unit roundoff u and a pair of norm r: sines and cosines within 2u make reflecting err by
   less than 8 u r. The wrong side is taken only where the pair is within 7 u r of its line, as the
   products that decide err by less, and then both sides differ by twice that. Together less than
   the gamma_17 1.5 r that is claimed. */
static bcop_rounding rounding(const bcop_layer *layer, const double *stored) {
    (void)layer;
    (void)stored;
    return (bcop_rounding){.terms = 16, .absolute = 1.5};
}

const bcop_layer_kind bcop_act_householder = {
    .name = "householder",
    .help = "Householder: pairs i, i + C/2 reflected at a learned line, at first as MaxMin",
    .options = options_table,
    .torch = "t = (self.angle + torch.pi / 2)[:, None, None]\n"
             "a, b = x.chunk(2, dim=1)\n"
             "n = (b * torch.cos(t / 2) - a * torch.sin(t / 2)).clamp(min=0)\n"
             "return torch.cat((a + 2 * n * torch.sin(t / 2), b - 2 * n * torch.cos(t / 2)), 1)\n",
    .in_place = true,
    .plan = plan,
    .scratch = scratch_floats,
    .forward = forward,
    .slope = slope,
    .backward = backward,
    .pull = pull,
    .forward64 = forward64,
    .rounding = rounding,
};
