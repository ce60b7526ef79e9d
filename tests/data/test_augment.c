/* run: serial */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data/augment.h"

#include "base/rng.h"

#include <stdbool.h>
#include <string.h>

enum { SIZE_MAX_TESTED = 7 * 6 * 3, PADDING_MAX = 9 };

/* The definition, value by value. */
static float expected(bcop_shape s, const float *x, int dy, int dx, bool flip, int row, int column,
                      int channel) {
    const int shifted = flip ? s.width - 1 - column : column;
    const int from_row = row - dy, from_column = shifted - dx;
    if (from_row < 0 || from_row >= s.height || from_column < 0 || from_column >= s.width)
        return 0;
    return x[(from_row * s.width + from_column) * s.channels + channel];
}

static bool is(bcop_shape s, const float *x, const float *out, int dy, int dx, bool flip) {
    for (int row = 0; row < s.height; row++)
        for (int column = 0; column < s.width; column++)
            for (int c = 0; c < s.channels; c++)
                if (out[(row * s.width + column) * s.channels + c] !=
                    expected(s, x, dy, dx, flip, row, column, c))
                    return false;
    return true;
}

static void fill(bcop_shape s, float *x) {
    for (long i = 0; i < bcop_shape_size(s); i++)
        x[i] = (float)(i + 1);
}

/* Every rule, shape and padding against the definition with the draws taken as documented. */
static void test_definition(void **state) {
    (void)state;
    const bcop_shape shapes[] = {{7, 6, 3}, {1, 1, 1}, {5, 5, 1}, {1, 4, 2}, {6, 1, 3}};
    for (int k = 0; k < 5; k++)
        for (int padding = 0; padding <= PADDING_MAX; padding++)
            for (long sample = 0; sample < 50; sample++) {
                float x[SIZE_MAX_TESTED], out[SIZE_MAX_TESTED];
                fill(shapes[k], x);
                bcop_rng rng = bcop_rng_open(5, BCOP_RNG_AUGMENT, 2, (uint64_t)sample);
                const uint32_t span = 2 * (uint32_t)padding + 1;
                const int dy = (int)bcop_rng_below(&rng, span) - padding;
                const int dx = (int)bcop_rng_below(&rng, span) - padding;
                const bool flip = bcop_rng_below(&rng, 2);
                for (int rule = BCOP_AUGMENT_NONE; rule <= BCOP_AUGMENT_CROP_FLIP; rule++) {
                    const bool crops = rule >= BCOP_AUGMENT_CROP;
                    const bool flips = rule == BCOP_AUGMENT_FLIP || rule == BCOP_AUGMENT_CROP_FLIP;
                    memset(out, 0xff, sizeof out);
                    bcop_augment_apply((bcop_augment_rule)rule, padding, shapes[k], 5, 2, sample, x,
                                       out);
                    assert_true(
                        is(shapes[k], x, out, crops ? dy : 0, crops ? dx : 0, flips && flip));
                }
            }
}

/* Without looking at the draws: each result is one of the allowed ones, and these come equally
 * often. Expected 500 times each: 5.5 standard deviations. */
static void test_all_equally_often(void **state) {
    (void)state;
    enum { PADDING = 2, SPAN = 2 * PADDING + 1, EACH = 500 };
    const bcop_shape s = {5, 4, 2};
    const int results[] = {1, 2, SPAN * SPAN, 2 * SPAN * SPAN};
    float x[5 * 4 * 2], out[5 * 4 * 2];
    fill(s, x);
    for (int rule = BCOP_AUGMENT_NONE; rule <= BCOP_AUGMENT_CROP_FLIP; rule++) {
        const int reach = rule >= BCOP_AUGMENT_CROP ? PADDING : 0;
        const int flips = rule == BCOP_AUGMENT_FLIP || rule == BCOP_AUGMENT_CROP_FLIP;
        int count[2][SPAN][SPAN] = {0};
        const int samples = EACH * results[rule];
        for (int sample = 0; sample < samples; sample++) {
            bcop_augment_apply((bcop_augment_rule)rule, PADDING, s, 11, 0, sample, x, out);
            int found = 0;
            for (int flip = 0; flip <= flips; flip++)
                for (int dy = -reach; dy <= reach; dy++)
                    for (int dx = -reach; dx <= reach; dx++)
                        if (is(s, x, out, dy, dx, flip)) {
                            count[flip][dy + PADDING][dx + PADDING]++;
                            found++;
                        }
            assert_int_equal(found, 1);
        }
        for (int flip = 0; flip <= flips; flip++)
            for (int dy = -reach; dy <= reach; dy++)
                for (int dx = -reach; dx <= reach; dx++)
                    assert_in_range(count[flip][dy + PADDING][dx + PADDING], EACH - 123,
                                    EACH + 123);
    }
}

/* What happens to a sample changes with the epoch, the sample and the seed, and with nothing else.
 */
static void test_keys(void **state) {
    (void)state;
    const bcop_shape s = {7, 6, 3};
    float x[SIZE_MAX_TESTED], a[SIZE_MAX_TESTED], b[SIZE_MAX_TESTED];
    int differ[3] = {0};
    fill(s, x);
    for (long sample = 0; sample < 100; sample++) {
        bcop_augment_apply(BCOP_AUGMENT_CROP_FLIP, 4, s, 1, 0, sample, x, a);
        bcop_augment_apply(BCOP_AUGMENT_CROP_FLIP, 4, s, 1, 0, sample, x, b);
        assert_memory_equal(a, b, sizeof a);
        for (int k = 0; k < 3; k++) {
            bcop_augment_apply(BCOP_AUGMENT_CROP_FLIP, 4, s, k == 0 ? 2 : 1, k == 1 ? 1 : 0,
                               k == 2 ? sample + 1000 : sample, x, b);
            differ[k] += memcmp(a, b, sizeof a) != 0;
        }
    }
    for (int k = 0; k < 3; k++)
        assert_in_range(differ[k], 93, 100); /* equal with probability 1/162 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_all_equally_often),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests_name("augment", tests, NULL, NULL);
}
