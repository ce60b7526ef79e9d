#include "ortho/bjorck.h"

#include "linalg/product.h"
#include "ortho/symmetric.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* One block being iterated. Q = I - G, G = W^T W. */
typedef struct iterate {
    const struct method *method;
    bcop_rows *rows;
    int cols;
    float *w, *wide;      /* the present iterate, and memory for the next */
    float *g, *p, *spare; /* cols x cols: G; Q, then P(Q); Q^2 */
    float *z;             /* tall blocks: the iterate is scale W Z */
    bool z_is_identity;
    double scale;
    bcop_grid_matrix x, y; /* on a grid: W, and where the next W goes */
    bcop_grid_matrix gram;
    double *work;
} iterate;

/* The ways to iterate: with the rows in panels, on tall blocks' small matrices, and on a grid. */
typedef struct method {
    void (*gram)(iterate *it); /* G = W^T W after advance() */
    /* W and G divided by these */
    void (*divide)(iterate *it, double root, double square);
    double (*distance)(const iterate *it);   /* ||Q||_F */
    double (*square)(iterate *it);           /* forms Q^2: ||Q^2||_F; NULL: order 1 alone */
    void (*advance)(iterate *it, int order); /* W <- W P(Q); above order 1 after square() */
    double (*largest)(const iterate *it);    /* a bound on sigma_max^2; infinity: not finite */
} method;

/* ---- small matrices: of G the upper triangle, of tall blocks all of it ---- */

static double small_distance(const iterate *it) {
    return bcop_symmetric_distance(it->cols, 1, it->g);
}

static double small_square(iterate *it) {
    const int n = it->cols;
    bcop_symmetric_combine(n, 1, -1, it->g, 0, it->g, it->p);
    bcop_product_mirror(n, it->p);
    bcop_product_square(n, 1, it->p, 0, it->spare);
    return bcop_symmetric_distance(n, 0, it->spare);
}

static double small_largest(const iterate *it) {
    return bcop_symmetric_largest(it->cols, it->g);
}

/* P(Q), the upper triangle. Order 4 is 35/128 S^2 + 33/98 Q + 1587/1715 I with
   S = Q^2 + 4/7 Q + 128/245 I: the square completed. */
static void evaluate(iterate *it, int order) {
    const int n = it->cols;
    float *p = it->p, *q = it->p, *q2 = it->spare, *s = it->spare;
    if (order == 1) {
        bcop_symmetric_combine(n, 1.5, -0.5, it->g, 0, it->g, p);
    } else if (order == 2) {
        bcop_symmetric_combine(n, 1, 0.5, q, 0.375, q2, p);
    } else {
        bcop_symmetric_combine(n, 128 / 245.0, 1, q2, 4 / 7.0, q, s);
        bcop_product_mirror(n, s);
        bcop_symmetric_combine(n, 1587 / 1715.0, 33 / 98.0, q, 0, q, p);
        bcop_product_square(n, 35 / 128.0f, s, 1, p);
    }
}

/* ---- in panels, with a copy of W ---- */

static void panel_gram(iterate *it) {
    bcop_rows_gram(it->rows, it->w, it->g);
}

static void panel_divide(iterate *it, double root, double square) {
    bcop_symmetric_scale((long)it->rows->count * it->cols, 1 / root, it->w);
    bcop_symmetric_scale((long)it->cols * it->cols, 1 / square, it->g);
}

static void panel_advance(iterate *it, int order) {
    evaluate(it, order);
    bcop_rows_symmetric(it->rows, 1, it->w, it->p, 0, it->wide);
    bcop_symmetric_turn(&it->w, &it->wide);
}

static const method in_panels = {.gram = panel_gram,
                                 .divide = panel_divide,
                                 .distance = small_distance,
                                 .square = small_square,
                                 .advance = panel_advance,
                                 .largest = small_largest};

/* ---- tall blocks, without W ---- */

/* P G P = G P P, for P is a polynomial of G; P P costs half a product. */
static void tall_gram(iterate *it) {
    const int n = it->cols;
    bcop_product_mirror(n, it->p);
    bcop_product_square(n, 1, it->p, 0, it->spare);
    bcop_product_mirror(n, it->spare);
    bcop_product_commuting(n, it->g, it->spare, it->p);
    bcop_symmetric_turn(&it->g, &it->p);
    bcop_product_mirror(n, it->g);
}

static void tall_divide(iterate *it, double root, double square) {
    it->scale /= root;
    bcop_symmetric_scale((long)it->cols * it->cols, 1 / square, it->g);
}

