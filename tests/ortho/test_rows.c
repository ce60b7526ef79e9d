/* run: ranks 1 2 3 4 5 8 */
/* What is done to a block has the same bits whoever holds which of its rows: every group of ranks
 * against the whole block on one rank, and that against float64 sums. */
#include "ortho/rows.h"

#include "linalg/product.h"
#include "ortho/bjorck.h"
#include "ortho/optimizer.h"
#include "ortho/polar.h"
#include "ortho/tangent.h"

#include "oracle.h"
#include "whole.h"

#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

enum { GROUPS_MAX = 8, WIDE_MAX = 20, SQUARE_MAX = 8, STEPS = 2 };

static const bcop_bjorck_rule RULE = {.tolerance = 2e-6, .max_iterations = 30};

static const int ROWS[] = {3, 300, 512, 1025, 2048, 5000};
static const int COLS[] = {1, 7, 40};
/* Not tall, where Bjorck multiplies the rows in every iteration: 1, 2 and 4 panels; and tall, but
 * not in each part. */
static const int WIDE[][2] = {{40, 40}, {530, 180}, {1030, 350}, {600, 150}};

static bcop_comm comm;
static bcop_comm groups[GROUPS_MAX + 1]; /* [members] */

/* The same on all ranks, so that a test ends on all of them. */
static void assert_nowhere(int wrong, const char *what, int rows, int cols) {
    if (bcop_comm_max(&comm, wrong) > 0)
        fail_msg("%d x %d: %s", rows, cols, what);
}

/* Groups of more ranks than there are or than the block has panels do not occur. */
static int largest_group(int rows) {
    const int panels = bcop_rows_panels(rows);
    return panels < comm.size ? panels : comm.size;
}

/* The block's operands, whole on every rank. */
typedef struct input {
    int rows, cols;
    float *w, *x; /* [rows][cols] */
    float *small; /* [cols][cols] */
} input;

/* w's singular values are about 1 +- sqrt(cols / rows). */
static input input_open(int rows, int cols) {
    const long count = (long)rows * cols;
    const uint64_t seed = (uint64_t)(rows * 1000 + cols);
    return (input){.rows = rows,
                   .cols = cols,
                   .w = oracle_random_floats(seed, count, 1 / sqrt(rows)),
                   .x = oracle_random_floats(seed + 1, count, 1),
                   .small = oracle_random_floats(seed + 2, (long)cols * cols, 1)};
}

static void input_close(input *in) {
    free(in->w), free(in->x), free(in->small);
}

/* All that one rank gets for its rows. */
typedef struct outcome {
    whole block;
    int wides, squares;
    float *wide[WIDE_MAX];     /* [count][cols] */
    float *square[SQUARE_MAX]; /* [cols][cols], the same for all rows */
    double norm;
    bcop_status status;
    int iterations;
} outcome;

static float *add_wide(outcome *o, const float *start) {
    assert_true(o->wides < WIDE_MAX);
    const long size = (long)o->block.rows.count * o->block.rows.cols;
    float *x = o->wide[o->wides++] = oracle_floats(size);
    if (start)
        memcpy(x, start, (size_t)size * sizeof *x);
    return x;
}

static float *add_square(outcome *o) {
    assert_true(o->squares < SQUARE_MAX);
    return o->square[o->squares++] = oracle_floats((long)o->block.rows.cols * o->block.rows.cols);
}

static void outcome_close(outcome *o) {
    for (int i = 0; i < o->wides; i++)
        free(o->wide[i]);
    for (int i = 0; i < o->squares; i++)
        free(o->square[i]);
    whole_close(&o->block);
}

/* A few steps from u with the gradient g; the value and the state are added to the outcome. */
static void run_optimizer(outcome *o, const bcop_optimizer_kind *kind, const float *u,
                          const float *g) {
    bcop_rows *rows = &o->block.rows;
    const long size = (long)rows->count * rows->cols;
    void *options = calloc(1, kind->options_size);
    assert_non_null(options);
    bcop_option_default((bcop_options){kind->options, options});
    float *gradient = oracle_floats(size);
    float *scratch = oracle_floats(kind->scratch ? kind->scratch(rows) : 0);
    float *state[BCOP_SLOTS_MAX];
    bcop_slot slot[BCOP_SLOTS_MAX];
    const int slots = kind->slots(true, slot);
    for (int i = 0; i < slots; i++)
        state[i] = slot[i].single ? add_square(o) : add_wide(o, NULL);
    bcop_step step = {.lr = 0.05,
                      .rows = rows,
                      .size = size,
                      .value = add_wide(o, u),
                      .gradient = gradient,
                      .state = state,
                      .scratch = scratch};
    for (step.step = 1; step.step <= STEPS; step.step++) {
        memcpy(gradient, g, (size_t)size * sizeof *g);
        kind->step(options, &step);
    }
    free(options), free(gradient), free(scratch);
}

