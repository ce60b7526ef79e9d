/* run: serial */
#include "nn/loss.h"

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

enum { CLASSES_MAX = 12 };

/* A loss with its options read from YAML as a run would. */
typedef struct instance {
    const bcop_loss_kind *kind;
    void *options;
} instance;

static instance open_loss(const char *name, const char *options) {
    instance t = {0};
    for (int i = 0; bcop_loss_kinds[i]; i++)
        if (strcmp(bcop_loss_kinds[i]->name, name) == 0)
            t.kind = bcop_loss_kinds[i];
    assert_non_null(t.kind);
    t.options = calloc(1, t.kind->options_size);
    char yaml[128];
    snprintf(yaml, sizeof yaml, "loss: %s\n", options);
    bcop_config *config;
    assert_int_equal(bcop_config_parse(yaml, strlen(yaml), "test.yaml", &config), BCOP_OK);
    const bcop_node *root = bcop_config_root(config);
    assert_int_equal(bcop_option_read(bcop_config_find(root, "loss"), root, "loss", 1,
                                      &(bcop_options){t.kind->options, t.options}),
                     BCOP_OK);
    bcop_config_free(config);
    return t;
}

/* The same in long double. */
typedef struct expected_loss {
    bool hinge;
    double a, b, gamma; /* eps; or offset, temperature and regulariser */
    int classes, label;
} expected_loss;

static double expected_value(const double *z, const void *context) {
    const expected_loss *e = context;
    if (e->hinge)
        return (double)nn_oracle_hinge(e->classes, z, e->label, e->a, NULL);
    return (double)(nn_oracle_cross_entropy(e->classes, z, e->label, e->a, e->b) -
                    (long double)e->gamma * nn_oracle_reward(e->classes, z, e->label, NULL));
}

/* Distance to the nearest bend: central differences with a smaller step are those of a smooth
   function. */
static double bend(const double *z, const expected_loss *e) {
    double kink = 1;
    if (e->hinge)
        nn_oracle_hinge(e->classes, z, e->label, e->a, &kink);
    else if (e->gamma > 0)
        nn_oracle_reward(e->classes, z, e->label, &kink);
    return kink;
}

static void check_one(instance t, expected_loss e, double spread, uint64_t seed) {
    const double scale = 0.125;
    double z[CLASSES_MAX], slope[CLASSES_MAX];
    float rounded[CLASSES_MAX], gz[CLASSES_MAX];
    oracle_random(seed, e.classes, z);
    for (int j = 0; j < e.classes; j++) {
        rounded[j] = (float)(spread * z[j]);
        z[j] = (double)rounded[j];
    }
    const double expected = expected_value(z, &e);
    const double got = t.kind->evaluate(t.options, e.classes, rounded, e.label, scale, gz);
    assert_true(fabs(got - expected) <= 1e-13 * (1 + fabs(expected) + spread));
    assert_true(got == t.kind->evaluate(t.options, e.classes, rounded, e.label, scale, NULL));
    if (bend(z, &e) < 1e-3)
        return;
    const double step = e.hinge ? 5e-4 : 1e-4 * fmin(e.b, 1);
    oracle_gradient(expected_value, &e, e.classes, z, step, slope);
    for (int j = 0; j < e.classes; j++)
        assert_true(fabs((double)gz[j] - scale * slope[j]) <= 1e-7 * scale * (1 + 2 * e.gamma));
}

static void check_loss(const char *name, const char *options, double a, double b, double gamma) {
    instance t = open_loss(name, options);
    for (int classes = 2; classes <= CLASSES_MAX; classes++)
        for (int label = 0; label < classes; label++)
            for (int spread = 0; spread < 3; spread++)
                check_one(t,
                          (expected_loss){strcmp(name, "hinge") == 0, a, b, gamma, classes, label},
                          spread == 0 ? 0.2 : 3.0 * spread,
                          (uint64_t)(classes * 100 + label * 10 + spread));
    free(t.options);
}

static void hinge_equals_the_formula(void **state) {
    (void)state;
    check_loss("hinge", "{eps: 1.5}", 1.5, 0, 0);
    check_loss("hinge", "{eps: 36/255}", 36.0 / 255, 0, 0);
    check_loss("hinge", "{eps: 0}", 0, 0, 0);
}

static void cross_entropy_equals_the_formula(void **state) {
    (void)state;
    check_loss("cross_entropy", "{}", 0, 1, 0);
    check_loss("cross_entropy", "{offset: 1.5, temperature: 0.25}", 1.5, 0.25, 0);
    check_loss("cross_entropy", "{offset: 0.5, temperature: 4}", 0.5, 4, 0);
    check_loss("cross_entropy", "{offset: 0.5, gamma: 0.7}", 0.5, 1, 0.7);
    check_loss("cross_entropy", "{temperature: 0.5, gamma: 3}", 0, 0.5, 3);
}

/* By hand: two classes, z = (3, 1), y = 0, gamma = 0.5: log(1 + e^-2) - 0.5 * 2/sqrt(2); and no
   reward for a wrong answer. */
