/* run: ranks 1 2 3 4 */
/* Blocks on a grid of processes: what the ranks have together is what one rank alone gets, to
 * rounding, and they succeed and fail together. */
#include "ortho/bjorck.h"
#include "ortho/polar.h"
#include "ortho/tangent.h"

#include "oracle.h"
#include "whole.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static const bcop_bjorck_rule RULE = {.tolerance = 2e-6, .max_iterations = 30};

/* Fewer rows than ranks, ranks without a block, square, several blocks, tall. */
static const int SHAPES[][2] = {{1, 1},     {3, 2},     {40, 40},  {129, 128},
                                {260, 131}, {257, 257}, {390, 40}, {1000, 30}};

static bcop_comm comm;

static void assert_nowhere(const bcop_grid *g, int wrong, const char *what, int rows, int cols) {
    if (bcop_comm_max(&comm, wrong) > 0)
        fail_msg("%d x %d on %d x %d processes: %s", rows, cols, g->rows, g->cols, what);
}

static void on_grids(void (*check)(const bcop_grid *grid, int rows, int cols)) {
    for (int r = 1; r <= comm.size; r++) {
        if (comm.size % r != 0)
            continue;
        bcop_grid grid;
        assert_int_equal(bcop_grid_open(&grid, &comm, r), BCOP_OK);
        for (int s = 0; s < COUNT(SHAPES); s++)
            check(&grid, SHAPES[s][0], SHAPES[s][1]);
        bcop_grid_close(&grid);
    }
}

/* This rank's rows of a block on the grid. */
typedef struct part {
    bcop_rows rows;
    bcop_arena arena;
    long size; /* floats */
    float *scratch;
    long need; /* of the scratch, with a number behind it */
} part;

static part part_open(const bcop_grid *grid, int rows, int cols) {
    part p = {.arena = {.name = "rows"}};
    bcop_rows_spread(&p.rows, grid, rows, cols, &p.arena);
    assert_int_equal(bcop_arena_reserve(&p.arena), BCOP_OK);
    bcop_rows_spread(&p.rows, grid, rows, cols, &p.arena);
    assert_int_equal(bcop_rows_buffer(&p.rows), 0);
    p.size = (long)p.rows.count * cols;
    const long bjorck = bcop_bjorck_scratch(&p.rows), tangent = bcop_tangent_scratch(&p.rows);
    const long polar = bcop_polar_scratch(&p.rows), most = bjorck > tangent ? bjorck : tangent;
    p.need = polar > most ? polar : most;
    p.scratch = oracle_floats(p.need + 1);
    p.scratch[p.need] = 54321;
    return p;
}

static void part_close(part *p) {
    assert_true(p->scratch[p->need] == 54321);
    free(p->scratch);
    bcop_arena_free(&p->arena);
}

/* Nothing may be written beyond so much of the scratch, and nothing be expected in it. */
static void poison(part *p, long need) {
    for (long i = 0; i < need; i++)
        p->scratch[i] = NAN;
    p->scratch[p->need = need] = 54321;
}

static float *own_rows(const part *p, const float *all) {
    float *own = oracle_floats(p->size);
    memcpy(own, all + (long)p->rows.first * p->rows.cols, (size_t)p->size * sizeof *own);
    return own;
}

/* 1 when this rank's rows are further than 1e-5 of the whole's root mean square from the whole. */
static int differs(const part *p, const float *all, const float *own) {
    const long count = (long)p->rows.rows * p->rows.cols, at = (long)p->rows.first * p->rows.cols;
    double squares = 0, off = 0;
    for (long i = 0; i < count; i++)
        squares += (double)all[i] * (double)all[i];
    for (long i = 0; i < p->size; i++)
        off += pow((double)own[i] - (double)all[at + i], 2);
    return !(sqrt(off) <= 1e-5 * sqrt(squares));
}

