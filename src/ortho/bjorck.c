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
    bool tall;
    float *home;           /* this rank's rows, where the caller has them */
    float *w, *wide;       /* the present iterate, and memory for the next */
    float *g, *p, *spare;  /* cols x cols: G; Q, then P(Q); Q^2 */
    float *z;              /* cols x cols, tall blocks: their iterate is W Z */
    bool z_is_identity;    /* tall blocks */
    bcop_grid_matrix x, y; /* on a grid: W, and where the next W goes */
    bcop_grid_matrix gram;
    double *work;
} iterate;

/* The ways to iterate: with the rows in panels, and on a grid. */
typedef struct method {
    long (*scratch)(const bcop_rows *rows);
    void (*open)(iterate *it, float *scratch); /* takes W */
    void (*gram)(iterate *it);                 /* G = W^T W */
    void (*next_gram)(iterate *it);            /* the same after advance() */
    /* W and G divided by these */
    void (*divide)(iterate *it, double root, double square);
    double (*distance)(const iterate *it);   /* ||Q||_F */
    double (*square)(iterate *it);           /* forms Q^2: ||Q^2||_F; NULL: order 1 alone */
    void (*advance)(iterate *it, int order); /* W <- W P(Q); above order 1 after square() */
    double (*largest)(const iterate *it);    /* a bound on sigma_max^2; infinity: not finite */
    void (*close)(iterate *it);              /* gives W back */
} method;

/* ---- in panels: the upper triangle of G (of tall blocks all of it), and a copy of W ---- */

static bool is_tall(const bcop_rows *r) {
    return r->rows >= 3L * r->cols;
}

static long panel_scratch(const bcop_rows *r) {
    return (is_tall(r) ? 4L : 3L) * r->cols * r->cols + (long)r->count * r->cols;
}

static void panel_open(iterate *it, float *scratch) {
    const long square = (long)it->cols * it->cols;
    it->tall = is_tall(it->rows);
    it->g = scratch;
    it->p = scratch + square;
    it->spare = scratch + 2 * square;
    it->z = scratch + 3 * square;
    it->wide = scratch + (it->tall ? 4 : 3) * square;
    it->z_is_identity = true;
}

static void panel_gram(iterate *it) {
    bcop_rows_gram(it->rows, it->w, it->g);
    if (it->tall)
        bcop_product_mirror(it->cols, it->g);
}

static void panel_divide(iterate *it, double root, double square) {
    bcop_symmetric_scale((long)it->rows->count * it->cols, 1 / root, it->w);
    bcop_symmetric_scale((long)it->cols * it->cols, 1 / square, it->g);
}

static double panel_distance(const iterate *it) {
    return bcop_symmetric_distance(it->cols, 1, it->g);
}

