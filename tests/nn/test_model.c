/* run: serial */
#include "nn/loss_kinds.h"
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

enum { BATCH = 8, LANE = 4, CLASSES = 5, LOGITS = BATCH * CLASSES };

/* The net of these tests: channels up and down, strides, odd and even kernels, both paddings. */
static const char net[] = "[conv: {channels: 16, kernel: 4, stride: 2}, maxmin, "
                          "conv: {channels: 18, kernel: 3, pad: zero}, groupsort: {size: 3}, "
                          "conv: {channels: 10, kernel: 4, stride: 2, bias: false}, maxmin: {}, "
                          "dense: {units: 44}, maxmin, dense: {units: 5}]";
static const bcop_shape net_in = {8, 8, 3};
static const bcop_reals net_mean = {.count = 3, .value = {0.5, 0.25, 0.4}};
static const bcop_reals net_std = {.count = 3, .value = {0.5, 0.25, 0.75}};

/* The same net in float64, written out. Parameters in the model's order: convolutions H, P1, Q1,
   ..., bias; dense layers W, bias. */
enum { CONVS = 3 };
static const nn_oracle_conv convs[CONVS] = {
    {.in = {8, 8, 3}, .stride = 2, .k = 2, .channels = 16},
    {.in = {4, 4, 16}, .stride = 1, .k = 3, .channels = 18, .zero = true},
    {.in = {4, 4, 18}, .stride = 2, .k = 2, .channels = 10}};
static const int conv_parameter[CONVS] = {0, 4, 10}, conv_bias[CONVS] = {3, 9, -1};
static const int group_size[CONVS] = {2, 3, 2};
enum { DENSE_PARAMETER = 13, FLAT = 40, UNITS = 44 };

static void oracle_kernels(double *const *p, double *kernel[CONVS]) {
    for (int i = 0; i < CONVS; i++) {
        const nn_oracle_conv *c = &convs[i];
        const int c_in = c->in.channels * c->stride * c->stride;
        kernel[i] = oracle_doubles((long)c_in * c->channels * c->k * c->k);
        nn_oracle_kernel(c_in, c->channels, c->k, NN_ORACLE_RIGHT, p[conv_parameter[i]],
                         (const double *const *)p + conv_parameter[i] + 1, kernel[i]);
    }
}

/* image[channel][row][column]. Returns the distance to the nearest kink of an activation. */
static double oracle_net(double *const *p, double *const kernel[CONVS], const double *image,
                         double *z) {
    double x[512], y[512], weight[CLASSES * UNITS], gap = INFINITY;
    for (int i = 0; i < 192; i++)
        x[i] = (image[i] - net_mean.value[i / 64]) / net_std.value[i / 64];
    for (int i = 0; i < CONVS; i++) {
        const double *bias = conv_bias[i] < 0 ? NULL : p[conv_bias[i]];
        nn_oracle_conv_apply(&convs[i], kernel[i], bias, x, y);
        gap = fmin(gap, nn_oracle_groupsort(nn_oracle_conv_out(&convs[i]), group_size[i], y, x));
    }
    p += DENSE_PARAMETER; /* W [UNITS][FLAT], W [UNITS][CLASSES]: both are tall */
    nn_oracle_dense_apply(FLAT, UNITS, p[0], p[1], x, y);
    gap = fmin(gap, nn_oracle_groupsort((bcop_shape){1, 1, UNITS}, 2, y, x));
    oracle_transpose(UNITS, CLASSES, p[2], weight);
    nn_oracle_dense_apply(UNITS, CLASSES, weight, p[3], x, z);
    return gap;
}

/* ---- the training side ---- */

typedef struct batch {
    float x[BATCH][8 * 8 * 3];
    int label[BATCH];
    const bcop_loss_kind *kind;
    void *options; /* of the loss */
} batch;

/* Pixels in [0, 1]. */
static batch make_batch(const bcop_loss_kind *kind, void *options, uint64_t seed) {
    batch b = {.kind = kind, .options = options};
    double pixel[BATCH * 192];
    oracle_random(seed, BATCH * 192, pixel);
    for (int i = 0; i < BATCH * 192; i++)
        b.x[i / 192][i % 192] = (float)(0.5 + 0.5 * sin(pixel[i]));
    for (int i = 0; i < BATCH; i++)
        b.label[i] = (int)((3 * seed + 7 * (uint64_t)i) % CLASSES);
    return b;
}

