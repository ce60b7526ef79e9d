/* run: serial */
#include "nn/window.h"
#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Images and kernel of one convolution, in memory of exactly their size. */
typedef struct instance {
    bcop_window window;
    int n, outputs;
    long in, padded, out, depth; /* floats per image; of a window */
    float *x, *kernel, *bias, *gy;
    float *maps; /* [n][padded] */
    float *packed;
} instance;

static instance open_instance(bcop_window window, int n, int outputs, uint64_t seed) {
    const bcop_direct d = bcop_window_direct(&window, outputs);
    instance t = {.window = window,
                  .n = n,
                  .outputs = outputs,
                  .in = (long)window.height * window.width * window.channels,
                  .padded = bcop_window_padded(&window),
                  .out = (long)d.height * d.width * outputs,
                  .depth = (long)d.lines * d.run};
    t.x = oracle_random_floats(seed, n * t.in, 1);
    t.gy = oracle_random_floats(seed + 1, n * t.out, 1);
    t.kernel = oracle_random_floats(seed + 2, t.depth * outputs, 1);
    t.bias = oracle_random_floats(seed + 3, outputs, 1);
    t.maps = oracle_floats(n * t.padded);
    for (int i = 0; i < n; i++)
        bcop_window_pad(&window, t.x + i * t.in, t.maps + i * t.padded);
    t.packed = oracle_floats(bcop_direct_packed(&d));
    for (long row = 0; row < t.depth; row++)
        bcop_direct_pack(&d, row, t.kernel + row * outputs, t.packed);
    return t;
}

static void close_instance(instance *t) {
    free(t->x);
    free(t->gy);
    free(t->kernel);
    free(t->bias);
    free(t->maps);
    free(t->packed);
}

/* The pixel that a window at (row, column) sees at (i, j), NULL for a zero. */
static const float *pixel(const instance *t, int image, int row, int column, int i, int j) {
    const bcop_window *w = &t->window;
    int y = row * w->stride - w->before + i, x = column * w->stride - w->before + j;
    if (w->zero && (y < 0 || y >= w->height || x < 0 || x >= w->width))
        return NULL;
    while (y < 0)
        y += w->height;
    while (x < 0)
        x += w->width;
    return t->x + image * t->in + ((long)(y % w->height) * w->width + x % w->width) * w->channels;
}

/* Calls with every product of the definition: y[image][row][column][o] has the term x kernel[i][j]
   [channel][o]; `at` is the place of the window's outputs, `place` that of the kernel's row. */
static void for_each_term(const instance *t,
                          void (*term)(const instance *, double x, long at, long place, double *),
                          double *to) {
    const bcop_window *w = &t->window;
    long at = 0;
    for (int image = 0; image < t->n; image++)
        for (int row = 0; row < w->height / w->stride; row++)
            for (int column = 0; column < w->width / w->stride; column++, at += t->outputs)
                for (int i = 0; i < w->k; i++)
                    for (int j = 0; j < w->k; j++) {
                        const float *x = pixel(t, image, row, column, i, j);
                        const long place = ((long)i * w->k + j) * w->channels;
                        for (int c = 0; x && c < w->channels; c++)
                            term(t, (double)x[c], at, (place + c) * t->outputs, to);
                    }
}

static void correlate_term(const instance *t, double x, long at, long place, double *y) {
    for (int o = 0; o < t->outputs; o++)
        y[at + o] += x * (double)t->kernel[place + o];
}

static void slope_term(const instance *t, double x, long at, long place, double *g) {
    for (int o = 0; o < t->outputs; o++)
        g[place + o] += x * (double)t->gy[at + o];
}

static void expect_near(const instance *t, const char *what, long count, const double *expected,
                        const float *got, double tolerance) {
    const bcop_window *w = &t->window;
    const double error = oracle_relative_error(count, expected, got);
    if (!(error <= tolerance))
        fail_msg("%d images %d x %d x %d, k %d, stride %d, before %d, %s, %d outputs: %s off by %g",
                 t->n, w->height, w->width, w->channels, w->k, w->stride, w->before,
                 w->zero ? "zero" : "cyclic", t->outputs, what, error);
}

static float *correlate(const instance *t, const float *bias) {
    const bcop_direct d = bcop_window_direct(&t->window, t->outputs);
    float *y = oracle_floats(t->n * t->out);
    for (int i = 0; i < t->n; i++)
        bcop_direct_correlate(&d, t->maps + i * t->padded, t->packed, bias, NULL, y + i * t->out);
    return y;
}

/* To what is there already, in place: outputs on top of gy, and every sum of a slope twice. */
static void check_added(const instance *t, double *y, double *g, float *got_g, double *sum,
                        float *got_sum) {
    const bcop_direct d = bcop_window_direct(&t->window, t->outputs);
    const long size = t->depth * t->outputs, count = t->n * t->out;
    float *got = oracle_floats(count);
    memcpy(got, t->gy, (size_t)count * sizeof *got);
    for (int i = 0; i < t->n; i++)
        bcop_direct_correlate(&d, t->maps + i * t->padded, t->packed, t->bias, got + i * t->out,
                              got + i * t->out);
    for (long i = 0; i < count; i++)
        y[i] += (double)t->gy[i];
    expect_near(t, "output and what was there", count, y, got, 2e-6);
    bcop_direct_slope_add(&d, t->n, t->maps, t->padded, t->gy, t->out, got_g, got_sum);
    for (long i = 0; i < size; i++)
        g[i] *= 2;
    for (int o = 0; o < t->outputs; o++)
        sum[o] *= 2;
    expect_near(t, "slope twice", size, g, got_g, 2e-6);
    expect_near(t, "sum twice", t->outputs, sum, got_sum, 2e-6);
    free(got);
}