/* The functions for blocks: rows >= cols. */
static void run_block(outcome *o, const float *w, const float *x) {
    bcop_rows *rows = &o->block.rows;
    float *scratch = oracle_floats(bcop_bjorck_scratch(rows) + bcop_tangent_scratch(rows) +
                                   bcop_polar_scratch(rows));
    float *u = add_wide(o, w);
    o->status = bcop_bjorck_retract(RULE, "00-conv/blocks/H", rows, u, scratch, &o->iterations);
    float *xi = add_wide(o, x);
    bcop_tangent_project(rows, u, xi, scratch);
    bcop_polar_add(3, rows, 0.5f, x, add_wide(o, w), scratch);
    for (int i = 0; bcop_optimizer_kinds[i]; i++)
        run_optimizer(o, bcop_optimizer_kinds[i], u, xi);
    free(scratch);
}

/* Everything on the rows that this rank holds in the group. Collective over it. */
static outcome run(const bcop_comm *group, const input *in) {
    outcome o = {.wides = 0};
    whole_open_part(&o.block, group, in->rows, in->cols);
    bcop_rows *rows = &o.block.rows;
    const long at = (long)rows->first * rows->cols;
    const float *w = in->w + at, *x = in->x + at;
    bcop_rows_gram(rows, w, add_square(&o));
    bcop_rows_inner(rows, w, x, add_square(&o));
    bcop_rows_symmetric(rows, 0.75f, x, in->small, -2, add_wide(&o, w));
    o.norm = bcop_rows_squares(rows, x);
    if (in->rows >= in->cols)
        run_block(&o, w, x);
    return o;
}

/* Whether a rank's part differs from its rows of all. */
static int differs(const outcome *part, const outcome *all) {
    const bcop_rows *r = &part->block.rows;
    const long at = (long)r->first * r->cols;
    const size_t wide = (size_t)r->count * (size_t)r->cols * sizeof(float);
    const size_t square = (size_t)r->cols * (size_t)r->cols * sizeof(float);
    int wrong = part->wides != all->wides || part->squares != all->squares ||
                memcmp(&part->norm, &all->norm, sizeof part->norm) != 0 ||
                part->status != all->status || part->iterations != all->iterations;
    for (int i = 0; i < part->wides && !wrong; i++)
        wrong = memcmp(part->wide[i], all->wide[i] + at, wide) != 0;
    for (int i = 0; i < part->squares && !wrong; i++)
        wrong = memcmp(part->square[i], all->square[i], square) != 0;
    return wrong;
}

static void check_groups(int rows, int cols) {
    input in = input_open(rows, cols);
    outcome all = run(&bcop_comm_alone, &in);
    assert_nowhere(all.status != BCOP_OK, bcop_status_message(), rows, cols);
    int wrong = 0;
    for (int members = 1; members <= largest_group(rows); members++) {
        if (groups[members].size == 0)
            continue;
        outcome part = run(&groups[members], &in);
        wrong += differs(&part, &all);
        outcome_close(&part);
    }
    assert_nowhere(wrong, "other bits than on one rank", rows, cols);
    outcome_close(&all);
    input_close(&in);
}

static void test_rows_same_bits(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(ROWS); i++)
        for (int j = 0; j < COUNT(COLS); j++)
            check_groups(ROWS[i], COLS[j]);
    for (int i = 0; i < COUNT(WIDE); i++)
        check_groups(WIDE[i][0], WIDE[i][1]);
}

/* So that the comparison above can fail: one product over all rows gives other bits than the tree.
 */
static void test_rows_tree_matters(void **state) {
    (void)state;
    enum { ROWS_HERE = 2048, COLS_HERE = 7 };
    float plain[COLS_HERE * COLS_HERE] = {0}, tree[COLS_HERE * COLS_HERE] = {0};
    input in = input_open(ROWS_HERE, COLS_HERE);
    whole block;
    whole_open(&block, ROWS_HERE, COLS_HERE);
    bcop_rows_gram(&block.rows, in.w, tree);
    bcop_product_gram(ROWS_HERE, COLS_HERE, in.w, plain);
    assert_memory_not_equal(plain, tree, sizeof plain);
    whole_close(&block);
    input_close(&in);
}