/* U plus noise of spectral norm `far`, times `size`. */
static float *near_block(uint64_t seed, int rows, int cols, double far, double size) {
    const long count = (long)rows * cols;
    double *u = oracle_doubles(count), *e = oracle_doubles(count);
    float *w = oracle_floats(count);
    oracle_random_orthonormal(seed, rows, cols, u);
    oracle_random(seed + 1, count, e);
    const double norm = sqrt(rows) + sqrt(cols); /* about that of e */
    for (long i = 0; i < count; i++)
        w[i] = (float)(size * (u[i] + far / norm * e[i]));
    free(u), free(e);
    return w;
}

static void check_retract(const bcop_grid *grid, int rows, int cols) {
    static const double NOISE[] = {0, 1e-3, 0.2, 0.5}, SIZE[] = {1, 1, 1, 30};
    for (int k = 0; k < COUNT(NOISE); k++) {
        float *w = near_block((uint64_t)(10 + k), rows, cols, NOISE[k], SIZE[k]);
        part p = part_open(grid, rows, cols);
        float *own = own_rows(&p, w), *scratch = oracle_floats(whole_bjorck_scratch(rows, cols));
        int here = -1, alone = -1;
        poison(&p, bcop_bjorck_scratch(&p.rows));
        const bcop_status status = bcop_bjorck_retract(RULE, "H", &p.rows, own, p.scratch, &here);
        assert_int_equal(whole_retract(RULE, "H", rows, cols, w, scratch, &alone), BCOP_OK);
        assert_nowhere(grid, status != BCOP_OK, "does not converge", rows, cols);
        /* order 1 alone */
        assert_nowhere(grid, here < alone || here > 3 * alone, "other iterations", rows, cols);
        assert_nowhere(grid, differs(&p, w, own), "another polar factor", rows, cols);
        part_close(&p);
        free(w), free(own), free(scratch);
    }
}

static void check_polar(const bcop_grid *grid, int rows, int cols) {
    static const double SIZE[] = {1, 1e-3, 1e4, 0};
    for (int k = 0; k < COUNT(SIZE); k++) {
        float *m = oracle_random_floats((uint64_t)(30 + k), (long)rows * cols, SIZE[k]);
        part p = part_open(grid, rows, cols);
        float *given = own_rows(&p, m), *own = oracle_floats(p.size);
        float *scratch = oracle_floats(whole_polar_scratch(rows, cols));
        poison(&p, bcop_polar_scratch(&p.rows));
        bcop_polar_add(3, &p.rows, 1, given, own, p.scratch);
        whole_polar(3, rows, cols, m, scratch);
        assert_nowhere(grid, differs(&p, m, own), "another low-accuracy factor", rows, cols);
        part_close(&p);
        free(m), free(given), free(own), free(scratch);
    }
}

static void check_tangent(const bcop_grid *grid, int rows, int cols) {
    float *u = near_block(50, rows, cols, 0, 1),
          *g = oracle_random_floats(52, (long)rows * cols, 3);
    part p = part_open(grid, rows, cols);
    float *own_u = own_rows(&p, u), *own_g = own_rows(&p, g), *before = oracle_floats(p.size);
    float *scratch = oracle_floats(whole_tangent_scratch(rows, cols));
    memcpy(before, own_u, (size_t)p.size * sizeof *before);
    poison(&p, bcop_tangent_scratch(&p.rows));
    bcop_tangent_project(&p.rows, own_u, own_g, p.scratch);
    const double squares = bcop_rows_squares(&p.rows, own_u);
    whole_project(rows, cols, u, g, scratch);
    assert_nowhere(grid, memcmp(before, own_u, (size_t)p.size * sizeof *before) != 0,
                   "the block is changed", rows, cols);
    /* a 1 x 1 block has no tangent direction: rounding is all there is */
    const int tiny = rows == 1 && (p.size == 0 || fabs((double)own_g[0]) <= 1e-5);
    assert_nowhere(grid, !tiny && differs(&p, g, own_g), "another projection", rows, cols);
    assert_nowhere(grid, !(fabs(squares - cols) <= 1e-5 * cols), "squares", rows, cols);
    part_close(&p);
    free(u), free(g), free(own_u), free(own_g), free(before), free(scratch);
}

