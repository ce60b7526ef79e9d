#include "ortho/bjorck.h"

#include "linalg/product.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* One block being iterated. */
typedef struct iterate {
    const struct method *method;
    bcop_rows *rows;
    int cols;
    float *home;           /* this rank's rows, where the caller has them */
    float *w, *wide;       /* the present iterate, and memory for the next */
    float *g;              /* cols x cols */
    float *b, *z, *spare;  /* cols x cols, tall blocks */
    bool z_is_identity;    /* tall blocks */
    bcop_grid_matrix x, y; /* on a grid: W, and where the next W goes */
    bcop_grid_matrix gram;
    double *work;
} iterate;

/* The ways to iterate: on the rows, on the small matrices of tall blocks, on a grid. */
typedef struct method {
    bool drifts; /* far from the manifold G may come to differ from W^T W */
    long (*scratch)(const bcop_rows *rows);
    void (*open)(iterate *it, float *scratch); /* takes W */
    void (*gram)(iterate *it);                 /* G = W^T W */
    void (*next_gram)(iterate *it);            /* the same after advance() */
    /* W and G divided by these */
    void (*divide)(iterate *it, double root, double square);
    void (*advance)(iterate *it); /* W <- W (3I - G)/2; G may be lost */
    double (*distance)(const iterate *it);
    void (*norms)(const iterate *it, double *infinity, double *frobenius); /* of G */
    void (*close)(iterate *it);                                            /* gives W back */
} method;

/* ---- on the rows: the upper triangle of G, and a copy of W ---- */

static long rows_scratch(const bcop_rows *r) {
    return (long)r->cols * r->cols + (long)r->count * r->cols;
}

static void rows_open(iterate *it, float *scratch) {
    it->g = scratch;
    it->wide = scratch + (long)it->cols * it->cols;
}

static void rows_gram(iterate *it) {
    bcop_rows_gram(it->rows, it->w, it->g);
}

static void scale(long count, float *x, float factor) {
    for (long i = 0; i < count; i++)
        x[i] *= factor;
}

static void rows_divide(iterate *it, double root, double square) {
    scale((long)it->rows->count * it->cols, it->w, (float)(1 / root));
    scale((long)it->cols * it->cols, it->g, (float)(1 / square));
}

/* The product of W, in the other memory, becomes W. */
static void turn(iterate *it) {
    float *old = it->w;
    it->w = it->wide;
    it->wide = old;
}

/* W <- W (3I - G)/2, made in place of G. */
static void rows_advance(iterate *it) {
    const int n = it->cols;
    for (int i = 0; i < n; i++) {
        float *row = it->g + (long)i * n;
        for (int j = i; j < n; j++)
            row[j] *= -0.5f;
        row[i] += 1.5f;
    }
    bcop_rows_symmetric(it->rows, 1, it->w, it->g, 0, it->wide);
    turn(it);
}

/* Over the upper triangle. Eight sums side by side: one alone would wait for each addition. */
static double rows_distance(const iterate *it) {
    enum { SUMS = 8 };
    const int n = it->cols;
    double total = 0;
    for (int i = 0; i < n; i++) {
        const float *row = it->g + (long)i * n;
        const double diagonal = (double)row[i] - 1;
        double sum[SUMS] = {0};
        int j = i + 1;
        for (; j + SUMS <= n; j += SUMS)
            for (int k = 0; k < SUMS; k++)
                sum[k] += (double)row[j + k] * (double)row[j + k];
        for (; j < n; j++)
            sum[0] += (double)row[j] * (double)row[j];
        for (int k = 1; k < SUMS; k++)
            sum[0] += sum[k];
        total += diagonal * diagonal + 2 * sum[0];
    }
    return sqrt(total);
}