/* a^T b */
static void inner_double(int rows, int cols, const float *a, const float *b, double *s) {
    memset(s, 0, (size_t)cols * (size_t)cols * sizeof *s);
    for (long k = 0; k < rows; k++)
        for (int i = 0; i < cols; i++)
            for (int j = 0; j < cols; j++)
                s[(long)i * cols + j] += (double)a[k * cols + i] * (double)b[k * cols + j];
}

static void symmetrise_double(int n, double *s) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            double *lower = s + (long)i * n + j, *upper = s + (long)j * n + i;
            *lower = *upper = 0.5 * (*lower + *upper);
        }
}

/* Of y = alpha x small + beta w, `small` given by its upper triangle. */
static double error_of_product(const input *in, double alpha, double beta, const float *got) {
    const long count = (long)in->rows * in->cols, square = (long)in->cols * in->cols;
    double *x = oracle_doubles(count), *small = oracle_doubles(square), *y = oracle_doubles(count);
    oracle_to_double(count, in->x, x);
    oracle_to_double(square, in->small, small);
    for (int i = 0; i < in->cols; i++)
        for (int j = 0; j < i; j++)
            small[(long)i * in->cols + j] = small[(long)j * in->cols + i];
    oracle_multiply(in->rows, in->cols, in->cols, x, small, y);
    for (long i = 0; i < count; i++)
        y[i] = alpha * y[i] + beta * (double)in->w[i];
    const double error = oracle_relative_error(count, y, got);
    free(x), free(small), free(y);
    return error;
}

/* The whole block against float64; test_rows_same_bits carries it over to the groups. */
static void check_sums(int rows, int cols) {
    const long square = (long)cols * cols, count = (long)rows * cols;
    input in = input_open(rows, cols);
    double *expected = oracle_doubles(square);
    float *got = oracle_floats(square), *y = oracle_floats(count);
    whole block;
    whole_open(&block, rows, cols);

    bcop_rows_gram(&block.rows, in.w, got);
    bcop_product_mirror(cols, got);
    inner_double(rows, cols, in.w, in.w, expected);
    assert_true(oracle_relative_error(square, expected, got) <= 1e-5);

    bcop_rows_inner(&block.rows, in.w, in.x, got);
    bcop_product_mirror(cols, got);
    inner_double(rows, cols, in.w, in.x, expected);
    symmetrise_double(cols, expected);
    assert_true(oracle_relative_error(square, expected, got) <= 1e-5);

    memcpy(y, in.w, (size_t)count * sizeof *y);
    bcop_rows_symmetric(&block.rows, 0.75f, in.x, in.small, -2, y);
    assert_true(error_of_product(&in, 0.75, -2, y) <= 1e-5);

    double squares = 0;
    for (long i = 0; i < count; i++)
        squares += (double)in.x[i] * (double)in.x[i];
    assert_true(fabs(bcop_rows_squares(&block.rows, in.x) - squares) <= 1e-12 * squares);
    whole_close(&block);
    free(expected), free(got), free(y);
    input_close(&in);
}

static void test_rows_sums(void **state) {
    (void)state;
    for (int i = 0; i < COUNT(ROWS); i++)
        for (int j = 0; j < COUNT(COLS); j++)
            check_sums(ROWS[i], COLS[j]);
    for (int i = 0; i < COUNT(WIDE); i++)
        check_sums(WIDE[i][0], WIDE[i][1]);
}

/* Retracts with all ranks of a group; 1 when its ranks do not agree on status, message and
 * iterations, or it is not the expected failure. */
static int fails_otherwise(const bcop_comm *group, bcop_bjorck_rule rule, const input *in,
                           const char *message) {
    struct {
        int status, iterations;
        char message[240];
    } mine, first;
    memset(&mine, 0, sizeof mine);
    whole block;
    whole_open_part(&block, group, in->rows, in->cols);
    const long size = (long)block.rows.count * in->cols;
    float *w = oracle_floats(size), *scratch = oracle_floats(bcop_bjorck_scratch(&block.rows));
    memcpy(w, in->w + (long)block.rows.first * in->cols, (size_t)size * sizeof *w);
    const bcop_status status =
        bcop_bjorck_retract(rule, "01-dense/W", &block.rows, w, scratch, &mine.iterations);
    mine.status = (int)status;
    strncpy(mine.message, bcop_status_message(), sizeof mine.message - 1);
    first = mine;
    bcop_comm_broadcast(group, &first, (long)sizeof first, 0);
    free(w), free(scratch);
    whole_close(&block);
    return memcmp(&first, &mine, sizeof mine) != 0 || status != BCOP_DIVERGED ||
           !strstr(mine.message, message);
}

