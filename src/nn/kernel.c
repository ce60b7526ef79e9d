#include "nn/kernel.h"

#include "linalg/product.h"

#include <string.h>

/* The taps before factor t: P factors (even t) add a row of taps, Q factors a column. */
typedef struct extent {
    int height, width;
} extent;

static extent extent_before(int t) {
    return (extent){1 + (t + 1) / 2, 1 + t / 2};
}

static long tap_count(int t) {
    const extent e = extent_before(t);
    return (long)e.height * e.width;
}

/* How far along the tap list factor t shifts: one row or one column of the larger array, whose tap
   (i, j) is at i * width + j. */
static long shifted_tap(int t, long tap, int delta) {
    const extent from = extent_before(t), to = extent_before(t + 1);
    const long i = tap / from.width, j = tap % from.width;
    return t % 2 == 0 ? (i + delta) * to.width + j : i * to.width + j + delta;
}

bcop_kernel bcop_kernel_plan(int c_in, int c_out, int k) {
    const int c = c_in > c_out ? c_in : c_out;
    return (bcop_kernel){
        .c = c, .m = c_in > c_out ? c_out : c_in, .r = c / 2, .k = k, .factors = 2 * (k - 1)};
}

double bcop_kernel_flops(const bcop_kernel *kernel) {
    double taps = 0;
    for (int t = 0; t < kernel->factors; t++)
        taps += (double)tap_count(t);
    return 4 * taps * kernel->m * kernel->c * kernel->r;
}

void bcop_kernel_take(bcop_kernel *kernel, bool training, bcop_arena *arena) {
    const long tap = (long)kernel->m * kernel->c, thin = (long)kernel->m * kernel->r;
    for (int t = 0; t <= kernel->factors; t++)
        kernel->taps[t] = bcop_arena_floats(arena, tap_count(t) * tap);
    for (int t = 0; t < kernel->factors; t++)
        kernel->projected[t] = bcop_arena_floats(arena, tap_count(t) * thin);
    const long all = tap_count(kernel->factors) * tap;
    kernel->product = bcop_arena_floats(arena, all);
    if (training) {
        kernel->slope[0] = bcop_arena_floats(arena, all);
        kernel->slope[1] = bcop_arena_floats(arena, all);
        kernel->slope_projected = bcop_arena_floats(arena, tap_count(kernel->factors) * thin);
    }
}

/* taps[t] -> taps[t+1] */
static void extend(bcop_kernel *kernel, int t, const float *v) {
    const long tap = (long)kernel->m * kernel->c, taps = tap_count(t);
    const int rows = (int)taps * kernel->m;
    const float *x = kernel->taps[t];
    float *y = kernel->taps[t + 1];
    bcop_product_nn(rows, kernel->r, kernel->c, 1, x, v, 0, kernel->projected[t]);
    bcop_product_nt(rows, kernel->c, kernel->r, 1, kernel->projected[t], v, 0, kernel->product);
    memset(y, 0, (size_t)(tap_count(t + 1) * tap) * sizeof *y);
    for (long s = 0; s < taps; s++) {
        const float *xp = kernel->product + s * tap, *from = x + s * tap;
        float *near = y + shifted_tap(t, s, 0) * tap, *far = y + shifted_tap(t, s, 1) * tap;
        for (long i = 0; i < tap; i++) {
            near[i] += xp[i];
            far[i] += from[i] - xp[i];
        }
    }
}

const float *bcop_kernel_forward(bcop_kernel *kernel, const float *h, const float *const v[]) {
    bcop_product_transpose(kernel->c, kernel->m, h, kernel->taps[0]);
    for (int t = 0; t < kernel->factors; t++)
        extend(kernel, t, v[t]);
    return kernel->taps[kernel->factors];
}

/* Back through factor t. With Y = X P, P = V V^T:
     dY[s] = g[near] - g[far],   dX[s] = g[far] + dY[s] P,
     dV = X^T (dY V) + dY^T (X V). */
static void retreat(bcop_kernel *kernel, int t, const float *v, const float *g, float *gx,
                    float *gv) {
    const long tap = (long)kernel->m * kernel->c, taps = tap_count(t);
    const int rows = (int)taps * kernel->m, c = kernel->c, r = kernel->r;
    float *gy = kernel->product, *thin = kernel->slope_projected;
    for (long s = 0; s < taps; s++) {
        const float *near = g + shifted_tap(t, s, 0) * tap, *far = g + shifted_tap(t, s, 1) * tap;
        for (long i = 0; i < tap; i++) {
            gx[s * tap + i] = far[i];
            gy[s * tap + i] = near[i] - far[i];
        }
    }
    bcop_product_nn(rows, r, c, 1, gy, v, 0, thin);
    bcop_product_nt(rows, c, r, 1, thin, v, 1, gx);
    bcop_product_tn(c, r, rows, 1, kernel->taps[t], thin, 0, gv);
    bcop_product_tn(c, r, rows, 1, gy, kernel->projected[t], 1, gv);
}

void bcop_kernel_backward(bcop_kernel *kernel, const float *const v[], const float *g, float *gh,
                          float *const gv[]) {
    for (int t = kernel->factors - 1; t >= 0; t--) {
        float *gx = kernel->slope[t % 2];
        retreat(kernel, t, v[t], g, gx, gv[t]);
        g = gx;
    }
    bcop_product_transpose(kernel->m, kernel->c, g, gh);
}