static nn_fixture open_net(bool evaluating, int run, int group, uint64_t seed) {
    return nn_fixture_open(&(nn_setting){.list = net,
                                         .in = net_in,
                                         .classes = CLASSES,
                                         .mean = &net_mean,
                                         .std = &net_std,
                                         .run = run,
                                         .group = group,
                                         .rows = evaluating ? 0 : BATCH,
                                         .evaluating = evaluating},
                           seed);
}

/* One step's forward and backward, by groups and runs; the lane gradients are added up. Returns the
   mean loss. */
static double train_pass(nn_fixture *f, const batch *b) {
    bcop_model *m = f->model;
    float *sum = oracle_floats(m->lane_length), *part = oracle_floats(m->lane_length);
    double loss = 0;
    for (int row = 0; row < BATCH; row += m->group) {
        float gz[LOGITS];
        const float *z = bcop_model_forward(m, m->group, row, b->x[row]);
        for (int i = 0; i < m->group; i++)
            loss += b->kind->evaluate(b->options, CLASSES, z + i * CLASSES, b->label[row + i],
                                      1.0 / BATCH, gz + i * CLASSES);
        bcop_model_backward(m, m->group, row, gz);
        for (int first = 0; first < m->group; first += m->run) {
            bcop_model_run(m, m->run, row, first, part, NULL, NULL);
            for (long i = 0; i < m->lane_length; i++)
                sum[i] += part[i];
        }
    }
    nn_fixture_pull(f, BATCH, sum);
    free(sum);
    free(part);
    return loss / BATCH;
}

/* The options of the two losses, as their tables lay them out. */
static void *loss_options(const bcop_loss_kind *kind, const char *first, double a,
                          const char *second, double b) {
    void *options = calloc(1, kind->options_size);
    for (const bcop_option *o = kind->options; o->key; o++) {
        if (strcmp(o->key, first) == 0)
            *(double *)(void *)((char *)options + o->offset) = a;
        if (second && strcmp(o->key, second) == 0)
            *(double *)(void *)((char *)options + o->offset) = b;
    }
    return options;
}

/* ---- the expected side ---- */

static const double eps = 0.4, offset = 0.3, temperature = 0.25;

/* The mean loss in float64, and the nearest kink. */
static double expected_loss(const batch *b, double *const *parameters, double *kink) {
    long double sum = 0;
    double *kernel[CONVS];
    oracle_kernels(parameters, kernel);
    *kink = INFINITY;
    for (int i = 0; i < BATCH; i++) {
        double z[CLASSES], image[192];
        nn_oracle_chw(net_in, b->x[i], image);
        *kink = fmin(*kink, oracle_net(parameters, kernel, image, z));
        if (b->kind == &bcop_loss_hinge)
            sum += nn_oracle_hinge(CLASSES, z, b->label[i], eps, kink);
        else
            sum += nn_oracle_cross_entropy(CLASSES, z, b->label[i], offset, temperature);
    }
    for (int i = 0; i < CONVS; i++)
        free(kernel[i]);
    return (double)(sum / BATCH);
}

/* The derivative along d of the parameter `value` by central differences. */
static double slope_along(const batch *b, double *const *parameters, double *value, long count,
                          const double *d) {
    const double step = 1e-6;
    double side[2], kink;
    for (int s = 0; s < 2; s++) {
        for (long i = 0; i < count; i++)
            value[i] += (s ? -2 : 1) * step * d[i];
        side[s] = expected_loss(b, parameters, &kink);
    }
    for (long i = 0; i < count; i++)
        value[i] += step * d[i];
    return (side[0] - side[1]) / (2 * step);
}

/* For a standard normal direction d the difference of <gradient, d> is about the norm of the
   gradient's error: a few directions for each parameter. */
static void check_gradients(const nn_fixture *f, const batch *b, double **parameters) {
    for (int p = 0; p < f->model->parameters; p++) {
        const bcop_parameter *parameter = f->model->parameter[p];
        const long count = bcop_parameter_size(parameter);
        double *d = oracle_doubles(count), *gradient = oracle_doubles(count);
        oracle_to_double(count, parameter->gradient, gradient);
        const double norm = oracle_frobenius(count, gradient);
        assert_true(norm > 1e-6);
        for (uint64_t direction = 0; direction < 4; direction++) {
            double got = 0;
            oracle_random(100 * direction + (uint64_t)p, count, d);
            for (long i = 0; i < count; i++)
                got += gradient[i] * d[i];
            const double expected = slope_along(b, parameters, parameters[p], count, d);
            if (!(fabs(got - expected) <= 2e-5 * norm))
                fail_msg("%s: slope %.9g, expected %.9g, gradient's norm %g", parameter->name, got,
                         expected, norm);
        }
        free(gradient);
        free(d);
    }
}

