/* run: ranks 1 2 3 4 5 8 */
/* Columns gathered from ranks' rows against the definition; parts scattered; and communicators that
 * are only imagined, which plan and count what the real ones do and never call MPI. */
#include "base/rng.h"
#include "comm/columns.h"
#include "comm/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { RANKS_MAX = 8, WIDTH_MAX = 40, MATRICES = 2, REPEATS = 4 };

static bcop_comm comm;

typedef struct setting {
    int width, row[RANKS_MAX + 1], first[RANKS_MAX], count[RANKS_MAX];
} setting;

/* A case, the same on every rank: a rank has at most rows_max rows, perhaps none. */
static setting make(uint64_t number, int rows_max) {
    bcop_rng rng = bcop_rng_open(11, BCOP_RNG_TEST, 0, number);
    setting s = {.width = 1 + (int)bcop_rng_below(&rng, WIDTH_MAX)};
    const uint32_t width = (uint32_t)s.width;
    for (int r = 0; r < comm.size; r++) {
        s.row[r + 1] = s.row[r] + (int)bcop_rng_below(&rng, (uint32_t)rows_max + 1);
        const uint32_t kind = bcop_rng_below(&rng, 3); /* none, some, all */
        s.count[r] = kind == 0 ? 0 : s.width;
        if (kind == 1) {
            s.first[r] = (int)bcop_rng_below(&rng, width);
            s.count[r] = 1 + (int)bcop_rng_below(&rng, width - (uint32_t)s.first[r]);
        }
    }
    return s;
}

static float value(int matrix, int repeat, int row, int column) {
    return (float)(((matrix * REPEATS + repeat) * 4000 + row) * WIDTH_MAX + column);
}

static void fill(const setting *s, bcop_columns *c, int matrix, int repeat) {
    const int rows = s->row[comm.rank + 1] - s->row[comm.rank];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < s->width; j++)
            c->own[i * s->width + j] = value(matrix, repeat, s->row[comm.rank] + i, j);
}

static void check(const setting *s, const float *got, int matrix, int repeat) {
    const int count = s->count[comm.rank];
    if (count == 0) {
        assert_null(got);
        return;
    }
    for (int i = 0; i < s->row[comm.size]; i++)
        for (int j = 0; j < count; j++)
            assert_true(got[i * count + j] == value(matrix, repeat, i, s->first[comm.rank] + j));
}

/* Two matrices on their way at once, several times; the second is received first. */
static void check_gathered(const setting s[MATRICES]) {
    bcop_arena arena = {.name = "test"};
    bcop_columns c[MATRICES];
    for (int pass = 0; pass < 2; pass++) {
        for (int m = 0; m < MATRICES; m++)
            bcop_columns_plan(&c[m], &comm, s[m].width, s[m].row, s[m].first, s[m].count, &arena);
        if (pass == 0)
            assert_int_equal(bcop_arena_reserve(&arena), BCOP_OK);
    }
    long messages = 0, bytes = 0;
    for (int m = 0; m < MATRICES; m++)
        bcop_columns_count(&c[m], &messages, &bytes);
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        const bcop_traffic before = bcop_traffic_read();
        for (int m = 0; m < MATRICES; m++) {
            fill(&s[m], &c[m], m, repeat);
            bcop_columns_send(&c[m]);
            bcop_columns_progress(&c[m]);
        }
        for (int m = MATRICES - 1; m >= 0; m--)
            check(&s[m], bcop_columns_receive(&c[m]), m, repeat);
        const bcop_traffic after = bcop_traffic_read();
        assert_int_equal(after.messages[BCOP_TRAFFIC_OTHER] - before.messages[BCOP_TRAFFIC_OTHER],
                         messages);
        assert_int_equal(after.bytes[BCOP_TRAFFIC_OTHER] - before.bytes[BCOP_TRAFFIC_OTHER], bytes);
    }
    bcop_arena_free(&arena);
}

static void test_gathered(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 60; i++) {
        const int rows = i < 50 ? 8 : 400; /* messages that MPI copies at once, and larger ones */
        check_gathered((const setting[MATRICES]){make(2 * i, rows), make(2 * i + 1, rows)});
    }
}

/* Each rank sends its rows' share of what the others want: by hand. */
static void test_bytes_of_all_ranks(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 20; i++) {
        const setting s = make(i, 8);
        double mine[RANKS_MAX] = {0}, sum = 0, expected = 0;
        bcop_arena arena = {.name = "test"};
        bcop_columns c;
        bcop_columns_plan(&c, &comm, s.width, s.row, s.first, s.count, &arena);
        long messages = 0, bytes = 0;
        bcop_columns_count(&c, &messages, &bytes);
        mine[comm.rank] = (double)bytes;
        bcop_comm_merge(&comm, mine, comm.size);
        for (int r = 0; r < comm.size; r++) {
            sum += mine[r];
            expected += 4.0 * s.count[r] * (s.row[comm.size] - (s.row[r + 1] - s.row[r]));
        }
        assert_true(sum == expected);
    }
}

