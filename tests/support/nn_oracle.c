#include "nn_oracle.h"

#include "oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int larger(int a, int b) {
    return a > b ? a : b;
}

/* ---- the kernel ---- */

/* Square arrays of taps, each a c x c matrix: [side][side][c][c]. */
typedef struct taps {
    int side, c;
    double *value;
} taps;

static double *tap(const taps *t, int i, int j) {
    return t->value + ((long)i * t->side + j) * t->c * t->c;
}

static taps make_taps(int side, int c) {
    return (taps){side, c, oracle_doubles((long)side * side * c * c)};
}

/* p = v v^T, and its complement I - p. */
static void projector(int c, int r, const double *v, double *p, double *complement) {
    double *vt = oracle_doubles((long)r * c);
    oracle_transpose(c, r, v, vt);
    oracle_multiply(c, c, r, v, vt, p);
    for (int i = 0; i < c; i++)
        for (int j = 0; j < c; j++)
            complement[i * c + j] = (i == j) - p[i * c + j];
    free(vt);
}

/* [[P Q, P (I-Q)], [(I-P) Q, (I-P) (I-Q)]] */
static taps pair_kernel(int c, int r, const double *v, const double *w) {
    const long size = (long)c * c;
    double *p = oracle_doubles(2 * size), *q = oracle_doubles(2 * size);
    projector(c, r, v, p, p + size);
    projector(c, r, w, q, q + size);
    const taps t = make_taps(2, c);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            oracle_multiply(c, c, c, p + i * size, q + j * size, tap(&t, i, j));
    free(p);
    free(q);
    return t;
}

/* (A * B)[i, j] = sum over a, b of A[a, b] B[i - a, j - b]; frees both. */
static taps block_convolve(taps a, taps b) {
    const taps sum = make_taps(a.side + b.side - 1, a.c);
    const long size = (long)a.c * a.c;
    double *product = oracle_doubles(size);
    for (int i = 0; i < sum.side; i++)
        for (int j = 0; j < sum.side; j++)
            for (int y = 0; y < a.side; y++)
                for (int x = 0; x < a.side; x++) {
                    if (i - y < 0 || i - y >= b.side || j - x < 0 || j - x >= b.side)
                        continue;
                    oracle_multiply(a.c, a.c, a.c, tap(&a, y, x), tap(&b, i - y, j - x), product);
                    for (long e = 0; e < size; e++)
                        tap(&sum, i, j)[e] += product[e];
                }
    free(product);
    free(a.value);
    free(b.value);
    return sum;
}

static taps compose(int c, int k, nn_oracle_order order, const double *const v[]) {
    taps all = make_taps(1, c);
    for (int i = 0; i < c; i++)
        all.value[i * c + i] = 1;
    for (int i = 0; i < k - 1; i++) {
        int pair = i, p = 0;
        if (order == NN_ORACLE_FIRST_TWICE && i > 0)
            pair = i - 1;
        if (order == NN_ORACLE_REVERSED)
            pair = k - 2 - i;
        if (order == NN_ORACLE_EXCHANGED)
            p = 1;
        all = block_convolve(all, pair_kernel(c, c / 2, v[2 * pair + p], v[2 * pair + 1 - p]));
    }
    return all;
}

void nn_oracle_kernel(int c_in, int c_out, int k, nn_oracle_order order, const double *h,
                      const double *const v[], double *kernel) {
    const int c = larger(c_in, c_out), m = c_in + c_out - c;
    const taps a = compose(c, k, order, v);
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++)
            for (int o = 0; o < c_out; o++)
                for (int n = 0; n < c_in; n++) {
                    double sum = 0; /* A^T H for c_in <= c_out, else H^T A */
                    for (int e = 0; e < c; e++)
                        sum += c_in <= c_out ? tap(&a, i, j)[e * c + o] * h[e * m + n]
                                             : h[e * m + o] * tap(&a, i, j)[e * c + n];
                    kernel[(((long)o * c_in + n) * k + i) * k + j] = sum;
                }
    free(a.value);
}

/* ---- layers ---- */

bcop_shape nn_oracle_conv_out(const nn_oracle_conv *conv) {
    return (bcop_shape){conv->in.height / conv->stride, conv->in.width / conv->stride,
                        conv->channels};
}

void nn_oracle_unshuffle(bcop_shape in, int stride, const double *x, double *y) {
    const int height = in.height / stride, width = in.width / stride;
    for (int c = 0; c < in.channels; c++)
        for (int dy = 0; dy < stride; dy++)
            for (int dx = 0; dx < stride; dx++)
                for (int i = 0; i < height; i++)
                    for (int j = 0; j < width; j++)
                        *y++ =
                            x[((long)c * in.height + i * stride + dy) * in.width + j * stride + dx];
}

/* The padded map's pixel (i, j), where (0, 0) is the first of the map itself. */
static double pixel(const double *x, int height, int width, bool zero, int i, int j) {
    if (zero && (i < 0 || i >= height || j < 0 || j >= width))
        return 0;
    while (i < 0)
        i += height;
    while (j < 0)
        j += width;
    return x[(long)(i % height) * width + j % width];
}

