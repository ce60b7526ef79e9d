/* run: serial */
#include "nn/kernel.h"

#include "nn_oracle.h"
#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BASES_MAX = 2 * BCOP_KERNEL_MAX };

/* A kernel with random blocks, in float32 and as the same numbers in float64. */
typedef struct instance {
    int c_in, c_out, k, blocks; /* h is the last of the blocks */
    bcop_kernel kernel;
    bcop_arena arena;
    float *value[BASES_MAX], *gradient[BASES_MAX];
    double *exact[BASES_MAX];
} instance;

static long block_size(const instance *t, int i) {
    return (long)t->kernel.c * (i == t->blocks - 1 ? t->kernel.m : t->kernel.r);
}

static instance open_instance(int c_in, int c_out, int k) {
    instance t = {.c_in = c_in,
                  .c_out = c_out,
                  .k = k,
                  .blocks = 2 * k - 1,
                  .kernel = bcop_kernel_plan(c_in, c_out, k),
                  .arena = {.name = "kernel"}};
    bcop_kernel_take(&t.kernel, true, &t.arena);
    assert_int_equal(bcop_arena_reserve(&t.arena), BCOP_OK);
    bcop_kernel_take(&t.kernel, true, &t.arena);
    for (int i = 0; i < t.blocks; i++) {
        const long size = block_size(&t, i);
        const int cols = (int)(size / t.kernel.c);
        t.value[i] = oracle_floats(size);
        t.gradient[i] = oracle_floats(size);
        t.exact[i] = oracle_doubles(size);
        const int shape = (c_in * 100 + c_out) * 10 + k;
        oracle_random_orthonormal((uint64_t)(shape * 100 + i), t.kernel.c, cols, t.exact[i]);
        oracle_to_float(size, t.exact[i], t.value[i]);
        oracle_to_double(size, t.value[i], t.exact[i]);
    }
    return t;
}

static void close_instance(instance *t) {
    for (int i = 0; i < t->blocks; i++) {
        free(t->value[i]);
        free(t->gradient[i]);
        free(t->exact[i]);
    }
    bcop_arena_free(&t->arena);
}

static long kernel_size(const instance *t) {
    return (long)t->k * t->k * t->c_in * t->c_out;
}

static double *expected_kernel(const instance *t, nn_oracle_order order) {
    double *kernel = oracle_doubles(kernel_size(t));
    nn_oracle_kernel(t->c_in, t->c_out, t->k, order, t->exact[t->blocks - 1],
                     (const double *const *)t->exact, kernel);
    return kernel;
}

/* Where entry [o][i] of tap (y, x) stands in the taps [k][k][m][c] of bcop_kernel_forward: the
   header's T is c_out x c_in for c_in > c_out, else its transpose. */
static long place(const instance *t, int o, int i, int y, int x) {
    const long tap = ((long)y * t->k + x) * t->kernel.m;
    return t->c_in > t->c_out ? (tap + o) * t->kernel.c + i : (tap + i) * t->kernel.c + o;
}

/* The taps in the order [c_out][c_in][k][k]. */
static double *computed_kernel(instance *t) {
    const float *taps =
        bcop_kernel_forward(&t->kernel, t->value[t->blocks - 1], (const float *const *)t->value);
    double *kernel = oracle_doubles(kernel_size(t)), *to = kernel;
    for (int o = 0; o < t->c_out; o++)
        for (int i = 0; i < t->c_in; i++)
            for (int y = 0; y < t->k; y++)
                for (int x = 0; x < t->k; x++)
                    *to++ = (double)taps[place(t, o, i, y, x)];
    return kernel;
}

static double difference(long count, const double *a, const double *b) {
    double largest = 0;
    for (long i = 0; i < count; i++)
        largest = !(fabs(a[i] - b[i]) <= largest) ? fabs(a[i] - b[i]) : largest;
    return largest;
}

