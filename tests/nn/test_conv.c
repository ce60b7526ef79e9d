/* run: serial */
#include "nn_fixture.h"
#include "nn_oracle.h"
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

/* One conv layer with n images. */
typedef struct instance {
    nn_oracle_conv conv; /* what the layer is */
    bool bias;
    int n;
    char text[128]; /* its configuration */
    nn_fixture f;
    long in, out; /* values per image */
    float *x;     /* [n][in], NHWC */
} instance;

static float *random_floats(uint64_t seed, long count) {
    double *value = oracle_doubles(count);
    float *rounded = oracle_floats(count);
    oracle_random(seed, count, value);
    oracle_to_float(count, value, rounded);
    free(value);
    return rounded;
}

/* How layers are applied, by the test that runs; with zero padding always dense. */
static const char *way = "dense";

static bool applies_factors(const instance *t) {
    return strcmp(way, "factored") == 0 && !t->conv.zero;
}

/* height and width are those after the stride. */
static instance open_instance(nn_oracle_conv conv, bool bias, int n, uint64_t seed) {
    instance t = {.conv = conv, .bias = bias, .n = n};
    t.conv.in.height *= conv.stride;
    t.conv.in.width *= conv.stride;
    snprintf(t.text, sizeof t.text,
             "[conv: {channels: %d, kernel: %d, stride: %d, pad: %s, bias: %s, apply: %s}]",
             conv.channels, conv.k * conv.stride, conv.stride, conv.zero ? "zero" : "cyclic",
             bias ? "true" : "false", conv.zero ? "dense" : way);
    t.in = bcop_shape_size(t.conv.in);
    t.out = bcop_shape_size(nn_oracle_conv_out(&t.conv));
    t.f = nn_fixture_open(
        &(nn_setting){.list = t.text, .in = t.conv.in, .classes = (int)t.out, .run = n}, seed);
    t.x = random_floats(seed + 1, n * t.in);
    return t;
}

static void close_instance(instance *t) {
    nn_fixture_close(&t->f);
    free(t->x);
}

static int channels_in(const instance *t) {
    return t->conv.in.channels * t->conv.stride * t->conv.stride;
}

static long kernel_size(const instance *t) {
    return (long)channels_in(t) * t->conv.channels * t->conv.k * t->conv.k;
}

static double *kernel_of(const instance *t, double *const *parameters) {
    double *kernel = oracle_doubles(kernel_size(t));
    nn_oracle_kernel(channels_in(t), t->conv.channels, t->conv.k, NN_ORACLE_RIGHT, parameters[0],
                     (const double *const *)parameters + 1, kernel);
    return kernel;
}

/* y[n][out], NHWC, from any kernel and bias. */
static double *apply(const instance *t, const double *kernel, const double *bias) {
    double *x = oracle_doubles(t->in), *chw = oracle_doubles(t->out);
    double *y = oracle_doubles(t->n * t->out);
    for (int i = 0; i < t->n; i++) {
        nn_oracle_chw(t->conv.in, t->x + i * t->in, x);
        nn_oracle_conv_apply(&t->conv, kernel, bias, x, chw);
        nn_oracle_nhwc(nn_oracle_conv_out(&t->conv), chw, y + i * t->out);
    }
    free(x);
    free(chw);
    return y;
}

static double *forward_of(const instance *t, double *const *parameters) {
    double *kernel = kernel_of(t, parameters);
    double *y = apply(t, kernel, t->bias ? parameters[t->f.model->parameters - 1] : NULL);
    free(kernel);
    return y;
}

/* Strides 1, 2, 3; k = 1 .. 7 after the stride; both paddings; channels up and down, odd and 1;
   maps from 1 x 1, smaller than the kernel, to larger; one and several images; with and without
   bias. */
static void for_each_layer(int k_max, int pixels_max, void (*check)(instance *t)) {
    static const bcop_shape maps[] = {{1, 1, 1}, {2, 3, 1}, {5, 4, 2}, {3, 7, 3}, {8, 8, 1}};
    static const int channels[] = {1, 3, 6, 9, 14};
    int number = 0;
    for (int stride = 1; stride <= 3; stride++)
        for (int k = 1; k <= k_max; k++)
            for (int map = 0; map < 5; map++)
                for (int zero = 0; zero < 2; zero++, number++) {
                    if (maps[map].height * maps[map].width > pixels_max)
                        continue;
                    instance t = open_instance((nn_oracle_conv){.in = maps[map],
                                                                .stride = stride,
                                                                .k = k,
                                                                .channels = channels[number % 5],
                                                                .zero = zero},
                                               number % 3 != 0, number % 4 == 1 ? 3 : 1,
                                               (uint64_t)number + 100);
                    check(&t);
                    close_instance(&t);
                }
}

