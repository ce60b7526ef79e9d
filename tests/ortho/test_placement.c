/* run: ranks 1 2 3 4 5 8 */
/* The stage's placements: who holds what, that every placement gives the same bits, that nobody
 * keeps state it does not own, and that a failing block ends all ranks together. */
#include "ortho/optimizer_kinds.h"
#include "ortho/stage.h"

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

enum { COUNT = 11, STEPS = 2 };

static const bcop_bjorck_rule RULE = {.tolerance = 2e-6, .max_iterations = 30};

static const bcop_parameter LAYOUT[COUNT] = {
    {.name = "a/H", .rows = 64, .cols = 33, .orthonormal = true, .bundle = 0},
    {.name = "a/P1", .rows = 64, .cols = 32, .orthonormal = true, .bundle = 0},
    {.name = "a/bias", .rows = 64, .cols = 1, .bundle = 0},
    {.name = "b/W", .rows = 1100, .cols = 60, .orthonormal = true, .factored = true, .bundle = 1},
    {.name = "c/none", .rows = 1, .cols = 0, .orthonormal = true, .bundle = 2},
    {.name = "d/W", .rows = 600, .cols = 220, .orthonormal = true, .bundle = 3},
    {.name = "e/W", .rows = 4200, .cols = 20, .orthonormal = true, .factored = true, .bundle = 4},
    {.name = "f/H", .rows = 200, .cols = 150, .orthonormal = true, .bundle = 5},
    {.name = "f/P1", .rows = 600, .cols = 100, .orthonormal = true, .bundle = 5},
    {.name = "g/one", .rows = 1, .cols = 1, .orthonormal = true, .bundle = 6},
    {.name = "h/bias", .rows = 3, .cols = 1, .bundle = 7},
};

static bcop_comm comm;

typedef struct rig {
    bcop_parameter parameter[COUNT];
    bcop_parameter *pointer[COUNT];
    void *options;
    bcop_arena arena;
    bcop_stage stage;
} rig;

static void rig_open(rig *r, const bcop_comm *on, const bcop_optimizer_kind *kind,
                     bcop_placement placement, double share_above) {
    *r = (rig){.arena = {.name = "test"}};
    for (int i = 0; i < COUNT; i++) {
        r->parameter[i] = LAYOUT[i];
        r->pointer[i] = &r->parameter[i];
    }
    r->options = calloc(1, kind->options_size);
    assert_non_null(r->options);
    bcop_option_default((bcop_options){kind->options, r->options});
    const bcop_stage_rule rule = {.bjorck = RULE,
                                  .optimizer = kind,
                                  .optimizer_options = r->options,
                                  .placement = {.wanted = placement, .share_above = share_above}};
    assert_int_equal(bcop_stage_open(&r->stage, on, rule, COUNT, r->pointer), BCOP_OK);
    bcop_stage_plan(&r->stage, &r->arena);
    assert_int_equal(bcop_arena_reserve(&r->arena), BCOP_OK);
    bcop_stage_plan(&r->stage, &r->arena);
    assert_true(r->arena.used <= r->arena.size);
    assert_int_equal(bcop_stage_initialise(&r->stage, 17), BCOP_OK);
}

static void rig_close(rig *r) {
    bcop_stage_close(&r->stage);
    bcop_arena_free(&r->arena);
    free(r->options);
}

/* Gradients where they are to be: whole with those who form them, rows of factored blocks with
   their holders. What the stage is to bring itself is not a number. `bad`: the block that gets a
   NaN. */