static void rows_norms(const iterate *it, double *infinity, double *frobenius) {
    const int n = it->cols;
    double squares = 0;
    *infinity = 0;
    bcop_product_mirror(n, it->g);
    for (int i = 0; i < n; i++) {
        double row = 0;
        for (int j = 0; j < n; j++) {
            const double x = fabs((double)it->g[(long)i * n + j]);
            row += x;
            squares += x * x;
        }
        *infinity = fmax(*infinity, row);
    }
    *frobenius = sqrt(squares);
}

static void rows_close(iterate *it) {
    if (it->w == it->home)
        return;
    memcpy(it->home, it->w, (size_t)it->rows->count * (size_t)it->cols * sizeof(float));
    it->wide = it->w;
    it->w = it->home;
}

static const method on_rows = {.scratch = rows_scratch,
                               .open = rows_open,
                               .gram = rows_gram,
                               .next_gram = rows_gram,
                               .divide = rows_divide,
                               .advance = rows_advance,
                               .distance = rows_distance,
                               .norms = rows_norms,
                               .close = rows_close};

/* ---- tall blocks: G, B, Z, a spare one, and the product W Z ---- */

static long tall_scratch(const bcop_rows *r) {
    return 4L * r->cols * r->cols + (long)r->count * r->cols;
}

static void tall_open(iterate *it, float *scratch) {
    const long square = (long)it->cols * it->cols;
    it->g = scratch;
    it->b = scratch + square;
    it->z = scratch + 2 * square;
    it->spare = scratch + 3 * square;
    it->wide = scratch + 4 * square;
    it->z_is_identity = true;
}

/* All of G: products of symmetric matrices are not, to the last bit. */
static void tall_gram(iterate *it) {
    rows_gram(it);
    bcop_product_mirror(it->cols, it->g);
}

static void tall_advance(iterate *it) {
    const int n = it->cols;
    for (long i = 0; i < (long)n * n; i++)
        it->b[i] = -0.5f * it->g[i];
    for (int i = 0; i < n; i++)
        it->b[(long)i * n + i] += 1.5f;
    if (it->z_is_identity) {
        memcpy(it->z, it->b, (size_t)n * (size_t)n * sizeof(float));
        it->z_is_identity = false;
        return;
    }
    bcop_product_symmetric(n, n, 1, it->z, it->b, 0, it->spare);
    float *old = it->z;
    it->z = it->spare;
    it->spare = old;
}

/* B G B = G B B, for B is a polynomial of G; B B costs half a product. */
static void tall_next_gram(iterate *it) {
    const int n = it->cols;
    bcop_product_gram(n, n, it->b, it->spare);
    bcop_product_symmetric(n, n, 1, it->g, it->spare, 0, it->b);
    float *old = it->g;
    it->g = it->b;
    it->b = old;
    bcop_product_mirror(n, it->g); /* the product of two symmetric matrices is not, quite */
}

static void tall_close(iterate *it) {
    if (!it->z_is_identity) {
        bcop_rows_apply(it->rows, it->w, it->z, it->wide);
        turn(it);
    }
    it->z_is_identity = true;
    rows_close(it);
}

static const method on_small = {.drifts = true,
                                .scratch = tall_scratch,
                                .open = tall_open,
                                .gram = tall_gram,
                                .next_gram = tall_next_gram,
                                .divide = rows_divide,
                                .advance = tall_advance,
                                .distance = rows_distance,
                                .norms = rows_norms,
                                .close = tall_close};

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

static void grid_advance(iterate *it) {
    bcop_grid_shift(1.5f, -0.5f, &it->gram);
    bcop_grid_multiply(1, &it->x, &it->gram, 0, &it->y);
    const bcop_grid_matrix old = it->x;
    it->x = it->y;
    it->y = old;
}

static double grid_distance(const iterate *it) {
    return bcop_grid_distance(&it->gram);
}

static void grid_norms(const iterate *it, double *infinity, double *frobenius) {
    bcop_grid_norms(&it->gram, it->work, infinity, frobenius);
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
                               .norms = grid_norms,
                               .close = grid_close};