void nn_oracle_conv_apply(const nn_oracle_conv *conv, const double *kernel, const double *bias,
                          const double *x, double *y) {
    const bcop_shape out = nn_oracle_conv_out(conv);
    const int c_in = conv->in.channels * conv->stride * conv->stride, k = conv->k;
    double *map = oracle_doubles(bcop_shape_size(conv->in));
    nn_oracle_unshuffle(conv->in, conv->stride, x, map);
    for (int o = 0; o < out.channels; o++)
        for (int i = 0; i < out.height; i++)
            for (int j = 0; j < out.width; j++, y++) {
                *y = bias ? bias[o] : 0;
                for (int n = 0; n < c_in; n++)
                    for (int a = 0; a < k; a++)
                        for (int b = 0; b < k; b++)
                            *y += kernel[(((long)o * c_in + n) * k + a) * k + b] *
                                  pixel(map + (long)n * out.height * out.width, out.height,
                                        out.width, conv->zero, i + a - k / 2, j + b - k / 2);
            }
    free(map);
}

void nn_oracle_conv_matrix(const nn_oracle_conv *conv, const double *kernel, double *matrix) {
    const long in = bcop_shape_size(conv->in), out = bcop_shape_size(nn_oracle_conv_out(conv));
    double *x = oracle_doubles(in), *y = oracle_doubles(out);
    for (long j = 0; j < in; j++) {
        x[j] = 1;
        nn_oracle_conv_apply(conv, kernel, NULL, x, y);
        x[j] = 0;
        for (long i = 0; i < out; i++)
            matrix[i * in + j] = y[i];
    }
    free(x);
    free(y);
}

void nn_oracle_dense_apply(int in, int out, const double *weight, const double *bias,
                           const double *x, double *y) {
    for (int o = 0; o < out; o++) {
        y[o] = bias ? bias[o] : 0;
        for (int i = 0; i < in; i++)
            y[o] += weight[(long)o * in + i] * x[i];
    }
}

static int descending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

double nn_oracle_groupsort(bcop_shape shape, int size, const double *x, double *y) {
    const long pixels = (long)shape.height * shape.width;
    const int groups = shape.channels / size;
    double *group = oracle_doubles(size), gap = INFINITY;
    for (long p = 0; p < pixels; p++)
        for (int g = 0; g < groups; g++) {
            for (int i = 0; i < size; i++)
                group[i] = x[(g + i * groups) * pixels + p];
            qsort(group, (size_t)size, sizeof *group, descending);
            for (int i = 0; i < size; i++)
                y[(g + i * groups) * pixels + p] = group[i];
            for (int i = 1; i < size; i++)
                gap = fmin(gap, group[i - 1] - group[i]);
        }
    free(group);
    return gap;
}

/* The component n along the normal changes its sign where it is positive: x - 2 n normal. */
double nn_oracle_householder(bcop_shape shape, const double *angle, const double *x, double *y) {
    const long pixels = (long)shape.height * shape.width;
    const int half = shape.channels / 2;
    double gap = INFINITY;
    for (int i = 0; i < half; i++)
        for (long p = 0; p < pixels; p++) {
            const long a = i * pixels + p, b = (i + half) * pixels + p;
            const double normal[2] = {-sin(angle[i] / 2), cos(angle[i] / 2)};
            const double n = x[a] * normal[0] + x[b] * normal[1];
            y[a] = x[a] - 2 * fmax(n, 0) * normal[0];
            y[b] = x[b] - 2 * fmax(n, 0) * normal[1];
            gap = fmin(gap, fabs(n));
        }
    return gap;
}

/* ---- losses ---- */

long double nn_oracle_hinge(int classes, const double *z, int label, double eps, double *kink) {
    long double sum = 0;
    for (int j = 0; j < classes; j++) {
        const long double gap = sqrtl(2) * (long double)eps - z[label] + z[j];
        if (j == label)
            continue;
        if (kink)
            *kink = fmin(*kink, (double)fabsl(gap));
        sum += gap > 0 ? gap : 0;
    }
    return sum / classes;
}

/* -T log softmax, written with differences from the true logit. */
long double nn_oracle_cross_entropy(int classes, const double *z, int label, double offset,
                                    double temperature) {
    long double sum = 0, most = 0;
    const long double mine = (long double)z[label] - offset;
    for (int j = 0; j < classes; j++)
        if (j != label)
            most = fmaxl(most, ((long double)z[j] - mine) / temperature);
    for (int j = 0; j < classes; j++)
        sum += expl((j == label ? 0 : ((long double)z[j] - mine) / temperature) - most);
    return temperature * (most + logl(sum));
}

long double nn_oracle_reward(int classes, const double *z, int label, double *kink) {
    long double radius = INFINITY, second = INFINITY;
    for (int j = 0; j < classes; j++) {
        const long double r = ((long double)z[label] - z[j]) / sqrtl(2);
        if (j == label)
            continue;
        second = fminl(second, fmaxl(r, radius));
        radius = fminl(radius, r);
    }
    if (kink)
        *kink = fmin(*kink, (double)fminl(fabsl(radius), second - radius));
    return fmaxl(radius, 0);
}

void nn_oracle_stretch(int classes, const double *d, const double *z, int label, double *t) {
    for (int j = 0; j < classes; j++)
        t[j] = j == label ? z[j] : z[label] - (z[label] - z[j]) * sqrt(2) / d[label * classes + j];
}

/* ---- orders ---- */

void nn_oracle_chw(bcop_shape shape, const float *nhwc, double *chw) {
    for (int c = 0; c < shape.channels; c++)
        for (int i = 0; i < shape.height; i++)
            for (int j = 0; j < shape.width; j++)
                *chw++ = (double)nhwc[((long)i * shape.width + j) * shape.channels + c];
}

void nn_oracle_nhwc(bcop_shape shape, const double *chw, double *nhwc) {
    for (int c = 0; c < shape.channels; c++)
        for (int i = 0; i < shape.height; i++)
            for (int j = 0; j < shape.width; j++)
                nhwc[((long)i * shape.width + j) * shape.channels + c] = *chw++;
}