static void test_rows_retract_fails_together(void **state) {
    (void)state;
    static const int SHAPES[][2] = {{5000, 40}, {1030, 350}};
    static const float BAD[] = {NAN, INFINITY};
    for (int s = 0; s < COUNT(SHAPES); s++) {
        const int rows = SHAPES[s][0], cols = SHAPES[s][1];
        input in = input_open(rows, cols);
        int wrong = 0;
        for (int members = 1; members <= largest_group(rows); members++) {
            const bcop_comm *group = &groups[members];
            if (group->size == 0)
                continue;
            /* one bad element, in each rank's rows in turn: the last of its first row */
            for (int bad = 0; bad < 2 * members; bad++) {
                const int panels = bcop_rows_panels(rows);
                const long row =
                    (long)rows * bcop_lanes_run(panels, members, bad / 2).first / panels;
                float *place = &in.w[row * cols + cols - 1];
                const float was = *place;
                *place = BAD[bad % 2];
                wrong += fails_otherwise(group, RULE, &in, "01-dense/W: the block is not finite");
                *place = was;
            }
            const bcop_bjorck_rule hasty = {.tolerance = 2e-6, .max_iterations = 1};
            wrong += fails_otherwise(group, hasty, &in, "01-dense/W: no convergence in 1 ");
        }
        assert_nowhere(wrong, "a group does not fail together", rows, cols);
        input_close(&in);
    }
}

static void test_rows_panels(void **state) {
    (void)state;
    assert_int_equal(bcop_rows_panels(0), 1);
    for (int rows = 1; rows < 20000; rows++) {
        const int panels = bcop_rows_panels(rows);
        assert_true(panels == 1 || panels == 2 || panels == 4 || panels == 8 || panels == 16);
        assert_true((panels == 1) == (rows < 512));
        assert_true(panels <= 2 || rows >= 512 * panels);
        assert_true(panels == 16 || rows < 1024 * panels); /* as many as possible */
    }
    assert_int_equal(bcop_rows_panels(INT_MAX), 16);
}

/* A group's ranks hold all rows once, and a rank with one panel has at least 256 rows. */
static void test_rows_cover(void **state) {
    (void)state;
    static const int MORE[] = {1,    3,    511,  512,  513,  1023,   1024,
                               1025, 2048, 4095, 4096, 5000, INT_MAX};
    for (int k = 0; k < COUNT(MORE); k++) {
        const int rows = MORE[k], panels = bcop_rows_panels(rows);
        for (int members = 1; members <= panels; members++) {
            long next = 0;
            int panel = 0;
            for (int rank = 0; rank < members; rank++) {
                const bcop_comm group = {.rank = rank, .size = members};
                bcop_arena measuring = {.name = "rows"};
                bcop_rows r;
                bcop_rows_plan(&r, &group, 0, rows, 3, &measuring);
                assert_true(r.rows == rows && r.cols == 3 && r.panels == panels);
                assert_int_equal(r.first, next);
                assert_int_equal(r.run.first, panel);
                assert_true(r.run.count >= 1);
                assert_true(panels == 1 || r.count >= 256L * r.run.count);
                next += r.count;
                panel += r.run.count;
            }
            assert_int_equal(next, rows);
            assert_int_equal(panel, panels);
        }
    }
}

static void test_rows_split(void **state) {
    (void)state;
    for (int members = 1; members <= comm.size; members++) {
        const bcop_comm *group = &groups[members];
        const int base = comm.rank / members * members;
        const int size = base + members <= comm.size ? members : 0;
        int wrong = group->size != size;
        if (group->size > 0) {
            wrong += group->base != base || group->rank != comm.rank - base;
            wrong += bcop_comm_max(group, comm.rank) != base + members - 1;
        }
        assert_nowhere(wrong, "members", members, group->size);
    }
    assert_true(bcop_comm_alone.size == 1 && bcop_comm_alone.rank == 0);
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK || comm.size > GROUPS_MAX)
        return 1;
    for (int members = 1; members <= comm.size; members++)
        if (bcop_comm_agree(&comm, bcop_comm_split(&comm, members, &groups[members])) != BCOP_OK)
            return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_panels),
        cmocka_unit_test(test_rows_cover),
        cmocka_unit_test(test_rows_split),
        cmocka_unit_test(test_rows_sums),
        cmocka_unit_test(test_rows_same_bits),
        cmocka_unit_test(test_rows_tree_matters),
        cmocka_unit_test(test_rows_retract_fails_together),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int members = 1; members <= comm.size; members++)
        bcop_comm_release(&groups[members]);
    bcop_comm_close(&comm);
    return failed;
}