static void fill_gradients(rig *r, long step, int bad) {
    for (int i = 0; i < COUNT; i++) {
        const bcop_stage_entry *e = &r->stage.entry[i];
        const bcop_parameter *p = e->parameter;
        const long size = bcop_parameter_size(p);
        const int rank = r->stage.comm->rank, root = bcop_stage_root(&r->stage, i);
        double *g = oracle_doubles(size);
        oracle_random((uint64_t)(1000 * step + i), size, g);
        if (i == bad)
            g[size - 1] = NAN;
        const long at = e->offset ? e->offset[rank] : 0;
        for (long k = 0; k < e->size; k++)
            e->gradient[k] = p->factored ? (float)g[at + k] : NAN;
        for (long k = 0; !p->factored && (root < 0 || root == rank) && k < size; k++)
            p->gradient[k] = (float)g[k];
        free(g);
    }
}

static int run_steps(rig *r, int steps) {
    int iterations = 0, most = 0;
    for (long step = 1; step <= steps; step++) {
        fill_gradients(r, step, -1);
        assert_int_equal(bcop_stage_update(&r->stage, 0.02, 0.01, step, &iterations), BCOP_OK);
        most = iterations > most ? iterations : most;
    }
    return most;
}

static void compare(rig *r, rig *alone) {
    for (int i = 0; i < COUNT; i++) {
        const long size = bcop_parameter_size(&r->parameter[i]);
        if (size == 0)
            continue;
        assert_memory_equal(r->parameter[i].value, alone->parameter[i].value,
                            (size_t)size * sizeof(float));
        const bcop_stage_entry *e = &r->stage.entry[i];
        for (int s = 0; s < e->slots; s++) {
            const long whole = bcop_stage_slot_size(e, s);
            float *collected = calloc((size_t)whole, sizeof *collected);
            assert_non_null(collected);
            bcop_stage_collect(&r->stage, e, s, collected);
            assert_memory_equal(collected, alone->stage.entry[i].state[s],
                                (size_t)whole * sizeof(float));
            free(collected);
        }
    }
}

static void test_same_bits_in_every_placement(void **state) {
    (void)state;
    for (int k = 0; bcop_optimizer_kinds[k]; k++) {
        rig alone;
        rig_open(&alone, &bcop_comm_alone, bcop_optimizer_kinds[k], BCOP_PLACEMENT_AUTO, 0);
        const int most = run_steps(&alone, STEPS);
        for (int placement = BCOP_PLACEMENT_AUTO; placement <= BCOP_PLACEMENT_SHARED; placement++)
            for (int mixed = 0; mixed < (placement == BCOP_PLACEMENT_AUTO ? 2 : 1); mixed++) {
                rig r;
                rig_open(&r, &comm, bcop_optimizer_kinds[k], (bcop_placement)placement,
                         mixed ? 2e7 : 0);
                assert_int_equal(run_steps(&r, STEPS), most);
                compare(&r, &alone);
                rig_close(&r);
            }
        rig_close(&alone);
    }
}

/* On the grid sums are formed in another order: near, but not the same. */
static void test_grid_is_near(void **state) {
    (void)state;
    for (int k = 0; bcop_optimizer_kinds[k]; k++) {
        if (bcop_optimizer_kinds[k] == &bcop_optimizer_adam)
            continue; /* divides by the gradient's size, entry by entry: small ones amplify */
        rig alone, r;
        rig_open(&alone, &bcop_comm_alone, bcop_optimizer_kinds[k], BCOP_PLACEMENT_AUTO, 0);
        rig_open(&r, &comm, bcop_optimizer_kinds[k], BCOP_PLACEMENT_GRID, 0);
        const int most = run_steps(&alone, STEPS);
        assert_in_range(run_steps(&r, STEPS), most - 1, most + 1);
        for (int i = 0; i < COUNT; i++) {
            const long size = bcop_parameter_size(&LAYOUT[i]);
            if (comm.size > 1 && LAYOUT[i].orthonormal && size > 0 && LAYOUT[i].bundle != 2)
                assert_int_equal(r.stage.entry[i].placement, BCOP_PLACEMENT_GRID);
            double *expected = oracle_doubles(size);
            oracle_to_double(size, alone.parameter[i].value, expected);
            if (size > 0)
                assert_true(oracle_relative_error(size, expected, r.parameter[i].value) <= 1e-5);
            free(expected);
        }
        rig_close(&alone);
        rig_close(&r);
    }
}