static void expect_near(const instance *t, const char *what, long count, const double *expected,
                        const float *got, double tolerance) {
    const double error = oracle_relative_error(count, expected, got);
    if (!(error <= tolerance))
        fail_msg("%s on %d x %d x %d, %d images: %s off by %g", t->text, t->conv.in.height,
                 t->conv.in.width, t->conv.in.channels, t->n, what, error);
}

static void check_forward(instance *t) {
    double **parameters = nn_fixture_parameters(&t->f);
    double *expected = forward_of(t, parameters);
    float *y = nn_fixture_forward(&t->f, t->n, t->x);
    expect_near(t, "output", t->n * t->out, expected, y, 5e-6);
    free(y);
    free(expected);
    nn_fixture_free_parameters(&t->f, parameters);
}

static void forward_equals_the_definition(void **state) {
    (void)state;
    for_each_layer(7, 64, check_forward);
}

/* Someone who has only the stored numbers rebuilds the layer: unshuffle, pad, correlate. And the
   layer that loads them, which is dense, computes the very same bits, or the same to rounding. */
static void check_stored(instance *t) {
    float *y = nn_fixture_forward(&t->f, t->n, t->x);
    double **parameters = nn_fixture_parameters(&t->f);
    double *stored = nn_fixture_stored(t->f.layer), *kernel = kernel_of(t, parameters);
    assert_int_equal(t->f.layer->stored_dimensions, 4);
    assert_int_equal(t->f.layer->stored_size[0], t->conv.channels);
    assert_int_equal(t->f.layer->stored_size[1], channels_in(t));
    assert_int_equal(t->f.layer->stored_size[2], t->conv.k);
    assert_int_equal(t->f.layer->stored_size[3], t->conv.k);
    for (long i = 0; i < kernel_size(t); i++)
        assert_true(fabs(stored[i] - kernel[i]) <= 1e-6);
    double *rebuilt = apply(t, stored, t->bias ? parameters[t->f.model->parameters - 1] : NULL);
    expect_near(t, "rebuilt output", t->n * t->out, rebuilt, y, 5e-6);
    nn_fixture other = nn_fixture_open(&(nn_setting){.list = t->text,
                                                     .in = t->conv.in,
                                                     .classes = (int)t->out,
                                                     .run = t->n,
                                                     .evaluating = true},
                                       99);
    nn_fixture_load(&t->f, &other);
    float *again = nn_fixture_forward(&other, t->n, t->x);
    if (applies_factors(t))
        expect_near(t, "output of the loaded layer", t->n * t->out, rebuilt, again, 5e-6);
    else
        assert_memory_equal(again, y, (size_t)(t->n * t->out) * sizeof *y);
    nn_fixture_close(&other);
    free(again);
    free(rebuilt);
    free(kernel);
    free(stored);
    nn_fixture_free_parameters(&t->f, parameters);
    free(y);
}

static void stored_kernel_rebuilds_the_layer(void **state) {
    (void)state;
    for_each_layer(7, 40, check_stored);
}

static double norm(long count, const float *x) {
    double *exact = oracle_doubles(count);
    oracle_to_double(count, x, exact);
    const double result = oracle_frobenius(count, exact);
    free(exact);
    return result;
}

static void keeps_norms_when_channels_allow(void **state) {
    (void)state;
    static const bcop_shape maps[] = {{4, 5, 3}, {2, 2, 1}, {1, 3, 2}, {6, 6, 5}};
    for (int map = 0; map < 4; map++)
        for (int stride = 1; stride <= 2; stride++)
            for (int k = 1; k <= 7; k++)
                for (int more = 0; more < 4; more += 3) {
                    const nn_oracle_conv conv = {.in = maps[map],
                                                 .stride = stride,
                                                 .k = k,
                                                 .channels =
                                                     maps[map].channels * stride * stride + more};
                    instance t = open_instance(conv, false, 1, (uint64_t)(k + 10 * map));
                    float *y = nn_fixture_forward(&t.f, 1, t.x);
                    assert_true(fabs(norm(t.out, y) / norm(t.in, t.x) - 1) <= 1e-5);
                    free(y);
                    close_instance(&t);
                }
}

/* ---- backward ---- */

typedef struct linear {
    const instance *t;
    double *const *parameters;
    const float *gy;
} linear;