static void tall_advance(iterate *it, int order) {
    const int n = it->cols;
    evaluate(it, order);
    if (it->z_is_identity) {
        memcpy(it->z, it->p, (size_t)n * (size_t)n * sizeof(float));
        it->z_is_identity = false;
        return;
    }
    bcop_product_mirror(n, it->z);
    bcop_product_mirror(n, it->p);
    bcop_product_commuting(n, it->z, it->p, it->spare);
    bcop_symmetric_turn(&it->z, &it->spare);
}

static const method tall = {.gram = tall_gram,
                            .divide = tall_divide,
                            .distance = small_distance,
                            .square = small_square,
                            .advance = tall_advance,
                            .largest = small_largest};

/* ---- on a grid: the sums of G's rows in float64, two of W and one of G ---- */

static long grid_scratch(const bcop_rows *r) {
    const long work = ((long)r->cols + 1) * (long)(sizeof(double) / sizeof(float));
    return work + 2 * bcop_grid_floats(r->grid, r->rows, r->cols) +
           bcop_grid_floats(r->grid, r->cols, r->cols);
}

static void grid_open(iterate *it, float *scratch) {
    const bcop_grid *grid = it->rows->grid;
    const int rows = it->rows->rows, cols = it->cols;
    const long size = bcop_grid_floats(grid, rows, cols);
    it->work = (double *)(void *)scratch; /* an arena's memory is aligned for it */
    float *floats = (float *)(void *)(it->work + cols + 1);
    it->x = bcop_grid_place(grid, rows, cols, floats);
    it->y = bcop_grid_place(grid, rows, cols, floats + size);
    it->gram = bcop_grid_place(grid, cols, cols, floats + 2 * size);
    bcop_grid_spread(it->w, &it->x);
}

static void grid_gram(iterate *it) {
    bcop_grid_gram(&it->x, &it->gram);
}

static void grid_divide(iterate *it, double root, double square) {
    bcop_grid_scale((float)(1 / root), &it->x);
    bcop_grid_shift(0, (float)(1 / square), &it->gram);
}

/* Cubic alone. */
static void grid_advance(iterate *it, int order) {
    (void)order;
    bcop_grid_shift(1.5f, -0.5f, &it->gram);
    bcop_grid_multiply(1, &it->x, &it->gram, 0, &it->y);
    const bcop_grid_matrix old = it->x;
    it->x = it->y;
    it->y = old;
}

static double grid_distance(const iterate *it) {
    return bcop_grid_distance(&it->gram);
}

static double grid_largest(const iterate *it) {
    double infinity, frobenius;
    bcop_grid_norms(&it->gram, it->work, &infinity, &frobenius);
    return isfinite(frobenius) ? fmin(frobenius, infinity) : INFINITY; /* fmin drops NaN */
}

static const method on_grid = {.gram = grid_gram,
                               .divide = grid_divide,
                               .advance = grid_advance,
                               .distance = grid_distance,
                               .largest = grid_largest};

/* ---- the iteration ---- */

double bcop_bjorck_left(int order, double x) {
    static const double from_square[5][9] = {
        [1] = {3 / 4.0, 1 / 4.0},
        [2] = {0, 5 / 8.0, 15 / 64.0, 9 / 64.0},
        [4] = {0, 0, 0, 63 / 128.0, 105 / 512.0, 135 / 1024.0, 1575 / 16384.0, 1225 / 16384.0}};
    double sum = 0;
    for (int k = 8; k >= 0; k--)
        sum = sum * x + from_square[order][k];
    return sum * x * x;
}

/* Singular values within these of 1, squared, are moved by higher orders: beyond, they would make
   more of the rounding errors of a block without rank. */
static const double near = 0.75;

/* x with ||Q^k||_F <= x^k for all k >= 2, from e = ||Q||_F: e itself, or when order 1 does not end
   it, the root of ||Q^2||_F, with the rounding of that square. */
static double reach(iterate *it, double e, double enough) {
    const method *m = it->method;
    if (bcop_bjorck_left(1, e) <= enough || !m->square ||
        !(e <= near * pow(it->cols, 0.25))) /* the root is at least e / cols^(1/4) */
        return e;
    const double rounding = it->cols * 0x1p-23;
    return fmin(e, sqrt(m->square(it) + rounding * e * e));
}

static int order_for(const iterate *it, double x, double enough) {
    if (bcop_bjorck_left(1, x) <= enough || !(x <= near) || !it->method->square)
        return 1;
    return bcop_bjorck_left(2, x) <= enough ? 2 : 4;
}