static void test_state_lives_with_its_holders_alone(void **state) {
    (void)state;
    for (int placement = BCOP_PLACEMENT_AUTO; placement <= BCOP_PLACEMENT_GRID; placement++) {
        rig r;
        rig_open(&r, &comm, bcop_optimizer_kinds[0], (bcop_placement)placement, 0);
        for (int i = 0; i < COUNT; i++) {
            const bcop_stage_entry *e = &r.stage.entry[i];
            const long whole = bcop_parameter_size(e->parameter);
            double held = (double)e->size;
            double sizes[8] = {0};
            sizes[comm.rank] = held;
            bcop_comm_merge(&comm, sizes, 8);
            double sum = 0;
            for (int n = 0; n < comm.size; n++)
                sum += sizes[n];
            if (e->placement == BCOP_PLACEMENT_REPLICATED) {
                assert_true(held == (double)whole);
                continue;
            }
            assert_true(comm.size > 1 && sum == (double)whole); /* each row once */
            if (e->placement == BCOP_PLACEMENT_OWNED)
                assert_true((e->owner == comm.rank) == (held > 0));
        }
        rig_close(&r);
    }
}

static void test_choice(void **state) {
    (void)state;
    bcop_parameter block[8];
    bcop_parameter *pointer[8];
    bcop_placement_choice place[8];
    const bcop_placement_rule automatic = {.wanted = BCOP_PLACEMENT_AUTO};
    for (int i = 0; i < 8; i++) {
        block[i] = (bcop_parameter){.rows = 256, .cols = 256, .orthonormal = true, .bundle = i};
        pointer[i] = &block[i];
    }
    /* equal blocks: as many to each rank */
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        int held[8] = {0};
        bcop_placement_choose(&automatic, ranks, 8, pointer, place);
        for (int i = 0; i < 8; i++) {
            assert_int_equal(place[i].placement, BCOP_PLACEMENT_OWNED);
            held[place[i].owner]++;
        }
        for (int r = 0; r < ranks; r++)
            assert_int_equal(held[r], 8 / ranks);
    }
    /* Longest processing time first, on tall blocks, whose cost grows with their rows: 700 to rank
       0, 600 to 1, 500 to 1 (600 < 700), 400 to 0, then 350 to 0 or 1, whichever has less. */
    const int rows[5] = {600, 700, 400, 500, 350};
    for (int i = 0; i < 5; i++)
        block[i] = (bcop_parameter){.rows = rows[i], .cols = 100, .orthonormal = true, .bundle = i};
    const bcop_placement_rule owned = {.wanted = BCOP_PLACEMENT_OWNED};
    bcop_placement_choose(&owned, 2, 5, pointer, place);
    const int owner[5] = {1, 0, 0, 1, 0};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(place[i].placement, BCOP_PLACEMENT_OWNED);
        assert_int_equal(place[i].owner, owner[i]);
    }
    /* a shared block is load too: it stands on the first two of four ranks, the owned ones on the
       others */
    block[0] = (bcop_parameter){.rows = 512, .cols = 512, .orthonormal = true, .bundle = 0};
    for (int i = 1; i < 3; i++)
        block[i] = (bcop_parameter){.rows = 250, .cols = 250, .orthonormal = true, .bundle = i};
    bcop_placement_choose(&automatic, 4, 3, pointer, place);
    assert_int_equal(place[0].placement, BCOP_PLACEMENT_SHARED);
    assert_int_equal(place[1].placement, BCOP_PLACEMENT_OWNED);
    assert_int_equal(place[1].owner, 2);
    assert_int_equal(place[2].owner, 3);
    /* one block that outweighs the rest is shared; tiny ones and biases stay everywhere */
    block[0] = (bcop_parameter){.rows = 2048, .cols = 512, .orthonormal = true, .bundle = 0};
    block[1] = (bcop_parameter){.rows = 16, .cols = 8, .orthonormal = true, .bundle = 1};
    block[2] = (bcop_parameter){.rows = 512, .cols = 1, .bundle = 2};
    bcop_placement_choose(&automatic, 4, 3, pointer, place);
    assert_int_equal(place[0].placement, BCOP_PLACEMENT_SHARED);
    assert_int_equal(place[1].placement, BCOP_PLACEMENT_REPLICATED);
    assert_int_equal(place[2].placement, BCOP_PLACEMENT_REPLICATED);
    /* three equal blocks on two ranks: dealt out, one rank has two of them; with one shared both
       have one and a half, and sharing more gains nothing */
    for (int i = 0; i < 3; i++)
        block[i] = (bcop_parameter){.rows = 512, .cols = 400, .orthonormal = true, .bundle = i};
    bcop_placement_choose(&automatic, 2, 3, pointer, place);
    int shared = 0;
    for (int i = 0; i < 3; i++)
        shared += place[i].placement == BCOP_PLACEMENT_SHARED;
    assert_int_equal(shared, 1);
    /* two blocks of two panels on four ranks: each over a pair of its own */
    bcop_placement_choose(&automatic, 4, 2, pointer, place);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(place[i].placement, BCOP_PLACEMENT_SHARED);
        assert_int_equal(place[i].first, 2 * i);
    }
    /* of a tall block one rank works on the small matrices, and the other owns the square one: had
       that been shared as well, the busiest rank would have 2% less to do */
    block[0] =
        (bcop_parameter){.rows = 4096, .cols = 512, .orthonormal = true, .depth = 128, .bundle = 0};
    block[1] =
        (bcop_parameter){.rows = 512, .cols = 512, .orthonormal = true, .depth = 128, .bundle = 1};
    bcop_placement_choose(&automatic, 2, 2, pointer, place);
    assert_int_equal(place[0].placement, BCOP_PLACEMENT_SHARED);
    assert_int_equal(place[0].root, 0);
    assert_int_equal(place[1].placement, BCOP_PLACEMENT_OWNED);
    assert_int_equal(place[1].owner, 1);
    /* and of two tall ones each rank has one's */
    const bcop_placement_rule sharing = {.wanted = BCOP_PLACEMENT_SHARED};
    block[1].rows = 4096;
    bcop_placement_choose(&sharing, 2, 2, pointer, place);
    assert_int_equal(place[0].root, 0);
    assert_int_equal(place[1].root, 1);
    bcop_placement_choose(&automatic, 1, 3, pointer, place);
    for (int i = 0; i < 3; i++)
        assert_int_equal(place[i].placement, BCOP_PLACEMENT_REPLICATED);
}