/* Retracts; 1 unless all ranks agree on the expected failure. */
static int fails_otherwise(const bcop_grid *grid, bcop_bjorck_rule rule, int rows, int cols,
                           const float *w, const char *message) {
    struct {
        int status, iterations;
        char message[240];
    } mine, first;
    memset(&mine, 0, sizeof mine);
    part p = part_open(grid, rows, cols);
    float *own = own_rows(&p, w);
    mine.status =
        (int)bcop_bjorck_retract(rule, "01-dense/W", &p.rows, own, p.scratch, &mine.iterations);
    strncpy(mine.message, bcop_status_message(), sizeof mine.message - 1);
    first = mine;
    bcop_comm_broadcast(&comm, &first, (long)sizeof first, 0);
    part_close(&p);
    free(own);
    return memcmp(&first, &mine, sizeof mine) != 0 || mine.status != (int)BCOP_DIVERGED ||
           !strstr(mine.message, message);
}

static void check_failure(const bcop_grid *grid, int rows, int cols) {
    static const float BAD[] = {NAN, INFINITY};
    const bcop_bjorck_rule hasty = {.tolerance = 2e-6, .max_iterations = 1};
    float *w = near_block(60, rows, cols, 0.5, 1);
    w[0] = 0.5f; /* so that a 1 x 1 block is far, too */
    int wrong = fails_otherwise(grid, hasty, rows, cols, w, "01-dense/W: no convergence in 1 ");
    for (int k = 0; k < 2 * comm.size; k++) { /* in each rank's rows in turn */
        const long at = (long)rows * (k / 2) / comm.size * cols;
        const float was = w[at];
        w[at] = BAD[k % 2];
        wrong += fails_otherwise(grid, RULE, rows, cols, w, "01-dense/W: the block is not finite");
        w[at] = was;
    }
    assert_nowhere(grid, wrong, "the ranks do not fail together", rows, cols);
    free(w);
}

static void check_cover(const bcop_grid *grid, int rows, int cols) {
    part p = part_open(grid, rows, cols);
    const int size = (rows + comm.size - 1) / comm.size;
    assert_int_equal(p.rows.first, comm.rank * size < rows ? comm.rank * size : rows);
    const int end = (comm.rank + 1) * size < rows ? (comm.rank + 1) * size : rows;
    assert_int_equal(p.rows.first + p.rows.count, end);
    /* planned without MPI */
    bcop_grid planned;
    const bcop_comm none = {.handle = MPI_COMM_NULL, .rank = comm.rank, .size = comm.size};
    assert_int_equal(bcop_grid_open(&planned, &none, grid->rows), BCOP_OK);
    bcop_arena arena = {.name = "rows"};
    bcop_rows r;
    bcop_rows_spread(&r, &planned, rows, cols, &arena);
    assert_true(r.first == p.rows.first && r.count == p.rows.count);
    assert_true(bcop_bjorck_scratch(&r) == bcop_bjorck_scratch(&p.rows));
    assert_true(bcop_tangent_scratch(&r) == bcop_tangent_scratch(&p.rows));
    part_close(&p);
}

static void test_bjorck_grid_cover(void **state) {
    (void)state;
    on_grids(check_cover);
}

static void test_bjorck_grid_retract(void **state) {
    (void)state;
    on_grids(check_retract);
}

static void test_bjorck_grid_polar(void **state) {
    (void)state;
    on_grids(check_polar);
}

static void test_bjorck_grid_tangent(void **state) {
    (void)state;
    on_grids(check_tangent);
}

static void test_bjorck_grid_fails_together(void **state) {
    (void)state;
    on_grids(check_failure);
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bjorck_grid_cover),
        cmocka_unit_test(test_bjorck_grid_retract),
        cmocka_unit_test(test_bjorck_grid_polar),
        cmocka_unit_test(test_bjorck_grid_tangent),
        cmocka_unit_test(test_bjorck_grid_fails_together),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bcop_comm_close(&comm);
    return failed;
}
