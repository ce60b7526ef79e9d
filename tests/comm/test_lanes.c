/* run: ranks 1 2 3 4 5 8 */
/* The lane tree against its definition: the same bits on any number of ranks. */
#include "base/rng.h"
#include "comm/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static bcop_comm comm;

static float lane_value(int lane, long i) {
    bcop_rng rng = bcop_rng_open(7, BCOP_RNG_TEST, (uint32_t)lane, (uint64_t)i);
    return (float)bcop_rng_normal(&rng);
}

/* node(first, size) by the definition */
static float tree(int first, int size, long i) {
    if (size == 1)
        return lane_value(first, i);
    const float left = tree(first, size / 2, i);
    return left + tree(first + size / 2, size / 2, i);
}

static void check(int lanes, long length) {
    bcop_arena arena = {.name = "test"};
    bcop_lanes sum;
    for (int pass = 0; pass < 2; pass++) {
        bcop_lanes_plan(&sum, &comm, lanes, length, &arena);
        float *buffer = bcop_arena_floats(&arena, bcop_lanes_buffer(&sum));
        if (buffer)
            bcop_lanes_attach(&sum, buffer);
        if (pass == 0)
            assert_int_equal(bcop_arena_reserve(&arena), BCOP_OK);
    }
    for (int repeat = 0; repeat < 2; repeat++) {
        bcop_lanes_start(&sum);
        for (int lane = sum.run.first; lane < sum.run.first + sum.run.count; lane++) {
            float *to = bcop_lanes_next(&sum);
            for (long i = 0; i < length; i++)
                to[i] = lane_value(lane, i);
            bcop_lanes_push(&sum);
        }
        const float *total = bcop_lanes_finish(&sum);
        for (long i = 0; i < length; i++) {
            const float expected = tree(0, lanes, i);
            assert_memory_equal(&total[i], &expected, sizeof expected);
        }
    }
    bcop_arena_free(&arena);
}

static void test_tree(void **state) {
    (void)state;
    for (int lanes = 8; lanes <= 64; lanes *= 2)
        for (int shape = 0; shape < 4; shape++)
            check(lanes, (const long[]){1, 3, 64, 1001}[shape]);
    for (int lanes = 1; lanes < 8; lanes *= 2)
        if (lanes >= comm.size)
            check(lanes, 37);
}

static void test_tree_is_not_a_plain_sum(void **state) {
    (void)state;
    /* so that the comparison above can fail: summing in order gives other bits somewhere */
    int different = 0;
    for (long i = 0; i < 64; i++) {
        float plain = 0;
        for (int lane = 0; lane < 16; lane++)
            plain += lane_value(lane, i);
        const float expected = tree(0, 16, i);
        different += memcmp(&plain, &expected, sizeof plain) != 0;
    }
    assert_true(different > 0);
}

static void test_runs_cover(void **state) {
    (void)state;
    for (int lanes = 1; lanes <= 64; lanes *= 2)
        for (int ranks = 1; ranks <= lanes; ranks++) {
            int next = 0;
            for (int rank = 0; rank < ranks; rank++) {
                const bcop_lane_run run = bcop_lanes_run(lanes, ranks, rank);
                assert_int_equal(run.first, next);
                assert_true(run.count >= lanes / ranks && run.count <= lanes / ranks + 1);
                next += run.count;
            }
            assert_int_equal(next, lanes);
        }
}

static void test_agree(void **state) {
    (void)state;
    assert_int_equal(bcop_comm_agree(&comm, BCOP_OK), BCOP_OK);
    for (int bad = 0; bad < comm.size; bad++) {
        bcop_status mine = BCOP_OK;
        if (comm.rank >= bad)
            mine = bcop_status_fail(comm.rank == bad ? BCOP_BAD_DATA : BCOP_IO, "rank %d failed",
                                    comm.rank);
        assert_int_equal(bcop_comm_agree(&comm, mine), BCOP_BAD_DATA);
        char expected[32];
        snprintf(expected, sizeof expected, "rank %d failed", bad);
        assert_string_equal(bcop_status_message(), expected);
    }
}

static void test_merge(void **state) {
    (void)state;
    double value[9];
    for (int i = 0; i < 9; i++)
        value[i] = i % comm.size == comm.rank ? 1.0 / (i + 3) : 0;
    bcop_comm_merge(&comm, value, 9);
    for (int i = 0; i < 9; i++)
        assert_true(value[i] == 1.0 / (i + 3));
    assert_true(bcop_comm_max(&comm, comm.rank) == comm.size - 1);
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),       cmocka_unit_test(test_tree_is_not_a_plain_sum),
        cmocka_unit_test(test_runs_cover), cmocka_unit_test(test_agree),
        cmocka_unit_test(test_merge),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bcop_comm_close(&comm);
    return failed;
}