/* A bundle has one owner, its plain parameters too; a block of it that is shared gets its rows from
   the owner. */
static void test_bundles_stay_together(void **state) {
    (void)state;
    bcop_parameter p[5] = {
        {.rows = 256, .cols = 256, .orthonormal = true, .bundle = 0},
        {.rows = 256, .cols = 1, .bundle = 0},
        {.rows = 256, .cols = 200, .orthonormal = true, .bundle = 1},
        {.rows = 600, .cols = 600, .orthonormal = true, .bundle = 1},
        {.rows = 256, .cols = 1, .bundle = 2},
    };
    bcop_parameter *pointer[5] = {&p[0], &p[1], &p[2], &p[3], &p[4]};
    bcop_placement_choice place[5];
    const bcop_placement_rule automatic = {.wanted = BCOP_PLACEMENT_AUTO};
    bcop_placement_choose(&automatic, 2, 5, pointer, place);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(place[i].placement, BCOP_PLACEMENT_OWNED);
        assert_int_equal(place[i].owner, 0); /* the costlier of the two that are not shared */
        assert_int_equal(place[2 + i].owner, 1);
    }
    assert_int_equal(place[2].placement, BCOP_PLACEMENT_OWNED);
    assert_int_equal(place[3].placement, BCOP_PLACEMENT_SHARED);
    assert_int_equal(place[4].placement, BCOP_PLACEMENT_REPLICATED);
}

