/* run: ranks 1 2 3 */
/* Attacks: the projection against its definition, linear networks for which the best attack is
 * known, and the same numbers on any number of ranks. */
#include "train/attack.h"

#include "../data/data_support.h"
#include "nn_fixture.h"
#include "oracle.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static bcop_comm comm;

/* ---- the projection ---- */

enum { SIZE = 40 };

static double clip(double p, float x) {
    return fmin(fmax(p, fmin(0, (double)x)), fmax(1, (double)x));
}

static double distance(const float *x, const float *point) {
    long double sum = 0;
    for (int i = 0; i < SIZE; i++)
        sum += powl((long double)point[i] - (long double)x[i], 2);
    return (double)sqrtl(sum);
}

/* By bisection for the s of p = clip(x + s (wish - x)): the nearest point of ball and box. */
static void expected_projection(const float *x, double eps, const double *wish, double *p) {
    double low = 0, high = 1;
    for (int step = 0; step < 200; step++) {
        const double s = step == 0 ? 1 : (low + high) / 2;
        double sum = 0;
        for (int i = 0; i < SIZE; i++) {
            p[i] = clip((double)x[i] + s * (wish[i] - (double)x[i]), x[i]);
            sum += pow(p[i] - (double)x[i], 2);
        }
        if (sqrt(sum) <= eps && step == 0)
            return;
        *(sqrt(sum) <= eps ? &low : &high) = s;
    }
}

static void make_points(uint64_t seed, double inside, float *x, double *wish) {
    double normal[2 * SIZE];
    oracle_random(seed, 2 * SIZE, normal);
    for (int i = 0; i < SIZE; i++) {
        x[i] = (float)(0.5 + inside * normal[i]);
        wish[i] = (double)x[i] + normal[SIZE + i];
    }
}

/* Pixels well inside [0, 1], some at its ends, some outside. */
static void projection(void **state) {
    (void)state;
    const double radii[] = {0, 1e-9, 1e-3, 0.3, 1.5, 4, 100}, inside[] = {0.1, 0.3, 1};
    for (int k = 0; k < 7 * 3 * 10; k++) {
        float x[SIZE], point[SIZE];
        double wish[SIZE], expected[SIZE];
        const double eps = radii[k % 7];
        make_points((uint64_t)k, inside[k / 7 % 3], x, wish);
        x[0] = 0;
        x[1] = 1;
        bcop_attack_project(SIZE, x, eps, wish, point);
        expected_projection(x, eps, wish, expected);
        assert_true(distance(x, point) <= eps);
        for (int i = 0; i < SIZE; i++) {
            assert_true((double)point[i] == clip((double)point[i], x[i]));
            assert_true(fabs((double)point[i] - expected[i]) <= 1e-6);
        }
    }
}

/* ---- linear networks ---- */

enum { IN = 16, MIDDLE = 6, RUN = 8, LINEAR_MAX = 3 };

typedef struct linear {
    nn_fixture net;
    double weight[LINEAR_MAX * IN]; /* [classes][IN] of both layers */
    bcop_attack attack;
    bcop_certificate certificate;
    bcop_arena arena;
    bcop_dataset *dataset;
} linear;

static void open_dataset(int classes, bcop_shape shape, long count, double noise,
                         bcop_dataset **dataset) {
    void *options = synthetic_make(classes, shape, count, 3, noise);
    const bcop_dataset_options common = {.kind = kind_index("synthetic")};
    assert_int_equal(bcop_dataset_open(&common, options, BCOP_SPLIT_TRAIN, dataset), BCOP_OK);
    free(options);
}

static void open_attack(bcop_attack *attack, bcop_certificate *certificate, bcop_arena *arena,
                        const bcop_comm *on, bcop_model *model, const bcop_dataset *dataset) {
    *attack =
        (bcop_attack){.comm = on, .model = model, .dataset = dataset, .certificate = certificate};
    *arena = (bcop_arena){.name = "attack"};
    for (int pass = 0; pass < 2; pass++) {
        bcop_attack_plan(attack, arena);
        bcop_certificate_plan(certificate, model, 3, arena);
        if (pass == 0)
            assert_int_equal(bcop_arena_reserve(arena), BCOP_OK);
    }
    bcop_certificate_prepare(certificate);
}

