/* run: ranks 1 2 4 */
/* Block-cyclic matrices against float64 products of the whole, for every shape of the grid and for
 * groups of fewer ranks. */
#include "grid/grid.h"

#include "oracle.h"

#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

enum { B = BCOP_GRID_BLOCK, RANKS_MAX = 4 };

/* Below a block, at it, above it, and with more blocks than processes; in one block some ranks hold
 * nothing. */
static const int SHAPES[][2] = {
    {1, 1},  {5, 3},          {64, 64},    {B - 1, B - 1},    {B, B},
    {2, B},  {B + 1, B - 63}, {B, B + 1},  {2 * B, 2 * B},    {260, 257},
    {40, 0}, {400, 131},      {5 * B, 30}, {3 * B + 1, B + 7}};

static bcop_comm comm;
static bcop_comm groups[RANKS_MAX + 1]; /* [members] */

static const char *first_fault;

/* A fault is told at the end of a check, to the ranks of other groups too: so a test ends on all of
   them. */
static void note(int fault, const char *what) {
    if (fault && !first_fault)
        first_fault = what;
}

static void run_check(void (*check)(const bcop_grid *grid, int rows, int cols),
                      const bcop_grid *grid, int rows, int cols) {
    first_fault = NULL;
    if (grid->comm)
        check(grid, rows, cols);
    if (bcop_comm_max(&comm, first_fault != NULL) > 0)
        fail_msg("%d x %d on %d x %d processes: %s", rows, cols, grid->rows, grid->cols,
                 first_fault ? first_fault : "wrong on another rank");
}

/* Runs a check on every grid of every group. */
static void on_grids(void (*check)(const bcop_grid *grid, int rows, int cols)) {
    for (int members = 1; members <= comm.size; members++)
        for (int r = 1; r <= members; r++) {
            if (members % r != 0)
                continue;
            bcop_grid grid = {.comm = NULL};
            if (groups[members].size > 0) {
                assert_int_equal(bcop_grid_open(&grid, &groups[members], r), BCOP_OK);
                assert_int_equal(grid.rows * grid.cols, members);
            }
            for (int s = 0; s < COUNT(SHAPES); s++)
                run_check(check, &grid, SHAPES[s][0], SHAPES[s][1]);
            bcop_grid_close(&grid);
        }
}

/* A matrix with memory of its own, filled with NaN, and one number behind it. */
static bcop_grid_matrix matrix_open(const bcop_grid *grid, int rows, int cols) {
    const long size = bcop_grid_floats(grid, rows, cols);
    bcop_grid_matrix m = bcop_grid_place(grid, rows, cols, oracle_floats(size + 1));
    assert_int_equal((long)m.held_rows * m.held_cols, size);
    for (long i = 0; i < size; i++)
        m.data[i] = NAN;
    m.data[size] = 54321;
    return m;
}

static int matrix_close(bcop_grid_matrix *m) {
    const int written = m->data[(long)m->held_rows * m->held_cols] != 54321;
    free(m->data);
    return written;
}

/* Rounded to float32, the same on all ranks. */
static double *random_rows(uint64_t seed, int rows, int cols) {
    const long count = (long)rows * cols;
    double *x = oracle_doubles(count);
    oracle_random(seed, count, x);
    for (long i = 0; i < count; i++)
        x[i] = (double)(float)x[i];
    return x;
}

/* This rank's whole rows of x. */
static float *own_rows(const bcop_grid *grid, int rows, int cols, const double *x) {
    const int first = bcop_grid_first_row(grid, rows, grid->comm->rank);
    const long count = (long)(bcop_grid_first_row(grid, rows, grid->comm->rank + 1) - first) * cols;
    float *own = oracle_floats(count);
    oracle_to_float(count, x + (long)first * cols, own);
    return own;
}