/* What bcop_stage_count says is what an update hands to MPI. */
static void test_counted_traffic(void **state) {
    (void)state;
    for (int k = 0; bcop_optimizer_kinds[k]; k++)
        for (int placement = BCOP_PLACEMENT_AUTO; placement <= BCOP_PLACEMENT_SHARED; placement++) {
            rig r;
            rig_open(&r, &comm, bcop_optimizer_kinds[k], (bcop_placement)placement, 0);
            fill_gradients(&r, 1, -1);
            const bcop_traffic before = bcop_traffic_read();
            int iterations;
            /* so small that no block needs a second iteration */
            assert_int_equal(bcop_stage_update(&r.stage, 1e-6, 0.01, 1, &iterations), BCOP_OK);
            assert_true(iterations <= 1);
            const bcop_traffic after = bcop_traffic_read();
            bcop_traffic expected = {0};
            bcop_stage_count(&r.stage, 1, &expected);
            for (int kind = 0; kind < BCOP_TRAFFIC_KINDS; kind++) {
                assert_int_equal(after.messages[kind] - before.messages[kind],
                                 expected.messages[kind]);
                assert_int_equal(after.bytes[kind] - before.bytes[kind], expected.bytes[kind]);
            }
            bool shares = false;
            for (int i = 0; i < COUNT; i++)
                shares |= r.stage.entry[i].placement == BCOP_PLACEMENT_SHARED &&
                          r.stage.entry[i].size > 0;
            assert_true((expected.bytes[BCOP_TRAFFIC_SUMS] > 0) == shares);
            if (placement == BCOP_PLACEMENT_SHARED) /* e/W has a panel for each of eight ranks */
                assert_true(shares == (comm.size > 1));
            rig_close(&r);
        }
}

static void test_one_bad_block_ends_all_ranks(void **state) {
    (void)state;
    for (int placement = BCOP_PLACEMENT_REPLICATED; placement <= BCOP_PLACEMENT_GRID; placement++)
        for (int i = 0; i < COUNT; i++) {
            if (!LAYOUT[i].orthonormal || LAYOUT[i].cols == 0)
                continue;
            rig r;
            rig_open(&r, &comm, bcop_optimizer_kinds[2], (bcop_placement)placement, 0);
            fill_gradients(&r, 1, i);
            int iterations;
            assert_int_equal(bcop_stage_update(&r.stage, 0.02, 0.01, 1, &iterations),
                             BCOP_DIVERGED);
            assert_non_null(strstr(bcop_status_message(), LAYOUT[i].name));
            assert_int_equal(bcop_traffic_label(BCOP_TRAFFIC_OTHER), BCOP_TRAFFIC_OTHER);
            rig_close(&r);
        }
}

static void test_the_first_bad_block_is_named(void **state) {
    (void)state;
    rig r;
    rig_open(&r, &comm, bcop_optimizer_kinds[2], BCOP_PLACEMENT_REPLICATED, 0);
    fill_gradients(&r, 1, -1);
    r.parameter[1].gradient[0] = r.parameter[6].gradient[0] = NAN;
    int iterations;
    assert_int_equal(bcop_stage_update(&r.stage, 0.02, 0.01, 1, &iterations), BCOP_DIVERGED);
    assert_non_null(strstr(bcop_status_message(), LAYOUT[1].name));
    rig_close(&r);
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_in_every_placement),
        cmocka_unit_test(test_grid_is_near),
        cmocka_unit_test(test_state_lives_with_its_holders_alone),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_bundles_stay_together),
        cmocka_unit_test(test_counted_traffic),
        cmocka_unit_test(test_one_bad_block_ends_all_ranks),
        cmocka_unit_test(test_the_first_bad_block_is_named),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bcop_comm_close(&comm);
    return failed;
}
