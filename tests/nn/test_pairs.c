/* run: serial */
/* Distances of pairs of logits: with a normalised last layer the certificate divides by them, and
 * the losses' gradients reach the rows through them. */
#include "nn/loss_kinds.h"
#include "nn/pairs.h"
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

enum { BATCH = 8, LANE = 4, IN = 7, UNITS = 6, CLASSES = 5 };

static const char net[] = "[dense: {units: 6}, maxmin, dense: {units: 5, normalize: rows}]";

static nn_fixture open_net(const char *list, int in, bool evaluating, uint64_t seed) {
    return nn_fixture_open(&(nn_setting){.list = list,
                                         .in = {1, 1, in},
                                         .classes = CLASSES,
                                         .run = LANE,
                                         .group = evaluating ? 0 : BATCH,
                                         .rows = evaluating ? 0 : BATCH,
                                         .batch = evaluating ? 0 : 1 << 20,
                                         .evaluating = evaluating},
                           seed);
}

/* ---- the expected side: parameters U, bias, the rows, bias ---- */

static double oracle_net(double *const *p, const double *x, double *z) {
    double weight[UNITS * IN], h[UNITS];
    oracle_transpose(IN, UNITS, p[0], weight);
    nn_oracle_dense_apply(IN, UNITS, weight, p[1], x, h);
    const double gap = nn_oracle_groupsort((bcop_shape){1, 1, UNITS}, 2, h, h);
    for (int j = 0; j < CLASSES; j++)
        nn_oracle_dense_apply(UNITS, 1, p[2 + j], &p[2 + CLASSES][j], h, &z[j]);
    return gap;
}

static void oracle_distances(int in, const double *const *row, double *d) {
    for (int i = 0; i < CLASSES; i++)
        for (int j = 0; j < CLASSES; j++) {
            long double sum = 0;
            for (int k = 0; k < in; k++)
                sum += ((long double)row[i][k] - row[j][k]) * ((long double)row[i][k] - row[j][k]);
            d[i * CLASSES + j] = (double)sqrtl(sum);
        }
}

typedef struct problem {
    const bcop_loss_kind *kind;
    double a, b, gamma; /* eps; or offset, temperature, regulariser */
    float x[BATCH][IN];
    int label[BATCH];
} problem;

static double expected_loss(const problem *t, double *const *p, double *kink) {
    double d[CLASSES * CLASSES], sum = 0;
    oracle_distances(UNITS, (const double *const *)p + 2, d);
    *kink = INFINITY;
    for (int i = 0; i < BATCH; i++) {
        double x[IN], z[CLASSES], s[CLASSES];
        oracle_to_double(IN, t->x[i], x);
        *kink = fmin(*kink, oracle_net(p, x, z));
        nn_oracle_stretch(CLASSES, d, z, t->label[i], s);
        if (t->kind == &bcop_loss_hinge) {
            sum += (double)nn_oracle_hinge(CLASSES, s, t->label[i], t->a, kink);
            continue;
        }
        sum += (double)nn_oracle_cross_entropy(CLASSES, s, t->label[i], t->a, t->b);
        sum -= t->gamma * (double)nn_oracle_reward(CLASSES, s, t->label[i], kink);
    }
    return sum / BATCH;
}

static void *options_of(const problem *t) {
    double *options = calloc(1, t->kind->options_size);
    assert_non_null(options);
    for (const bcop_option *o = t->kind->options; o->key; o++)
        options[o->offset / sizeof(double)] = strcmp(o->key, "temperature") == 0 ? t->b
                                              : strcmp(o->key, "gamma") == 0     ? t->gamma
                                                                                 : t->a;
    return options;
}

static double train_pass(nn_fixture *f, const problem *t) {
    bcop_model *m = f->model;
    float *sum = oracle_floats(m->lane_length), *part = oracle_floats(m->lane_length);
    void *options = options_of(t);
    double loss = 0;
    float gz[BATCH * CLASSES];
    const float *z = bcop_model_forward(m, BATCH, 0, t->x[0]);
    for (int i = 0; i < BATCH; i++)
        loss += bcop_pairs_loss(m, i, t->kind, options, z + i * CLASSES, t->label[i], 1.0 / BATCH,
                                gz + i * CLASSES);
    bcop_model_backward(m, BATCH, 0, gz);
    for (int first = 0; first < BATCH; first += LANE) {
        bcop_model_run(m, LANE, 0, first, part, NULL, NULL);
        for (long i = 0; i < m->lane_length; i++)
            sum[i] += part[i];
    }
    nn_fixture_pull(f, BATCH, sum);
    free(options);
    free(sum);
    free(part);
    return loss / BATCH;
}