/* From a W with its G to one within the tolerance. */
static void settle(bcop_bjorck_rule rule, iterate *it, bcop_bjorck_outcome *o) {
    /* A quarter is left to the rounding of G, above all of G P P; half of it to the last round's.
     */
    const double tolerance = 0.75 * rule.tolerance * sqrt(it->cols), enough = 0.5 * tolerance;
    const method *m = it->method;
    double e = m->distance(it), x = reach(it, e, enough);
    o->settled = o->finite = true;
    if (!(x <= 1)) { /* else sigma_max^2 <= 2 */
        const double square = m->largest(it);
        o->finite = isfinite(square);
        if (!o->finite)
            return;
        if (square > 2)
            m->divide(it, sqrt(square), square);
        e = m->distance(it);
        x = reach(it, e, enough);
    }
    /* Far from the manifold the small iteration's Z is ill-conditioned (the singular values of W
       squared are within x of 1) and its G drifts from that of W Z: look again. */
    o->again = x > near && e > tolerance;
    while (!(e <= tolerance)) {
        o->settled = o->iterations < rule.max_iterations;
        o->defect = e / sqrt(it->cols);
        if (!o->settled)
            return;
        const int order = order_for(it, x, enough);
        m->advance(it, order);
        o->iterations++;
        if (bcop_bjorck_left(order, x) <= enough)
            return;
        m->gram(it);
        e = m->distance(it);
        x = reach(it, e, enough);
    }
}

static bcop_status report(bcop_bjorck_rule rule, const char *name, const bcop_bjorck_outcome *o) {
    if (!o->finite)
        return bcop_status_fail(BCOP_DIVERGED, "%s: the block is not finite", name);
    if (!o->settled)
        return bcop_status_fail(BCOP_DIVERGED,
                                "%s: no convergence in %d Bjorck iterations (defect %.2e)", name,
                                rule.max_iterations, o->defect);
    return BCOP_OK;
}

/* ---- tall blocks ---- */

bool bcop_bjorck_is_tall(int rows, int cols) {
    return rows >= 3L * cols;
}

static bool is_tall(const bcop_rows *r) {
    return !r->grid && bcop_bjorck_is_tall(r->rows, r->cols);
}

static bool is_root(const bcop_rows *r) {
    return r->group->rank == r->root;
}

void bcop_bjorck_begin(bcop_rows *rows, const float *w, float *small) {
    bcop_rows_gram_at_root(rows, w, small);
}

void bcop_bjorck_settle(bcop_bjorck_rule rule, const bcop_rows *rows, float *small, float *scratch,
                        bcop_bjorck_outcome *outcome) {
    const int n = rows->cols;
    const long square = (long)n * n;
    iterate it = {.method = &tall,
                  .cols = n,
                  .g = small,
                  .p = scratch,
                  .spare = scratch + square,
                  .z = scratch + 2 * square,
                  .z_is_identity = true,
                  .scale = 1};
    bcop_product_mirror(n, small);
    settle(rule, &it, outcome);
    outcome->moved = !it.z_is_identity || it.scale != 1;
    if (!outcome->moved)
        return;
    if (it.z_is_identity)
        bcop_symmetric_combine(n, 1, 0, small, 0, small, it.z);
    if (it.scale != 1)
        bcop_symmetric_scale(square, it.scale, it.z);
    memcpy(small, it.z, (size_t)square * sizeof *small);
}

/* W <- W Z, of which the upper triangle counts. */
static void apply(const bcop_rows *rows, float *w, const float *z, float *wide) {
    bcop_rows_symmetric(rows, 1, w, z, 0, wide);
    memcpy(w, wide, (size_t)rows->count * (size_t)rows->cols * sizeof *w);
}

/* Z and what became of it travel together. */
long bcop_bjorck_small(const bcop_rows *rows) {
    enum { OUTCOME = (sizeof(bcop_bjorck_outcome) + sizeof(float) - 1) / sizeof(float) };
    return (long)rows->cols * rows->cols + OUTCOME;
}

static void send(const bcop_rows *rows, float *small, bcop_bjorck_outcome *outcome) {
    float *after = small + (long)rows->cols * rows->cols;
    memcpy(after, outcome, sizeof *outcome);
    bcop_comm_broadcast(rows->group, small, bcop_bjorck_small(rows) * (long)sizeof *small,
                        rows->root);
    memcpy(outcome, after, sizeof *outcome);
}

