#include "app/bench_paper.h"

#include "linalg/product.h"

void bcop_bench_paper_plan(bcop_bench_paper *p, int rows, int cols, int iterations,
                           bcop_arena *arena) {
    const long size = (long)rows * cols, square = (long)cols * cols;
    *p = (bcop_bench_paper){.rows = rows, .cols = cols, .iterations = iterations};
    p->iterate = bcop_arena_floats(arena, (iterations + 1) * size);
    p->slope[0] = bcop_arena_floats(arena, size);
    p->slope[1] = bcop_arena_floats(arena, size);
    p->g = bcop_arena_floats(arena, square);
    p->s = bcop_arena_floats(arena, square);
}

/* b = (3 I - w^T w)/2 */
static void form_factor(const bcop_bench_paper *p, const float *w, float *b) {
    const int n = p->cols;
    bcop_product_tn(n, n, p->rows, -0.5f, w, w, 0, b);
    for (int i = 0; i < n; i++)
        b[(long)i * n + i] += 1.5f;
}

const float *bcop_bench_paper_forward(bcop_bench_paper *p) {
    const long size = (long)p->rows * p->cols;
    float *w = p->iterate;
    for (int i = 0; i < p->iterations; i++, w += size) {
        form_factor(p, w, p->g);
        bcop_product_nn(p->rows, p->cols, p->cols, 1, w, p->g, 0, w + size);
    }
    return w;
}

/* s = -(s + s^T)/2 */
static void symmetrize(int n, float *s) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            float *a = &s[(long)i * n + j], *b = &s[(long)j * n + i];
            *a = *b = -0.5f * (*a + *b);
        }
}

const float *bcop_bench_paper_backward(bcop_bench_paper *p) {
    const int rows = p->rows, cols = p->cols;
    const long size = (long)rows * cols;
    float *from = p->slope[0], *to = p->slope[1];
    for (int i = p->iterations - 1; i >= 0; i--) {
        const float *w = p->iterate + i * size;
        form_factor(p, w, p->g); /* 3/2 D - 1/2 D G = D (3 I - G)/2 */
        bcop_product_tn(cols, cols, rows, 1, w, from, 0, p->s);
        symmetrize(cols, p->s);
        bcop_product_nn(rows, cols, cols, 1, from, p->g, 0, to);
        bcop_product_nn(rows, cols, cols, 1, w, p->s, 1, to);
        float *swap = from;
        from = to;
        to = swap;
    }
    return from;
}
