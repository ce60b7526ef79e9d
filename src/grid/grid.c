#include "grid/grid.h"

#include <math.h>
#include <string.h>

/* ScaLAPACK has no header. */
extern int Csys2blacs_handle(MPI_Comm comm);
extern void Cfree_blacs_system_handle(int handle);
extern void Cblacs_gridinit(int *context, const char *order, int rows, int cols);
extern void Cblacs_gridexit(int context);
extern void Cpsgemr2d(int m, int n, const float *a, int ia, int ja, const int *desca, float *b,
                      int ib, int jb, const int *descb, int context);
extern void pssyrk_(const char *uplo, const char *trans, const int *n, const int *k,
                    const float *alpha, const float *a, const int *ia, const int *ja,
                    const int *desca, const float *beta, float *c, const int *ic, const int *jc,
                    const int *descc);
extern void pssyr2k_(const char *uplo, const char *trans, const int *n, const int *k,
                     const float *alpha, const float *a, const int *ia, const int *ja,
                     const int *desca, const float *b, const int *ib, const int *jb,
                     const int *descb, const float *beta, float *c, const int *ic, const int *jc,
                     const int *descc);
extern void pssymm_(const char *side, const char *uplo, const int *m, const int *n,
                    const float *alpha, const float *a, const int *ia, const int *ja,
                    const int *desca, const float *b, const int *ib, const int *jb,
                    const int *descb, const float *beta, float *c, const int *ic, const int *jc,
                    const int *descc);

/* Replaces PBLAS's own answer of 32 to how wide its panels are. Programs are linked so that shared
   libraries see it (ENABLE_EXPORTS). More than a block made PSSYRK nearly twice slower. */
int pilaenv_(const int *context, const char *precision);
int pilaenv_(const int *context, const char *precision) {
    (void)context, (void)precision;
    return BCOP_GRID_BLOCK;
}

static const int ONE = 1;

typedef struct descriptor {
    int field[9];
} descriptor;

/* ---- the grid ---- */

static int smaller(int a, int b) {
    return a < b ? a : b;
}

/* How many of n rows or columns, dealt in blocks over `places`, are at `place`. */
static int held(int n, int place, int places) {
    const int whole = n / BCOP_GRID_BLOCK, extra = whole % places;
    const int blocks = whole / places + (place < extra);
    return blocks * BCOP_GRID_BLOCK + (place == extra ? n % BCOP_GRID_BLOCK : 0);
}

/* Where in the whole the i-th row or column at `place` is. */
static int whole_index(int i, int place, int places) {
    return (i / BCOP_GRID_BLOCK * places + place) * BCOP_GRID_BLOCK + i % BCOP_GRID_BLOCK;
}

bcop_status bcop_grid_open(bcop_grid *grid, const bcop_comm *comm, int process_rows) {
    int rows = process_rows;
    if (rows == 0)
        for (int r = 1; (long)r * r <= comm->size; r++)
            if (comm->size % r == 0)
                rows = r;
    *grid = (bcop_grid){.handle = -1, .context = -1, .line = -1};
    if (rows < 1 || comm->size % rows != 0)
        return bcop_status_fail(BCOP_CONFIG, "a grid of %d process rows does not fit %d ranks",
                                process_rows, comm->size);
    const int cols = comm->size / rows;
    *grid = (bcop_grid){.comm = comm,
                        .rows = rows,
                        .cols = cols,
                        .row = comm->rank / cols,
                        .col = comm->rank % cols,
                        .handle = -1};
    if (comm->handle == MPI_COMM_NULL)
        return BCOP_OK;
    grid->handle = grid->context = grid->line = Csys2blacs_handle(comm->handle);
    Cblacs_gridinit(&grid->context, "Row", rows, cols);
    Cblacs_gridinit(&grid->line, "Row", 1, comm->size);
    return BCOP_OK;
}

void bcop_grid_close(bcop_grid *grid) {
    if (grid->comm && grid->handle >= 0) {
        Cblacs_gridexit(grid->line);
        Cblacs_gridexit(grid->context);
        Cfree_blacs_system_handle(grid->handle);
    }
    *grid = (bcop_grid){.comm = NULL};
}

/* ---- matrices ---- */

static int line_block(const bcop_grid *grid, int rows) {
    const int ranks = grid->comm->size;
    return rows / ranks + (rows % ranks != 0);
}

int bcop_grid_first_row(const bcop_grid *grid, int rows, int rank) {
    const long row = (long)line_block(grid, rows) * rank;
    return row < rows ? (int)row : rows;
}

long bcop_grid_floats(const bcop_grid *grid, int rows, int cols) {
    return (long)held(rows, grid->col, grid->cols) * held(cols, grid->row, grid->rows);
}

bcop_grid_matrix bcop_grid_place(const bcop_grid *grid, int rows, int cols, float *data) {
    return (bcop_grid_matrix){.grid = grid,
                              .rows = rows,
                              .cols = cols,
                              .held_rows = held(rows, grid->col, grid->cols),
                              .held_cols = held(cols, grid->row, grid->rows),
                              .data = data};
}

/* Of X^T, column-major. */
static descriptor describe(int context, int m, int n, int mb, int nb, int stride) {
    return (descriptor){{1, context, m, n, mb, nb, 0, 0, stride > 0 ? stride : 1}};
}

static descriptor on_grid(const bcop_grid_matrix *x) {
    return describe(x->grid->context, x->cols, x->rows, BCOP_GRID_BLOCK, BCOP_GRID_BLOCK,
                    x->held_cols);
}

/* Whole rows: one block for each rank of the line. */
static descriptor on_line(const bcop_grid_matrix *x) {
    return describe(x->grid->line, x->cols, x->rows, x->cols, line_block(x->grid, x->rows),
                    x->cols);
}

