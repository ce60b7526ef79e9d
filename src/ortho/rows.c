#include "ortho/rows.h"

#include "linalg/product.h"

#include <string.h>

int bcop_rows_panels(int rows) {
    int panels = rows >= 512 ? 2 : 1;
    while (panels > 1 && panels < BCOP_ROWS_PANELS_MAX && rows / (2 * panels) >= 512)
        panels *= 2;
    return panels;
}

/* The first row of panel p. */
static int panel_row(const bcop_rows *r, int p) {
    return r->grid ? bcop_grid_first_row(r->grid, r->rows, p)
                   : (int)((long)r->rows * p / r->panels);
}

static void take_run(bcop_rows *r, bcop_arena *arena) {
    r->run = bcop_lanes_run(r->panels, r->group->size, r->group->rank);
    r->first = panel_row(r, r->run.first);
    r->count = panel_row(r, r->run.first + r->run.count) - r->first;
    r->squares = bcop_arena_take(arena, r->panels, sizeof(double));
}

static bool is_summed(const bcop_rows *r) {
    return r->panels > 1 && !r->grid;
}

void bcop_rows_plan(bcop_rows *r, const bcop_comm *group, int root, int rows, int cols,
                    bcop_arena *arena) {
    const long triangle = (long)cols * (cols + 1) / 2;
    *r = (bcop_rows){.group = group,
                     .rows = rows,
                     .cols = cols,
                     .panels = bcop_rows_panels(rows),
                     .root = root,
                     .triangle = {0, triangle, root}};
    take_run(r, arena);
    if (!is_summed(r))
        return;
    bcop_lanes_plan(&r->sum, group, r->panels, triangle, arena);
    bcop_lanes_plan_parts(&r->root_sum, group, r->panels, triangle, 1, &r->triangle, arena);
}

void bcop_rows_spread(bcop_rows *r, const bcop_grid *grid, int rows, int cols, bcop_arena *arena) {
    *r = (bcop_rows){
        .group = grid->comm, .grid = grid, .rows = rows, .cols = cols, .panels = grid->comm->size};
    take_run(r, arena);
}

long bcop_rows_buffer(const bcop_rows *r) {
    if (!is_summed(r))
        return 0;
    const long every = bcop_lanes_buffer(&r->sum), one = bcop_lanes_buffer(&r->root_sum);
    return every > one ? every : one;
}

void bcop_rows_attach(bcop_rows *r, float *buffer) {
    if (!is_summed(r))
        return;
    bcop_lanes_attach(&r->sum, buffer);
    bcop_lanes_attach(&r->root_sum, buffer);
}

/* Where in a rank's own rows panel p begins, in floats, and how many rows it has. */
static long panel_offset(const bcop_rows *r, int p) {
    return (long)(panel_row(r, p) - r->first) * r->cols;
}

static int panel_rows(const bcop_rows *r, int p) {
    return panel_row(r, p + 1) - panel_row(r, p);
}

/* Takes a panel's square, of which the upper triangle counts, into the sum. */
static void push_upper(bcop_lanes *sum, int n, const float *square) {
    float *packed = bcop_lanes_next(sum);
    for (int i = 0; i < n; i++) {
        memcpy(packed, square + (long)i * n + i, (size_t)(n - i) * sizeof *packed);
        packed += n - i;
    }
    bcop_lanes_push(sum);
}

/* The sum, as the upper triangle of a square, where this rank gets it. */
static void finish(bcop_lanes *sum, int n, float *square) {
    const float *packed = bcop_lanes_finish(sum);
    for (int i = 0; packed && i < n; i++) {
        memcpy(square + (long)i * n + i, packed, (size_t)(n - i) * sizeof *packed);
        packed += n - i;
    }
}

static void gram(bcop_rows *r, bcop_lanes *sum, const float *w, float *g) {
    if (r->panels == 1) {
        bcop_product_gram(r->rows, r->cols, w, g);
        return;
    }
    bcop_lanes_start(sum);
    for (int p = r->run.first; p < r->run.first + r->run.count; p++) {
        bcop_product_gram(panel_rows(r, p), r->cols, w + panel_offset(r, p), g);
        push_upper(sum, r->cols, g);
    }
    finish(sum, r->cols, g);
}

void bcop_rows_gram(bcop_rows *r, const float *w, float *g) {
    gram(r, &r->sum, w, g);
}

void bcop_rows_gram_at_root(bcop_rows *r, const float *w, float *g) {
    gram(r, &r->root_sum, w, g);
}

void bcop_rows_inner(bcop_rows *r, const float *u, const float *x, float *s) {
    if (r->panels == 1) {
        bcop_product_inner(r->rows, r->cols, u, x, s);
        return;
    }
    bcop_lanes_start(&r->sum);
    for (int p = r->run.first; p < r->run.first + r->run.count; p++) {
        const long at = panel_offset(r, p);
        bcop_product_inner(panel_rows(r, p), r->cols, u + at, x + at, s);
        push_upper(&r->sum, r->cols, s);
    }
    finish(&r->sum, r->cols, s);
}

void bcop_rows_symmetric(const bcop_rows *r, float alpha, const float *x, const float *s,
                         float beta, float *y) {
    for (int p = r->run.first; p < r->run.first + r->run.count; p++) {
        const long at = panel_offset(r, p);
        bcop_product_symmetric(panel_rows(r, p), r->cols, alpha, x + at, s, beta, y + at);
    }
}

double bcop_rows_squares(bcop_rows *r, const float *x) {
    memset(r->squares, 0, (size_t)r->panels * sizeof *r->squares);
    for (int p = r->run.first; p < r->run.first + r->run.count; p++) {
        const long end = panel_offset(r, p + 1);
        for (long i = panel_offset(r, p); i < end; i++)
            r->squares[p] += (double)x[i] * (double)x[i];
    }
    bcop_comm_merge(r->group, r->squares, r->panels);
    double sum = 0;
    for (int p = 0; p < r->panels; p++)
        sum += r->squares[p];
    return sum;
}

void bcop_rows_outer(const bcop_rows *r, int depth, const float *left, const float *right,
                     float *g) {
    for (int p = r->run.first; p < r->run.first + r->run.count; p++) {
        const int row = panel_row(r, p) - r->first;
        bcop_product_outer(panel_rows(r, p), r->cols, depth, left + row, r->count, right,
                           g + (long)row * r->cols);
    }
}

void bcop_rows_list(const bcop_rows *r, int sums, int at_root, int squares,
                    bcop_traffic_visitor v) {
    if (r->group->size == 1)
        return;
    v.base = r->group->base;
    v.times = sums - at_root;
    if (v.times > 0 && is_summed(r))
        bcop_lanes_list(&r->sum, &v);
    v.times = at_root;
    if (at_root > 0 && is_summed(r))
        bcop_lanes_list(&r->root_sum, &v);
    v.times = squares;
    if (squares > 0)
        bcop_traffic_tell_group(&v, BCOP_TRAFFIC_REDUCE, r->group->size,
                                r->panels * (long)sizeof *r->squares);
}