/* ---- the iteration ---- */

static const method *method_for(const bcop_rows *r) {
    return r->grid ? &on_grid : r->rows >= 3L * r->cols ? &on_small : &on_rows;
}

long bcop_bjorck_scratch(const bcop_rows *r) {
    return method_for(r)->scratch(r);
}

int bcop_bjorck_sums(const bcop_rows *r, int iterations) {
    if (r->grid)
        return 0; /* ScaLAPACK forms them */
    return method_for(r) == &on_small || iterations == 0 ? 1 : iterations;
}

double bcop_bjorck_flops(const bcop_rows *r, int iterations) {
    const double square = (double)r->cols * r->cols, wide = r->count * square;
    if (iterations == 0)
        return wide;
    /* Z B and G B B between the first iteration and the last. */
    return method_for(r) == &on_small ? 3 * wide + 5 * (iterations - 1.0) * square * r->cols
                                      : 3 * wide * iterations;
}

static iterate open(bcop_rows *rows, float *w, float *scratch) {
    iterate it = {.method = method_for(rows), .rows = rows, .cols = rows->cols, .home = w, .w = w};
    it.method->open(&it, scratch);
    return it;
}

/* A cheap bound on sigma_max^2: the smaller of the infinity and the Frobenius norm of G. */
static double largest_square(const iterate *it) {
    double infinity, frobenius;
    it->method->norms(it, &infinity, &frobenius);
    return isfinite(frobenius) ? fmin(frobenius, infinity) : INFINITY; /* fmin drops NaN */
}

bcop_status bcop_bjorck_retract(bcop_bjorck_rule rule, const char *name, bcop_rows *rows, float *w,
                                float *scratch, int *iterations) {
    const int cols = rows->cols;
    *iterations = 0;
    if (cols == 0)
        return BCOP_OK;
    /* A quarter is left to the rounding of G, above all of G B B. */
    const double tolerance = 0.75 * rule.tolerance * sqrt(cols);
    iterate it = open(rows, w, scratch);
    const method *m = it.method;
    double first;
    do {
        m->gram(&it);
        double e = m->distance(&it);
        if (!(e <= 1)) { /* else sigma_max^2 <= 2 */
            const double square = largest_square(&it);
            if (!isfinite(square))
                return bcop_status_fail(BCOP_DIVERGED, "%s: the block is not finite", name);
            if (square > 2)
                m->divide(&it, sqrt(square), square);
            e = m->distance(&it);
        }
        first = e;
        while (!(e <= tolerance)) {
            if (*iterations == rule.max_iterations)
                return bcop_status_fail(BCOP_DIVERGED,
                                        "%s: no convergence in %d Bjorck iterations (defect %.2e)",
                                        name, rule.max_iterations, e / sqrt(cols));
            m->advance(&it);
            ++*iterations;
            /* Half of it is left to rounding. */
            if (0.75 * e * e + 0.25 * e * e * e <= 0.5 * tolerance)
                break;
            m->next_gram(&it);
            e = m->distance(&it);
        }
        m->close(&it);
        /* Far from the manifold the small iteration's Z is ill-conditioned and its G drifts from
           that of W Z: look again. */
    } while (m->drifts && first > 0.25 && first > tolerance);
    return BCOP_OK;
}

void bcop_bjorck_polar(int iterations, bcop_rows *rows, float *m, float *scratch) {
    if (rows->cols == 0)
        return;
    iterate it = open(rows, m, scratch);
    it.method->gram(&it);
    const double square = largest_square(&it);
    if (!(square > 1e-30) || !isfinite(square))
        return; /* next to zero there is no direction; what is not finite the retraction reports */
    it.method->divide(&it, sqrt(square), square);
    for (int i = 0; i < iterations; i++) {
        if (i > 0)
            it.method->next_gram(&it);
        it.method->advance(&it);
    }
    it.method->close(&it);
}
