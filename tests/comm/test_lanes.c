/* run: ranks 1 2 3 4 5 8 */
/* The lane tree against its definition: the same bits on any number of ranks, whole and by parts;
 * what it says it sends is what it sends. */
#include "base/rng.h"
#include "comm/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
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

/* ---- parts ---- */

enum { PARTS_MAX = 24 };

/* Parts of odd lengths, some of them empty, for every rank in turn and for all; the last part
   stands first in the vector. `large`: the first of rank 0 and of all is more than MPI copies at
   once. Returns how many there are. */
static int make_parts(bool large, bcop_lane_part part[], long *length) {
    static const long size[] = {7, 0, 33, 1, 129};
    const int parts = 2 * (comm.size + 1) + 1;
    assert_true(parts <= PARTS_MAX);
    long end = 0;
    for (int i = 0; i < parts; i++) {
        const int k = (i + parts - 1) % parts;
        const int root = k % (comm.size + 1);
        const long own = large && (k == 0 || k == comm.size) ? 5001 : size[k % 5];
        part[k] = (bcop_lane_part){end, own, root < comm.size ? root : BCOP_LANE_EVERY};
        end += part[k].length;
    }
    *length = end;
    return parts;
}

static void open_parts(bcop_lanes *sum, bcop_arena *arena, int lanes, long length, int parts,
                       const bcop_lane_part part[]) {
    for (int pass = 0; pass < 2; pass++) {
        bcop_lanes_plan_parts(sum, &comm, lanes, length, parts, part, arena);
        float *buffer = bcop_arena_floats(arena, bcop_lanes_buffer(sum));
        if (buffer)
            bcop_lanes_attach(sum, buffer);
        if (pass == 0)
            assert_int_equal(bcop_arena_reserve(arena), BCOP_OK);
    }
}

/* One lane: its vector in pieces, in an order that is another for every lane and rank; a part goes
   as soon as the last lane has folded it. */
static void fold_lane(bcop_lanes *sum, int lane, int scale) {
    float *to = bcop_lanes_next(sum);
    for (long i = 0; i < sum->length; i++)
        to[i] = (float)scale * lane_value(lane, i);
    const bool last = lane == sum->run.first + sum->run.count - 1;
    for (int i = 0; i < sum->parts; i++) {
        const int turn = lane % 2 ? sum->parts - 1 - i : i;
        const int k = (turn + lane + comm.rank) % sum->parts;
        const bcop_lane_part *part = &sum->part[k];
        const long half = part->length / 2;
        bcop_lanes_fold(sum, part->begin + half, part->length - half);
        bcop_lanes_fold(sum, part->begin, half);
        if (last) {
            bcop_lanes_send(sum, k);
            bcop_lanes_progress(sum);
        }
    }
    bcop_lanes_advance(sum);
}

static void check_part(const bcop_lanes *sum, int k, int scale, const float *got) {
    const bcop_lane_part *part = &sum->part[k];
    if (part->root != BCOP_LANE_EVERY && part->root != comm.rank && comm.size > 1)
        assert_null(got);
    else
        assert_non_null(got);
    for (long i = 0; got && i < part->length; i++) {
        const float expected = (float)scale * tree(0, sum->lanes, part->begin + i);
        assert_memory_equal(&got[i], &expected, sizeof expected);
    }
}

static void check_parts(int lanes, bool large) {
    bcop_lane_part part[PARTS_MAX];
    long length, messages = 0, bytes = 0;
    const int parts = make_parts(large, part, &length);
    bcop_arena arena = {.name = "test"};
    bcop_lanes sum;
    open_parts(&sum, &arena, lanes, length, parts, part);
    bcop_lanes_count(&sum, &messages, &bytes);
    for (int scale = 1; scale <= 4; scale *= 4) { /* a power of two: exact */
        const bcop_traffic before = bcop_traffic_read();
        bcop_lanes_start(&sum);
        for (int i = 0; i < sum.run.count; i++)
            fold_lane(&sum, sum.run.first + i, scale);
        for (int k = 0; k < parts; k++)
            bcop_lanes_reduce(&sum, k);
        for (int k = 0; k < parts; k++)
            check_part(&sum, k, scale, bcop_lanes_receive(&sum, k));
        const bcop_traffic after = bcop_traffic_read();
        assert_int_equal(after.messages[BCOP_TRAFFIC_OTHER] - before.messages[BCOP_TRAFFIC_OTHER],
                         messages);
        assert_int_equal(after.bytes[BCOP_TRAFFIC_OTHER] - before.bytes[BCOP_TRAFFIC_OTHER], bytes);
    }
    bcop_arena_free(&arena);
}

static void test_parts(void **state) {
    (void)state;
    check_parts(8, true);
    check_parts(32, false);
}

/* Bytes of all ranks for one part, from what each counts. */
static long all_bytes(int ranks, int lanes, long length, int root) {
    const bcop_lane_part part = {0, length, root};
    long messages = 0, bytes = 0;
    for (int r = 0; r < ranks; r++) {
        const bcop_comm one = bcop_comm_imagined(r, ranks);
        bcop_arena arena = {.name = "test"};
        bcop_lanes sum;
        bcop_lanes_plan_parts(&sum, &one, lanes, length, 1, &part, &arena);
        bcop_lanes_count(&sum, &messages, &bytes);
    }
    return bytes;
}

static void test_bytes_of_all_ranks(void **state) {
    (void)state;
    const long length = 1001, size = sizeof(float);
    for (int root = 0; root < 2; root++) /* half of the other rank's, and nothing back */
        assert_int_equal(all_bytes(2, 16, length, root), length * size);
    assert_int_equal(all_bytes(1, 16, length, 0), 0);
    for (int ranks = 1; ranks <= 16; ranks *= 2) {
        /* a plain all-reduce */
        assert_int_equal(all_bytes(ranks, 16, length, BCOP_LANE_EVERY),
                         2 * (ranks - 1) * length * size);
        /* all but the own slice of everyone's node, and all slices but the root's to it */
        for (int root = 0; ranks > 2 && root < ranks; root++) {
            const long slice = length * (root + 1) / ranks - length * root / ranks;
            assert_int_equal(all_bytes(ranks, 16, length, root),
                             ((ranks - 1) * length + length - slice) * size);
        }
    }
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
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_bytes_of_all_ranks),
        cmocka_unit_test(test_tree_is_not_a_plain_sum),
        cmocka_unit_test(test_runs_cover),
        cmocka_unit_test(test_agree),
        cmocka_unit_test(test_merge),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bcop_comm_close(&comm);
    return failed;
}