static bcop_grid_matrix spread(const bcop_grid *grid, int rows, int cols, const double *x) {
    bcop_grid_matrix m = matrix_open(grid, rows, cols);
    float *own = own_rows(grid, rows, cols, x);
    bcop_grid_spread(own, &m);
    free(own);
    return m;
}

/* The largest difference of what is held from the whole; of the upper triangle alone where asked
   for. Block (I, J) belongs to process column I mod cols and process row J mod rows, and a process
   holds its blocks in order. */
static double difference(const bcop_grid_matrix *m, const double *whole, int upper) {
    const bcop_grid *g = m->grid;
    double worst = 0;
    int at_row = 0;
    for (int i = 0; i < m->rows; i++) {
        if (i / B % g->cols != g->comm->rank % g->cols)
            continue;
        int at_col = 0;
        for (int j = 0; j < m->cols; j++) {
            if (j / B % g->rows != g->comm->rank / g->cols)
                continue;
            /* the upper triangle of the transpose: j <= i */
            const double got = (double)m->data[(long)at_row * m->held_cols + at_col++];
            const double d = fabs(got - whole[(long)i * m->cols + j]);
            if (!(d <= worst) && (!upper || j <= i))
                worst = isnan(d) ? INFINITY : d;
        }
        at_row++;
    }
    return worst;
}

static void check_round_trip(const bcop_grid *grid, int rows, int cols) {
    double *x = random_rows(1, rows, cols);
    bcop_grid_matrix m = spread(grid, rows, cols, x);
    note(difference(&m, x, 0) != 0, "not dealt as documented");
    double held = (double)m.held_rows * m.held_cols, total = 0;
    double parts[RANKS_MAX] = {0};
    parts[grid->comm->rank] = held;
    bcop_comm_merge(grid->comm, parts, grid->comm->size);
    for (int r = 0; r < grid->comm->size; r++)
        total += parts[r];
    assert_true(total == (double)rows * cols);

    float *own = own_rows(grid, rows, cols, x);
    const int rank = grid->comm->rank;
    const long count =
        (long)(bcop_grid_first_row(grid, rows, rank + 1) - bcop_grid_first_row(grid, rows, rank)) *
        cols;
    float *back = oracle_floats(count + 1);
    back[count] = 54321;
    bcop_grid_collect(&m, back);
    const int wrong = memcmp(own, back, (size_t)count * sizeof *own) != 0 || back[count] != 54321;
    note(wrong + matrix_close(&m), "other rows come back");
    free(x), free(own), free(back);
}

/* a^T b, symmetrised */
static double *inner_double(int rows, int cols, const double *a, const double *b) {
    double *at = oracle_doubles((long)rows * cols), *s = oracle_doubles((long)cols * cols);
    oracle_transpose(rows, cols, a, at);
    oracle_multiply(cols, cols, rows, at, b, s);
    for (int i = 0; i < cols; i++)
        for (int j = 0; j < i; j++) {
            double *lower = s + (long)i * cols + j, *upper = s + (long)j * cols + i;
            *lower = *upper = 0.5 * (*lower + *upper);
        }
    free(at);
    return s;
}

