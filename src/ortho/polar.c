#include "ortho/polar.h"

#include "linalg/product.h"
#include "ortho/symmetric.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

const double *bcop_polar_quintic(int i) {
    static const double list[][3] = {{3.855531393, -9.552448559, 6.696917166},
                                     {2.914029374, -4.367376162, 2.453346789},
                                     {1.996625115, -1.505371236, 0.508746121},
                                     {1.875, -1.25, 0.375}};
    enum { LAST = sizeof list / sizeof *list - 1 };
    return list[i < LAST ? i : LAST];
}

/* ---- in panels: Z on the small matrices, F = M Z ---- */

typedef struct small {
    int cols;
    float *g, *p, *z, *spare; /* cols x cols */
} small;

static small small_open(const bcop_rows *r, float *scratch) {
    const long square = (long)r->cols * r->cols;
    return (small){r->cols, scratch, scratch + square, scratch + 2 * square, scratch + 3 * square};
}

/* P = a I + b G + c G^2, and Z P; all of G is set. */
static void apply_quintic(small *s, const double q[3], bool first) {
    const int n = s->cols;
    bcop_product_square(n, 1, s->g, 0, s->spare);
    bcop_symmetric_combine(n, q[0], q[1], s->g, q[2], s->spare, s->p);
    bcop_product_mirror(n, s->p);
    if (first) {
        memcpy(s->z, s->p, (size_t)n * (size_t)n * sizeof(float));
        return;
    }
    bcop_product_mirror(n, s->z);
    bcop_product_commuting(n, s->z, s->p, s->spare);
    bcop_symmetric_turn(&s->z, &s->spare);
}

/* G P P, all of it. */
static void next_gram(small *s) {
    const int n = s->cols;
    bcop_product_square(n, 1, s->p, 0, s->spare);
    bcop_product_mirror(n, s->spare);
    bcop_product_commuting(n, s->g, s->spare, s->p);
    bcop_symmetric_turn(&s->g, &s->p);
    bcop_product_mirror(n, s->g);
}

/* Whether a bound on the largest eigenvalue of G is one to divide by. */
static bool is_usable(double largest) {
    return largest > 1e-30 && isfinite(largest);
}

static bool add_in_panels(int iterations, bcop_rows *r, float alpha, const float *m, float *w,
                          float *scratch) {
    const int n = r->cols;
    small s = small_open(r, scratch);
    bcop_rows_gram(r, m, s.g);
    const double largest = bcop_symmetric_largest(n, s.g);
    if (!is_usable(largest))
        return false;
    bcop_symmetric_scale((long)n * n, 1 / largest, s.g);
    for (int i = 0; i < iterations; i++) {
        apply_quintic(&s, bcop_polar_quintic(i), i == 0);
        if (i + 1 < iterations)
            next_gram(&s);
    }
    bcop_symmetric_scale((long)n * n, 1 / sqrt(largest), s.z);
    bcop_rows_symmetric(r, alpha, m, s.z, 1, w);
    return true;
}

/* ---- on a grid: the sums of G's rows in float64, two of M, one of G, and this rank's rows ---- */

static long grid_work(const bcop_rows *r) {
    return ((long)r->cols + 1) * (long)(sizeof(double) / sizeof(float));
}

/* x, once it is scaled, through the quintics; y and gram are other memory. */
static void iterate_on_grid(int iterations, bcop_grid_matrix *x, bcop_grid_matrix *y,
                            bcop_grid_matrix *gram) {
    for (int i = 0; i < iterations; i++) {
        const double *q = bcop_polar_quintic(i);
        if (i > 0)
            bcop_grid_gram(x, gram);
        memcpy(y->data, x->data, (size_t)x->held_rows * (size_t)x->held_cols * sizeof *x->data);
        bcop_grid_multiply((float)q[2], x, gram, (float)q[1], y);
        bcop_grid_multiply(1, y, gram, (float)q[0], x);
    }
}

static bool add_on_grid(int iterations, bcop_rows *r, float alpha, const float *m, float *w,
                        float *scratch) {
    const bcop_grid *grid = r->grid;
    const long size = bcop_grid_floats(grid, r->rows, r->cols);
    double *work = (double *)(void *)scratch, infinity, frobenius;
    float *floats = scratch + grid_work(r);
    bcop_grid_matrix x = bcop_grid_place(grid, r->rows, r->cols, floats);
    bcop_grid_matrix y = bcop_grid_place(grid, r->rows, r->cols, floats + size);
    bcop_grid_matrix gram = bcop_grid_place(grid, r->cols, r->cols, floats + 2 * size);
    float *own = floats + 2 * size + bcop_grid_floats(grid, r->cols, r->cols);
    bcop_grid_spread(m, &x);
    bcop_grid_gram(&x, &gram);
    bcop_grid_norms(&gram, work, &infinity, &frobenius);
    const double largest = isfinite(frobenius) ? fmin(frobenius, infinity) : INFINITY;
    if (!is_usable(largest))
        return false;
    bcop_grid_scale((float)(1 / sqrt(largest)), &x);
    bcop_grid_shift(0, (float)(1 / largest), &gram);
    iterate_on_grid(iterations, &x, &y, &gram);
    bcop_grid_collect(&x, own);
    for (long i = 0; i < (long)r->count * r->cols; i++)
        w[i] += alpha * own[i];
    return true;
}

/* ---- either ---- */

long bcop_polar_scratch(const bcop_rows *r) {
    if (!r->grid)
        return 4L * r->cols * r->cols;
    return grid_work(r) + 2 * bcop_grid_floats(r->grid, r->rows, r->cols) +
           bcop_grid_floats(r->grid, r->cols, r->cols) + (long)r->count * r->cols;
}

int bcop_polar_sums(const bcop_rows *r) {
    return r->grid ? 0 : 1;
}

double bcop_polar_flops(const bcop_rows *r, int iterations) {
    const double square = (double)r->cols * r->cols, wide = r->count * square;
    /* G^2 in each, P P, G P P and Z P between two */
    return r->grid ? 5 * wide * iterations
                   : 3 * wide + (iterations + 3.25 * (iterations - 1)) * square * r->cols;
}

void bcop_polar_add(int iterations, bcop_rows *rows, float alpha, const float *m, float *w,
                    float *scratch) {
    if (rows->cols == 0)
        return;
    const bool done = rows->grid ? add_on_grid(iterations, rows, alpha, m, w, scratch)
                                 : add_in_panels(iterations, rows, alpha, m, w, scratch);
    for (long i = 0; !done && i < (long)rows->count * rows->cols; i++)
        w[i] += alpha * m[i]; /* next to zero there is no direction */
}
