#include "ortho/tangent.h"

long bcop_tangent_scratch(const bcop_rows *rows) {
    return (long)rows->cols * rows->cols;
}

int bcop_tangent_sums(void) {
    return 1;
}

double bcop_tangent_flops(const bcop_rows *rows) {
    return 4.0 * rows->count * rows->cols * rows->cols;
}

void bcop_tangent_project(bcop_rows *rows, const float *u, float *g, float *scratch) {
    const int cols = rows->cols;
    float *s = scratch;
    bcop_rows_inner(rows, u, g, s);
    for (int i = 0; i < cols; i++)
        for (int j = i; j < cols; j++) {
            const float mean = 0.5f * (s[(long)i * cols + j] + s[(long)j * cols + i]);
            s[(long)i * cols + j] = s[(long)j * cols + i] = mean;
        }
    bcop_rows_apply(rows, -1, u, s, 1, g);
}
