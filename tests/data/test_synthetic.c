/* run: serial */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data_support.h"

#include <math.h>

enum { CLASSES = 5, SIZE = 4 * 3 * 2, COUNT = 2000 };
static const bcop_shape shape = {4, 3, 2};
static const bcop_set_kind *kind;

static bcop_images open_set(void *options, bool test) {
    bcop_images images;
    assert_int_equal(kind->open(options, test, &images), BCOP_OK);
    free(options);
    return images;
}

static void test_without_noise(void **state) {
    (void)state;
    bcop_images train = open_set(synthetic_make(CLASSES, shape, COUNT, 1, 0), false);
    bcop_images test = open_set(synthetic_make(CLASSES, shape, COUNT, 1, 0), true);
    assert_int_equal(train.count, COUNT);
    assert_int_equal(test.count, COUNT / 2);
    assert_int_equal(train.classes, CLASSES);
    assert_true(bcop_shape_equal(train.shape, shape));
    float prototype[CLASSES][SIZE], x[SIZE];
    double sum = 0;
    for (int c = 0; c < CLASSES; c++)
        kind->read(&train, c, prototype[c]);
    for (int c = 0; c < CLASSES; c++)
        for (int p = 0; p < SIZE; p++) {
            assert_true(prototype[c][p] >= 0.25f && prototype[c][p] <= 0.75f);
            sum += (double)prototype[c][p];
            if (c > 0)
                assert_true(prototype[c][p] != prototype[c - 1][p]);
        }
    /* 120 uniform values of standard deviation 0.144: 5 of the mean's are 0.066 */
    assert_true(fabs(sum / (CLASSES * SIZE) - 0.5) < 0.066);
    for (long i = COUNT / 2 - 1; i >= 0; i--) {
        assert_int_equal(kind->label(&train, i), i % CLASSES);
        assert_int_equal(kind->label(&test, i), i % CLASSES);
        kind->read(&train, i, x);
        assert_memory_equal(x, prototype[i % CLASSES], sizeof x);
        kind->read(&test, i, x);
        assert_memory_equal(x, prototype[i % CLASSES], sizeof x);
    }
    kind->close(&train);
    kind->close(&test);
}

/* With noise 0.04 the nearest bound is more than six deviations away, so nothing is clamped. */
static void test_noise_is_normal(void **state) {
    (void)state;
    const double noise = 0.04;
    bcop_images clean = open_set(synthetic_make(CLASSES, shape, COUNT, 1, 0), false);
    bcop_images train = open_set(synthetic_make(CLASSES, shape, COUNT, 1, noise), false);
    bcop_images test = open_set(synthetic_make(CLASSES, shape, COUNT, 1, noise), true);
    double mean = 0, square = 0, fourth = 0, between = 0, before = 0, last = 0;
    float a[SIZE], b[SIZE], c[SIZE];
    for (long i = 0; i < COUNT / 2; i++) {
        kind->read(&train, i, a);
        kind->read(&clean, i, b);
        kind->read(&test, i, c);
        for (int p = 0; p < SIZE; p++) {
            const double z = (double)(a[p] - b[p]) / noise, t = (double)(c[p] - b[p]) / noise;
            mean += z;
            square += z * z;
            fourth += z * z * z * z;
            between += z * t;
            before += z * last;
            last = z;
        }
    }
    const double n = COUNT / 2 * SIZE; /* 24,000: one deviation of a mean is 0.0065 */
    assert_true(fabs(mean / n) < 0.035);
    assert_true(fabs(square / n - 1) < 0.05);
    assert_true(fabs(fourth / n - 3) < 0.4);
    assert_true(fabs(between / n) < 0.035);
    assert_true(fabs(before / n) < 0.035);
    kind->close(&clean);
    kind->close(&train);
    kind->close(&test);
}

static void test_clamped_and_repeatable(void **state) {
    (void)state;
    bcop_images one = open_set(synthetic_make(CLASSES, shape, COUNT, 1, 2), false);
    bcop_images two = open_set(synthetic_make(CLASSES, shape, COUNT, 1, 2), false);
    bcop_images seed = open_set(synthetic_make(CLASSES, shape, COUNT, 2, 2), false);
    int zeros = 0, ones = 0, differ = 0;
    for (long i = 0; i < 100; i++) {
        float a[SIZE], b[SIZE], c[SIZE];
        kind->read(&one, i, a);
        kind->read(&two, i, b);
        kind->read(&seed, i, c);
        assert_memory_equal(a, b, sizeof a);
        differ += memcmp(a, c, sizeof a) != 0;
        for (int p = 0; p < SIZE; p++) {
            assert_true(a[p] >= 0 && a[p] <= 1);
            zeros += a[p] <= 0;
            ones += a[p] >= 1;
        }
    }
    assert_int_equal(differ, 100);
    /* 0 and 1 each with probability about 0.4 */
    assert_in_range(zeros, 800, 1100);
    assert_in_range(ones, 800, 1100);
    kind->close(&one);
    kind->close(&two);
    kind->close(&seed);
}

static uint64_t fingerprint(void *options, bool test) {
    bcop_images images = open_set(options, test);
    const uint64_t result = images.fingerprint;
    kind->close(&images);
    return result;
}

static void test_fingerprints_differ(void **state) {
    (void)state;
    const uint64_t print[] = {
        fingerprint(synthetic_make(5, shape, COUNT, 1, 0.1), false),
        fingerprint(synthetic_make(5, shape, COUNT, 1, 0.1), true),
        fingerprint(synthetic_make(6, shape, COUNT, 1, 0.1), false),
        fingerprint(synthetic_make(5, (bcop_shape){3, 4, 2}, COUNT, 1, 0.1), false),
        fingerprint(synthetic_make(5, shape, COUNT + 1, 1, 0.1), false),
        fingerprint(synthetic_make(5, shape, COUNT, 2, 0.1), false),
        fingerprint(synthetic_make(5, shape, COUNT, 1, nextafter(0.1, 1)), false),
    };
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < i; j++)
            assert_true(print[i] != print[j]);
    assert_true(print[0] == fingerprint(synthetic_make(5, shape, COUNT, 1, 0.1), false));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_noise),
        cmocka_unit_test(test_noise_is_normal),
        cmocka_unit_test(test_clamped_and_repeatable),
        cmocka_unit_test(test_fingerprints_differ),
    };
    kind = bcop_set_kinds[kind_index("synthetic")];
    return cmocka_run_group_tests_name("synthetic", tests, NULL, NULL);
}