/* Behind a dense layer, where backward comes before the gradients of the parameters, a convolution
   has one pixel: by factors or not, the gradients are the same. */
static void test_convolution_after_dense(void **state) {
    (void)state;
    static const char *const lists[] = {
        "[dense: {units: 12}, maxmin, conv: {channels: 12, kernel: 3, apply: dense}, maxmin, "
        "dense: {units: 5}]",
        "[dense: {units: 12}, maxmin, conv: {channels: 12, kernel: 3, apply: factored}, maxmin, "
        "dense: {units: 5}]"};
    void *options =
        loss_options(&bcop_loss_cross_entropy, "offset", offset, "temperature", temperature);
    const batch b = make_batch(&bcop_loss_cross_entropy, options, 3);
    nn_fixture f[2];
    for (int i = 0; i < 2; i++) {
        f[i] = nn_fixture_open(&(nn_setting){.list = lists[i],
                                             .in = net_in,
                                             .classes = CLASSES,
                                             .mean = &net_mean,
                                             .std = &net_std,
                                             .run = LANE,
                                             .group = BATCH,
                                             .rows = BATCH},
                               3);
        train_pass(&f[i], &b);
    }
    for (int p = 0; p < f[0].model->parameters; p++) {
        const bcop_parameter *dense = f[0].model->parameter[p],
                             *factored = f[1].model->parameter[p];
        for (long i = 0; i < bcop_parameter_size(dense); i++)
            assert_true(fabs((double)(dense->gradient[i] - factored->gradient[i])) <= 1e-5);
    }
    nn_fixture_close(&f[0]);
    nn_fixture_close(&f[1]);
    free(options);
}

static void check_net(const bcop_loss_kind *kind, void *options) {
    int checked = 0;
    for (uint64_t seed = 1; checked < 3; seed++) {
        nn_fixture f = open_net(false, LANE, seed % 2 ? BATCH : LANE, seed);
        const batch b = make_batch(kind, options, seed);
        double **parameters = nn_fixture_parameters(&f), kink;
        const double expected = expected_loss(&b, parameters, &kink);
        /* Float32 must be on the same side of every kink; few of these nets are too near to one. */
        if (kink > 2e-5) {
            assert_true(fabs(train_pass(&f, &b) - expected) <= 1e-5);
            check_gradients(&f, &b, parameters);
            checked++;
        }
        nn_fixture_free_parameters(&f, parameters);
        nn_fixture_close(&f);
        assert_true(seed < 30);
    }
    free(options);
}

static void gradients_with_hinge(void **state) {
    (void)state;
    check_net(&bcop_loss_hinge, loss_options(&bcop_loss_hinge, "eps", eps, NULL, 0));
}

static void gradients_with_cross_entropy(void **state) {
    (void)state;
    check_net(&bcop_loss_cross_entropy,
              loss_options(&bcop_loss_cross_entropy, "offset", offset, "temperature", temperature));
}

static void gradients_do_not_depend_on_the_lanes(void **state) {
    (void)state;
    void *options = loss_options(&bcop_loss_hinge, "eps", eps, NULL, 0);
    const batch b = make_batch(&bcop_loss_hinge, options, 3);
    nn_fixture whole = open_net(false, BATCH, BATCH, 3);
    train_pass(&whole, &b);
    for (int lane = 1; lane < BATCH; lane *= 2) {
        nn_fixture cut = open_net(false, lane, lane, 3);
        train_pass(&cut, &b);
        for (int p = 0; p < whole.model->parameters; p++) {
            const long count = bcop_parameter_size(whole.model->parameter[p]);
            double *expected = oracle_doubles(count);
            oracle_to_double(count, whole.model->parameter[p]->gradient, expected);
            assert_true(oracle_relative_error(count, expected, cut.model->parameter[p]->gradient) <=
                        5e-6);
            free(expected);
        }
        nn_fixture_close(&cut);
    }
    nn_fixture_close(&whole);
    free(options);
}

static void gradients_have_the_same_bits_in_any_groups(void **state) {
    (void)state;
    void *options = loss_options(&bcop_loss_hinge, "eps", eps, NULL, 0);
    const batch b = make_batch(&bcop_loss_hinge, options, 3);
    for (int lane = 1; lane < BATCH; lane *= 2) {
        nn_fixture single = open_net(false, lane, lane, 3);
        const double loss = train_pass(&single, &b);
        for (int group = 2 * lane; group <= BATCH; group *= 2) {
            nn_fixture f = open_net(false, lane, group, 3);
            assert_true(train_pass(&f, &b) == loss);
            for (int p = 0; p < f.model->parameters; p++)
                assert_memory_equal(
                    f.model->parameter[p]->gradient, single.model->parameter[p]->gradient,
                    (size_t)bcop_parameter_size(f.model->parameter[p]) * sizeof(float));
            nn_fixture_close(&f);
        }
        nn_fixture_close(&single);
    }
    free(options);
}