static void check_products(const bcop_grid *grid, int rows, int cols) {
    double *u = random_rows(2, rows, cols), *x = random_rows(3, rows, cols);
    double *y = random_rows(4, rows, cols), *us = oracle_doubles((long)rows * cols);
    bcop_grid_matrix gu = spread(grid, rows, cols, u), gx = spread(grid, rows, cols, x);
    bcop_grid_matrix gy = spread(grid, rows, cols, y), s = matrix_open(grid, cols, cols);

    double *expected = inner_double(rows, cols, u, u);
    bcop_grid_gram(&gu, &s);
    note(!(difference(&s, expected, 1) <= 2e-6 * rows), "gram");
    free(expected);

    expected = inner_double(rows, cols, u, x);
    bcop_grid_inner(&gu, &gx, &s);
    note(!(difference(&s, expected, 1) <= 2e-6 * rows), "inner");

    oracle_multiply(rows, cols, cols, x, expected, us);
    for (long i = 0; i < (long)rows * cols; i++)
        y[i] = 0.75 * us[i] - 2 * y[i];
    bcop_grid_multiply(0.75f, &gx, &s, -2, &gy);
    const double allowed = 2e-6 * (1 + oracle_frobenius((long)rows * cols, us));
    note(!(difference(&gy, y, 0) <= allowed), "multiply");
    bcop_grid_multiply(0, &gx, &s, 0.5f, &gy);
    for (long i = 0; i < (long)rows * cols; i++)
        y[i] *= 0.5;
    bcop_grid_scale(3, &gy);
    for (long i = 0; i < (long)rows * cols; i++)
        y[i] *= 3;
    note(!(difference(&gy, y, 0) <= 2 * allowed), "scale");

    const int beyond = matrix_close(&gu) + matrix_close(&gx) + matrix_close(&gy) + matrix_close(&s);
    note(beyond, "written beyond the end");
    free(u), free(x), free(y), free(us), free(expected);
}

/* A symmetric matrix of which only the upper triangle (of the transpose) is there. */
static bcop_grid_matrix triangle(const bcop_grid *grid, int n, double *g) {
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++)
            g[(long)i * n + j] = NAN;
    bcop_grid_matrix m = spread(grid, n, n, g);
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++)
            g[(long)i * n + j] = g[(long)j * n + i];
    return m;
}

static double distance_double(int n, const double *g) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            sum += pow(g[(long)i * n + j] - (i == j), 2);
    return sqrt(sum);
}

static void check_norms(const bcop_grid *grid, int rows, int cols) {
    (void)rows;
    const int n = cols;
    double *g = random_rows(5, n, n), *work = oracle_doubles(n + 2), infinity, frobenius, most = 0;
    bcop_grid_matrix m = triangle(grid, n, g);
    for (int i = 0; i < n; i++) {
        double row = 0;
        for (int j = 0; j < n; j++)
            row += fabs(g[(long)i * n + j]);
        most = fmax(most, row);
    }
    work[n + 1] = 54321;
    bcop_grid_norms(&m, work, &infinity, &frobenius);
    const double norm = oracle_frobenius((long)n * n, g);
    note(!(fabs(infinity - most) <= 1e-12 * most) || work[n + 1] != 54321, "infinity norm");
    note(!(fabs(frobenius - norm) <= 1e-12 * norm), "Frobenius norm");
    const double distance = distance_double(n, g);
    note(!(fabs(bcop_grid_distance(&m) - distance) <= 1e-12 * distance), "distance");

    bcop_grid_shift(1.5f, -0.5f, &m);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            g[(long)i * n + j] = 1.5 * (i == j) - 0.5 * g[(long)i * n + j];
    note(!(difference(&m, g, 1) <= 1e-6), "shift");
    note(matrix_close(&m), "written beyond the end");
    free(g), free(work);
}

/* One bad element on any rank is seen by all, in both norms and in the distance. */
static void check_not_finite(const bcop_grid *grid, int rows, int cols) {
    (void)rows;
    static const double BAD[] = {NAN, INFINITY};
    const int n = cols;
    for (int k = 0; k < 6 && n > 0; k++) {
        double *g = random_rows(6, n, n), *work = oracle_doubles(n + 1), infinity, frobenius;
        const int i = k / 2 == 0 ? 0 : n - 1, j = k / 2 == 2 ? n - 1 : 0;
        g[(long)i * n + j] = BAD[k % 2];
        bcop_grid_matrix m = triangle(grid, n, g);
        bcop_grid_norms(&m, work, &infinity, &frobenius);
        const int wrong =
            isfinite(infinity) || isfinite(frobenius) || isfinite(bcop_grid_distance(&m));
        note(wrong + matrix_close(&m), "a bad element is not seen");
        free(g), free(work);
    }
}