static double panel_square(iterate *it) {
    const int n = it->cols;
    bcop_symmetric_combine(n, 1, -1, it->g, 0, it->g, it->p);
    bcop_product_mirror(n, it->p);
    bcop_product_square(n, 1, it->p, 0, it->spare);
    return bcop_symmetric_distance(n, 0, it->spare);
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

static void panel_advance(iterate *it, int order) {
    const int n = it->cols;
    evaluate(it, order);
    if (!it->tall) {
        bcop_rows_symmetric(it->rows, 1, it->w, it->p, 0, it->wide);
        bcop_symmetric_turn(&it->w, &it->wide);
    } else if (it->z_is_identity) {
        memcpy(it->z, it->p, (size_t)n * (size_t)n * sizeof(float));
        it->z_is_identity = false;
    } else {
        bcop_product_mirror(n, it->z);
        bcop_product_mirror(n, it->p);
        bcop_product_commuting(n, it->z, it->p, it->spare);
        bcop_symmetric_turn(&it->z, &it->spare);
    }
}

/* Of tall blocks P G P = G P P, for P is a polynomial of G; P P costs half a product. */
static void panel_next_gram(iterate *it) {
    const int n = it->cols;
    if (!it->tall) {
        panel_gram(it);
        return;
    }
    bcop_product_mirror(n, it->p);
    bcop_product_square(n, 1, it->p, 0, it->spare);
    bcop_product_mirror(n, it->spare);
    bcop_product_commuting(n, it->g, it->spare, it->p);
    bcop_symmetric_turn(&it->g, &it->p);
    bcop_product_mirror(n, it->g);
}

static double panel_largest(const iterate *it) {
    return bcop_symmetric_largest(it->cols, it->g);
}

static void panel_close(iterate *it) {
    if (!it->z_is_identity) {
        bcop_rows_symmetric(it->rows, 1, it->w, it->z, 0, it->wide);
        bcop_symmetric_turn(&it->w, &it->wide);
    }
    it->z_is_identity = true;
    if (it->w == it->home)
        return;
    memcpy(it->home, it->w, (size_t)it->rows->count * (size_t)it->cols * sizeof(float));
    it->wide = it->w;
    it->w = it->home;
}

static const method in_panels = {.scratch = panel_scratch,
                                 .open = panel_open,
                                 .gram = panel_gram,
                                 .next_gram = panel_next_gram,
                                 .divide = panel_divide,
                                 .distance = panel_distance,
                                 .square = panel_square,
                                 .advance = panel_advance,
                                 .largest = panel_largest,
                                 .close = panel_close};

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

static void grid_close(iterate *it) {
    bcop_grid_collect(&it->x, it->w);
}

static const method on_grid = {.scratch = grid_scratch,
                               .open = grid_open,
                               .gram = grid_gram,
                               .next_gram = grid_gram,
                               .divide = grid_divide,
                               .advance = grid_advance,
                               .distance = grid_distance,
                               .largest = grid_largest,
                               .close = grid_close};

/* ---- the iteration ---- */

static const method *method_for(const bcop_rows *r) {
    return r->grid ? &on_grid : &in_panels;
}

long bcop_bjorck_scratch(const bcop_rows *r) {
    return method_for(r)->scratch(r);
}

int bcop_bjorck_sums(const bcop_rows *r, int iterations) {
    if (r->grid)
        return 0; /* ScaLAPACK forms them */
    return is_tall(r) || iterations == 0 ? 1 : iterations;
}

double bcop_bjorck_flops(const bcop_rows *r, int iterations) {
    const double square = (double)r->cols * r->cols, wide = r->count * square;
    const double cube = square * r->cols;
    if (iterations == 0)
        return wide;
    if (r->grid)
        return 3 * wide * iterations;
    /* Z P and G P P between the first iteration and the last */
    return is_tall(r) ? 3 * wide + (2 + 5.25 * (iterations - 1.0)) * cube
                      : (3 * wide + 2 * cube) * iterations;
}

static iterate open(bcop_rows *rows, float *w, float *scratch) {
    iterate it = {.method = method_for(rows), .rows = rows, .cols = rows->cols, .home = w, .w = w};
    it.method->open(&it, scratch);
    return it;
}

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

bcop_status bcop_bjorck_retract(bcop_bjorck_rule rule, const char *name, bcop_rows *rows, float *w,
                                float *scratch, int *iterations) {
    const int cols = rows->cols;
    *iterations = 0;
    if (cols == 0)
        return BCOP_OK;
    /* A quarter is left to the rounding of G, above all of G P P; half of it to the last round's.
     */
    const double tolerance = 0.75 * rule.tolerance * sqrt(cols), enough = 0.5 * tolerance;
    iterate it = open(rows, w, scratch);
    const method *m = it.method;
    bool far;
    do {
        m->gram(&it);
        double e = m->distance(&it), x = reach(&it, e, enough);
        if (!(x <= 1)) { /* else sigma_max^2 <= 2 */
            const double square = m->largest(&it);
            if (!isfinite(square))
                return bcop_status_fail(BCOP_DIVERGED, "%s: the block is not finite", name);
            if (square > 2)
                m->divide(&it, sqrt(square), square);
            e = m->distance(&it);
            x = reach(&it, e, enough);
        }
        far = x > near && e > tolerance;
        while (!(e <= tolerance)) {
            if (*iterations == rule.max_iterations)
                return bcop_status_fail(BCOP_DIVERGED,
                                        "%s: no convergence in %d Bjorck iterations (defect %.2e)",
                                        name, rule.max_iterations, e / sqrt(cols));
            const int order = order_for(&it, x, enough);
            m->advance(&it, order);
            ++*iterations;
            if (bcop_bjorck_left(order, x) <= enough)
                break;
            m->next_gram(&it);
            e = m->distance(&it);
            x = reach(&it, e, enough);
        }
        m->close(&it);
        /* Far from the manifold the small iteration's Z is ill-conditioned (the singular values of
           W squared are within x of 1) and its G drifts from that of W Z: look again. */
    } while (it.tall && far);
    return BCOP_OK;
}
