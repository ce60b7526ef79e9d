/* What certificates need of a conv layer: forward in float64 from the stored kernel, and the proven
 * bound on its norm. */
#include "linalg/product.h"
#include "linalg/spectral.h"
#include "nn/conv.h"

#include <float.h>
#include <math.h>
#include <string.h>

long bcop_conv_check_scratch64(const bcop_layer *layer, int n) {
    (void)n;
    const bcop_conv *c = layer->state;
    return (long)c->height * c->width * c->c_in * c->k * c->k;
}

/* Tap i of a window at place p of `length`: the place it reads, or -1 for a padding's zero. */
static int tap_place(const bcop_conv *c, int p, int i, int length) {
    const int at = p + i - c->k / 2;
    if (at >= 0 && at < length)
        return at;
    return c->zero_pad ? -1 : ((at % length) + length) % length;
}

/* The windows of one image x as rows [height width][c_in][k][k], the order of a stored kernel. */
static void gather64(const bcop_layer *layer, const double *x, double *rows) {
    const bcop_conv *c = layer->state;
    const int s = c->stride, channels = layer->in.channels, taps = c->k * c->k;
    const long line = (long)layer->in.width * channels, depth = (long)c->c_in * taps;
    memset(rows, 0, (size_t)bcop_conv_check_scratch64(layer, 1) * sizeof *rows);
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

void bcop_conv_check_forward64(const bcop_layer *layer, int n, const double *stored,
                               const double *x, double *y, double *rows) {
    const bcop_conv *c = layer->state;
    const int pixels = c->height * c->width;
    bcop_layer_fill_bias64(layer, (long)n * pixels, c->c_out, y);
    for (int i = 0; i < n; i++) {
        gather64(layer, x + i * bcop_shape_size(layer->in), rows);
        bcop_product_nt_double(pixels, c->c_out, c->c_in * c->k * c->k, rows, stored, 1,
                               y + (long)i * pixels * c->c_out);
    }
}

bcop_rounding bcop_conv_check_rounding(const bcop_layer *layer, const double *stored) {
    const bcop_conv *c = layer->state;
    return bcop_layer_rounding(layer, (long)c->height * c->width, c->c_out, c->c_in, c->k * c->k,
                               stored);
}

/* ---- the bound ---- */

static double complex phase(long numerator, int denominator) {
    const double angle = -6.283185307179586477 * (double)numerator / denominator;
    return cos(angle) + I * sin(angle);
}

/* Column j of taps at vertical frequency p: sum_i K[i,j] w^(p i), as [tall][m]. */
static void phase_column(const bcop_conv *c, int p, int height, int j, double complex *out) {
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
double bcop_conv_check_bound(const bcop_layer *layer, double *work) {
    const bcop_conv *c = layer->state;
    bcop_conv_make_taps(layer);
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