static void test_grid_round_trip(void **state) {
    (void)state;
    on_grids(check_round_trip);
}

static void test_grid_products(void **state) {
    (void)state;
    on_grids(check_products);
}

static void test_grid_norms(void **state) {
    (void)state;
    on_grids(check_norms);
    on_grids(check_not_finite);
}

static void test_grid_shape(void **state) {
    (void)state;
    static const int SQUARE[][2] = {{1, 1}, {2, 1},  {3, 1},  {4, 2},
                                    {6, 2}, {12, 3}, {16, 4}, {7, 1}};
    for (int k = 0; k < COUNT(SQUARE); k++) {
        const bcop_comm planned = {.handle = MPI_COMM_NULL, .size = SQUARE[k][0]};
        bcop_grid grid;
        assert_int_equal(bcop_grid_open(&grid, &planned, 0), BCOP_OK);
        assert_int_equal(grid.rows, SQUARE[k][1]);
        assert_int_equal(grid.rows * grid.cols, planned.size);
        bcop_grid_close(&grid);
    }
}

static void test_grid_does_not_fit(void **state) {
    (void)state;
    const int wrong[] = {comm.size + 1, -1, 3, 2 * comm.size};
    for (int k = 0; k < COUNT(wrong); k++) {
        bcop_grid grid;
        assert_int_equal(bcop_grid_open(&grid, &comm, wrong[k]), BCOP_CONFIG);
        assert_non_null(strstr(bcop_status_message(), "process rows does not fit"));
        bcop_grid_close(&grid);
    }
}

/* Planned for every rank without MPI: the same sizes. */
static void check_planned(const bcop_grid *grid, int rows, int cols) {
    bcop_grid planned;
    const bcop_comm none = {
        .handle = MPI_COMM_NULL, .size = grid->comm->size, .rank = grid->comm->rank};
    assert_int_equal(bcop_grid_open(&planned, &none, grid->rows), BCOP_OK);
    const bcop_grid_matrix a = bcop_grid_place(grid, rows, cols, NULL);
    const bcop_grid_matrix b = bcop_grid_place(&planned, rows, cols, NULL);
    assert_true(a.held_rows == b.held_rows && a.held_cols == b.held_cols);
    assert_true(bcop_grid_floats(&planned, rows, cols) == bcop_grid_floats(grid, rows, cols));
    for (int r = 0; r <= none.size; r++)
        assert_int_equal(bcop_grid_first_row(&planned, rows, r),
                         bcop_grid_first_row(grid, rows, r));
    assert_int_equal(bcop_grid_first_row(&planned, rows, none.size), rows);
    bcop_grid_close(&planned);
}

static void test_grid_planned(void **state) {
    (void)state;
    on_grids(check_planned);
}

/* What libraries get when they ask how wide PBLAS's panels are. */
static void test_grid_panel_width(void **state) {
    (void)state;
    void *found = dlsym(RTLD_DEFAULT, "pilaenv_");
    assert_non_null(found);
    int (*ask)(const int *, const char *);
    memcpy(&ask, &found, sizeof ask);
    const int context = 0;
    assert_int_equal(ask(&context, "S"), BCOP_GRID_BLOCK);
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK || comm.size > RANKS_MAX)
        return 1;
    for (int members = 1; members <= comm.size; members++)
        if (bcop_comm_split(&comm, members, &groups[members]) != BCOP_OK)
            return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grid_shape),      cmocka_unit_test(test_grid_does_not_fit),
        cmocka_unit_test(test_grid_planned),    cmocka_unit_test(test_grid_panel_width),
        cmocka_unit_test(test_grid_round_trip), cmocka_unit_test(test_grid_products),
        cmocka_unit_test(test_grid_norms),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int members = 1; members <= comm.size; members++)
        bcop_comm_release(&groups[members]);
    bcop_comm_close(&comm);
    return failed;
}