/* Pixels stay so far from 0 and 1 that only the ball matters. */
static void linear_open(linear *l, int classes) {
    char list[64];
    snprintf(list, sizeof list, "[dense: {units: %d}, dense: {units: %d}]", MIDDLE, classes);
    l->net = nn_fixture_open(
        &(nn_setting){
            .list = list, .in = {4, 4, 1}, .classes = classes, .run = RUN, .evaluating = true},
        5);
    double *first = nn_fixture_stored(&l->net.model->layer[0]);
    double *second = nn_fixture_stored(&l->net.model->layer[1]);
    oracle_multiply(classes, IN, MIDDLE, second, first, l->weight);
    free(first);
    free(second);
    open_dataset(classes, (bcop_shape){4, 4, 1}, RUN, 0.02, &l->dataset);
    open_attack(&l->attack, &l->certificate, &l->arena, &bcop_comm_alone, l->net.model, l->dataset);
}

static void linear_close(linear *l) {
    bcop_arena_free(&l->arena);
    bcop_dataset_close(l->dataset);
    nn_fixture_close(&l->net);
}

/* Labels the images with the network's own answers. Returns the logits. */
static const float *read_labels(linear *l) {
    const int classes = l->net.model->classes;
    const float *z = bcop_model_forward(l->net.model, RUN, 0, l->attack.x);
    for (int i = 0; i < RUN; i++)
        for (int j = l->attack.label[i] = 0; j < classes; j++)
            if (z[i * classes + j] > z[i * classes + l->attack.label[i]])
                l->attack.label[i] = j;
    return z;
}

static const float *read_images(linear *l) {
    for (int i = 0; i < RUN; i++)
        bcop_dataset_read(l->dataset, i, l->attack.x + i * IN);
    return read_labels(l);
}

/* ||w_label - w_other||, in L2 or L1. */
static double slope(const linear *l, int label, int other, bool one) {
    double sum = 0;
    for (int k = 0; k < IN; k++) {
        const double d = l->weight[label * IN + k] - l->weight[other * IN + k];
        sum += one ? fabs(d) : d * d;
    }
    return one ? sum : sqrt(sum);
}

/* Two classes: the least margin in the ball is margin - eps ||w_y - w_j||, and a wrong answer is as
   near as margin / ||w_y - w_j||; along the signs it is the L1 norm over sqrt(IN). */
static void best_attack_on_two_classes(void **state) {
    (void)state;
    linear l;
    linear_open(&l, 2);
    const float *z = read_images(&l);
    /* the bias such that the first image has a margin that the attacks can use up */
    bcop_layer_bias(&l.net.model->layer[1])->value[0] -= z[0] - z[1] - 0.1F;
    z = read_images(&l);
    double margin[RUN], least[RUN], nearest[RUN], exact[RUN];
    for (int i = 0; i < RUN; i++)
        margin[i] = fabs((double)z[2 * i] - (double)z[2 * i + 1]);
    int broken = 0, held = 0;
    for (int k = 0; k < 2 * 4; k++) {
        const bcop_attack_rule rule = {
            .fgsm = k % 2, .eps = 0.02 * pow(2, k / 2), .steps = 5, .restarts = 1 + k / 4};
        bcop_attack_images(&l.attack, &rule, 0, RUN, least, nearest, exact);
        const double by = rule.fgsm ? slope(&l, 0, 1, true) / sqrt(IN) : slope(&l, 0, 1, false);
        for (int i = 0; i < RUN; i++) {
            const double expected = margin[i] - rule.eps * by;
            assert_true(fabs(expected) > 1e-5); /* else rounding decides */
            if (expected > 0) {
                assert_true(fabs(least[i] - expected) <= 2e-6);
                assert_true(isinf(nearest[i]) && isinf(exact[i]));
                held++;
            } else {
                assert_true(least[i] <= 0 && nearest[i] <= rule.eps);
                assert_true(fabs(nearest[i] - margin[i] / by) <= 1e-5);
                assert_true(exact[i] >= nearest[i]); /* what the last bit decides is farther */
                broken++;
            }
        }
    }
    assert_true(broken >= 3 && held >= 3);
    linear_close(&l);
}