static void for_each_shape(void (*check)(instance *t)) {
    static const int channels[] = {1, 2, 3, 4, 5, 7, 8, 10};
    enum { CHANNELS = sizeof channels / sizeof *channels };
    for (int i = 0; i < CHANNELS; i++)
        for (int o = 0; o < CHANNELS; o++)
            for (int k = 1; k <= BCOP_KERNEL_MAX; k++) {
                instance t = open_instance(channels[i], channels[o], k);
                check(&t);
                close_instance(&t);
            }
    instance large = open_instance(40, 33, 3);
    check(&large);
    close_instance(&large);
}

static void check_composition(instance *t) {
    double *got = computed_kernel(t), *expected = expected_kernel(t, NN_ORACLE_RIGHT);
    const double error = difference(kernel_size(t), got, expected);
    if (!(error <= 1e-6))
        fail_msg("(%d, %d, %d): off by %g", t->c_in, t->c_out, t->k, error);
    free(got);
    free(expected);
}

static void taps_equal_the_composition(void **state) {
    (void)state;
    for_each_shape(check_composition);
}

/* With c >= 2 and more than one pair, each of these mistakes gives another kernel. */
static void check_mistakes(instance *t) {
    static const nn_oracle_order mistakes[] = {NN_ORACLE_FIRST_TWICE, NN_ORACLE_REVERSED,
                                               NN_ORACLE_EXCHANGED};
    if (t->kernel.c < 2)
        return;
    double *got = computed_kernel(t);
    for (int i = 0; i < 3; i++) {
        const int pairs_needed = mistakes[i] == NN_ORACLE_EXCHANGED ? 1 : 2;
        if (t->k - 1 < pairs_needed)
            continue;
        double *mistaken = expected_kernel(t, mistakes[i]);
        const double error = difference(kernel_size(t), got, mistaken);
        if (!(error > 1e-3))
            fail_msg("(%d, %d, %d): mistake %d is only %g away", t->c_in, t->c_out, t->k, i, error);
        free(mistaken);
    }
    free(got);
}

static void published_mistakes_would_be_seen(void **state) {
    (void)state;
    for_each_shape(check_mistakes);
}

/* The kernel's matrix at the frequency (p, q) of a map, as the real matrix [[Re, -Im], [Im, Re]],
   whose singular values are those of the complex one, each twice. (Not by zgesvd: OpenBLAS 0.3.21
   reads behind the end of complex arrays in zgemv, which the sanitizer build does not survive.) */
static void frequency_matrix(const instance *t, const double *kernel, double p, double q,
                             double *matrix) {
    const int k = t->k, rows = t->c_out, cols = t->c_in;
    for (int o = 0; o < rows; o++)
        for (int i = 0; i < cols; i++) {
            double re = 0, im = 0;
            for (int e = 0; e < k * k; e++) {
                const double angle = -2 * acos(-1) * (p * (e / k) + q * (e % k));
                const double value = kernel[((long)o * cols + i) * k * k + e];
                re += value * cos(angle);
                im += value * sin(angle);
            }
            matrix[(long)o * 2 * cols + i] = matrix[(long)(rows + o) * 2 * cols + cols + i] = re;
            matrix[(long)(rows + o) * 2 * cols + i] = im;
            matrix[(long)o * 2 * cols + cols + i] = -im;
        }
}

/* All min(c_in, c_out) singular values at every frequency of a 5 x 6 map. */
static void check_spectrum(instance *t) {
    enum { HEIGHT = 5, WIDTH = 6 };
    const int values = 2 * t->kernel.m;
    double *kernel = computed_kernel(t), *sv = oracle_doubles(values);
    double *matrix = oracle_doubles(4L * t->c_in * t->c_out);
    for (int p = 0; p < HEIGHT; p++)
        for (int q = 0; q < WIDTH; q++) {
            frequency_matrix(t, kernel, (double)p / HEIGHT, (double)q / WIDTH, matrix);
            oracle_singular_values(2 * t->c_out, 2 * t->c_in, matrix, sv);
            for (int i = 0; i < values; i++)
                if (!(fabs(sv[i] - 1) <= 1e-5))
                    fail_msg("(%d, %d, %d) at (%d, %d): singular value %.9g", t->c_in, t->c_out,
                             t->k, p, q, sv[i]);
        }
    free(matrix);
    free(sv);
    free(kernel);
}