static bool is_empty(const bcop_grid_matrix *x) {
    return x->rows == 0 || x->cols == 0;
}

void bcop_grid_spread(const float *x, bcop_grid_matrix *to) {
    const descriptor line = on_line(to), grid = on_grid(to);
    if (!is_empty(to))
        Cpsgemr2d(to->cols, to->rows, x, 1, 1, line.field, to->data, 1, 1, grid.field,
                  to->grid->line);
}

void bcop_grid_collect(const bcop_grid_matrix *from, float *x) {
    const descriptor line = on_line(from), grid = on_grid(from);
    if (!is_empty(from))
        Cpsgemr2d(from->cols, from->rows, from->data, 1, 1, grid.field, x, 1, 1, line.field,
                  from->grid->line);
}

/* ---- products ---- */

void bcop_grid_gram(const bcop_grid_matrix *x, bcop_grid_matrix *g) {
    const descriptor wide = on_grid(x), square = on_grid(g);
    const float one = 1, zero = 0;
    if (x->cols > 0)
        pssyrk_("U", "N", &x->cols, &x->rows, &one, x->data, &ONE, &ONE, wide.field, &zero, g->data,
                &ONE, &ONE, square.field);
}

void bcop_grid_inner(const bcop_grid_matrix *u, const bcop_grid_matrix *x, bcop_grid_matrix *s) {
    const descriptor wide = on_grid(u), square = on_grid(s);
    const float half = 0.5f, zero = 0;
    if (u->cols > 0)
        pssyr2k_("U", "N", &u->cols, &u->rows, &half, u->data, &ONE, &ONE, wide.field, x->data,
                 &ONE, &ONE, wide.field, &zero, s->data, &ONE, &ONE, square.field);
}

void bcop_grid_multiply(float alpha, const bcop_grid_matrix *x, const bcop_grid_matrix *s,
                        float beta, bcop_grid_matrix *y) {
    const descriptor wide = on_grid(x), square = on_grid(s);
    if (!is_empty(x))
        pssymm_("L", "U", &x->cols, &x->rows, &alpha, s->data, &ONE, &ONE, square.field, x->data,
                &ONE, &ONE, wide.field, &beta, y->data, &ONE, &ONE, wide.field);
}

/* ---- element by element ---- */

void bcop_grid_scale(float factor, bcop_grid_matrix *x) {
    const long size = (long)x->held_rows * x->held_cols;
    for (long i = 0; i < size; i++)
        x->data[i] *= factor;
}

/* Row j of the symmetric g as held here, up to the diagonal: elements (j, i), i <= j, are the upper
   triangle of its transpose. */
typedef struct triangle_row {
    int index;    /* in the whole */
    int count;    /* columns held that are not beyond the diagonal */
    bool crosses; /* whether the last of them is the diagonal */
    float *data;
} triangle_row;

static triangle_row row_of(const bcop_grid_matrix *g, int j) {
    const bcop_grid *grid = g->grid;
    const int index = whole_index(j, grid->col, grid->cols);
    const int count = smaller(held(index + 1, grid->row, grid->rows), g->held_cols);
    const bool crosses = count > 0 && whole_index(count - 1, grid->row, grid->rows) == index;
    return (triangle_row){index, count, crosses, g->data + (long)j * g->held_cols};
}

void bcop_grid_shift(float diagonal, float factor, bcop_grid_matrix *g) {
    for (int j = 0; j < g->held_rows; j++) {
        const triangle_row row = row_of(g, j);
        for (int i = 0; i < row.count; i++)
            row.data[i] *= factor;
        if (row.crosses)
            row.data[row.count - 1] += diagonal;
    }
}

/* Sums over the ranks that have the same bits on each of them, which MPI_Allreduce does not
   promise. */
static void add_up(const bcop_grid *grid, double *x, int count) {
    if (grid->comm->size == 1)
        return;
    MPI_Reduce(grid->comm->rank == 0 ? MPI_IN_PLACE : x, x, count, MPI_DOUBLE, MPI_SUM, 0,
               grid->comm->handle);
    MPI_Bcast(x, count, MPI_DOUBLE, 0, grid->comm->handle);
}

double bcop_grid_distance(const bcop_grid_matrix *g) {
    double sum = 0;
    for (int j = 0; j < g->held_rows; j++) {
        const triangle_row row = row_of(g, j);
        const int beside = row.count - row.crosses;
        for (int i = 0; i < beside; i++)
            sum += 2 * (double)row.data[i] * (double)row.data[i];
        if (row.crosses) {
            const double d = (double)row.data[beside] - 1;
            sum += d * d;
        }
    }
    add_up(g->grid, &sum, 1);
    return sqrt(sum);
}

void bcop_grid_norms(const bcop_grid_matrix *g, double *work, double *infinity, double *frobenius) {
    const int n = g->cols;
    memset(work, 0, ((size_t)n + 1) * sizeof *work);
    for (int j = 0; j < g->held_rows; j++) {
        const triangle_row row = row_of(g, j);
        for (int i = 0; i < row.count; i++) {
            const double x = fabs((double)row.data[i]);
            const int other = whole_index(i, g->grid->row, g->grid->rows);
            work[row.index] += x;
            if (other != row.index)
                work[other] += x;
            work[n] += (other != row.index ? 2 : 1) * x * x;
        }
    }
    add_up(g->grid, work, n + 1);
    *infinity = 0;
    for (int i = 0; i < n; i++)
        *infinity = work[i] > *infinity || isnan(work[i]) ? work[i] : *infinity;
    *frobenius = sqrt(work[n]);
}