/* <gy, f(x)>, a function of the parameter that is being changed in place. */
static double inner(const double *changed, const void *context) {
    const linear *l = context;
    (void)changed;
    double *y = forward_of(l->t, l->parameters), sum = 0;
    for (long i = 0; i < l->t->n * l->t->out; i++)
        sum += (double)l->gy[i] * y[i];
    free(y);
    return sum;
}

/* gx is the transposed matrix of the layer times gy. */
static void check_input_gradient(const instance *t, const double *kernel, const float *gy,
                                 const float *gx) {
    double *matrix = oracle_doubles(t->in * t->out), *g = oracle_doubles(t->out);
    double *chw = oracle_doubles(t->in), *expected = oracle_doubles(t->in);
    nn_oracle_conv_matrix(&t->conv, kernel, matrix);
    for (int image = 0; image < t->n; image++) {
        nn_oracle_chw(nn_oracle_conv_out(&t->conv), gy + image * t->out, g);
        memset(chw, 0, (size_t)t->in * sizeof *chw);
        for (long i = 0; i < t->out; i++)
            for (long j = 0; j < t->in; j++)
                chw[j] += matrix[i * t->in + j] * g[i];
        nn_oracle_nhwc(t->conv.in, chw, expected);
        expect_near(t, "input gradient", t->in, expected, gx + image * t->in, 1e-5);
    }
    free(matrix);
    free(g);
    free(chw);
    free(expected);
}

enum { VALUES_MAX = 4096 };

/* All parameters' gradients in one vector, expected and got. */
static long gather_gradients(const linear *l, double *expected, float *got) {
    const bcop_model *model = l->t->f.model;
    long count = 0;
    for (int p = 0; p < model->parameters; p++) {
        const long size = bcop_parameter_size(model->parameter[p]);
        assert_true(count + size <= VALUES_MAX);
        oracle_gradient(inner, l, size, l->parameters[p], 1e-4, expected + count);
        memcpy(got + count, model->parameter[p]->gradient, (size_t)size * sizeof *got);
        count += size;
    }
    return count;
}

static void check_parameter_gradients(const linear *l) {
    const instance *t = l->t;
    static double expected[VALUES_MAX];
    static float got[VALUES_MAX];
    const long count = gather_gradients(l, expected, got);
    const double whole = oracle_frobenius(count, expected);
    expect_near(t, "the parameters' gradient", count, expected, got, 5e-6);
    for (long p = 0, done = 0; p < t->f.model->parameters; p++) {
        const bcop_parameter *parameter = t->f.model->parameter[p];
        const long size = bcop_parameter_size(parameter);
        if (oracle_frobenius(size, expected + done) > 1e-2 * whole)
            expect_near(t, parameter->name, size, expected + done, got + done, 2e-5);
        done += size;
    }
}

/* The tolerances are those of float32 sums over pixels and taps. On a 1 x 1 map the taps add up to
   an orthogonal matrix whatever the projectors, so their gradients are zero but for rounding:
   blocks with a small part of the gradient are held to the whole only. */
static void check_backward(instance *t) {
    double **parameters = nn_fixture_parameters(&t->f), *kernel = kernel_of(t, parameters);
    float *gy = random_floats(5, t->n * t->out), *gx = oracle_floats(t->n * t->in);
    free(nn_fixture_forward(&t->f, t->n, t->x));
    nn_fixture_backward(&t->f, t->n, gy, gx);
    check_input_gradient(t, kernel, gy, gx);
    check_parameter_gradients(&(linear){t, parameters, gy});
    free(gx);
    free(gy);
    free(kernel);
    nn_fixture_free_parameters(&t->f, parameters);
}

static void gradients_equal_central_differences(void **state) {
    (void)state;
    for_each_layer(3, 21, check_backward);
    instance large = open_instance(
        (nn_oracle_conv){.in = {2, 3, 2}, .stride = 1, .k = 7, .channels = 3}, true, 2, 1);
    check_backward(&large);
    close_instance(&large);
    instance even = open_instance(
        (nn_oracle_conv){.in = {5, 3, 3}, .stride = 1, .k = 4, .channels = 4, .zero = true}, true,
        1, 2);
    check_backward(&even);
    close_instance(&even);
}