/* More classes: the least margin is the least over the rivals, and no attack goes below. */
static void no_attack_beats_the_best(void **state) {
    (void)state;
    linear l;
    linear_open(&l, 3);
    const float *logits = read_images(&l);
    float z[3 * RUN];
    memcpy(z, logits, sizeof z);
    double least[RUN], nearest[RUN], exact[RUN];
    int reached = 0;
    const bcop_attack_rule rule = {.eps = 0.01, .steps = 20, .restarts = 3, .seed = 1};
    bcop_attack_images(&l.attack, &rule, 0, RUN, least, nearest, exact);
    for (int i = 0; i < RUN; i++) {
        double expected = INFINITY;
        const int label = l.attack.label[i];
        for (int j = 0; j < 3; j++)
            if (j != label)
                expected = fmin(expected, (double)z[3 * i + label] - (double)z[3 * i + j] -
                                              rule.eps * slope(&l, label, j, false));
        assert_true(least[i] >= fmin(expected, 0) - 0.02);
        if (expected > 0) {
            assert_true(least[i] >= expected - 2e-6);
            reached += fabs(least[i] - expected) <= 2e-6;
        }
    }
    assert_true(reached >= 4);
    linear_close(&l);
}

/* Where the last of two restarts ends, for images that are all the same: the starts are keyed by
   seed and image, and one step does not make one forget them. */
static void random_starts(void **state) {
    (void)state;
    linear l;
    linear_open(&l, 2);
    double least[RUN], nearest[RUN], exact[RUN];
    bcop_attack_rule rule = {.eps = 0.01, .steps = 1, .restarts = 2, .seed = 1};
    float end[3][RUN * IN];
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < RUN * IN; i++)
            l.attack.x[i] = 0.5F;
        read_labels(&l);
        rule.seed = k == 2 ? 2 : 1;
        bcop_attack_images(&l.attack, &rule, k == 1 ? 3 : 0, RUN, least, nearest, exact);
        assert_true(isinf(nearest[0])); /* all held: the points are where the search ended */
        memcpy(end[k], l.attack.point, sizeof end[k]);
    }
    double same = 0, image = 0, seed = 0;
    for (int i = 0; i < (RUN - 3) * IN; i++)
        same = fmax(same, fabs((double)end[1][i] - (double)end[0][i + 3 * IN]));
    for (int i = 0; i < IN; i++) {
        image = fmax(image, fabs((double)end[0][i] - (double)end[0][i + IN]));
        seed = fmax(seed, fabs((double)end[0][i] - (double)end[2][i]));
    }
    assert_true(same <= 1e-6 && image >= 1e-4 && seed >= 1e-4);
    linear_close(&l);
}

/* ---- a whole set, on all ranks ---- */

enum { COUNT = 61, CLASSES = 4 }; /* the last run is not full, and ranks have unequal parts */

typedef struct result {
    double least[COUNT], distance[COUNT], exact[COUNT];
} result;

/* Changes the last bias so that the mean logits are equal: else one class is all answers. */
static void centre(bcop_model *model, const bcop_dataset *dataset) {
    float x[48], *bias = bcop_layer_bias(&model->layer[model->count - 1])->value;
    double mean[CLASSES] = {0};
    for (int i = 0; i < COUNT; i++) {
        bcop_dataset_read(dataset, i, x);
        const float *z = bcop_model_forward(model, 1, 0, x);
        for (int j = 0; j < CLASSES; j++)
            mean[j] += (double)z[j] / COUNT;
    }
    for (int j = 0; j < CLASSES; j++)
        bias[j] -= (float)mean[j];
}