/* ---- evaluation ---- */

/* A model that only has the stored operators and biases: the same logits, bit for bit. */
static void stored_operators_give_the_same_logits(void **state) {
    (void)state;
    const batch b = make_batch(&bcop_loss_hinge, NULL, 4);
    nn_fixture trained = open_net(false, BATCH, BATCH, 4), loaded = open_net(true, BATCH, BATCH, 5);
    nn_fixture_load(&trained, &loaded);
    float before[LOGITS];
    memcpy(before, bcop_model_forward(trained.model, BATCH, 0, b.x[0]), sizeof before);
    assert_memory_equal(bcop_model_forward(loaded.model, BATCH, 0, b.x[0]), before, sizeof before);
    /* and not because the logits are trivial: other operators give others */
    nn_fixture other = open_net(true, BATCH, BATCH, 6);
    assert_memory_not_equal(bcop_model_forward(other.model, BATCH, 0, b.x[0]), before,
                            sizeof before);
    nn_fixture_close(&other);
    nn_fixture_close(&loaded);
    nn_fixture_close(&trained);
}

/* A first layer that works in place must leave the caller's images alone. */
static void input_is_left_alone(void **state) {
    (void)state;
    nn_fixture f = nn_fixture_open(
        &(nn_setting){.list = "[maxmin, dense: {units: 3}]", .in = {1, 1, 4}, .classes = 3}, 1);
    const float x[4] = {1, 2, 3, 0}, sorted[4] = {3, 2, 1, 0};
    float copy[4], first[3];
    memcpy(copy, x, sizeof x);
    memcpy(first, bcop_model_forward(f.model, 1, 0, copy), sizeof first);
    assert_memory_equal(copy, x, sizeof x);
    assert_memory_equal(bcop_model_forward(f.model, 1, 0, sorted), first, sizeof first);
    nn_fixture_close(&f);
}

/* ---- the gradient of the input ---- */

/* A function of one image in float64: the logits weighted by gz. */
typedef struct weighted {
    double **parameters, *kernel[CONVS];
    const float *gz;
} weighted;

static double weighted_logits(const double *image, const void *context) {
    const weighted *w = context;
    double z[CLASSES], sum = 0;
    oracle_net(w->parameters, w->kernel, image, z);
    for (int j = 0; j < CLASSES; j++)
        sum += (double)w->gz[j] * z[j];
    return sum;
}

/* Against central differences, of a model that training has built and of one that was loaded. */
static void input_gradient(void **state) {
    (void)state;
    const batch b = make_batch(&bcop_loss_hinge, NULL, 7);
    nn_fixture trained = open_net(false, LANE, BATCH, 7), loaded = open_net(true, LANE, BATCH, 8);
    nn_fixture_load(&trained, &loaded);
    weighted w = {.parameters = nn_fixture_parameters(&trained)};
    oracle_kernels(w.parameters, w.kernel);
    float gz[LOGITS], got[BATCH][192], again[BATCH][192];
    for (int i = 0; i < LOGITS; i++)
        gz[i] = (float)sin(3 * i);
    bcop_model_forward(trained.model, BATCH, 0, b.x[0]);
    bcop_model_backward_input(trained.model, BATCH, gz, got[0]);
    bcop_model_forward(loaded.model, BATCH, 0, b.x[0]);
    bcop_model_backward_input(loaded.model, BATCH, gz, again[0]);
    int checked = 0;
    for (int i = 0; i < BATCH; i++) {
        double image[192], z[CLASSES], expected[192], nhwc[192];
        nn_oracle_chw(net_in, b.x[i], image);
        if (oracle_net(w.parameters, w.kernel, image, z) < 1e-4)
            continue;
        w.gz = gz + i * CLASSES;
        oracle_gradient(weighted_logits, &w, 192, image, 1e-6, expected);
        nn_oracle_nhwc(net_in, expected, nhwc);
        assert_true(oracle_relative_error(192, nhwc, got[i]) <= 1e-5);
        assert_true(oracle_relative_error(192, nhwc, again[i]) <= 1e-5);
        checked++;
    }
    assert_true(checked >= 2);
    for (int i = 0; i < CONVS; i++)
        free(w.kernel[i]);
    nn_fixture_free_parameters(&trained, w.parameters);
    nn_fixture_close(&loaded);
    nn_fixture_close(&trained);
}