/* Sums over many images: the gradients along random directions. */
static void gradients_over_many_images(void **state) {
    (void)state;
    instance t = open_instance(
        (nn_oracle_conv){.in = {8, 8, 16}, .stride = 1, .k = 5, .channels = 12}, true, 12, 3);
    check_forward(&t);
    double **parameters = nn_fixture_parameters(&t.f);
    float *gy = random_floats(5, t.n * t.out), *gx = oracle_floats(t.n * t.in);
    nn_fixture_backward(&t.f, t.n, gy, gx);
    double *kernel = kernel_of(&t, parameters);
    check_input_gradient(&t, kernel, gy, gx);
    const linear context = {&t, parameters, gy};
    const double step = 1e-4;
    for (int p = 0; p < t.f.model->parameters; p++) {
        const long count = bcop_parameter_size(t.f.model->parameter[p]);
        const float *gradient = t.f.model->parameter[p]->gradient;
        double *d = oracle_doubles(count), got = 0, side[2];
        oracle_random((uint64_t)p, count, d);
        for (int s = 0; s < 2; s++) {
            for (long i = 0; i < count; i++)
                parameters[p][i] += (s ? -2 : 1) * step * d[i];
            side[s] = inner(NULL, &context);
        }
        for (long i = 0; i < count; i++) {
            parameters[p][i] += step * d[i];
            got += (double)gradient[i] * d[i];
        }
        assert_true(fabs((side[0] - side[1]) / (2 * step) - got) <= 2e-5 * norm(count, gradient));
        free(d);
    }
    free(kernel);
    free(gx);
    free(gy);
    nn_fixture_free_parameters(&t.f, parameters);
    close_instance(&t);
}

/* ---- dense against factored ---- */

typedef struct result {
    float *y, *gx, *gradient; /* of all parameters */
    long parameters;
} result;

static result run_way(const char *how, nn_oracle_conv conv, int n) {
    const char *const before = way;
    way = how;
    instance t = open_instance(conv, true, n, 21);
    way = before;
    float *gy = random_floats(5, n * t.out);
    result r = {.gx = oracle_floats(n * t.in)};
    r.y = nn_fixture_forward(&t.f, n, t.x);
    nn_fixture_backward(&t.f, n, gy, r.gx);
    for (int p = 0; p < t.f.model->parameters; p++)
        r.parameters += bcop_parameter_size(t.f.model->parameter[p]);
    r.gradient = oracle_floats(r.parameters);
    for (long p = 0, done = 0; p < t.f.model->parameters; p++) {
        const long size = bcop_parameter_size(t.f.model->parameter[p]);
        memcpy(r.gradient + done, t.f.model->parameter[p]->gradient,
               (size_t)size * sizeof *r.gradient);
        done += size;
    }
    free(gy);
    close_instance(&t);
    return r;
}

static void expect_equal(long count, const float *expected, const float *got) {
    double *exact = oracle_doubles(count);
    oracle_to_double(count, expected, exact);
    assert_true(oracle_relative_error(count, exact, got) <= 1e-5);
    free(exact);
}

/* Blocks of many channels, and maps of which only some fit into one piece. */
static void factored_equals_dense(void **state) {
    (void)state;
    static const struct {
        nn_oracle_conv conv;
        int n;
    } layers[] = {{{.in = {8, 8, 64}, .stride = 1, .k = 3, .channels = 64}, 4},
                  {{.in = {8, 4, 96}, .stride = 1, .k = 5, .channels = 65}, 3},
                  {{.in = {4, 4, 20}, .stride = 2, .k = 2, .channels = 90}, 2},
                  {{.in = {40, 30, 16}, .stride = 1, .k = 3, .channels = 16}, 8},
                  {{.in = {96, 80, 12}, .stride = 1, .k = 2, .channels = 10}, 2}};
    for (int l = 0; l < 5; l++) {
        const nn_oracle_conv *c = &layers[l].conv;
        const int n = layers[l].n, ss = c->stride * c->stride;
        const long pixels = (long)n * c->in.height * c->in.width; /* after the stride */
        result dense = run_way("dense", *c, n), factored = run_way("factored", *c, n);
        expect_equal(pixels * c->channels, dense.y, factored.y);
        expect_equal(pixels * ss * c->in.channels, dense.gx, factored.gx);
        expect_equal(dense.parameters, dense.gradient, factored.gradient);
        for (int i = 0; i < 2; i++) {
            const result *r = i ? &dense : &factored;
            free(r->y);
            free(r->gx);
            free(r->gradient);
        }
    }
}

/* By hand: 2 (k-1) 2 c r + c_in c_out against k^2 c_in c_out, three times for forward and backward
   but for the input's gradient, which a first layer has no use for; and the lane gradient is that
   of the blocks. Few channels are dense. */