static void test_scattered(void **state) {
    (void)state;
    enum { EMPTY = 1 }; /* a rank that has no part */
    long offset[RANKS_MAX + 1] = {0};
    for (int r = 0; r < comm.size; r++)
        offset[r + 1] = offset[r] + (r == EMPTY ? 0 : 3 + r);
    const long own = offset[comm.rank + 1] - offset[comm.rank];
    for (int root = 0; root < comm.size; root++) {
        float data[RANKS_MAX * 16], mine[16];
        for (int i = 0; i < RANKS_MAX * 16; i++)
            data[i] = (float)(1000 * root + i);
        for (int i = 0; i < 16; i++)
            mine[i] = -1;
        const bcop_traffic before = bcop_traffic_read();
        bcop_comm_scatter_floats(&comm, comm.rank == root ? data : NULL, offset, root, mine);
        const bcop_traffic after = bcop_traffic_read();
        for (int i = 0; i < 16; i++) {
            const bool given = comm.rank != root && i < own;
            assert_true(mine[i] == (given ? (float)(1000 * root + offset[comm.rank] + i) : -1.0f));
        }
        const long others = offset[comm.size] - own;
        assert_int_equal(after.bytes[BCOP_TRAFFIC_OTHER] - before.bytes[BCOP_TRAFFIC_OTHER],
                         comm.rank == root ? others * (long)sizeof(float) : 0);
    }
}

/* ---- imagined communicators ---- */

/* Runs before MPI has started: a call of it would end the program. */
static void test_imagined_never_calls_mpi(void **state) {
    (void)state;
    const int size = 5;
    for (int rank = 0; rank < size; rank++) {
        const bcop_comm c = bcop_comm_imagined(rank, size);
        assert_int_equal(c.rank, rank);
        assert_int_equal(c.size, size);
        const bcop_traffic before = bcop_traffic_read();
        const long offset[] = {0, 1, 2, 3, 4, 5};
        double number[2] = {rank, 7};
        float part[5] = {0, 1, 2, 3, 4}, mine = -1;
        int word = rank;
        assert_int_equal(bcop_comm_agree(&c, BCOP_OK), BCOP_OK);
        assert_int_equal(bcop_comm_same(&c, &word, sizeof word, "word"), BCOP_OK);
        bcop_comm_broadcast(&c, &word, sizeof word, 0);
        bcop_comm_merge(&c, number, 2);
        bcop_comm_gather_floats(&c, part, offset);
        bcop_comm_scatter_floats(&c, part, offset, 0, &mine);
        assert_true(bcop_comm_max(&c, rank) == rank);
        assert_true(word == rank && number[0] == rank && number[1] == 7 && mine == -1);
        for (int i = 0; i < 5; i++)
            assert_true(part[i] == (float)i);
        for (int members = 1; members <= size + 1; members++) {
            bcop_comm group;
            assert_int_equal(bcop_comm_split(&c, members, &group), BCOP_OK);
            const int expected = members < size ? members : size, base = rank / expected * expected;
            assert_int_equal(group.size, base + expected <= size ? expected : 0);
            if (group.size > 0)
                assert_true(group.rank == rank - base && group.base == base);
            bcop_comm_release(&group);
            assert_int_equal(group.size, 0);
        }
        const bcop_traffic after = bcop_traffic_read();
        assert_memory_equal(&before, &after, sizeof after);
    }
}

static void test_groups(void **state) {
    (void)state;
    for (int members = 1; members <= comm.size + 1; members++) {
        const bcop_comm imagined = bcop_comm_imagined(comm.rank, comm.size);
        bcop_comm group, same;
        assert_int_equal(bcop_comm_split(&comm, members, &group), BCOP_OK);
        assert_int_equal(bcop_comm_split(&imagined, members, &same), BCOP_OK);
        assert_int_equal(group.size, same.size);
        assert_int_equal(group.rank, same.rank);
        if (group.size > 0)
            assert_true(bcop_comm_max(&group, group.rank) == group.size - 1);
        bcop_comm_release(&group);
        bcop_comm_release(&same);
    }
}

/* What planning says, in numbers. */
typedef struct plan {
    size_t memory;
    long buffer, messages, bytes;
} plan;

static plan make_plan(const bcop_comm *on, const setting *s) {
    plan p = {0};
    bcop_arena arena = {.name = "test"};
    bcop_columns c;
    bcop_lanes sum;
    const bcop_lane_part part[] = {{0, 101, BCOP_LANE_EVERY}, {101, 44, on->size - 1}};
    bcop_columns_plan(&c, on, s->width, s->row, s->first, s->count, &arena);
    bcop_columns_count(&c, &p.messages, &p.bytes);
    bcop_lanes_plan_parts(&sum, on, 16, 145, 2, part, &arena);
    bcop_lanes_count(&sum, &p.messages, &p.bytes);
    p.buffer = bcop_lanes_buffer(&sum);
    p.memory = arena.used;
    return p;
}

static void test_imagined_plans_are_the_real_ones(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 10; i++) {
        const setting s = make(i, 8);
        const bcop_comm imagined = bcop_comm_imagined(comm.rank, comm.size);
        const plan real = make_plan(&comm, &s), same = make_plan(&imagined, &s);
        assert_memory_equal(&real, &same, sizeof real);
    }
}

int main(void) {
    const struct CMUnitTest without_mpi[] = {cmocka_unit_test(test_imagined_never_calls_mpi)};
    int failed = cmocka_run_group_tests(without_mpi, NULL, NULL);
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gathered),
        cmocka_unit_test(test_bytes_of_all_ranks),
        cmocka_unit_test(test_scattered),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_imagined_plans_are_the_real_ones),
    };
    failed += cmocka_run_group_tests(tests, NULL, NULL);
    bcop_comm_close(&comm);
    return failed;
}