/* A first layer that works in place: MaxMin of (1, 2, 3, 0) exchanges channels 0 and 2 alone. */
static void input_gradient_through_a_first_layer_in_place(void **state) {
    (void)state;
    nn_fixture f = nn_fixture_open(
        &(nn_setting){.list = "[maxmin, dense: {units: 3}]", .in = {1, 1, 4}, .classes = 3}, 1);
    const float x[4] = {1, 2, 3, 0}, gz[3] = {0, 1, 0};
    double *weight = nn_fixture_stored(&f.model->layer[1]);
    bcop_model_forward(f.model, 1, 0, x);
    float gx[4];
    bcop_model_backward_input(f.model, 1, gz, gx);
    const int from[4] = {2, 1, 0, 3};
    for (int i = 0; i < 4; i++)
        assert_true(fabs((double)gx[i] - weight[4 + from[i]]) <= 1e-7);
    free(weight);
    nn_fixture_close(&f);
}

/* ---- errors ---- */

static void expect_error(nn_setting setting, const char *message) {
    nn_fixture f;
    assert_int_equal(nn_fixture_create(&setting, &f), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(), message);
}

static void errors_name_the_place(void **state) {
    (void)state;
    const bcop_shape in = {8, 6, 3};
    expect_error((nn_setting){.list = "[conv: {channels: 4, kernel: 3, stride: 2}]", .in = in},
                 "test.yaml:2:29: model[0].conv.kernel: must divide by stride 2 (got 3)");
    expect_error((nn_setting){.list = "[maxmin, conv: {channels: 4, kernel: 16, stride: 2}]",
                              .in = {4, 4, 2}},
                 "test.yaml:2:37: model[1].conv.kernel: at most 7 times the stride 2 (got 16)");
    expect_error((nn_setting){.list = "[conv: {channels: 4, kernel: 4, stride: 4}]", .in = in},
                 "test.yaml:2:40: model[0].conv.stride: must divide the map's sides 8 x 6 (got 4)");
    expect_error((nn_setting){.list = "[convv: {channels: 4, kernel: 3}]", .in = in},
                 "test.yaml:2:9: model[0].convv: unknown layer 'convv'; did you mean 'conv'?");
    expect_error((nn_setting){.list = "[maxminn]", .in = in},
                 "test.yaml:2:9: model[0]: unknown layer 'maxminn'; did you mean 'maxmin'?");
    expect_error((nn_setting){.list = "[dense: {units: 9}]", .in = in, .classes = 10},
                 "test.yaml:2:9: model[0].dense: gives 9 outputs for 10 classes of labels");
    expect_error((nn_setting){.list = "[maxmin]", .in = in, .classes = 144},
                 "test.yaml:2:9: model[0]: 3 channels do not divide into groups of 2");
    expect_error((nn_setting){.list = "[]", .in = in},
                 "test.yaml:2:1: model: must be a list of layers");
    expect_error((nn_setting){.list = "conv", .in = in},
                 "test.yaml:2:1: model: must be a list of layers");
    expect_error((nn_setting){.list = "[conv: {channels: 4, kernel: 3, strid: 1}]", .in = in},
                 "test.yaml:2:40: model[0].conv.strid: unknown key; did you mean 'stride'?");
    expect_error((nn_setting){.list = "[conv: {kernel: 3}]", .in = in},
                 "test.yaml:2:9: model[0].conv: 'channels' is required");
    expect_error(
        (nn_setting){.list = "[{conv: {kernel: 3}, maxmin: {}}]", .in = in},
        "test.yaml:2:9: model[0]: must be one layer, e.g. `conv: {channels: 16, kernel: 3}`");
    expect_error(
        (nn_setting){.list = "[dense: {units: 3}]", .in = in, .mean = &(bcop_reals){2, {0}, {{0}}}},
        "test.yaml:1:1: input: mean and std need one number or 3, one per channel");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_with_hinge),
        cmocka_unit_test(gradients_with_cross_entropy),
        cmocka_unit_test(gradients_do_not_depend_on_the_lanes),
        cmocka_unit_test(gradients_have_the_same_bits_in_any_groups),
        cmocka_unit_test(stored_operators_give_the_same_logits),
        cmocka_unit_test(input_is_left_alone),
        cmocka_unit_test(input_gradient),
        cmocka_unit_test(input_gradient_through_a_first_layer_in_place),
        cmocka_unit_test(test_convolution_after_dense),
        cmocka_unit_test(errors_name_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
