#include "ortho/rows.h"

#include "linalg/product.h"

#include <string.h>

int bcop_rows_panels(int rows) {
    int panels = 1;
    while (panels < BCOP_ROWS_PANELS_MAX && rows / (2 * panels) >= 256)
        panels *= 2;
    return panels;
}

/* The first row of panel p. */
static int panel_row(const bcop_rows *r, int p) {
    return (int)((long)r->rows * p / r->panels);
}

void bcop_rows_plan(bcop_rows *r, const bcop_comm *group, int rows, int cols, bcop_arena *arena) {
    *r = (bcop_rows){.rows = rows, .cols = cols, .panels = bcop_rows_panels(rows)};
    r->run = bcop_lanes_run(r->panels, group->size, group->rank);
    r->first = panel_row(r, r->run.first);
    r->count = panel_row(r, r->run.first + r->run.count) - r->first;
    if (r->panels > 1)
        bcop_lanes_plan(&r->sum, group, r->panels, (long)cols * cols, arena);
    r->squares = bcop_arena_take(arena, r->panels, sizeof(double));
}

long bcop_rows_buffer(const bcop_rows *r) {
    return r->panels > 1 ? bcop_lanes_buffer(&r->sum) : 0;
}

void bcop_rows_attach(bcop_rows *r, float *buffer) {
    if (r->panels > 1)
        bcop_lanes_attach(&r->sum, buffer);
}

/* Where in a rank's own rows panel p begins, in floats, and how many rows it has. */
static long panel_offset(const bcop_rows *r, int p) {
    return (long)(panel_row(r, p) - r->first) * r->cols;
}

static int panel_rows(const bcop_rows *r, int p) {
    return panel_row(r, p + 1) - panel_row(r, p);
}

void bcop_rows_gram(bcop_rows *r, const float *w, float *g) {
    if (r->panels == 1) {
        bcop_product_gram(r->rows, r->cols, w, g);
        return;
    }
    bcop_lanes_start(&r->sum);
    for (int p = r->run.first; p < r->run.first + r->run.count; p++) {
        bcop_product_gram(panel_rows(r, p), r->cols, w + panel_offset(r, p),
                          bcop_lanes_next(&r->sum));
        bcop_lanes_push(&r->sum);
    }
    memcpy(g, bcop_lanes_finish(&r->sum), (size_t)r->cols * (size_t)r->cols * sizeof *g);
}

void bcop_rows_inner(bcop_rows *r, const float *u, const float *x, float *s) {
    const int n = r->cols;
    if (r->panels == 1) {
        bcop_product_tn(n, n, r->rows, 1, u, x, 0, s);
        return;
    }
    bcop_lanes_start(&r->sum);
    for (int p = r->run.first; p < r->run.first + r->run.count; p++) {
        const long at = panel_offset(r, p);
        bcop_product_tn(n, n, panel_rows(r, p), 1, u + at, x + at, 0, bcop_lanes_next(&r->sum));
        bcop_lanes_push(&r->sum);
    }
    memcpy(s, bcop_lanes_finish(&r->sum), (size_t)n * (size_t)n * sizeof *s);
}

void bcop_rows_apply(const bcop_rows *r, float alpha, const float *x, const float *b, float beta,
                     float *y) {
    for (int p = r->run.first; p < r->run.first + r->run.count; p++) {
        const long at = panel_offset(r, p);
        bcop_product_nn(panel_rows(r, p), r->cols, r->cols, alpha, x + at, b, beta, y + at);
    }
}

double bcop_rows_squares(bcop_rows *r, const float *x) {
    memset(r->squares, 0, (size_t)r->panels * sizeof *r->squares);
    for (int p = r->run.first; p < r->run.first + r->run.count; p++) {
        const long end = panel_offset(r, p + 1);
        for (long i = panel_offset(r, p); i < end; i++)
            r->squares[p] += (double)x[i] * (double)x[i];
    }
    if (r->panels > 1 && r->sum.comm->size > 1)
        bcop_comm_merge(r->sum.comm, r->squares, r->panels);
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

void bcop_rows_list(const bcop_rows *r, int sums, int squares, bcop_traffic_visitor v) {
    if (r->panels == 1 || r->sum.comm->size == 1)
        return;
    v.times = sums;
    if (sums > 0)
        bcop_lanes_list(&r->sum, &v);
    v.times = squares;
    if (squares > 0)
        bcop_traffic_tell_group(&v, BCOP_TRAFFIC_REDUCE, r->sum.comm->size,
                                r->panels * (long)sizeof *r->squares);
}