bcop_status bcop_bjorck_end(bcop_bjorck_rule rule, const char *name, bcop_rows *rows, float *w,
                            float *small, float *scratch, bcop_bjorck_outcome *outcome) {
    for (;;) {
        send(rows, small, outcome);
        BCOP_TRY(report(rule, name, outcome));
        if (outcome->moved)
            apply(rows, w, small, scratch);
        if (!outcome->again)
            return BCOP_OK;
        bcop_bjorck_begin(rows, w, small);
        if (is_root(rows))
            bcop_bjorck_settle(rule, rows, small, scratch, outcome);
    }
}

static bcop_status retract_tall(bcop_bjorck_rule rule, const char *name, bcop_rows *rows, float *w,
                                float *scratch, int *iterations) {
    float *small = scratch, *rest = scratch + bcop_bjorck_small(rows);
    bcop_bjorck_outcome outcome = {0};
    bcop_bjorck_begin(rows, w, small);
    if (is_root(rows))
        bcop_bjorck_settle(rule, rows, small, rest, &outcome);
    const bcop_status status = bcop_bjorck_end(rule, name, rows, w, small, rest, &outcome);
    *iterations = outcome.iterations;
    return status;
}

/* ---- all of it ---- */

long bcop_bjorck_scratch(const bcop_rows *r) {
    const long square = (long)r->cols * r->cols, wide = (long)r->count * r->cols;
    if (r->grid)
        return grid_scratch(r);
    if (!is_tall(r))
        return 3 * square + wide;
    return bcop_bjorck_small(r) + (wide > 3 * square ? wide : 3 * square);
}

double bcop_bjorck_flops(const bcop_rows *r, int iterations) {
    const double square = (double)r->cols * r->cols, wide = r->count * square;
    const double cube = square * r->cols;
    if (iterations == 0)
        return wide;
    if (r->grid)
        return 3 * wide * iterations;
    if (!is_tall(r))
        return (3 * wide + 2 * cube) * iterations;
    /* Z P and G P P between the first iteration and the last */
    return 3 * wide + (is_root(r) ? (2 + 5.25 * (iterations - 1.0)) * cube : 0);
}

void bcop_bjorck_list(const bcop_rows *r, int iterations, int sums, int squares,
                      bcop_traffic_visitor v) {
    const bool at_root = is_tall(r);
    if (!r->grid)
        sums += at_root || iterations == 0 ? 1 : iterations;
    bcop_rows_list(r, sums, at_root, squares, v);
    if (r->group->size == 1 || !at_root || !is_root(r))
        return;
    v.base = r->group->base;
    bcop_traffic_tell_group(&v, BCOP_TRAFFIC_GATHER, r->group->size,
                            bcop_bjorck_small(r) * (long)sizeof(float));
}

static bcop_status retract_on_grid(bcop_bjorck_rule rule, const char *name, bcop_rows *rows,
                                   float *w, float *scratch, bcop_bjorck_outcome *outcome) {
    iterate it = {.method = &on_grid, .rows = rows, .cols = rows->cols, .w = w};
    grid_open(&it, scratch);
    grid_gram(&it);
    settle(rule, &it, outcome);
    BCOP_TRY(report(rule, name, outcome));
    bcop_grid_collect(&it.x, w);
    return BCOP_OK;
}

static bcop_status retract_panels(bcop_bjorck_rule rule, const char *name, bcop_rows *rows,
                                  float *w, float *scratch, bcop_bjorck_outcome *outcome) {
    const long square = (long)rows->cols * rows->cols;
    iterate it = {.method = &in_panels,
                  .rows = rows,
                  .cols = rows->cols,
                  .w = w,
                  .g = scratch,
                  .p = scratch + square,
                  .spare = scratch + 2 * square,
                  .wide = scratch + 3 * square};
    panel_gram(&it);
    settle(rule, &it, outcome);
    if (it.w != w)
        memcpy(w, it.w, (size_t)rows->count * (size_t)rows->cols * sizeof *w);
    return report(rule, name, outcome);
}

bcop_status bcop_bjorck_retract(bcop_bjorck_rule rule, const char *name, bcop_rows *rows, float *w,
                                float *scratch, int *iterations) {
    bcop_bjorck_outcome outcome = {0};
    *iterations = 0;
    if (rows->cols == 0)
        return BCOP_OK;
    if (is_tall(rows))
        return retract_tall(rule, name, rows, w, scratch, iterations);
    const bcop_status status = rows->grid ? retract_on_grid(rule, name, rows, w, scratch, &outcome)
                                          : retract_panels(rule, name, rows, w, scratch, &outcome);
    *iterations = outcome.iterations;
    return status;
}