static void singular_values_are_one_at_every_frequency(void **state) {
    (void)state;
    for_each_shape(check_spectrum);
}

/* c = 1: both projectors are 0, so every factor only shifts and h stands in the last tap. c = 2
   with P = Q = diag(1, 0), H = I, k = 2: the tap (0, 0) is diag(1, 0), (1, 1) is diag(0, 1). */
static void closed_forms(void **state) {
    (void)state;
    for (int k = 1; k <= BCOP_KERNEL_MAX; k++) {
        instance t = open_instance(1, 1, k);
        const float *taps =
            bcop_kernel_forward(&t.kernel, t.value[t.blocks - 1], (const float *const *)t.value);
        for (int i = 0; i < k * k; i++)
            assert_true(taps[i] == (i == k * k - 1 ? t.value[t.blocks - 1][0] : 0));
        close_instance(&t);
    }
    static const float unit[2] = {1, 0}, identity[4] = {1, 0, 0, 1};
    static const float expected[16] = {1,      0, 0, 0, /**/ 0, 0, 0, 0,
                                       /**/ 0, 0, 0, 0, /**/ 0, 0, 0, 1};
    const float *const v[] = {unit, unit};
    instance t = open_instance(2, 2, 2);
    const float *taps = bcop_kernel_forward(&t.kernel, identity, v);
    for (int i = 0; i < 16; i++)
        assert_true(taps[i] == expected[i]);
    close_instance(&t);
}

/* ---- gradients ---- */

typedef struct slope {
    const instance *t;
    const double *g; /* [c_out][c_in][k][k] */
} slope;

/* <g, kernel>, a function of the block that is being changed in place. */
static double inner(const double *x, const void *context) {
    const slope *s = context;
    (void)x;
    double *kernel = expected_kernel(s->t, NN_ORACLE_RIGHT), sum = 0;
    for (long i = 0; i < kernel_size(s->t); i++)
        sum += s->g[i] * kernel[i];
    free(kernel);
    return sum;
}

static void check_gradient(int c_in, int c_out, int k) {
    instance t = open_instance(c_in, c_out, k);
    const long size = kernel_size(&t);
    double *g = oracle_doubles(size);
    float *slopes = oracle_floats(size);
    oracle_random(7, size, g);
    long e = 0;
    for (int o = 0; o < c_out; o++)
        for (int i = 0; i < c_in; i++)
            for (int y = 0; y < k; y++)
                for (int x = 0; x < k; x++, e++) {
                    slopes[place(&t, o, i, y, x)] = (float)g[e];
                    g[e] = (double)(float)g[e];
                }
    bcop_kernel_forward(&t.kernel, t.value[t.blocks - 1], (const float *const *)t.value);
    bcop_kernel_backward(&t.kernel, (const float *const *)t.value, slopes, t.gradient[t.blocks - 1],
                         t.gradient);
    for (int b = 0; b < t.blocks; b++) {
        const slope context = {&t, g};
        const long count = block_size(&t, b);
        double *expected = oracle_doubles(count);
        oracle_gradient(inner, &context, count, t.exact[b], 1e-5, expected);
        const double error = oracle_relative_error(count, expected, t.gradient[b]);
        if (!(error <= 1e-5))
            fail_msg("(%d, %d, %d) block %d: gradient off by %g", c_in, c_out, k, b, error);
        free(expected);
    }
    free(slopes);
    free(g);
    close_instance(&t);
}

static void gradients_equal_central_differences(void **state) {
    (void)state;
    static const int channels[] = {1, 2, 3, 5};
    for (int i = 0; i < 4; i++)
        for (int o = 0; o < 4; o++)
            for (int k = 1; k <= 5; k++)
                check_gradient(channels[i], channels[o], k);
    check_gradient(4, 3, 7);
    check_gradient(3, 6, 6);
    check_gradient(8, 8, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taps_equal_the_composition),
        cmocka_unit_test(published_mistakes_would_be_seen),
        cmocka_unit_test(singular_values_are_one_at_every_frequency),
        cmocka_unit_test(closed_forms),
        cmocka_unit_test(gradients_equal_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