/* The slope along one entry of a parameter. */
static double slope_at(const problem *t, double *const *p, double *entry) {
    const double step = 1e-6, before = *entry;
    double kink;
    *entry = before + step;
    const double above = expected_loss(t, p, &kink);
    *entry = before - step;
    const double below = expected_loss(t, p, &kink);
    *entry = before;
    return (above - below) / (2 * step);
}

static void check_gradients(const nn_fixture *f, const problem *t, double *const *p) {
    for (int i = 0; i < f->model->parameters; i++) {
        const bcop_parameter *parameter = f->model->parameter[i];
        for (long k = 0; k < bcop_parameter_size(parameter); k++) {
            const double expected = slope_at(t, p, &p[i][k]);
            if (!(fabs((double)parameter->gradient[k] - expected) <= 2e-5))
                fail_msg("%s[%ld]: %g, expected %g", parameter->name, k,
                         (double)parameter->gradient[k], expected);
        }
    }
}

static void check_problem(problem t) {
    int checked = 0;
    for (uint64_t seed = 1; checked < 5; seed++) {
        nn_fixture f = open_net(net, IN, false, seed);
        double **p = nn_fixture_parameters(&f), kink;
        for (int i = 0; i < BATCH; i++) {
            double x[IN];
            oracle_random(100 * seed + (uint64_t)i, IN, x);
            oracle_to_float(IN, x, t.x[i]);
            t.label[i] = (int)((seed + (uint64_t)i) % CLASSES);
        }
        const double expected = expected_loss(&t, p, &kink);
        if (kink > 2e-5) { /* float32 is on the same side of every kink */
            assert_true(fabs(train_pass(&f, &t) - expected) <= 1e-5);
            check_gradients(&f, &t, p);
            checked++;
        }
        nn_fixture_free_parameters(&f, p);
        nn_fixture_close(&f);
        assert_true(seed < 60);
    }
}

static void losses_and_gradients_equal_the_definition(void **state) {
    (void)state;
    check_problem((problem){.kind = &bcop_loss_hinge, .a = 0.8});
    check_problem((problem){.kind = &bcop_loss_cross_entropy, .a = 0.7, .b = 0.5});
    check_problem((problem){.kind = &bcop_loss_cross_entropy, .b = 1, .gamma = 0.9});
}

/* Without a normalised layer the loss is the kind's own, bit for bit. */
static void an_orthonormal_last_layer_changes_nothing(void **state) {
    (void)state;
    nn_fixture f = open_net("[dense: {units: 5}]", IN, false, 1);
    const problem t = {.kind = &bcop_loss_cross_entropy, .a = 0.3, .b = 0.5, .gamma = 0.5};
    void *options = options_of(&t);
    float z[CLASSES], gz[2][CLASSES];
    double wide[CLASSES];
    for (uint64_t seed = 0; seed < 20; seed++)
        for (int label = 0; label < CLASSES; label++) {
            oracle_random(seed, CLASSES, wide);
            oracle_to_float(CLASSES, wide, z);
            assert_true(bcop_pairs_loss(f.model, 0, t.kind, options, z, label, 0.5, gz[0]) ==
                        t.kind->evaluate(options, CLASSES, z, label, 0.5, gz[1]));
            assert_memory_equal(gz[0], gz[1], sizeof gz[0]);
            assert_true(bcop_pairs_margin(f.model, z, label) ==
                        bcop_loss_margin(CLASSES, z, label));
        }
    assert_true(bcop_pairs_distance(f.model, 0, 1) >= sqrt(2));
    assert_true(bcop_pairs_distance(f.model, 0, 1) <= sqrt(2) * (1 + 1e-14));
    assert_true(bcop_pairs_constant(f.model, 1.25) == 1.25);
    free(options);
    nn_fixture_close(&f);
}

/* ---- certificates ---- */

