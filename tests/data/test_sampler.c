/* run: serial */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data/sampler.h"

#include <string.h>

enum { MANY = 50000 };
static int32_t order[MANY], other[MANY];
static unsigned char seen[MANY];

static void test_is_a_permutation(void **state) {
    (void)state;
    const long counts[] = {1, 2, 3, 10, 1000, MANY};
    for (int c = 0; c < 6; c++) {
        bcop_sampler_order(7, 3, counts[c], order);
        memset(seen, 0, sizeof seen);
        for (long i = 0; i < counts[c]; i++) {
            assert_in_range(order[i], 0, counts[c] - 1);
            assert_int_equal(seen[order[i]]++, 0);
        }
    }
}

static void test_depends_on_seed_and_epoch_alone(void **state) {
    (void)state;
    bcop_sampler_order(7, 3, MANY, order);
    memset(other, -1, sizeof other);
    bcop_sampler_order(7, 3, MANY, other);
    assert_memory_equal(order, other, sizeof order);
    const uint64_t seeds[] = {7, 8, 7 | 1ULL << 40};
    const uint32_t epochs[] = {4, 3, 3};
    for (int k = 0; k < 3; k++) {
        bcop_sampler_order(seeds[k], epochs[k], MANY, other);
        long same = 0;
        for (long i = 0; i < MANY; i++)
            same += order[i] == other[i];
        assert_in_range(same, 0, 12); /* Poisson with mean 1 */
    }
}

/* Chi-square over `cells` equally likely cells. */
static double chi_square(int cells, const long count[], double expected) {
    double sum = 0;
    for (int i = 0; i < cells; i++)
        sum += ((double)count[i] - expected) * ((double)count[i] - expected) / expected;
    return sum;
}

/* All 24 orders of 4 are equally likely: 23 degrees of freedom, 70 has probability 1e-6. */
static void test_small_orders_are_uniform(void **state) {
    (void)state;
    enum { EPOCHS = 24000 };
    long count[256] = {0}, of_order[24];
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        bcop_sampler_order(1, epoch, 4, order);
        count[order[0] * 64 + order[1] * 16 + order[2] * 4 + order[3]]++;
    }
    int orders = 0;
    for (int k = 0; k < 256; k++)
        if (count[k]) {
            assert_in_range(orders, 0, 23);
            of_order[orders++] = count[k];
        }
    assert_int_equal(orders, 24);
    assert_true(chi_square(24, of_order, EPOCHS / 24.0) < 70);
}

/* Every example is equally often at every position: 9 x 9 degrees of freedom, 160 has probability
 * below 1e-6. */
static void test_positions_are_uniform(void **state) {
    (void)state;
    enum { EPOCHS = 20000, EXAMPLES = 10 };
    long count[EXAMPLES * EXAMPLES] = {0};
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        bcop_sampler_order(99, epoch, EXAMPLES, order);
        for (int i = 0; i < EXAMPLES; i++)
            count[i * EXAMPLES + order[i]]++;
    }
    assert_true(chi_square(EXAMPLES * EXAMPLES, count, (double)EPOCHS / EXAMPLES) < 160);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_a_permutation),
        cmocka_unit_test(test_depends_on_seed_and_epoch_alone),
        cmocka_unit_test(test_small_orders_are_uniform),
        cmocka_unit_test(test_positions_are_uniform),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