static void check(const instance *t, bool with_bias) {
    const bcop_direct d = bcop_window_direct(&t->window, t->outputs);
    const long size = t->depth * t->outputs, count = t->n * t->out;
    double *y = oracle_doubles(count), *g = oracle_doubles(size), *sum = oracle_doubles(t->outputs);
    for (long i = 0; i < count; i++) {
        y[i] = with_bias ? (double)t->bias[i % t->outputs] : 0;
        sum[i % t->outputs] += (double)t->gy[i];
    }
    for_each_term(t, correlate_term, y);
    for_each_term(t, slope_term, g);
    float *got_y = correlate(t, with_bias ? t->bias : NULL), *got_g = oracle_floats(size),
          *got_sum = oracle_floats(t->outputs);
    memset(got_g, 0xff, (size_t)size * sizeof *got_g); /* is overwritten */
    bcop_direct_slope(&d, t->n, t->maps, t->padded, t->gy, t->out, got_g,
                      with_bias ? got_sum : NULL);
    expect_near(t, "output", count, y, got_y, 2e-6);
    expect_near(t, "slope", size, g, got_g, 2e-6);
    if (with_bias)
        expect_near(t, "sum", t->outputs, sum, got_sum, 2e-6);
    if (with_bias)
        check_added(t, y, g, got_g, sum, got_sum);
    free(y);
    free(g);
    free(sum);
    free(got_y);
    free(got_g);
    free(got_sum);
}

/* Every number of channels to 70 on either side, every k and stride, both paddings, maps of one
   pixel and more, also smaller than the padding. */
static void equals_the_definition(void **state) {
    (void)state;
    for (int i = 1; i <= 140; i++) {
        const int k = i % 7 + 1, stride = i % 5 == 0 ? 3 : i % 3 == 0 ? 2 : 1;
        const int channels = (i * 37 % 70 + stride * stride) / (stride * stride);
        const bcop_window w = {.height = stride * (i % 4 + 1),
                               .width = stride * (i * 5 % 13 + 1),
                               .channels = channels,
                               .k = k * stride,
                               .stride = stride,
                               .before = i % 2 ? k / 2 * stride : (k - 1 - k / 2) * stride,
                               .zero = i % 8 < 4};
        instance t = open_instance(w, i % 3 + 1, (i - 1) % 70 + 1, 10 * (uint64_t)i);
        check(&t, i % 4 != 0);
        close_instance(&t);
    }
}

/* Widths around the tile's, and more windows in a row, an image and a run than one sum takes. */
static void equals_the_definition_on_large_maps(void **state) {
    (void)state;
    static const int size[][2] = {{3, 24}, {2, 25}, {1, 131}, {12, 12}, {40, 32}, {5, 300}};
    for (int i = 0; i < 6; i++) {
        const bcop_window w = {.height = size[i][0],
                               .width = size[i][1],
                               .channels = 5,
                               .k = 3,
                               .stride = 1,
                               .before = 1,
                               .zero = i % 2};
        instance t = open_instance(w, 3, 33, (uint64_t)i);
        check(&t, true);
        close_instance(&t);
    }
}

/* The same bits one window at a time, and in other company of outputs. */
static void bits_depend_on_the_window_alone(void **state) {
    (void)state;
    const bcop_window w = {
        .height = 3, .width = 29, .channels = 7, .k = 3, .stride = 1, .before = 1};
    instance t = open_instance(w, 1, 59, 5);
    float *y = correlate(&t, t.bias);
    bcop_direct one = bcop_window_direct(&w, 3);
    const bcop_direct all = bcop_window_direct(&w, t.outputs);
    one.height = one.width = 1;
    float *packed = oracle_floats(bcop_direct_packed(&one)), got[3];
    for (int first = 0; first + 3 <= t.outputs; first += 2) {
        for (long row = 0; row < t.depth; row++)
            bcop_direct_pack(&one, row, t.kernel + row * t.outputs + first, packed);
        for (int p = 0; p < w.height * w.width; p++) {
            const float *x = t.maps + p / w.width * all.down + p % w.width * all.across;
            bcop_direct_correlate(&one, x, packed, t.bias + first, NULL, got);
            assert_memory_equal(got, y + (long)p * t.outputs + first, sizeof got);
        }
    }
    free(packed);
    free(y);
    close_instance(&t);
}

/* A million equal terms: one chain of float32 would be off by 1e-3. */
static void long_sums_keep_their_accuracy(void **state) {
    (void)state;
    const bcop_window w = {.height = 128, .width = 128, .channels = 1, .k = 1, .stride = 1};
    instance t = open_instance(w, 64, 1, 7);
    double expected = 0, got_sum = 0;
    for (long i = 0; i < t.n * t.in; i++) {
        t.maps[i] = 1.1f; /* k = 1: the map itself */
        t.gy[i] = 0.3f;
        expected += (double)1.1f * (double)0.3f;
        got_sum += (double)0.3f;
    }
    const bcop_direct d = bcop_window_direct(&w, 1);
    float g, sum;
    bcop_direct_slope(&d, t.n, t.maps, t.padded, t.gy, t.out, &g, &sum);
    assert_true(fabs((double)g / expected - 1) <= 1e-4);
    assert_true(fabs((double)sum / got_sum - 1) <= 1e-4);
    close_instance(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_definition),
        cmocka_unit_test(equals_the_definition_on_large_maps),
        cmocka_unit_test(bits_depend_on_the_window_alone),
        cmocka_unit_test(long_sums_keep_their_accuracy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