static void regulariser_by_hand(void **state) {
    (void)state;
    static const float z[2] = {3, 1};
    float gz[2];
    instance t = open_loss("cross_entropy", "{gamma: 0.5}"),
             plain = open_loss("cross_entropy", "{}");
    const double right = log1p(exp(-2)) - 1 / sqrt(2), pull = 1 / (1 + exp(2)) + 0.5 / sqrt(2);
    assert_true(fabs(t.kind->evaluate(t.options, 2, z, 0, 1, gz) - right) < 1e-14);
    assert_true(fabs((double)gz[0] + pull) < 1e-7 && fabs((double)gz[1] - pull) < 1e-7);
    assert_true(t.kind->evaluate(t.options, 2, z, 1, 1, NULL) ==
                plain.kind->evaluate(plain.options, 2, z, 1, 1, NULL));
    free(t.options);
    free(plain.options);
}

/* By hand: C = 4, m = sqrt(2), z = (1, 0.5, 1 + 0.5, -10), y = 0: gaps m - 0.5, m + 0.5, none. */
static void hinge_by_hand(void **state) {
    (void)state;
    static const float z[4] = {1, 0.5F, 1.5F, -10}, slopes[4] = {-1, 0.5F, 0.5F, 0};
    float gz[4];
    instance t = open_loss("hinge", "{eps: 1}");
    assert_true(fabs(t.kind->evaluate(t.options, 4, z, 0, 2, gz) - sqrt(2) / 2) < 1e-15);
    assert_memory_equal(gz, slopes, sizeof gz);
    free(t.options);
}

/* It is zero exactly when the margin reaches sqrt(2) eps. */
static void hinge_is_zero_when_certified(void **state) {
    (void)state;
    instance t = open_loss("hinge", "{eps: 0.5}");
    int zeros = 0;
    for (uint64_t seed = 0; seed < 500; seed++) {
        double z[5];
        float rounded[5];
        oracle_random(seed, 5, z);
        oracle_to_float(5, z, rounded);
        const bool zero = t.kind->evaluate(t.options, 5, rounded, 2, 1, NULL) == 0;
        assert_int_equal(zero, bcop_loss_margin(5, rounded, 2) >= sqrt(2) * 0.5);
        zeros += zero;
    }
    assert_in_range(zeros, 10, 400);
    free(t.options);
}

static void cross_entropy_of_large_logits(void **state) {
    (void)state;
    static const float z[3] = {1e30F, -1e30F, 3e30F};
    float gz[3];
    instance t = open_loss("cross_entropy", "{temperature: 0.001}");
    assert_true(fabs(t.kind->evaluate(t.options, 3, z, 0, 1, gz) / 2e30 - 1) < 1e-6);
    assert_true(gz[0] == -1 && gz[1] == 0 && gz[2] == 1);
    assert_true(t.kind->evaluate(t.options, 3, z, 2, 1, gz) == 0);
    assert_true(gz[0] == 0 && gz[1] == 0 && gz[2] == 0);
    free(t.options);
}

static void margin_is_to_the_best_other(void **state) {
    (void)state;
    static const float z[4] = {0.25F, -3, 2, 1.5F};
    static const double margins[4] = {-1.75, -5, 0.5, -0.5};
    for (int label = 0; label < 4; label++)
        assert_true(bcop_loss_margin(4, z, label) == margins[label]);
    static const float tie[2] = {1, 1};
    assert_true(bcop_loss_margin(2, tie, 0) == 0);
    assert_true(bcop_loss_margin(1, z, 0) == INFINITY);
    /* the difference is taken in float64 */
    static const float close[2] = {16777216, -1};
    assert_true(bcop_loss_margin(2, close, 0) == 16777217);
}

static void expect_no_certificate(const instance loss[2], int classes, const float *z, int label) {
    float gz[CLASSES_MAX];
    assert_false(bcop_loss_margin(classes, z, label) > 0);
    for (int i = 0; i < 2; i++) {
        const double value = loss[i].kind->evaluate(loss[i].options, classes, z, label, 1, gz);
        const bool finite = isfinite(value);
        assert_false(finite);
    }
}

/* NaN anywhere among the logits: no positive margin and no finite loss, whatever stands before or
   after it. */
static void a_nan_never_certifies(void **state) {
    (void)state;
    instance loss[2] = {open_loss("hinge", "{eps: 0}"), open_loss("cross_entropy", "{gamma: 1}")};
    for (int classes = 2; classes <= 6; classes++)
        for (int label = 0; label < classes; label++)
            for (int mask = 1; mask < 1 << classes; mask++)
                for (int infinite = 0; infinite < 2; infinite++) {
                    float z[CLASSES_MAX];
                    for (int j = 0; j < classes; j++) {
                        z[j] = j == label ? 100 : (float)-j;
                        if (infinite && j != label)
                            z[j] = -INFINITY;
                        if (mask >> j & 1)
                            z[j] = NAN;
                    }
                    expect_no_certificate(loss, classes, z, label);
                }
    free(loss[0].options);
    free(loss[1].options);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hinge_equals_the_formula),
        cmocka_unit_test(cross_entropy_equals_the_formula),
        cmocka_unit_test(regulariser_by_hand),
        cmocka_unit_test(hinge_by_hand),
        cmocka_unit_test(hinge_is_zero_when_certified),
        cmocka_unit_test(cross_entropy_of_large_logits),
        cmocka_unit_test(margin_is_to_the_best_other),
        cmocka_unit_test(a_nan_never_certifies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
