#include "nn/window.h"

#include "linalg/product.h"

#include <string.h>

/* Rows of windows are gathered for so many floats at a time: half a megabyte stays in the second
   cache beside the kernel. */
enum { CHUNK_FLOATS = 1 << 17 };

long bcop_window_padded(const bcop_window *w) {
    return (long)(w->height + w->k - 1) * (w->width + w->k - 1) * w->channels;
}

/* Images whose rows are gathered at a time. */
static int chunk_images(const bcop_window *w, int n) {
    const long one = (long)w->height * w->width * w->k * w->k * w->channels;
    const long images = CHUNK_FLOATS / one;
    return images < 1 ? 1 : images < n ? (int)images : n;
}

long bcop_window_rows(const bcop_window *w, int n) {
    return (long)chunk_images(w, n) * w->height * w->width * w->k * w->k * w->channels;
}

/* The border of a padded map from its middle. */
static void pad_sides(const bcop_window *w, float *padded) {
    const int pw = w->width + w->k - 1, after = w->k - 1 - w->before;
    const size_t pixel = (size_t)w->channels * sizeof(float);
    const long row = (long)pw * w->channels;
    for (int y = 0; y < w->height; y++) {
        float *line = padded + (y + w->before) * row;
        for (int x = 0; x < w->before; x++) {
            /* the cyclic neighbour, for maps smaller than the padding too */
            const int from = ((x - w->before) % w->width + w->width) % w->width;
            if (w->zero)
                memset(line + (long)x * w->channels, 0, pixel);
            else
                memcpy(line + (long)x * w->channels, line + (long)(w->before + from) * w->channels,
                       pixel);
        }
        for (int x = 0; x < after; x++) {
            float *to = line + (long)(w->before + w->width + x) * w->channels;
            if (w->zero)
                memset(to, 0, pixel);
            else
                memcpy(to, line + (long)(w->before + x % w->width) * w->channels, pixel);
        }
    }
    for (int y = 0; y < w->k - 1; y++) {
        const int line = y < w->before ? y : w->height + y;
        const int from = ((line - w->before) % w->height + w->height) % w->height + w->before;
        if (w->zero)
            memset(padded + line * row, 0, (size_t)row * sizeof(float));
        else
            memcpy(padded + line * row, padded + from * row, (size_t)row * sizeof(float));
    }
}

/* Pixel-unshuffle by s of one image x[height s][width s][channels / s^2] into the middle of the
   padded map. */
static void unshuffle(const bcop_window *w, int s, const float *x, float *padded) {
    const int pw = w->width + w->k - 1, channels = w->channels / (s * s);
    const long line = (long)w->width * w->channels;
    for (int y = 0; y < w->height; y++) {
        float *to = padded + ((long)(y + w->before) * pw + w->before) * w->channels;
        const float *from = x + y * line;
        if (s == 1) {
            memcpy(to, from, (size_t)line * sizeof(float));
            continue;
        }
        for (int dy = 0; dy < s; dy++)
            for (int p = 0; p < w->width; p++)
                for (int dx = 0; dx < s; dx++)
                    for (int ch = 0; ch < channels; ch++)
                        to[(long)p * w->channels + ch * s * s + dy * s + dx] =
                            from[((long)(dy * w->width + p) * s + dx) * channels + ch];
    }
}

void bcop_window_pad(const bcop_window *w, int s, const float *x, float *padded) {
    unshuffle(w, s, x, padded);
    pad_sides(w, padded);
}

void bcop_window_shuffle(const bcop_window *w, int s, const float *from, float *x) {
    const int channels = w->channels / (s * s);
    for (int y = 0; y < w->height; y++)
        for (int dy = 0; dy < s; dy++)
            for (int p = 0; p < w->width; p++)
                for (int dx = 0; dx < s; dx++)
                    for (int ch = 0; ch < channels; ch++)
                        x[((((long)y * s + dy) * w->width + p) * s + dx) * channels + ch] =
                            from[((long)y * w->width + p) * w->channels + ch * s * s + dy * s + dx];
}

/* Windows of `n` padded images as rows [n height width][k k channels]. */
static void gather_rows(const bcop_window *w, int n, const float *padded, float *rows) {
    const int pw = w->width + w->k - 1;
    const long run = (long)w->k * w->channels;
    for (int image = 0; image < n; image++, padded += bcop_window_padded(w))
        for (int y = 0; y < w->height; y++)
            for (int x = 0; x < w->width; x++)
                for (int i = 0; i < w->k; i++, rows += run)
                    memcpy(rows, padded + ((long)(y + i) * pw + x) * w->channels,
                           (size_t)run * sizeof(float));
}

/* The windows of `images` padded maps: gathered, or for k = 1 the maps themselves. */
static const float *windows(const bcop_window *w, int images, const float *padded, float *rows) {
    if (w->k == 1)
        return padded;
    gather_rows(w, images, padded, rows);
    return rows;
}

void bcop_window_correlate(const bcop_window *w, int n, const float *padded, const float *kernel,
                           int c_out, float beta, float *y, float *rows) {
    const int chunk = chunk_images(w, n), pixels = w->height * w->width;
    for (int done = 0; done < n; done += chunk) {
        const int images = n - done < chunk ? n - done : chunk;
        const float *window = windows(w, images, padded + done * bcop_window_padded(w), rows);
        bcop_product_nn(images * pixels, c_out, w->k * w->k * w->channels, 1, window, kernel, beta,
                        y + (long)done * pixels * c_out);
    }
}

void bcop_window_slope(const bcop_window *w, int n, const float *padded, const float *gy, int c_out,
                       float *g, float *rows) {
    const int chunk = chunk_images(w, n), pixels = w->height * w->width;
    for (int done = 0; done < n; done += chunk) {
        const int images = n - done < chunk ? n - done : chunk;
        const float *window = windows(w, images, padded + done * bcop_window_padded(w), rows);
        bcop_product_tn(w->k * w->k * w->channels, c_out, images * pixels, 1, window,
                        gy + (long)done * pixels * c_out, done > 0, g);
    }
}