static void fewer_operations_choose(void **state) {
    (void)state;
    static const struct {
        int in, out, k, factored, lane;
        double flops;
    } layers[] = {{128, 128, 3, 1, 16384 + 4 * 8192 + 128, 2 * (4 * 16384 + 16384.)},
                  {128, 128, 2, 0, 4 * 16384 + 128, 2 * 4 * 16384.}, /* 8 products against 8 */
                  {128, 128, 1, 0, 16384 + 128, 2 * 16384.},
                  {64, 128, 3, 0, 9 * 8192 + 128, 2 * 9 * 8192.},
                  {64, 64, 3, 0, 9 * 4096 + 64, 2 * 9 * 4096.},
                  {112, 128, 3, 1, 14336 + 4 * 8192 + 128, 2 * (4 * 16384 + 14336.)},
                  {128, 80, 5, 1, 10240 + 8 * 8192 + 80, 2 * (8 * 16384 + 10240.)}};
    for (int l = 0; l < 7; l++) {
        way = "auto";
        instance t = open_instance((nn_oracle_conv){.in = {2, 2, layers[l].in},
                                                    .stride = 1,
                                                    .k = layers[l].k,
                                                    .channels = layers[l].out},
                                   true, 1, 1);
        assert_int_equal(t.f.layer->lane_gradient, layers[l].lane);
        assert_true(t.f.layer->flops == 4 * layers[l].flops);
        assert_true((t.f.layer->pull_flops == 0) == (layers[l].factored || layers[l].k == 1));
        close_instance(&t);
    }
}

static void factored_wants_cyclic_padding(void **state) {
    (void)state;
    nn_fixture f;
    const nn_setting setting = {.list =
                                    "[conv: {channels: 4, kernel: 3, pad: zero, apply: factored}]",
                                .in = {2, 2, 4},
                                .classes = 16};
    assert_int_equal(nn_fixture_create(&setting, &f), BCOP_CONFIG);
    assert_non_null(strstr(bcop_status_message(), "apply: factored needs pad: cyclic"));
}

/* ---- runs ---- */

/* Bits of image `place` in a run of the same size with other neighbours. */
static void check_neighbours(instance *t, int place, const float *y) {
    float *others = random_floats(77, t->n * t->in);
    memcpy(others + place * t->in, t->x + place * t->in, (size_t)t->in * sizeof *others);
    float *again = nn_fixture_forward(&t->f, t->n, others);
    assert_memory_equal(again + place * t->out, y + place * t->out, (size_t)t->out * sizeof *again);
    free(again);
    free(others);
}

/* And in runs of other sizes and at another place. */
static void check_other_runs(instance *t, int place, const float *y) {
    for (int n = 1; n + place <= t->n; n++) {
        float *again = nn_fixture_forward(&t->f, n, t->x + place * t->in);
        assert_memory_equal(again, y + place * t->out, (size_t)t->out * sizeof *again);
        free(again);
    }
}

static void images_do_not_see_each_other(void **state) {
    (void)state;
    static const nn_oracle_conv convs[] = {
        {.in = {2, 2, 3}, .stride = 2, .k = 2, .channels = 7},
        {.in = {4, 4, 8}, .stride = 1, .k = 3, .channels = 8, .zero = true},
        {.in = {8, 8, 16}, .stride = 1, .k = 5, .channels = 12}};
    for (int c = 0; c < 3; c++) {
        instance t = open_instance(convs[c], true, 7, 11);
        float *y = nn_fixture_forward(&t.f, 7, t.x);
        for (int place = 0; place < 7; place++) {
            check_neighbours(&t, place, y);
            check_other_runs(&t, place, y);
        }
        free(y);
        close_instance(&t);
    }
}

int main(void) {
    const struct CMUnitTest each[] = {
        cmocka_unit_test(forward_equals_the_definition),
        cmocka_unit_test(stored_kernel_rebuilds_the_layer),
        cmocka_unit_test(keeps_norms_when_channels_allow),
        cmocka_unit_test(gradients_equal_central_differences),
        cmocka_unit_test(gradients_over_many_images),
        cmocka_unit_test(images_do_not_see_each_other),
    };
    const struct CMUnitTest both[] = {
        cmocka_unit_test(factored_equals_dense),
        cmocka_unit_test(fewer_operations_choose),
        cmocka_unit_test(factored_wants_cyclic_padding),
    };
    int failed = cmocka_run_group_tests_name("dense", each, NULL, NULL);
    way = "factored";
    failed += cmocka_run_group_tests_name("factored", each, NULL, NULL);
    return failed + cmocka_run_group_tests_name("dense or factored", both, NULL, NULL);
}
