#include "ortho/bjorck.h"

#include "linalg/product.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static bool is_tall(const bcop_rows *r) {
    return r->rows >= 3L * r->cols;
}

/* Scratch: G, and B = (3I - G)/2; a copy of W or the product W Z; tall blocks also Z and a
   temporary. */
long bcop_bjorck_scratch(const bcop_rows *r) {
    return (long)r->count * r->cols + (is_tall(r) ? 4L : 2L) * r->cols * r->cols;
}

int bcop_bjorck_sums(const bcop_rows *r, int iterations) {
    return is_tall(r) || iterations == 0 ? 1 : iterations;
}

double bcop_bjorck_flops(const bcop_rows *r, int iterations) {
    const double square = (double)r->cols * r->cols, wide = r->count * square;
    if (iterations == 0)
        return wide;
    /* Z B and B G B between the first iteration and the last. */
    return is_tall(r) ? 3 * wide + 6 * (iterations - 1.0) * square * r->cols
                      : 3 * wide * iterations;
}

typedef struct iterate {
    bcop_rows *rows;
    int cols;
    bool tall;
    float *w;                     /* this rank's rows */
    float *g, *b, *z, *temporary; /* cols x cols; z and temporary for tall blocks alone */
    float *wide;                  /* as w */
    bool z_is_identity;
} iterate;

static iterate open(bcop_rows *rows, float *w, float *scratch) {
    const long square = (long)rows->cols * rows->cols, size = (long)rows->count * rows->cols;
    return (iterate){.rows = rows,
                     .cols = rows->cols,
                     .tall = is_tall(rows),
                     .w = w,
                     .g = scratch,
                     .b = scratch + square,
                     .wide = scratch + 2 * square,
                     .z = scratch + 2 * square + size,
                     .temporary = scratch + 3 * square + size,
                     .z_is_identity = true};
}

static double distance_to_identity(int n, const float *g) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            const double d = (double)g[(long)i * n + j] - (i == j);
            sum += d * d;
        }
    return sqrt(sum);
}

/* A cheap bound on sigma_max^2: the smaller of the infinity and the Frobenius norm of G. */
static double largest_square(int n, const float *g) {
    double frobenius = 0, infinity = 0;
    for (int i = 0; i < n; i++) {
        double row = 0;
        for (int j = 0; j < n; j++) {
            const double x = fabs((double)g[(long)i * n + j]);
            row += x;
            frobenius += x * x;
        }
        infinity = fmax(infinity, row);
    }
    return isfinite(frobenius) ? fmin(sqrt(frobenius), infinity) : INFINITY; /* fmin drops NaN */
}

static void scale(long count, float *x, float factor) {
    for (long i = 0; i < count; i++)
        x[i] *= factor;
}

/* Divides W by the square root of `square`, and G with it. */
static void divide(iterate *it, double square) {
    scale((long)it->rows->count * it->cols, it->w, (float)(1 / sqrt(square)));
    scale((long)it->cols * it->cols, it->g, (float)(1 / square));
}

/* W <- W M for a small M. */
static void multiply(iterate *it, const float *small) {
    bcop_rows_apply(it->rows, 1, it->w, small, 0, it->wide);
    memcpy(it->w, it->wide, (size_t)it->rows->count * (size_t)it->cols * sizeof(float));
}

/* One iteration, W <- W B or Z <- Z B, with B from the current G. */
static void advance(iterate *it) {
    const int n = it->cols;
    const long square = (long)n * n;
    for (long i = 0; i < square; i++)
        it->b[i] = -0.5f * it->g[i];
    for (int i = 0; i < n; i++)
        it->b[(long)i * n + i] += 1.5f;
    if (!it->tall) {
        multiply(it, it->b);
    } else if (it->z_is_identity) {
        memcpy(it->z, it->b, (size_t)square * sizeof(float));
        it->z_is_identity = false;
    } else {
        bcop_product_nn(n, n, n, 1, it->z, it->b, 0, it->temporary);
        memcpy(it->z, it->temporary, (size_t)square * sizeof(float));
    }
}

/* G of the iterate after advance(): from W, or B G B for tall blocks. */
static void next_gram(iterate *it) {
    const int n = it->cols;
    if (it->tall) {
        bcop_product_nn(n, n, n, 1, it->b, it->g, 0, it->temporary);
        bcop_product_nn(n, n, n, 1, it->temporary, it->b, 0, it->g);
    } else {
        bcop_rows_gram(it->rows, it->w, it->g);
    }
}

/* U = W Z for tall blocks. */
static void apply(iterate *it) {
    if (it->z_is_identity)
        return;
    multiply(it, it->z);
    it->z_is_identity = true;
}

bcop_status bcop_bjorck_retract(bcop_bjorck_rule rule, const char *name, bcop_rows *rows, float *w,
                                float *scratch, int *iterations) {
    const int cols = rows->cols;
    *iterations = 0;
    if (cols == 0)
        return BCOP_OK;
    /* A quarter is left to the rounding of G, above all of B G B. */
    const double tolerance = 0.75 * rule.tolerance * sqrt(cols);
    iterate it = open(rows, w, scratch);
    double first;
    do {
        bcop_rows_gram(rows, w, it.g);
        const double square = largest_square(cols, it.g);
        if (!isfinite(square))
            return bcop_status_fail(BCOP_DIVERGED, "%s: the block is not finite", name);
        if (square > 2)
            divide(&it, square);
        double e = first = distance_to_identity(cols, it.g);
        while (e > tolerance) {
            if (*iterations == rule.max_iterations)
                return bcop_status_fail(BCOP_DIVERGED,
                                        "%s: no convergence in %d Bjorck iterations (defect %.2e)",
                                        name, rule.max_iterations, e / sqrt(cols));
            advance(&it);
            ++*iterations;
            /* Half of it is left to rounding. */
            if (0.75 * e * e + 0.25 * e * e * e <= 0.5 * tolerance)
                break;
            next_gram(&it);
            e = distance_to_identity(cols, it.g);
        }
        apply(&it);
        /* Far from the manifold the small iteration's Z is ill-conditioned and its G drifts from
           that of W Z: look again. */
    } while (it.tall && first > 0.25 && first > tolerance);
    return BCOP_OK;
}

void bcop_bjorck_polar(int iterations, bcop_rows *rows, float *m, float *scratch) {
    if (rows->cols == 0)
        return;
    iterate it = open(rows, m, scratch);
    bcop_rows_gram(rows, m, it.g);
    const double square = largest_square(rows->cols, it.g);
    if (!(square > 1e-30) || !isfinite(square))
        return; /* next to zero there is no direction; what is not finite the retraction reports */
    divide(&it, square);
    for (int i = 0; i < iterations; i++) {
        if (i > 0)
            next_gram(&it);
        advance(&it);
    }
    apply(&it);
}