static void distances_are_upper_bounds(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        nn_fixture f = open_net("[dense: {units: 5, normalize: rows}]", 300, false, seed);
        nn_fixture other = open_net("[dense: {units: 5, normalize: rows}]", 300, true, seed + 100);
        double **p = nn_fixture_parameters(&f), d[CLASSES * CLASSES];
        oracle_distances(300, (const double *const *)p, d);
        nn_fixture_load(&f, &other);
        for (int y = 0; y < CLASSES; y++)
            for (int j = 0; j < CLASSES; j++) {
                const double got = bcop_pairs_distance(f.model, y, j), exact = d[y * CLASSES + j];
                assert_true(got >= exact && got <= exact * (1 + 1e-12));
                assert_true(bcop_pairs_distance(other.model, y, j) == got);
            }
        nn_fixture_free_parameters(&f, p);
        nn_fixture_close(&other);
        nn_fixture_close(&f);
    }
}

/* In a net of one normalised layer the radius is exact: a little less along w_y - w_j does not
   change the answer, a little more does. */
static void radius_is_exact_for_one_layer(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        nn_fixture f = open_net("[dense: {units: 5, normalize: rows}]", IN, true, seed);
        double **p = nn_fixture_parameters(&f), x[IN], z[CLASSES];
        float x32[IN];
        oracle_random(seed, IN, x);
        oracle_to_float(IN, x, x32);
        float *got = nn_fixture_forward(&f, 1, x32);
        for (int label = 0; label < CLASSES; label++) {
            const double r = bcop_pairs_margin(f.model, got, label) / sqrt(2);
            double least = INFINITY;
            for (int side = -1; side <= 1; side += 2)
                for (int j = 0; j < CLASSES; j++) {
                    if (j == label)
                        continue;
                    const double d = bcop_pairs_distance(f.model, label, j);
                    for (int k = 0; k < IN; k++)
                        x[k] = (double)x32[k] - (r + side * 1e-4) * (p[label][k] - p[j][k]) / d;
                    for (int c = 0; c < CLASSES; c++)
                        nn_oracle_dense_apply(IN, 1, p[c], &p[CLASSES][c], x, &z[c]);
                    if (side < 0)
                        assert_true(z[label] > z[j]);
                    else
                        least = fmin(least, z[label] - z[j]);
                }
            assert_true(least < 0);
        }
        free(got);
        nn_fixture_free_parameters(&f, p);
        nn_fixture_close(&f);
    }
}

/* |gap(x) - gap(x')| <= d L ||x - x'|| between random points and along the steepest direction,
   which comes near to it. */
static void no_pair_of_points_violates_the_constant(void **state) {
    (void)state;
    double closest = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        nn_fixture f = open_net(net, IN, true, seed);
        double **p = nn_fixture_parameters(&f), bound[3], a[IN], b[IN], za[CLASSES], zb[CLASSES];
        const double all = bcop_model_bound(f.model, bound);
        const double constant = bcop_pairs_constant(f.model, all);
        assert_true(constant >= bound[0] && constant <= bound[0] * (1 + 1e-13) && bound[0] < 1.001);
        assert_true(all >= constant * bound[2] * (1 - 1e-14) && bound[2] > 1.01);
        for (uint64_t trial = 0; trial < 500; trial++) {
            oracle_random(2 * trial, IN, a);
            oracle_random(2 * trial + 1, IN, b);
            const double step = trial % 2 ? 1 : 1e-3;
            for (int k = 0; k < IN; k++)
                b[k] = a[k] + step * b[k];
            oracle_net(p, a, za);
            oracle_net(p, b, zb);
            double distance = 0;
            for (int k = 0; k < IN; k++)
                distance = hypot(distance, a[k] - b[k]);
            for (int y = 0; y < CLASSES; y++)
                for (int j = 0; j < CLASSES; j++) {
                    const double change = fabs(za[y] - za[j] - zb[y] + zb[j]);
                    const double most = bcop_pairs_distance(f.model, y, j) * constant * distance;
                    assert_true(change <= most * (1 + 1e-12) + 1e-13);
                    closest = y == j ? closest : fmax(closest, change / most);
                }
        }
        nn_fixture_free_parameters(&f, p);
        nn_fixture_close(&f);
    }
    assert_true(closest > 0.8);
}