static void attack_all(const bcop_comm *on, const bcop_attack_rule *rule, result *r) {
    nn_fixture net = nn_fixture_open(&(nn_setting){.list = "[conv: {channels: 8, kernel: 3}, "
                                                           "maxmin, conv: {channels: 12, kernel: "
                                                           "2, stride: 2}, maxmin, dense: {units: "
                                                           "4}]",
                                                   .in = {4, 4, 3},
                                                   .classes = CLASSES,
                                                   .run = RUN,
                                                   .evaluating = true},
                                     9);
    bcop_dataset *dataset;
    bcop_attack attack;
    bcop_certificate certificate;
    bcop_arena arena;
    open_dataset(CLASSES, (bcop_shape){4, 4, 3}, COUNT, 0.3, &dataset);
    centre(net.model, dataset);
    open_attack(&attack, &certificate, &arena, on, net.model, dataset);
    bcop_attack_run(&attack, rule);
    memcpy(r->least, attack.least, sizeof r->least);
    memcpy(r->distance, attack.distance, sizeof r->distance);
    memcpy(r->exact, attack.exact, sizeof r->exact);
    bcop_arena_free(&arena);
    bcop_dataset_close(dataset);
    nn_fixture_close(&net);
}

static void any_number_of_ranks(void **state) {
    (void)state;
    const bcop_attack_rule rules[] = {
        {.eps = 0.2, .steps = 6, .restarts = 3, .seed = 1},
        {.fgsm = true, .eps = 0.2},
    };
    static result alone, together;
    for (int k = 0; k < 2; k++) {
        attack_all(&bcop_comm_alone, &rules[k], &alone);
        attack_all(&comm, &rules[k], &together);
        assert_memory_equal(&together, &alone, sizeof together);
        int wrong = 0, broken = 0, held = 0, confirmed = 0;
        for (int i = 0; i < COUNT; i++) {
            const double near = alone.distance[i];
            wrong += near == 0;
            broken += near > 0 && near <= 0.2;
            held += isinf(near);
            confirmed += alone.exact[i] == near;
            assert_true(alone.exact[i] >= near);
            assert_true(near <= 0.2 || isinf(near));
            assert_true((alone.least[i] > 0) == isinf(near));
        }
        assert_true(wrong >= 5 && broken >= 5 && held >= 5);
        assert_true(confirmed >= COUNT - broken / 2 - 1);
    }
}

/* ---- the judge ---- */

/* An answer is as good as its radius: at it or beyond is no violation, inside is, of the float32
   forward pass and of f each by its own. */
static void violations_are_counted(void **state) {
    (void)state;
    enum { IMAGES = 6 };
    const double radius[IMAGES] = {1, 1, 1, 0, 2, 0.5};
    const double float_radius[IMAGES] = {0.9, 0.9, 0.9, 0, 1.9, 0};
    bcop_verdict verdict[IMAGES] = {0};
    for (int i = 0; i < IMAGES; i++) {
        verdict[i].radius = radius[i];
        verdict[i].float_radius = float_radius[i];
    }
    double distance[IMAGES] = {0.95, 1, INFINITY, 0, 1.95, 0};
    double exact[IMAGES] = {1.1, 1, INFINITY, 0, INFINITY, INFINITY};
    bcop_attack attack = {.distance = distance, .exact = exact};
    open_dataset(2, (bcop_shape){1, 1, 1}, IMAGES, 0.1, (bcop_dataset **)&attack.dataset);
    long first = -1;
    assert_int_equal(bcop_attack_violations(&attack, verdict, &first), 0);
    assert_int_equal(first, -1);
    distance[4] = 1.89;
    assert_int_equal(bcop_attack_violations(&attack, verdict, &first), 1);
    assert_int_equal(first, 4);
    exact[1] = 0.99;
    assert_int_equal(bcop_attack_violations(&attack, verdict, &first), 2);
    assert_int_equal(first, 1);
    distance[1] = 0.8; /* once */
    assert_int_equal(bcop_attack_violations(&attack, verdict, NULL), 2);
    bcop_dataset_close((bcop_dataset *)attack.dataset);
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(projection),
        cmocka_unit_test(best_attack_on_two_classes),
        cmocka_unit_test(no_attack_beats_the_best),
        cmocka_unit_test(random_starts),
        cmocka_unit_test(any_number_of_ranks),
        cmocka_unit_test(violations_are_counted),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bcop_comm_close(&comm);
    return failed;
}