static void margin_equals_the_definition(void **state) {
    (void)state;
    nn_fixture f = open_net(net, IN, true, 2);
    double **p = nn_fixture_parameters(&f), d[CLASSES * CLASSES], wide[CLASSES], t[CLASSES];
    oracle_distances(UNITS, (const double *const *)p + 2, d);
    for (uint64_t seed = 0; seed < 50; seed++)
        for (int label = 0; label < CLASSES; label++) {
            float z[CLASSES];
            oracle_random(seed, CLASSES, wide);
            oracle_to_float(CLASSES, wide, z);
            oracle_to_double(CLASSES, z, wide);
            nn_oracle_stretch(CLASSES, d, wide, label, t);
            double other = -INFINITY;
            for (int j = 0; j < CLASSES; j++)
                other = j == label ? other : fmax(other, t[j]);
            const double margin = bcop_pairs_margin(f.model, z, label);
            assert_true(fabs(margin - (t[label] - other)) <= 1e-12 * (1 + fabs(margin)));
            z[(label + 1) % CLASSES] = NAN;
            assert_false(bcop_pairs_margin(f.model, z, label) > -INFINITY);
        }
    nn_fixture_free_parameters(&f, p);
    nn_fixture_close(&f);
}

/* Two equal rows: their logits differ by a constant, which certifies for ever, or not at all. */
static void equal_rows(void **state) {
    (void)state;
    nn_fixture f = open_net("[dense: {units: 5, normalize: rows}]", IN, false, 3);
    memcpy(f.model->parameter[1]->value, f.model->parameter[0]->value, IN * sizeof(float));
    bcop_model_build(f.model);
    const float z[CLASSES] = {2, 1, -100, -100, -100};
    const float tie[CLASSES] = {2, 2, -100, -100, -100};
    const problem t = {.kind = &bcop_loss_cross_entropy, .a = 0.3, .b = 0.5, .gamma = 0.5};
    void *options = options_of(&t);
    float gz[CLASSES];
    assert_true(bcop_pairs_distance(f.model, 0, 1) == 0);
    assert_true(bcop_pairs_margin(f.model, z, 0) > 50);
    assert_true(bcop_pairs_margin(f.model, z, 1) == -INFINITY);
    assert_false(bcop_pairs_margin(f.model, tie, 0) > 0);
    for (int label = 0; label < CLASSES; label++) {
        const double loss = bcop_pairs_loss(f.model, 0, t.kind, options, z, label, 1, gz);
        assert_true(isfinite(loss));
    }
    free(options);
    nn_fixture_close(&f);
}

static void expect_error(const char *list, int classes, const char *message) {
    nn_fixture f;
    const nn_setting setting = {.list = list, .in = {1, 1, 8}, .classes = classes};
    assert_int_equal(nn_fixture_create(&setting, &f), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(), message);
}

static void only_the_last_layer_may_be_normalised(void **state) {
    (void)state;
    expect_error("[dense: {units: 4, normalize: rows}, dense: {units: 4}]", 4,
                 "test.yaml:2:9: model[0].dense: only the last layer may be normalised: rows of "
                 "unit norm do not make it 1-Lipschitz");
    expect_error("[dense: {units: 4, normalize: rows}, maxmin]", 4,
                 "test.yaml:2:9: model[0].dense: only the last layer may be normalised: rows of "
                 "unit norm do not make it 1-Lipschitz");
    expect_error("[dense: {units: 1025, normalize: rows}]", 1025,
                 "test.yaml:2:9: model[0].dense: at most 1024 normalised rows (got 1025)");
    expect_error("[dense: {units: 4, normalize: row}]", 4,
                 "test.yaml:2:27: model[0].dense.normalize: must be one of none, rows (got 'row'); "
                 "did you mean 'rows'?");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_and_gradients_equal_the_definition),
        cmocka_unit_test(an_orthonormal_last_layer_changes_nothing),
        cmocka_unit_test(distances_are_upper_bounds),
        cmocka_unit_test(radius_is_exact_for_one_layer),
        cmocka_unit_test(no_pair_of_points_violates_the_constant),
        cmocka_unit_test(margin_equals_the_definition),
        cmocka_unit_test(equal_rows),
        cmocka_unit_test(only_the_last_layer_may_be_normalised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
